//! `kai-auth init`: makes authd's database, or takes it from a copy.
//!
//! The one command that touches the database itself. The daemon never makes one: to it a missing
//! database is a lost one, and nobody shall get in because a file is gone.

use std::{path::Path, time::SystemTime};

use kai_audit::{Limits, Log, OpenError, Record};
use kai_authd::{audit, store::Store};
use kai_program::{admin, config::Config};

use crate::{failure::Failure, terminal};

/// Makes an empty database, unless there is one.
///
/// # Errors
/// [`Failure::Database`]; nothing was touched then.
pub fn make(config: &Config) -> Result<(), Failure> {
    only_root()?;
    let directory = config.authd_state();
    // First, because a daemon that has one has the log, too.
    Store::must_be_missing(&directory).map_err(database)?;
    note(config, &audit::init_asked(admin::acting()))?;
    Store::create(&directory).map_err(database)?.close();
    terminal::show(&format!(
        "made an empty database in {}; start kai-authd, then: kai-auth enroll NAME\n",
        directory.display()
    ))
}

/// Puts the copy `from` in the place of the database, which is kept beside it.
///
/// # Errors
/// [`Failure::Running`] while the daemon has the database; [`Failure::Database`].
pub fn restore(config: &Config, from: &Path, now: SystemTime) -> Result<(), Failure> {
    only_root()?;
    let directory = config.authd_state();
    note(config, &audit::restore_asked(admin::acting(), from))?;
    Store::restore(from, &directory, now).map_err(database)?;
    terminal::show(&format!(
        "restored {} into {}; codes of the apps work from the next minute on, lockouts stay, and recovery \
         codes are gone: kai-auth enroll --replace makes new ones; start kai-authd\n",
        from.display(),
        directory.display()
    ))
}

/// Appends to authd's audit log, in the place of the daemon, which does not run beside this command.
fn note(config: &Config, line: &Record) -> Result<(), Failure> {
    // Not by asking at its socket, which would have the service manager start it.
    let mut log = match Log::open(&config.audit_log("authd"), Limits::STANDARD) {
        Err(OpenError::Busy(_)) => return Err(Failure::Running),
        other => other.map_err(database)?,
    };
    let written = log.append(line, SystemTime::now());
    written.map_err(|error| database(format!("the audit log cannot be written: {error}")))?;
    log.close();
    Ok(())
}

fn only_root() -> Result<(), Failure> {
    if nix::unistd::geteuid().is_root() {
        Ok(())
    } else {
        Err(Failure::NotRoot)
    }
}

fn database(error: impl std::fmt::Display) -> Failure {
    Failure::Database(error.to_string())
}
