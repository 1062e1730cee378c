//! Why a command did nothing: one sentence that says how to mend it, and an exit status.

use std::io;

use kai_program::config::ConfigError;
use kai_proto::{
    admin_authd::{NotDone, Refusal},
    connection::ConnectionError,
    ids::UserName,
};

/// Exit status for a command line that is not understood, as in sysexits(3).
pub const USAGE: u8 = 64;

/// Exit status for a configuration that cannot be used, as in sysexits(3).
pub const CONFIGURATION: u8 = 78;

/// Exit status for everything else that was not done.
pub const NOT_DONE: u8 = 1;

/// Why a command did nothing.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Only root can traverse the directory of a daemon's socket, or make the database.
    #[error("only root may do this; run it with sudo")]
    NotRoot,
    /// Nobody listens.
    #[error("cannot reach {daemon} at {socket}: {error}; start it: systemctl start {daemon}")]
    Unreachable {
        /// Which daemon.
        daemon: &'static str,
        /// Where it was looked for.
        socket: String,
        /// What connect(2) answers.
        error: io::Error,
    },
    /// The connection broke.
    #[error("{0}: {1}")]
    Connection(&'static str, ConnectionError),
    /// The daemon ended the connection.
    #[error("{0}: {1}")]
    Refused(&'static str, String),
    /// The daemon answered something else.
    #[error("{0} answered what was not asked; install kai's programs together")]
    Unexpected(&'static str),
    /// authd did not carry out what concerns this user.
    #[error("{0}: {1}{hint}", hint = hint(*.1))]
    NotDone(UserName, NotDone),
    /// The broker cannot say who somebody is on Telegram.
    #[error("{0}; or say who {1} is on Telegram with --telegram-id ID")]
    IdUnknown(Box<Failure>, UserName),
    /// users.yaml, as the broker has it, has no such user.
    #[error(
        "kai-brokerd knows no user {0}; add them to users.yaml and run `kai-broker reload`, or give --telegram-id ID"
    )]
    NoSuchUser(UserName),
    /// No code, or none that was right, confirmed an enrolment.
    #[error("{0}; nothing has changed")]
    NotConfirmed(&'static str),
    /// The database cannot be made or restored.
    #[error("{0}")]
    Database(String),
    /// `init --restore` while the daemon has the database.
    #[error("kai-authd is running and has the database; stop it first: systemctl stop kai.target")]
    Running,
    /// The terminal, or whatever standard output is, takes no more.
    #[error("cannot write the answer: {0}")]
    Print(io::Error),
    /// Standard input cannot be read.
    #[error("cannot read the code: {0}")]
    Read(io::Error),
    /// The enrolment holds, but its recovery codes were not seen.
    #[error(
        "{0} is enrolled, but the recovery codes could not be written: {1}; make new ones with: kai-auth enroll --replace"
    )]
    CodesLost(UserName, io::Error),
    /// An answer could not be put into JSON.
    #[error("cannot write the answer: {0}")]
    Json(#[from] serde_json::Error),
}

impl Failure {
    /// The exit status.
    #[must_use]
    pub fn status(&self) -> u8 {
        match self {
            Self::Config(_) => CONFIGURATION,
            _ => NOT_DONE,
        }
    }

    /// A daemon's last word on a connection.
    #[must_use]
    pub fn refused(daemon: &'static str, refusal: Refusal) -> Self {
        Self::Refused(daemon, refusal.to_string())
    }
}

fn hint(not_done: NotDone) -> &'static str {
    match not_done {
        NotDone::EnrolledAlready => {
            ", for this name or this Telegram id; see `kai-auth status`, and replace it with --replace"
        }
        NotDone::NotEnrolled => "; see `kai-auth status`",
        NotDone::NothingToConfirm => "; begin again",
        NotDone::WrongCode => "; nothing has changed",
        NotDone::Unavailable => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_is_one_line() {
        let name = || UserName::try_from("alice".to_owned()).unwrap();
        for not_done in [
            NotDone::EnrolledAlready,
            NotDone::NotEnrolled,
            NotDone::NothingToConfirm,
            NotDone::WrongCode,
            NotDone::Unavailable,
        ] {
            let said = Failure::NotDone(name(), not_done).to_string();
            assert!(
                said.starts_with("alice: ") && said.lines().count() == 1,
                "{said}"
            );
        }
        let unreachable = Failure::Unreachable {
            daemon: "kai-brokerd",
            socket: "/run/kai/admin/broker.sock".to_owned(),
            error: io::ErrorKind::NotFound.into(),
        };
        let said = Failure::IdUnknown(Box::new(unreachable), name()).to_string();
        assert!(
            said.contains("--telegram-id") && said.lines().count() == 1,
            "{said}"
        );
    }
}
