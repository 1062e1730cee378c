//! The daemon `kai-gateway`; everything is in the library, so that tests can call it.

use std::process::ExitCode;

fn main() -> ExitCode {
    kai_gateway::run(std::env::args_os().skip(1))
}
