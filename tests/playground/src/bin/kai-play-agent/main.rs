//! A small agent for demonstrations and tests. It speaks the stream-json protocol of Claude Code as
//! strictly as that does, has no model and no network, and runs what it is told as a shell command, so
//! that `id`, `cat` and `ls` show whose account it is and what that may not touch.
//!
//! - [`flags`]: the command line, of which what is unknown is an error.
//! - [`host`]: whoever drives it: its lines, and waiting for them.
//! - [`speech`]: the lines that are written.
//! - [`session`]: the transcript, by which a session is resumed.
//! - [`login`]: its login, on a terminal.
//! - [`words`]: what a prompt asks for.
//! - [`lies`]: what an agent that somebody has taken over might do.
//! - [`turn`]: one prompt and its answer.
//! - [`shell`]: the tool.
#![forbid(unsafe_code)]

mod flags;
mod host;
mod lies;
mod login;
mod session;
mod shell;
mod speech;
mod turn;
mod words;

use std::process::ExitCode;

fn main() -> ExitCode {
    let flags = match flags::parse(std::env::args_os().skip(1)) {
        Ok(flags::Asked::Run(flags)) => flags,
        Ok(flags::Asked::LogIn) => {
            return login::log_in().unwrap_or_else(|error| {
                eprintln!("Error: {error}");
                ExitCode::FAILURE
            });
        }
        Ok(flags::Asked::Print(text)) => {
            println!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    match turn::serve(&flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}
