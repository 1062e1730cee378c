//! The command line of the daemons: `--config FILE`, `--check`, `--help`, `--version`.

use std::{ffi::OsString, path::PathBuf};

/// Where the configuration is unless `--config` says otherwise.
pub const DEFAULT_CONFIG: &str = "/etc/kai/kai.yaml";

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Run, with the configuration in this file.
    Run(PathBuf),
    /// Read and judge the configuration in this file, and exit.
    Check(PathBuf),
    /// Print this and exit with status 0.
    Print(String),
}

/// Who is asked, for `--help` and `--version`.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// The program's name.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// One sentence on what it is for.
    pub purpose: &'static str,
}

/// Reads the command line, without the program's name.
///
/// # Errors
/// One sentence that names what is not understood.
pub fn parse(
    program: Program,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Action, String> {
    use lexopt::prelude::{Long, Short};

    let mut parser = lexopt::Parser::from_args(arguments);
    let mut config = PathBuf::from(DEFAULT_CONFIG);
    let mut check = false;
    let hint = |error: lexopt::Error| format!("{error}; see {} --help", program.name);
    while let Some(argument) = parser.next().map_err(hint)? {
        match argument {
            Long("config") => config = parser.value().map_err(hint)?.into(),
            Long("check") => check = true,
            Long("help") | Short('h') => return Ok(Action::Print(help(program))),
            Long("version") | Short('V') => {
                return Ok(Action::Print(format!(
                    "{} {}",
                    program.name, program.version
                )));
            }
            other => return Err(hint(other.unexpected())),
        }
    }
    Ok(if check {
        Action::Check(config)
    } else {
        Action::Run(config)
    })
}

fn help(program: Program) -> String {
    format!(
        "{purpose}\n\n\
         Usage: {name} [--config FILE] [--check]\n\n\
         Options:\n  \
           --config FILE  the configuration [default: {DEFAULT_CONFIG}]\n  \
           --check        read and judge the configuration, and exit\n  \
           -h, --help     print this\n  \
           -V, --version  print the version",
        purpose = program.purpose,
        name = program.name,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: Program = Program {
        name: "kai-x",
        version: "1.2.3",
        purpose: "Does x.",
    };

    fn action(arguments: &[&str]) -> Result<Action, String> {
        parse(PROGRAM, arguments.iter().map(OsString::from))
    }

    #[test]
    fn the_default_configuration_is_the_installed_one() {
        assert_eq!(action(&[]), Ok(Action::Run("/etc/kai/kai.yaml".into())));
    }

    #[test]
    fn check_and_config_go_together_in_either_order() {
        assert_eq!(
            action(&["--check", "--config", "/x"]),
            Ok(Action::Check("/x".into()))
        );
        assert_eq!(
            action(&["--config=/x", "--check"]),
            Ok(Action::Check("/x".into()))
        );
    }

    #[test]
    fn what_is_not_understood_is_named_with_a_way_to_help() {
        let error = action(&["--confg", "/x"]).unwrap_err();
        assert!(
            error.contains("--confg") && error.contains("kai-x --help"),
            "{error}"
        );
    }
}
