//! `kai-install check`: whether this host has what kai needs, and how to mend what it lacks.
//!
//! Run by the admin, as root or not. It changes nothing and never opens a secret: of those it judges
//! owner and mode. What only root can see is said to need root, not guessed.
//!
//! - [`checks`]: what is judged, as pure functions of what was found;
//! - [`host`]: finds it;
//! - [`show`]: puts the findings into lines or JSON.
#![forbid(unsafe_code)]

pub mod checks;
pub mod host;
pub mod show;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand};

use checks::Verdict;

/// Exit status when nothing is missing but something can be seen by root alone.
const NEEDS_ROOT: u8 = 3;

/// Checks a host for kai.
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
}

/// Runs the command with the process's own arguments.
#[must_use]
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let Command::Check { json } = arguments.command;
    let checks = checks::all(&arguments.config);
    let verdict = Verdict::of(&checks);
    let text = if json {
        show::as_json(&checks, verdict)
    } else {
        show::as_lines(&checks)
    };
    // Not println: a closed pipe is an error to report, not a panic.
    if let Err(problem) = writeln!(io::stdout(), "{text}") {
        eprintln!("kai-install: cannot write the answer: {problem}");
        return ExitCode::FAILURE;
    }
    match verdict {
        Verdict::Ready => ExitCode::SUCCESS,
        Verdict::NeedsRoot => ExitCode::from(NEEDS_ROOT),
        Verdict::Lacking => ExitCode::FAILURE,
    }
}
