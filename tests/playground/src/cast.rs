//! Who plays: alice and bob, who have accounts, and a stranger, who has none.

use crate::ground::Person;

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Member {
    /// Has an account.
    Alice,
    /// Has an account.
    Bob,
    /// Is not in users.yaml.
    Stranger,
}

impl Member {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Alice, Self::Bob, Self::Stranger];

    /// What they are called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Alice => "alice",
            Self::Bob => "bob",
            Self::Stranger => "stranger",
        }
    }

    /// What Telegram shows.
    #[must_use]
    pub fn first_name(self) -> &'static str {
        match self {
            Self::Alice => "Alice",
            Self::Bob => "Bob",
            Self::Stranger => "Stranger",
        }
    }

    /// Who they are on Telegram.
    #[must_use]
    pub fn telegram_id(self) -> i64 {
        match self {
            Self::Alice => 1001,
            Self::Bob => 1002,
            Self::Stranger => 6666,
        }
    }

    /// Whoever is called `name`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|member| member.name() == name)
    }

    /// Whoever is called `name`, if they have an account.
    #[must_use]
    pub fn with_account(name: &str) -> Option<Self> {
        Self::named(name).filter(|member| *member != Self::Stranger)
    }

    /// The people of users.yaml.
    #[must_use]
    pub fn people() -> Vec<Person> {
        [Self::Alice, Self::Bob]
            .map(|member| Person::new(member.name(), member.telegram_id()))
            .to_vec()
    }
}
