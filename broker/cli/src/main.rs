//! The command `kai-broker`: what root asks the broker, and what root sees for itself.

use std::process::ExitCode;

fn main() -> ExitCode {
    kai_broker_cli::run()
}
