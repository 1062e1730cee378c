//! `kai-auth`: `init`, `enroll`, `remove`, `unlock` and `status`, for root.
//!
//! A program of its own, so that the daemon links neither a command line nor QR codes. It asks the
//! daemon over root's own socket; only `init` touches the database itself, while no daemon has it.
//!
//! - [`init`], [`enroll`], [`change`] and [`status`]: the commands;
//! - [`daemon`] and [`user`]: what they ask authd, and what they ask the broker;
//! - [`uri`] and [`qr`]: a secret as an authenticator takes it;
//! - [`terminal`]: shows and reads what is secret, and leaves no copy behind;
//! - [`failure`]: why a command did nothing, and the exit status;
//! - [`moment`]: times for people.
#![forbid(unsafe_code)]

pub mod change;
pub mod daemon;
pub mod enroll;
pub mod failure;
pub mod init;
pub mod moment;
pub mod qr;
pub mod status;
pub mod terminal;
pub mod uri;
pub mod user;

use std::{ffi::OsString, path::PathBuf, process::ExitCode, time::SystemTime};

use clap::{Args, Parser, Subcommand};
use kai_program::config::Config;
use kai_proto::ids::{TelegramId, UserName};

use failure::Failure;

/// The second factor: who has one, and their new ones. Run it as root.
///
/// Exit status: 0 done, 1 not done, 64 the command line is wrong, 78 the configuration is.
#[derive(Debug, Parser)]
#[command(name = "kai-auth", version)]
struct Arguments {
    /// The configuration.
    #[arg(long, global = true, default_value = kai_program::arguments::DEFAULT_CONFIG)]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes the database, once; kai-authd never does.
    ///
    /// A database that is there is left alone.
    Init {
        /// Take the database from this copy of one, while kai-authd is stopped.
        ///
        /// No code that was used before works again: those of the apps are taken from the next minute on,
        /// and recovery codes are gone. Lockouts stay. A database that is there is kept beside the new
        /// one.
        #[arg(long, value_name = "FILE")]
        restore: Option<PathBuf>,
    },
    /// Gives a user a second factor: draws its QR code, and takes effect once a code confirms it.
    ///
    /// Prints ten recovery codes at the end, once. Ended before that, it has changed nothing.
    #[command(alias = "enrol")]
    Enroll(Enroll),
    /// Takes a user's second factor away, and what was proved with it.
    Remove {
        /// Whose, as users.yaml has it.
        #[arg(value_parser = name)]
        name: UserName,
    },
    /// Takes a user's codes again at once, after too many wrong ones.
    Unlock {
        /// Whose, as users.yaml has it.
        #[arg(value_parser = name)]
        name: UserName,
    },
    /// Shows who is enrolled, authenticated until when and locked until when.
    Status {
        /// As one JSON object.
        #[arg(long)]
        json: bool,
    },
}

/// What `enroll` is told.
#[derive(Debug, Args)]
pub struct Enroll {
    /// Whom, as users.yaml has it.
    #[arg(value_parser = name)]
    pub name: UserName,
    /// Replace a second factor that is enrolled for this name or Telegram id.
    #[arg(long)]
    pub replace: bool,
    /// The user's Telegram id; without it kai-brokerd is asked.
    #[arg(long, value_name = "ID", value_parser = telegram_id)]
    pub telegram_id: Option<TelegramId>,
    /// Draw no QR code.
    #[arg(long)]
    pub no_qr: bool,
}

fn name(text: &str) -> Result<UserName, String> {
    UserName::try_from(text.to_owned()).map_err(|invalid| invalid.to_string())
}

fn telegram_id(text: &str) -> Result<TelegramId, String> {
    let invalid = "a Telegram user id is a positive number below 2^52";
    let number: i64 = text.parse().map_err(|_| invalid.to_owned())?;
    TelegramId::try_from(number).map_err(|_| invalid.to_owned())
}

/// The command line, for the manual and the completions.
#[must_use]
pub fn command() -> clap::Command {
    <Arguments as clap::CommandFactory>::command()
}

/// Runs the command with these arguments, the program's name first.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(other) => {
            let status = if other.use_stderr() {
                failure::USAGE
            } else {
                0
            };
            // Nothing is left to do if this cannot be written either.
            let _ = other.print();
            return ExitCode::from(status);
        }
    };
    match carry_out(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("kai-auth: {problem}");
            ExitCode::from(problem.status())
        }
    }
}

fn carry_out(arguments: Arguments) -> Result<(), Failure> {
    let config = Config::load(&arguments.config)?;
    let now = SystemTime::now();
    match arguments.command {
        Command::Init { restore: None } => init::make(&config),
        Command::Init {
            restore: Some(copy),
        } => init::restore(&config, &copy, now),
        Command::Enroll(what) => enroll::enroll(&config, &what),
        Command::Remove { name } => change::remove(&config, name),
        Command::Unlock { name } => change::unlock(&config, name),
        Command::Status { json } => status::show(&config, json, now),
    }
}
