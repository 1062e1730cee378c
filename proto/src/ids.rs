//! A type for each kind of name and number, checked where it enters.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits;

/// Why a value is not one of these.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
#[error("{0}")]
pub struct Invalid(&'static str);

impl Invalid {
    pub(crate) fn new(says: &'static str) -> Self {
        Self(says)
    }
}

/// Implements the conversions of a checked newtype over a number.
macro_rules! checked_number {
    ($(#[$doc:meta])* $name:ident, $inner:ty, $holds:expr, $says:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "i64", into = "i64")]
        pub struct $name($inner);

        impl TryFrom<i64> for $name {
            type Error = Invalid;
            fn try_from(value: i64) -> Result<Self, Invalid> {
                let holds: fn(i64) -> bool = $holds;
                if holds(value) { Ok(Self(value)) } else { Err(Invalid($says)) }
            }
        }

        impl From<$name> for i64 {
            fn from(id: $name) -> i64 {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

checked_number! {
    /// A person on Telegram. The Bot API documents ids as positive and below 2^52.
    TelegramId, i64, |id| id > 0 && id < 1 << 52, "a Telegram user id is a positive number below 2^52"
}
checked_number! {
    /// A chat on Telegram: a person's id in a private chat, negative for groups.
    ChatId, i64, |id| id != 0 && id.unsigned_abs() < 1 << 52, "a Telegram chat id is a number other than 0 within 2^52"
}
checked_number! {
    /// One prompt of a user: the `update_id` of the Telegram update that brought it, so that a worker
    /// recognises an update that Telegram or the gateway delivers again.
    PromptId, i64, |id| id >= 0, "a prompt id is not negative"
}

/// Implements a checked, printable string.
macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $limit:expr, $allowed:expr, $says:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = Invalid;
            fn try_from(text: String) -> Result<Self, Invalid> {
                let allowed: fn(&str) -> bool = $allowed;
                if !text.is_empty() && text.len() <= $limit && allowed(&text) {
                    Ok(Self(text))
                } else {
                    Err(Invalid($says))
                }
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

/// True for the characters that change the direction of text or end a line without being control
/// characters: with them one name can look like another.
fn turns_text(character: char) -> bool {
    matches!(character,
        '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

checked_text! {
    /// What a user is called in users.yaml: for people to read, never part of a path.
    UserName, limits::NAME,
    |name| name.trim() == name && !name.chars().any(|c| c.is_control() || turns_text(c)),
    "a user's name has 1 to 64 bytes, no control characters and no space at its ends"
}
checked_text! {
    /// A local account, in the form that useradd(8) takes by default; usable as a file name.
    AccountName, 32, |name| {
        name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
            && name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_')
    },
    "an account's name has 1 to 32 of a-z, 0-9, _ and -, and begins with a letter or _"
}
checked_text! {
    /// A model as the agent takes it: an alias or a full name.
    ModelName, limits::MODEL, |name| {
        name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:/@[]-".contains(&b))
            && !name.starts_with('-')
    },
    "a model's name has 1 to 128 letters, digits and . _ : / @ [ ] - and does not begin with -"
}

impl UserName {
    /// The name as an argument in a command line that somebody is told to type.
    #[must_use]
    pub fn as_argument(&self) -> String {
        let plain = |c: char| c.is_alphanumeric() || "_-.".contains(c);
        let options_end = if self.0.starts_with('-') { "-- " } else { "" };
        if self.0.chars().all(plain) {
            format!("{options_end}{}", self.0)
        } else {
            format!("{options_end}'{}'", self.0.replace('\'', "'\\''"))
        }
    }
}

/// What a user is in kai. It changes nothing on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Talks to an agent.
    User,
    /// May also be told of events that concern everybody.
    Admin,
}

/// One conversation of an agent; a UUID that the agent names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SessionId([u8; 16]);

impl SessionId {
    /// The raw bytes, for messages of fixed size.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// From raw bytes; all zero means none.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Option<Self> {
        (bytes != [0; 16]).then_some(Self(bytes))
    }
}

impl std::str::FromStr for SessionId {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        uuid::Uuid::parse_str(text)
            .ok()
            .and_then(|uuid| Self::from_bytes(*uuid.as_bytes()))
            .ok_or(Invalid("a session id is a UUID"))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_bytes(self.0).hyphenated().fmt(f)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Seconds since 1970 in UTC.
pub type UnixSeconds = u64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_name_cannot_be_a_path_or_an_option() {
        for bad in [
            "",
            "..",
            "a/b",
            "-alice",
            "Alice",
            "alice ",
            "1alice",
            &"a".repeat(33),
        ] {
            assert!(AccountName::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
        assert!(AccountName::try_from("alice-2_x".to_owned()).is_ok());
    }

    #[test]
    fn a_user_name_cannot_hold_control_characters() {
        for bad in ["", " alice", "al\nice", "al\u{1b}[2Jice", "al\u{202e}eci"] {
            assert!(UserName::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
        assert!(UserName::try_from("Alice Ünal".to_owned()).is_ok());
    }

    #[test]
    fn a_name_is_one_argument_of_a_shell() {
        for (name, argument) in [
            ("alice", "alice"),
            ("Ünal", "Ünal"),
            ("Alice Ünal", "'Alice Ünal'"),
            ("a;rm -rf ~", "'a;rm -rf ~'"),
            ("O'Neill", "'O'\\''Neill'"),
            ("--config", "-- --config"),
        ] {
            let name = UserName::try_from(name.to_owned()).unwrap();
            assert_eq!(name.as_argument(), argument);
        }
    }

    #[test]
    fn a_model_name_cannot_be_an_option() {
        assert!(ModelName::try_from("--dangerously-skip".to_owned()).is_err());
        assert!(ModelName::try_from("claude-opus-4-5[1m]".to_owned()).is_ok());
    }

    #[test]
    fn telegram_ids_are_positive_and_chats_are_not_zero() {
        assert!(TelegramId::try_from(0).is_err());
        assert!(TelegramId::try_from(-5).is_err());
        assert!(ChatId::try_from(0).is_err());
        assert!(ChatId::try_from(-1_001_234_567_890).is_ok());
        assert!(ChatId::try_from(i64::MIN).is_err());
    }
}
