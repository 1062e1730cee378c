//! `kai-install`: brings kai onto a host, says how it stands, changes it, and takes it away.
//!
//! Run by the admin. What reads is for everybody, what changes is for root; what only root can see is
//! said to need root, not guessed. No secret is ever shown, logged, or in a list of arguments.
//!
//! - [`settings`]: `install.yaml`, what the admin decided, and `config`, which asks for it;
//! - [`spans`]: where values stand in YAML that an admin writes, too;
//! - [`root`]: the tree that is changed, walked by descriptors, written file by whole file;
//! - [`accounts`]: which accounts and groups that tree has;
//! - [`source`]: the directory that kai is installed from;
//! - [`desired`]: the list of all that there shall be; [`items`] the kinds of things on it;
//! - [`apply`]: `apply` and `rollback`, which bring it about; [`judge`]: what stands against any change;
//! - [`status`] compares with it, [`uninstall`] takes it away;
//! - [`agent`]: the agent's program;
//! - [`migrate`]: brings over what the Python kai has;
//! - [`user`]: adds, removes and lists users;
//! - [`tools`]: Debian's own programs; [`credentials`]: what systemd encrypts;
//! - [`checks`]: `check`: what is judged of a host, as pure functions of what [`host`] finds;
//! - [`show`]: puts findings into lines or JSON;
//! - [`failure`]: why something was not done.
#![forbid(unsafe_code)]

pub mod accounts;
pub mod agent;
pub mod apply;
pub mod checks;
pub mod credentials;
pub mod desired;
pub mod failure;
mod hints;
pub mod host;
pub mod items;
pub mod judge;
pub mod migrate;
pub mod root;
pub mod settings;
pub mod show;
pub mod source;
pub mod spans;
pub mod status;
pub mod tools;
pub mod uninstall;
pub mod user;

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

use checks::Verdict;
use failure::Failure;

/// Exit status when nothing is missing but something can be seen by root alone.
const NEEDS_ROOT: u8 = 3;

/// Installs kai on this host, checks it, changes it and takes it away.
#[derive(Debug, Parser)]
#[command(name = "kai-install", version, about)]
struct Arguments {
    /// The configuration.
    #[arg(long, global = true, default_value = kai_program::arguments::DEFAULT_CONFIG)]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Says of each thing that kai needs whether it is there, and how to mend it.
    ///
    /// Exit status 0 if all is there, 1 if something is missing, 3 if only root can tell.
    Check {
        /// As one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Asks what kai shall be here, and writes it to install.yaml; takes flags or a file where there is no
    /// terminal.
    Config(settings::command::Config),
    /// Makes this host what install.yaml says, and prints each change. A second run changes nothing.
    Apply(apply::Apply),
    /// Goes back to the version before.
    Rollback(apply::Place),
    /// Installs the agent's program, root's and nobody else's to change.
    Agent(agent::install::Agent),
    /// Adds, removes and lists users; users.yaml keeps its comments.
    User(user::Asked),
    /// Brings over what the Python kai has here, moves it aside, and names what has no place; before apply,
    /// and again after it.
    Migrate(migrate::Migrate),
    /// Says what is installed, and where it differs from what apply would make.
    ///
    /// Exit status 0 if all is well, 1 if something differs or is missing, 3 if only root can tell.
    Status(status::Status),
    /// Takes away what apply made; configuration, secrets and users' data stay unless they are purged,
    /// and homes in any case.
    Uninstall(uninstall::Uninstall),
}

/// The command line, for the manual and the completions.
#[must_use]
pub fn command() -> clap::Command {
    <Arguments as clap::CommandFactory>::command()
}

/// Runs the command with the process's own arguments.
#[must_use]
pub fn run() -> ExitCode {
    if let Some(done) = migrate::child::run() {
        return done;
    }
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Command::Check { json } => check(&arguments.config, json),
        Command::Config(asked) => settings::command::run(&asked),
        Command::Apply(asked) => apply::run(&asked),
        Command::Rollback(place) => apply::rollback(&place),
        Command::Agent(asked) => agent::install::run(&asked),
        Command::User(asked) => user::run(&asked),
        Command::Migrate(asked) => migrate::run(&asked),
        Command::Status(asked) => status::run(&asked),
        Command::Uninstall(asked) => uninstall::run(&asked),
    };
    done.unwrap_or_else(|problem| {
        eprintln!("kai-install: {}", hints::as_typed(problem.to_string()));
        ExitCode::FAILURE
    })
}

fn check(config: &Path, json: bool) -> Result<ExitCode, Failure> {
    let checks = checks::all(config);
    let verdict = Verdict::of(&checks);
    print(&if json {
        show::as_json(&checks, verdict)
    } else {
        show::as_lines(&checks)
    })?;
    Ok(status_of(verdict))
}

fn status_of(verdict: Verdict) -> ExitCode {
    match verdict {
        Verdict::Ready => ExitCode::SUCCESS,
        Verdict::NeedsRoot => ExitCode::from(NEEDS_ROOT),
        Verdict::Lacking => ExitCode::FAILURE,
    }
}

/// Says what was done in the middle of a change, which goes on where nobody listens any more; what is printed
/// when it has ended fails then.
fn say(text: &str) {
    let _ = print(text);
}

/// Not println: a closed pipe is an error to report, not a panic.
fn print(text: &str) -> Result<(), Failure> {
    let text = hints::as_typed(text.to_owned());
    writeln!(io::stdout(), "{text}").map_err(|error| Failure::io("standard output", error))
}
