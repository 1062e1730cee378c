//! The program `kai-tools`; everything is in the library, so that tests can call it.

use std::process::ExitCode;

fn main() -> ExitCode {
    kai_worker::tools::run(std::env::args_os())
}
