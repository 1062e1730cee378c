//! What there is once kai is installed, thing by thing: each can be looked at, brought about, and taken
//! away. Nothing here knows of the others; [`crate::desired`] is the list.
//!
//! - [`accounts`]: groups, accounts, and what closes an account;
//! - [`files`] and [`lines`]: directories, files, lines of files that others have too;
//! - [`configuration`]: kai.yaml and users.yaml;
//! - [`secrets`]: authd's database; [`token`]: the bot's token, and [`clear`]: none in install.yaml;
//! - [`versions`]: which version is the one that runs;
//! - [`units`]: units, enabled and running; [`leftover`]: those of other versions.

pub mod accounts;
pub mod clear;
pub mod configuration;
pub mod files;
pub mod leftover;
pub mod lines;
pub mod secrets;
pub mod token;
pub mod units;
pub mod versions;

use std::fmt;

use crate::{
    accounts::Accounts,
    failure::Failure,
    root::{Access, Root},
};

/// How a thing stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Standing {
    /// As it should be.
    Right,
    /// Not there.
    Missing,
    /// Not so: what is different, in a few words.
    Differs(String),
}

impl Standing {
    /// Right if nothing differs, otherwise all that does.
    pub fn of(differences: Vec<String>) -> Self {
        if differences.is_empty() {
            Self::Right
        } else {
            Self::Differs(differences.join(", "))
        }
    }

    /// What differs, if anything does.
    #[must_use]
    pub fn difference(&self) -> Option<&str> {
        match self {
            Self::Right => None,
            Self::Missing => Some("is missing"),
            Self::Differs(what) => Some(what),
        }
    }
}

/// When a thing goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Goes {
    /// With the programs.
    WithKai,
    /// With users' data and secrets, which only a purge takes.
    WithData,
    /// Not at all: it is not kai's alone, or an account's.
    Never,
}

/// Something that there shall be.
pub trait Item: fmt::Display {
    /// Looks at it, and changes nothing.
    ///
    /// # Errors
    /// A reason not to change anything: what stands there must be judged by the admin.
    fn look(&self, root: &Root) -> Result<Standing, Failure>;

    /// Makes it as it should be, from whatever an earlier run left.
    ///
    /// # Errors
    /// It is then as it was, or can be brought about by another run.
    fn bring_about(&self, root: &Root) -> Result<(), Failure>;

    /// Takes it away; true if there was something.
    ///
    /// # Errors
    /// As the kernel or a tool answers.
    fn take_away(&self, root: &Root) -> Result<bool, Failure>;

    /// When it goes.
    fn goes(&self) -> Goes;

    /// True if it may become wrong when something before it in the list is changed.
    fn depends_on_others(&self) -> bool {
        false
    }

    /// True for what is needed to take the rest away: programs, and the accounts that files are of.
    fn goes_last(&self) -> bool {
        false
    }

    /// How many bytes it needs on the disk, at most.
    fn size(&self) -> u64 {
        0
    }
}

/// Who has something: by name, because the account may yet have to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner<'a> {
    /// The account.
    pub user: &'a str,
    /// The group.
    pub group: &'a str,
}

/// The numbers behind names; none if an account or group is not there yet.
///
/// # Errors
/// If name service does not answer.
pub fn access(root: &Root, owner: Owner<'_>, mode: u32) -> Result<Option<Access>, Failure> {
    let accounts = Accounts::of(root);
    let uid = match owner.user {
        "root" => Some(0),
        name => accounts.person(name)?.map(|person| person.uid),
    };
    let gid = match owner.group {
        "root" => Some(0),
        name => accounts.group(name)?.map(|group| group.gid),
    };
    Ok(uid.zip(gid).map(|(uid, gid)| Access { uid, gid, mode }))
}
