//! `kai-brokerd`: starts each user's worker under that user's own account and hands the gateway's
//! connection over to it.
//!
//! Runs as root with the few capabilities that launching needs, one thread, one poll loop. It talks to
//! the gateway's account and to root, each on a socket of its own, and asks authd before it attaches
//! anyone. It must never parse what a user, an agent or Telegram wrote, never relay a byte of a
//! conversation, and never start anything that is not confined and under another account.
//!
//! - [`accounts`]: which local accounts may host a worker;
//! - [`users`]: `users.yaml`, the table of users; [`policy`] what it says of each one's walls;
//! - [`daemon`]: the poll loop; [`gateway`] and [`admin`] its two kinds of peers;
//! - [`assign`]: what one user's worker is launched with;
//! - [`attach`]: what becomes of an attach, [`pace`] how many are looked at;
//! - [`workers`]: the table of workers; [`worker`] one and its life, [`ending`] why it ends,
//!   [`supervise`] what is done about it;
//! - [`authd`]: the connection to authd, [`second_factor`] the rule about its word, [`proofs`] what that
//!   does to attaches and workers;
//! - [`login`]: the agent's own login, run for root's command;
//! - [`audit`]: what is written down of all this, before it takes effect;
//! - [`cgroups`]: a control group for each worker, where there are any;
//! - [`launch`]: from the fork to the exec, step by step, in the order of SECURITY.md;
//! - [`sys`]: the only unsafe code.

pub mod accounts;
pub mod admin;
pub mod assign;
pub mod attach;
pub mod audit;
pub mod authd;
pub mod capabilities;
pub mod cgroups;
pub mod daemon;
pub mod ending;
pub mod gateway;
pub mod launch;
pub mod login;
pub mod pace;
pub mod policy;
pub mod proofs;
pub mod second_factor;
pub mod strangers;
pub mod supervise;
pub mod sys;
pub mod users;
pub mod worker;
pub mod workers;

use std::{ffi::OsString, path::Path, process::ExitCode};

use kai_program::{
    arguments::{self, Action, Program},
    config::Config,
    log,
};
use tracing::error;

const PROGRAM: Program = Program {
    name: "kai-brokerd",
    version: env!("CARGO_PKG_VERSION"),
    purpose: "Starts each user's worker under that user's own account.",
};

/// Runs the daemon with these arguments, the program's name left out.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let action = match arguments::parse(PROGRAM, arguments) {
        Ok(action) => action,
        Err(message) => return refuse(&message, 64),
    };
    match action {
        Action::Print(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Action::Check(file) => match check(&file) {
            Ok(users) => {
                println!("{}: good, with {users} users", file.display());
                ExitCode::SUCCESS
            }
            Err(message) => refuse(&message, 78),
        },
        Action::Run(file) => {
            let config = match Config::load(&file) {
                Ok(config) => config,
                Err(problem) => return refuse(&problem.to_string(), 78),
            };
            log::start(PROGRAM.name, config.log);
            match daemon::serve(config) {
                Ok(()) => ExitCode::SUCCESS,
                Err(problem) => {
                    error!("{problem}");
                    ExitCode::FAILURE
                }
            }
        }
    }
}

fn check(file: &Path) -> Result<usize, String> {
    let config = Config::load(file).map_err(|problem| problem.to_string())?;
    let users = users::Users::load(&config).map_err(|problem| problem.to_string())?;
    Ok(users.len())
}

fn refuse(message: &str, status: u8) -> ExitCode {
    eprintln!("{}: {message}", PROGRAM.name);
    ExitCode::from(status)
}
