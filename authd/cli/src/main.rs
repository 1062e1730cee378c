//! The command `kai-auth`; everything is in the library, so that tests can call it.

use std::process::ExitCode;

fn main() -> ExitCode {
    kai_auth_cli::run(std::env::args_os())
}
