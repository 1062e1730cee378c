//! What takes the broker's place where there is no root: the same sockets, the same worker, and one
//! account for everybody.
//!
//! It exists so that the playground can be tried without root, and is in no program that an installed
//! host has. User namespaces stand in for the broker's privileges: the worker is the first process of
//! its own PID namespace and has its own mounts, Landlock and seccomp hold as ever, but whoever is at
//! the keyboard, the gateway and every worker are the same account. [`NOT_SEPARATED`] says what that
//! leaves open. It refuses to run as root, under whom its workers would be root's.
//!
//! - [`people`]: users.yaml as the ground writes it here, with homes;
//! - [`serve`]: the poll loop, with the broker's own tables; [`peers`]: what it is asked;
//! - [`proofs`]: what authd's word does, by the broker's own rules;
//! - [`assign`]: what a worker is to know and to see; [`launch`]: from the fork to the exec.

mod assign;
mod launch;
mod peers;
mod people;
mod proofs;
mod serve;

use std::{ffi::OsString, process::ExitCode};

use kai_program::{
    arguments::{self, Action, Program},
    config::Config,
    log,
};

/// What this launcher leaves open and the broker closes, one sentence each.
pub const NOT_SEPARATED: &[&str] = &[
    "Everybody's agent runs under your own account: there are no accounts for alice and bob.",
    "Their homes are directories of their own, kept apart by mount namespaces and Landlock, and by \
     no file mode.",
    "The gateway and authd are your account's too: only those same walls keep an agent from the bot's \
     token and from kai's sockets.",
    "No memory or process limit holds an agent back.",
    "Nobody writes down who was attached: only the broker has an audit log.",
];

/// The key that the ground adds to users.yaml for this launcher.
pub const HOME_KEY: &str = "home";

const PROGRAM: Program = Program {
    name: "kai-play-launcher",
    version: env!("CARGO_PKG_VERSION"),
    purpose: "Takes the broker's place in a playground that was not started as root.",
};

/// Runs the launcher with these arguments, the program's name left out.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let file = match arguments::parse(PROGRAM, arguments) {
        Ok(Action::Print(text)) => {
            println!("{text}");
            return ExitCode::SUCCESS;
        }
        Ok(Action::Run(file) | Action::Check(file)) => file,
        Err(message) => return refuse(&message),
    };
    let served = Config::load(&file)
        .map_err(|problem| problem.to_string())
        .and_then(|config| {
            log::start(PROGRAM.name, config.log);
            serve::serve(config).map_err(|problem| problem.to_string())
        });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => refuse(&message),
    }
}

fn refuse(message: &str) -> ExitCode {
    eprintln!("{}: {message}", PROGRAM.name);
    ExitCode::FAILURE
}
