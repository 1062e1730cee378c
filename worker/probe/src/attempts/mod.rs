//! What is tried, as data: one entry an attempt, in the groups of SECURITY.md.

mod files;
mod forging;
mod kai;
mod kernel;
mod network;
mod privileges;
mod users;
mod ways;

use std::fmt;

use crate::{answer::Answer, scene::Scene};

/// Whom an attempt is aimed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Other users of the host.
    Users,
    /// kai's own programs, sockets and files.
    Kai,
    /// Root, and what root alone may do.
    Privileges,
    /// Seldom needed parts of the kernel.
    Kernel,
    /// The host's network.
    Network,
    /// Files of the host.
    Files,
    /// The agent and the worker, by a tool: to lie in their name.
    Forging,
}

impl Group {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 7] = [
        Self::Users,
        Self::Kai,
        Self::Privileges,
        Self::Kernel,
        Self::Network,
        Self::Files,
        Self::Forging,
    ];
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Users => "other users",
            Self::Kai => "kai's programs",
            Self::Privileges => "privileges",
            Self::Kernel => "kernel surface",
            Self::Network => "network",
            Self::Files => "files",
            Self::Forging => "forging",
        })
    }
}

/// Which process tries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// The agent itself, as if it was taken over.
    Agent,
    /// A command that the agent runs.
    Tool,
}

/// How an attempt is made.
pub type Try = fn(&Scene) -> Answer;

/// One attempt.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    /// Its name in the report, in the expectation and for people who search.
    pub name: &'static str,
    /// Whom it is aimed at.
    pub group: Group,
    /// Who tries it.
    pub from: Position,
    /// What it does, as it stands behind "the agent".
    pub what: &'static str,
    /// How.
    pub run: Try,
}

const fn of(group: Group, name: &'static str, what: &'static str, run: Try) -> Attempt {
    let from = match group {
        Group::Forging => Position::Tool,
        _ => Position::Agent,
    };
    Attempt {
        name,
        group,
        from,
        what,
        run,
    }
}

/// All attempts, group by group.
pub fn all() -> impl Iterator<Item = &'static Attempt> {
    [
        users::ATTEMPTS,
        kai::ATTEMPTS,
        privileges::ATTEMPTS,
        kernel::ATTEMPTS,
        network::ATTEMPTS,
        files::ATTEMPTS,
        forging::ATTEMPTS,
    ]
    .into_iter()
    .flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn there_are_more_than_a_hundred_each_with_a_name_of_its_own_in_every_group() {
        let names: BTreeSet<_> = all().map(|attempt| attempt.name).collect();
        let groups: BTreeSet<_> = all().map(|attempt| attempt.group).collect();

        assert!(names.len() >= 100, "{}", names.len());
        assert_eq!(names.len(), all().count());
        assert_eq!(groups.len(), Group::ALL.len());
    }
}
