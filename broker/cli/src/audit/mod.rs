//! `kai-broker audit`: what the root daemons decided, from their two logs.
//!
//! Reads files of root's and, to verify, the journal; asks no daemon and changes nothing.
//!
//! - [`lines`]: the lines of a log, over all its files;
//! - [`show`]: both logs by time, for people or as JSON;
//! - [`marks`]: what the daemons told the journal of their logs;
//! - [`verify`]: whether each line follows the one before, and the marks fit.

pub mod lines;
pub mod marks;
pub mod show;
pub mod verify;

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

use clap::{Args, Subcommand};
use kai_program::config::{Config, ConfigError};

/// The two logs, by the name of their directory.
pub const LOGS: [&str; 2] = ["authd", "broker"];

/// Exit status when a log is not what was written.
const CHANGED: u8 = 3;

/// What to show.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Audit {
    #[command(subcommand)]
    verify: Option<Verify>,
    /// Only of this user: their name in users.yaml, or their Telegram id.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Only from then on: 2026-11-21, 2026-11-21T08:30:00Z, or how long ago: 90m, 2h, 3d.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<SystemTime>,
    /// Only until then, in the same forms.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<SystemTime>,
    /// Each line as it was written, with the name of its log.
    #[arg(long)]
    json: bool,
    /// And what comes, until Ctrl-C.
    #[arg(long, conflicts_with = "until")]
    follow: bool,
}

#[derive(Debug, Subcommand)]
enum Verify {
    /// Compares each line with the next, and with the marks that the daemons left in the journal.
    ///
    /// Names the first line that was changed, removed or inserted. Exit status 3 if there is one.
    Verify {
        /// Text that holds the marks, such as a copy of the journal kept elsewhere; - for standard input.
        /// Without it the journal of this host is asked.
        #[arg(long, value_name = "FILE")]
        marks: Vec<PathBuf>,
        /// As one JSON object.
        #[arg(long)]
        json: bool,
    },
}

/// Why nothing can be shown.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A log cannot be read.
    #[error("cannot read the audit log {0}: {1}; run this as root")]
    Read(PathBuf, io::Error),
    /// There are no marks to compare with.
    #[error("cannot read the marks {0}: {1}")]
    Marks(String, io::Error),
    /// The answer cannot be written.
    #[error("cannot write the answer: {0}")]
    Print(io::Error),
}

/// Runs the command.
///
/// # Errors
/// One sentence that says how to mend it.
pub fn run(config: &Path, audit: &Audit) -> Result<ExitCode, AuditError> {
    let config = Config::load(config)?;
    let logs = LOGS.map(|name| (name, config.audit_log(name)));
    match &audit.verify {
        Some(Verify::Verify { marks, json }) => {
            let marks = if marks.is_empty() {
                marks::of_journal()?
            } else {
                marks::of_files(marks)?
            };
            let report = verify::report(&logs, &marks)?;
            let text = if *json {
                verify::as_json(&report)
            } else {
                verify::as_lines(&report)
            };
            show::print(&text)?;
            Ok(if report.iter().all(|log| log.finding.is_none()) {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(CHANGED)
            })
        }
        None => {
            let filter = show::Filter {
                user: audit.user.clone(),
                since: audit.since,
                until: audit.until,
            };
            match show::run(&logs, &filter, audit.json, audit.follow) {
                // Whoever reads has seen enough.
                Err(AuditError::Print(error)) if error.kind() == io::ErrorKind::BrokenPipe => {}
                other => other?,
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// A moment, as an admin writes it.
fn moment(text: &str) -> Result<SystemTime, String> {
    let whole = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        _ => text.to_owned(),
    };
    if let Ok(moment) = humantime::parse_rfc3339_weak(&whole) {
        return Ok(moment);
    }
    humantime::parse_duration(text)
        .ok()
        .and_then(|ago| SystemTime::now().checked_sub(ago))
        .ok_or_else(|| {
            "write 2026-11-21, 2026-11-21T08:30:00Z, or how long ago: 90m, 2h, 3d".to_owned()
        })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_moment_is_a_day_a_time_or_how_long_ago() {
        let day = moment("2026-11-21").unwrap();
        assert_eq!(
            day.duration_since(UNIX_EPOCH).unwrap().as_secs(),
            1_795_219_200
        );
        let time = moment("2026-11-21T00:00:01Z").unwrap();
        assert_eq!(time.duration_since(day).unwrap(), Duration::from_secs(1));
        let ago = SystemTime::now().duration_since(moment("2h").unwrap());
        assert!((7190..7210).contains(&ago.unwrap().as_secs()));
        assert!(moment("yesterday").is_err());
    }
}
