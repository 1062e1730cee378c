//! The program `kai-probe`; everything is in the library, so that tests can call it.

use std::process::ExitCode;

fn main() -> ExitCode {
    kai_probe::run(std::env::args_os())
}
