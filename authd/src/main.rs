//! The daemon `kai-authd`; everything is in the library, so that tests can call it.

use std::process::ExitCode;

fn main() -> ExitCode {
    kai_authd::run(std::env::args_os().skip(1))
}
