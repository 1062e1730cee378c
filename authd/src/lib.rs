//! `kai-authd`: proves who is at the other end. It takes codes, gives grants, and tells the broker whose
//! grant stands.
//!
//! Runs as root without a single capability, one thread, one poll loop, no network, alone with its
//! state. It takes fixed, small, typed requests from three peers, each on a socket of its own that only
//! that peer's account can reach. It never sees chat.
//!
//! - [`daemon`] and [`peers`]: the poll loop, and who is connected;
//! - [`hardening`]: the walls that it puts up around itself;
//! - [`answers`]: what each peer is answered;
//! - [`codes`], [`attempt`], [`throttle`], [`grants`]: right codes, what wrong ones cost, how fast they may
//!   come, and what a right one gives;
//! - [`store`]: the database, and [`audit`]: the lines of the audit log;
//! - [`clock`]: the two clocks.
#![forbid(unsafe_code)]

pub mod answers;
pub mod attempt;
pub mod audit;
pub mod clock;
pub mod codes;
pub mod daemon;
pub mod grants;
pub mod hardening;
pub mod peers;
pub mod store;
pub mod throttle;

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
            ExitCode::from(problem.status())
        }
    }
}
