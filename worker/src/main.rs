//! The program `kai-worker`; everything is in the library, so that tests can call it.

use std::process::ExitCode;

fn main() -> ExitCode {
    kai_worker::run(std::env::args_os().skip(1))
}
