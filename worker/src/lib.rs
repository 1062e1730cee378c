//! Runs as the user's own account: confines itself, then hosts that user's agent.
//!
//! The broker starts it as the first process of a PID namespace, with the gateway's connection, a
//! control socket and perhaps the agent's key as its only descriptors; or, for the agent's own login, with a terminal
//! in the place of the connection. It believes the broker, which
//! is root; it takes prompts from the gateway, which it knows only by that connection; and it believes
//! nothing that the agent writes. It must never start the agent unconfined, and never end "every
//! process" unless that is its own.

pub mod agent;
pub mod confinement;
pub mod conversation;
pub mod durable;
pub mod host;
pub mod inherited;
pub mod login;
pub mod login_mounts;
pub mod reports;
mod sys;
pub mod tools;

use std::{
    ffi::OsString,
    path::Path,
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use kai_program::{config::LogLevel, log};
use kai_proto::worker_broker::Report;

use crate::{
    agent::enclosure::Enclosure,
    confinement::Confined,
    conversation::engine::Engine,
    durable::Journal,
    host::{Host, Parts},
    inherited::{Inherited, NotGiven},
};

/// Exit status for a start by hand, EX_USAGE of sysexits(3).
const USAGE: u8 = 64;
/// Exit status for a worker that cannot do its work, EX_OSERR of sysexits(3).
const CANNOT: u8 = 71;

const HELP: &str = "\
Runs one user's agent, confined. Only kai-brokerd starts it.

Usage: kai-worker

Options:
  -h, --help     print this
  -V, --version  print the version";

/// The program.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match asked(arguments) {
        Ok(None) => {}
        Ok(Some(text)) => {
            println!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("kai-worker: {error}; see kai-worker --help");
            return ExitCode::from(USAGE);
        }
    }
    let inherited = match Inherited::take() {
        Ok(inherited) => inherited,
        Err(error) => {
            eprintln!("kai-worker: {error}");
            return ExitCode::from(match error {
                NotGiven::Control | NotGiven::Connection => USAGE,
                _ => CANNOT,
            });
        }
    };
    log::start("kai-worker", LogLevel::Info);
    if inherited.assignment.login {
        return login::run(inherited);
    }
    match work(inherited) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("the worker cannot go on: {error}");
            ExitCode::from(CANNOT)
        }
    }
}

/// What the command line asks to be printed, if anything.
fn asked(arguments: impl IntoIterator<Item = OsString>) -> Result<Option<String>, lexopt::Error> {
    use lexopt::prelude::{Long, Short};

    let mut parser = lexopt::Parser::from_args(arguments);
    match parser.next()? {
        None => Ok(None),
        Some(Long("help") | Short('h')) => Ok(Some(HELP.to_owned())),
        Some(Long("version") | Short('V')) => {
            Ok(Some(format!("kai-worker {}", env!("CARGO_PKG_VERSION"))))
        }
        Some(other) => Err(other.unexpected()),
    }
}

/// Confines this process, and only then makes the runtime.
fn work(inherited: Inherited) -> Result<(), Box<dyn std::error::Error>> {
    let Inherited {
        connection,
        control,
        assignment,
        key,
    } = inherited;
    let (tree, confined) = confinement::irrevocably_confine(&assignment)?;
    let enclosure = Enclosure::new(&assignment, tools::locate()?);
    let journal = Journal::open(Path::new(&assignment.state))?;
    let started = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let engine = Engine::new(&assignment, journal, started);
    let report = first_report(confined, &engine);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        // Seven descriptors are watched; the default has room for a thousand events.
        .max_io_events_per_tick(16)
        .build()?;
    runtime.block_on(async {
        let parts = Parts {
            assignment,
            key,
            tree,
            enclosure: Some(enclosure),
            engine,
            control,
            connection,
            report,
        };
        Host::new(parts)?.run().await;
        Ok(())
    })
}

fn first_report(confined: Confined, engine: &Engine) -> Report {
    Report {
        in_turn: false,
        agent_pid: 0,
        landlock_abi: confined.landlock_abi,
        landlock_whole: confined.landlock_whole,
        seccomp: confined.seccomp,
        session: engine
            .session()
            .map_or([0; 16], |session| session.to_bytes()),
        turns: 0,
    }
}
