//! Takes the broker's place in a playground that was not started as root.

use std::{env, process::ExitCode};

fn main() -> ExitCode {
    kai_playground::launcher::run(env::args_os().skip(1))
}
