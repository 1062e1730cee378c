//! The command `kai-auth`.

use std::process::ExitCode;

mod status;

use clap::{Parser, Subcommand};

/// The admin's command for the second factor.
#[derive(Debug, Parser)]
#[command(name = "kai-auth", version, about)]
struct Arguments {
    /// The configuration.
    #[arg(long, global = true, default_value = kai_program::arguments::DEFAULT_CONFIG)]
    config: std::path::PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows whether the daemon runs and who is connected to it.
    Status {
        /// As one JSON object.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Command::Status { json } = arguments.command;
    match status::show(&arguments.config, json) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("kai-auth: {problem}");
            ExitCode::FAILURE
        }
    }
}
