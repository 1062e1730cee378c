//! All of kai on one machine against an emulated Telegram, with a chat page.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    kai_playground::run::run(&kai_playground::arguments::Arguments::parse())
}
