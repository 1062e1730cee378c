//! `kai-authd`: knows who has a second factor, and answers the gateway and the broker.
//!
//! Runs as root without a single capability, one thread, one poll loop, no network. It takes fixed,
//! small, typed requests from three peers, each on a socket of its own that only that peer's account
//! can reach. It never sees chat.
//!
//! - [`daemon`]: the poll loop;
//! - [`answers`]: what each peer is answered, as pure functions.
#![forbid(unsafe_code)]

pub mod answers;
pub mod daemon;

use std::{ffi::OsString, process::ExitCode};

use kai_program::{
    arguments::{self, Action, Program},
    config::Config,
    log,
};
use tracing::error;

const PROGRAM: Program = Program {
    name: "kai-authd",
    version: env!("CARGO_PKG_VERSION"),
    purpose: "Knows who has a second factor.",
};

/// Runs the daemon with these arguments, the program's name left out.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let refuse = |message: &str, status: u8| {
        eprintln!("{}: {message}", PROGRAM.name);
        ExitCode::from(status)
    };
    let (file, check) = match arguments::parse(PROGRAM, arguments) {
        Err(message) => return refuse(&message, 64),
        Ok(Action::Print(text)) => {
            println!("{text}");
            return ExitCode::SUCCESS;
        }
        Ok(Action::Check(file)) => (file, true),
        Ok(Action::Run(file)) => (file, false),
    };
    let config = match Config::load(&file) {
        Ok(config) => config,
        Err(problem) => return refuse(&problem.to_string(), 78),
    };
    if check {
        println!("{}: good", file.display());
        return ExitCode::SUCCESS;
    }
    log::start(PROGRAM.name, config.log);
    match daemon::serve(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            error!("{problem}");
            ExitCode::FAILURE
        }
    }
}
