//! `kai-broker`: `status`, `strangers`, `reload`, `audit`, `probe` and `login`, for root.
//!
//! A program of its own, so that the daemon links neither tables nor JSON. `status` does not believe
//! the daemon: it reads `/proc` itself and shows where that differs.
//!
//! - [`client`]: asks the daemon;
//! - [`proc`]: what the kernel says of a process and its tree;
//! - [`layers`]: judges each layer of a worker's confinement by that;
//! - [`second_factor`]: how each user stands with authd, which is asked for it;
//! - [`agent_login`]: whether each user's agent has a login;
//! - [`status`]: puts all of it together; [`tables`] shows it to people;
//! - [`audit`]: the audit logs, shown and verified;
//! - [`probe`]: a hostile program in the agent's place, and what it reached;
//! - [`login`]: the agent's own login for one user, on this terminal;
#![forbid(unsafe_code)]

pub mod agent_login;
pub mod audit;
pub mod client;
pub mod layers;
pub mod login;
pub mod probe;
pub mod proc;
pub mod second_factor;
pub mod status;
pub mod strangers;
pub mod tables;

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::Duration,
};

use clap::{Parser, Subcommand};
use kai_program::config::Config;
use kai_proto::admin_broker::{Reply, Request};

use client::{Broker, ClientError};

/// Exit status when something is not as it should be: a layer is missing, the daemon's word and `/proc`
/// differ, or somebody cannot prove the second factor that they need.
const DIFFERS: u8 = 3;

/// Shows and steers the broker. Run it as root.
#[derive(Debug, Parser)]
#[command(name = "kai-broker", version, about)]
struct Arguments {
    /// The configuration.
    #[arg(long, global = true, default_value = kai_program::arguments::DEFAULT_CONFIG)]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows each user's worker, every layer of its confinement as read from /proc, whether their agent has a
    /// login, and their second factor as kai-authd says.
    ///
    /// Exit status 3 if something is not as it should be; a sentence at the end says what.
    Status {
        /// As one JSON object.
        #[arg(long, conflicts_with = "watch")]
        json: bool,
        /// Again every second, on a terminal.
        #[arg(long)]
        watch: bool,
    },
    /// Lists the last 50 Telegram ids that were turned away.
    Strangers {
        /// As a JSON list.
        #[arg(long)]
        json: bool,
    },
    /// Shows what the root daemons decided, from their audit logs.
    Audit(audit::Audit),
    /// Has a hostile program try more than a hundred things in the walls of one user's policy, on an
    /// account that nobody has, and shows which wall stopped each.
    ///
    /// Exit status 3 if something is open that should not be. Nothing is harmed by what succeeds, and
    /// nothing is left behind. The daemon need not run; what it alone has is then not tried.
    Probe(probe::Probe),
    /// Runs the agent's own login for one user, in that user's walls, on this terminal.
    ///
    /// The agent shows an address; the user opens it, and the code that is shown there is typed here. What
    /// the agent writes reaches this terminal as text, colours and movements of the cursor alone. Every key
    /// goes to the agent, Ctrl-C too; Ctrl-] three times ends the login. Its exit status is the command's.
    Login(login::Login),
    /// Takes the new users.yaml whole, or keeps the old one and says why.
    Reload,
}

/// The command line, for the manual and the completions.
#[must_use]
pub fn command() -> clap::Command {
    <Arguments as clap::CommandFactory>::command()
}

/// Runs the command with the process's own arguments.
#[must_use]
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Command::Status { watch: true, .. } => watch(&arguments.config),
        Command::Status { json, .. } => show_status(&arguments.config, json),
        Command::Strangers { json } => show_strangers(&arguments.config, json),
        Command::Audit(audit) => audit::run(&arguments.config, &audit).map_err(ClientError::Audit),
        Command::Probe(asked) => probe::run(&arguments.config, &asked).map_err(ClientError::Probe),
        Command::Login(asked) => login::run(&arguments.config, &asked).map_err(ClientError::Login),
        Command::Reload => reload(&arguments.config),
    };
    done.unwrap_or_else(|problem| {
        // Not eprintln: a terminal that is gone is no reason to panic.
        let _ = writeln!(io::stderr(), "kai-broker: {problem}");
        ExitCode::FAILURE
    })
}

fn connect(config: &Path) -> Result<Broker, ClientError> {
    Broker::connect(&Config::load(config)?.paths.run)
}

fn gather(config: &Path) -> Result<status::Status, ClientError> {
    let run = Config::load(config)?.paths.run;
    let mut broker = Broker::connect(&run)?;
    status::gather(&mut broker, second_factor::enrolments(&run))
}

fn show_status(config: &Path, json: bool) -> Result<ExitCode, ClientError> {
    let status = gather(config)?;
    if json {
        print(&serde_json::to_string(&status)?)?;
    } else {
        print(&tables::status(&status))?;
    }
    Ok(if status.is_as_it_should_be() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(DIFFERS)
    })
}

fn watch(config: &Path) -> Result<ExitCode, ClientError> {
    if !io::stdout().is_terminal() {
        return Err(ClientError::NoTerminal);
    }
    loop {
        let text = match gather(config) {
            Ok(status) => tables::status(&status),
            Err(problem) => problem.to_string(),
        };
        // Home, then clear what follows: no flicker, and the scroll-back stays.
        print(&format!(
            "\x1b[H\x1b[J{text}\n\nevery second; end with Ctrl-C"
        ))?;
        thread::sleep(Duration::from_secs(1));
    }
}

fn show_strangers(config: &Path, json: bool) -> Result<ExitCode, ClientError> {
    let strangers = strangers::gather(&mut connect(config)?)?;
    if json {
        print(&serde_json::to_string(&strangers)?)?;
    } else {
        print(&tables::strangers(&strangers))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn reload(config: &Path) -> Result<ExitCode, ClientError> {
    match connect(config)?.ask(Request::Reload)? {
        Reply::Reloaded { users, ended } => {
            print(&format!(
                "users in force: {users}; gone or changed, and what they had running ended: {ended}"
            ))?;
            Ok(ExitCode::SUCCESS)
        }
        Reply::ReloadRefused(reason) => Err(ClientError::ReloadRefused(reason)),
        _ => Err(ClientError::Unexpected),
    }
}

fn print(text: &str) -> Result<(), ClientError> {
    // Not println: a closed pipe is an error to report, not a panic.
    writeln!(io::stdout(), "{text}").map_err(ClientError::Print)
}
