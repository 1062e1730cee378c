//! What the broker writes down before it takes effect: whom it attached and whom not, what became of each
//! worker, what root asked for, and which configuration was in force.
//!
//! A decision that lets somebody in, or changes what is in force, needs its line: without it, it is not
//! taken. One that shuts somebody out or ends something is taken in any case: that is the safe side.

use std::{path::Path, time::SystemTime};

use kai_audit::{Limits, Log, OpenError, Record};
use kai_program::digest::Digest;
use kai_proto::{
    admin_broker::LoginEnd,
    broker_authd::Standing,
    gateway_broker::Refusal,
    ids::{TelegramId, UserName},
};
use tracing::error;

use crate::{
    ending::EndReason,
    sys::Ended,
    users::{User, UsersError},
    worker::Worker,
};

/// The line of a decision is not on disk: the decision must not be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the audit log cannot be written; the broker's log says why")]
pub struct NotRecorded;

/// The broker's audit log.
#[derive(Debug)]
pub struct Audit {
    log: Log,
    #[cfg(test)]
    broken: bool,
}

impl Audit {
    /// Opens the log in `directory`.
    ///
    /// # Errors
    /// One sentence that says how to mend it.
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        Ok(Self {
            log: Log::open(directory, Limits::STANDARD)?,
            #[cfg(test)]
            broken: false,
        })
    }

    /// As if the disk failed from now on.
    #[cfg(test)]
    pub fn break_off(&mut self) {
        self.broken = true;
    }

    /// Writes a decision down that needs its line.
    ///
    /// # Errors
    /// If it is not on disk.
    pub fn decide(&mut self, record: &Record) -> Result<(), NotRecorded> {
        #[cfg(test)]
        if self.broken {
            return Err(NotRecorded);
        }
        self.log.append(record, SystemTime::now()).map_err(|why| {
            error!("cannot write the audit log: {why}");
            NotRecorded
        })
    }

    /// Writes down what is done in any case.
    pub fn note(&mut self, record: &Record) {
        // An error of its own already.
        let _ = self.decide(record);
    }

    /// The last line.
    pub fn close(self) {
        self.log.close();
    }
}

fn about(event: &'static str, user: &UserName, id: TelegramId) -> Record {
    Record::new(event)
        .text("user", user.as_str())
        .number("telegram_id", i64::from(id))
}

/// The daemon runs.
#[must_use]
pub fn started() -> Record {
    Record::new("daemon.started")
        .text("version", env!("CARGO_PKG_VERSION"))
        .number("pid", std::process::id())
}

/// The daemon ends, for this reason if it was not told to.
#[must_use]
pub fn stopped(why: Option<String>) -> Record {
    let record = Record::new("daemon.stopped");
    match why {
        Some(why) => record.text("why", why),
        None => record,
    }
}

/// A file of the configuration comes into force.
#[must_use]
pub fn loaded(event: &'static str, file: &Path, digest: Digest) -> Record {
    Record::new(event)
        .text("file", file.to_string_lossy())
        .text("sha256", digest.to_string())
}

/// A new users.yaml does not come into force; the reason names file, line and key, and no value.
#[must_use]
pub fn users_refused(file: &Path, why: &UsersError) -> Record {
    Record::new("users.refused")
        .text("file", file.to_string_lossy())
        .text("why", why.to_string())
}

/// Root asked for something.
#[must_use]
pub fn asked(event: &'static str, admin: u32) -> Record {
    Record::new(event).number("admin", admin)
}

/// Root asked for a login of the agent for `user`, who may not exist.
#[must_use]
pub fn login_asked(admin: u32, user: &UserName) -> Record {
    asked("admin.login", admin).text("user", user.as_str())
}

/// There is no login, for this reason.
#[must_use]
pub fn login_refused(admin: u32, user: &UserName, why: &str) -> Record {
    asked("login.refused", admin)
        .text("user", user.as_str())
        .text("why", why)
}

/// A login was forked.
#[must_use]
pub fn login_started(user: &User, admin: u32, pid: i32) -> Record {
    about("login.started", &user.entry.name, user.entry.id)
        .number("admin", admin)
        .number("pid", pid)
        .text("account", user.account.name.as_str())
        .number("uid", user.account.uid.as_raw())
}

/// A login was reaped. What was typed and shown is nowhere.
#[must_use]
pub fn login_ended(
    (name, id): (&UserName, TelegramId),
    admin: u32,
    pid: i32,
    (status, why): (i32, LoginEnd),
) -> Record {
    about("login.ended", name, id)
        .number("admin", admin)
        .number("pid", pid)
        .number("status", status)
        .text("why", login_word(why))
}

/// The word for the end of a login.
#[must_use]
pub fn login_word(why: LoginEnd) -> &'static str {
    match why {
        LoginEnd::ByItself => "by_itself",
        LoginEnd::HungUp => "hung_up",
        LoginEnd::TooLong => "too_long",
        LoginEnd::UserChanged => "user_changed",
        LoginEnd::NotRecorded => "not_recorded",
        LoginEnd::Stopping => "stopping",
    }
}

/// A connection is about to be given to a worker: to the running one with this pid, or to a new one.
#[must_use]
pub fn allowed(user: &User, standing: Standing, worker: Option<&Worker>) -> Record {
    let record = about("attach.allowed", &user.entry.name, user.entry.id);
    let record = match standing {
        Standing::Proven { until } => record
            .text("second_factor", "proven")
            .number("until", until),
        _ => record.text("second_factor", "not_enrolled"),
    };
    match worker {
        Some(worker) => record.number("pid", worker.pid.as_raw()),
        None => record.boolean("new_worker", true),
    }
}

/// A connection is about to be refused.
#[must_use]
pub fn refused(id: TelegramId, user: Option<&UserName>, why: Refusal) -> Record {
    let record = match user {
        Some(user) => about("attach.refused", user, id),
        None => Record::new("attach.refused").number("telegram_id", i64::from(id)),
    };
    record.text("why", word(why))
}

/// A worker was forked.
#[must_use]
pub fn worker_started(user: &User, pid: i32) -> Record {
    about("worker.started", &user.entry.name, user.entry.id)
        .number("pid", pid)
        .text("account", user.account.name.as_str())
        .number("uid", user.account.uid.as_raw())
}

/// A worker was reaped.
#[must_use]
pub fn worker_ended(id: TelegramId, worker: &Worker, ended: &Ended) -> Record {
    let milliseconds = i64::try_from(ended.cpu.as_millis()).unwrap_or(i64::MAX);
    about("worker.ended", worker.user(), id)
        .number("pid", worker.pid.as_raw())
        .number("status", ended.status)
        .text("why", worker.why().map_or("by_itself", EndReason::word))
        .number("cpu_ms", milliseconds)
        .number("peak_kib", ended.peak_kib)
        .number("turns", worker.turns())
}

/// The word for a refusal.
#[must_use]
pub fn word(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Version => "version",
        Refusal::NotPermitted => "not_permitted",
        Refusal::UnknownUser => "unknown_user",
        Refusal::SecondFactor => "second_factor",
        Refusal::NotEnrolled => "not_enrolled",
        Refusal::EnrolmentChanged => "enrolment_changed",
        Refusal::AuthdUnavailable => "authd_unavailable",
        Refusal::TooManyWorkers => "too_many_workers",
        Refusal::TooManyConnections => "too_many_attaches",
        Refusal::LaunchFailed => "launch_failed",
        Refusal::Stopping => "stopping",
    }
}
