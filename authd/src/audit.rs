//! The lines of the audit log that authd writes, each before what it says takes effect. Never a code, a
//! secret or a grant.

use std::{io, path::Path, time::SystemTime};

use kai_audit::Log;
pub use kai_audit::Record;
use kai_program::config::Config;
use kai_proto::{broker_authd::GrantEnd, gateway_authd::User, ids::UnixSeconds};

/// Where lines go.
pub trait AuditLog {
    /// Appends lines, in their order, which are on disk when this returns.
    ///
    /// # Errors
    /// If one is not: then nothing of what they say must happen.
    fn append_all(&mut self, lines: &[Record], at: SystemTime) -> io::Result<()>;
}

impl AuditLog for Log {
    fn append_all(&mut self, lines: &[Record], at: SystemTime) -> io::Result<()> {
        Self::append_all(self, lines, at)
    }
}

/// What was wrong with a code; its sender is not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// It is not one of theirs, now.
    Code,
    /// It was, and it or a later one was accepted already.
    Used,
    /// It is not a recovery code of theirs, or is not any more.
    Recovery,
    /// An earlier one was looked at, and that could not be written down.
    NotWritten,
}

/// The daemon runs.
#[must_use]
pub fn started() -> Record {
    Record::new("daemon.started").text("version", env!("CARGO_PKG_VERSION"))
}

/// It was told to end.
#[must_use]
pub fn stopped() -> Record {
    Record::new("daemon.stopped")
}

/// What it goes by.
#[must_use]
pub fn config_loaded(config: &Config) -> Record {
    Record::new("config.loaded")
        .text("file", config.file.display().to_string())
        .text("sha256", config.digest.to_string())
}

/// A code was right.
#[must_use]
pub fn code_accepted(user: &User) -> Record {
    of("code.accepted", user)
}

/// A recovery code was right; `left` more are there.
#[must_use]
pub fn recovery_accepted(user: &User, left: u8) -> Record {
    of("recovery.accepted", user).number("left", left)
}

/// A code was not.
#[must_use]
pub fn code_refused(user: &User, wrong: Wrong) -> Record {
    let why = match wrong {
        Wrong::Code => "wrong",
        Wrong::Used => "used",
        Wrong::Recovery => "wrong recovery code",
        Wrong::NotWritten => "an earlier code, when the state could not be written",
    };
    of("code.refused", user).text("why", why)
}

/// A lockout begins.
#[must_use]
pub fn code_locked(user: &User, until: UnixSeconds) -> Record {
    of("code.locked", user).number("until", until)
}

/// A grant was made.
#[must_use]
pub fn grant_made(user: &User, until: UnixSeconds) -> Record {
    of("grant.made", user).number("until", until)
}

/// A grant ended.
#[must_use]
pub fn grant_ended(user: &User, end: GrantEnd) -> Record {
    let why = match end {
        GrantEnd::Idle => "idle",
        GrantEnd::Absolute => "absolute",
        GrantEnd::Locked => "locked by the user",
        GrantEnd::Enrolment => "enrolment",
        GrantEnd::Replaced => "replaced",
    };
    of("grant.ended", user).text("why", why)
}

/// A grant ended with the daemon, which keeps none.
#[must_use]
pub fn grant_forgotten(user: &User) -> Record {
    of("grant.ended", user).text("why", "stopped")
}

/// The lines just before this one say of `user` what did not come to be: the state could not be written.
#[must_use]
pub fn not_written(user: &User) -> Record {
    of("state.not_written", user)
}

/// An admin looked at who is enrolled.
#[must_use]
pub fn status_asked(admin: u32) -> Record {
    Record::new("admin.status").number("admin", admin)
}

/// An admin wants the database made.
#[must_use]
pub fn init_asked(admin: u32) -> Record {
    Record::new("admin.init").number("admin", admin)
}

/// An admin wants a copy in the place of the database.
#[must_use]
pub fn restore_asked(admin: u32, from: &Path) -> Record {
    Record::new("admin.restore")
        .number("admin", admin)
        .text("from", from.display().to_string())
}

/// What an admin did to `user`.
#[must_use]
pub fn enrolment(what: Enrolment, user: &User, admin: u32) -> Record {
    let event = match what {
        Enrolment::Began => "enrolment.began",
        Enrolment::Refused => "enrolment.refused",
        Enrolment::Confirmed => "enrolment.confirmed",
        Enrolment::Removed => "enrolment.removed",
        Enrolment::Unlocked => "enrolment.unlocked",
    };
    of(event, user).number("admin", admin)
}

/// What an admin can do to somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enrolment {
    /// A secret was made, and nothing has changed yet.
    Began,
    /// A code came that is none of it.
    Refused,
    /// A code of it has come.
    Confirmed,
    /// It was taken away, be it for another one.
    Removed,
    /// Codes are taken again.
    Unlocked,
}

fn of(event: &'static str, user: &User) -> Record {
    Record::new(event)
        .text("user", user.name.as_str())
        .number("telegram_id", i64::from(user.id))
}
