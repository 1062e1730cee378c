//! The program `kai-tools`: what the agent starts in the place of a shell, or of a program that reads
//! what a repository wrote.
//!
//! The agent starts it, as the user's account and within the agent's walls; it reads nothing but its
//! arguments. It enters a domain of its own, in which the agent is out of reach, forgets the agent's
//! environment, and becomes the shell. It must never start anything without having done so.
//!
//! | called | by | becomes |
//! |---|---|---|
//! | `bash ARGUMENT...`, by a link of that name | `CLAUDE_CODE_SHELL` | bash with these arguments |
//! | `kai-tools COMMAND` | `CLAUDE_CODE_SHELL_PREFIX` | bash with this command |
//! | `NAME ARGUMENT...`, by a link of that name | the agent's `PATH` | the system's program of that name |
//!
//! The second alone would leave out what the agent does with its shell without asking: reading the
//! user's start files, into which a tool may have written.

pub mod domain;
pub mod environment;

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

/// The program's name.
pub const NAME: &str = "kai-tools";

/// Where the system's programs are.
pub const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The tools' oom_score_adj (proc(5)): they go first, the agent after them, the worker last.
const OOM_SCORE: i32 = 600;

/// Exit status of a shell that cannot execute what it found.
const CANNOT: u8 = 126;

const HELP: &str = "\
Runs a command where it cannot reach the agent that wants it run. Only agents start it.

Usage: kai-tools COMMAND";

/// The program. Returns only if there is nothing to become.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let name = arguments.next().unwrap_or_default();
    let call = match Call::read(&name, arguments.collect()) {
        Ok(call) => call,
        Err(text) => {
            println!("{text}");
            return ExitCode::SUCCESS;
        }
    };
    let refused = become_tool(&call);
    eprintln!("{NAME}: {refused}");
    ExitCode::from(CANNOT)
}

/// Why nothing is run.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the command's own domain cannot be entered, so it is not run: {0}")]
    Domain(#[from] domain::NotEntered),
    #[error("{0} is not installed on this host")]
    Missing(String),
    #[error("{0}: {1}")]
    Exec(String, io::Error),
}

fn become_tool(call: &Call) -> Refused {
    // Raising it needs no privilege (proc(5)); a tool that goes on without is not less confined.
    let _ = raise_oom_score(Path::new("/proc/self/oom_score_adj"), OOM_SCORE);
    if let Err(error) = domain::enter() {
        return error.into();
    }
    let Some(program) = call.program() else {
        return Refused::Missing(call.name.to_string_lossy().into_owned());
    };
    let mut command = Command::new(&program);
    command.arg0(&call.name).args(&call.arguments);
    environment::arrange(&mut command, std::env::vars_os());
    let error = command.exec();
    Refused::Exec(program.display().to_string(), error)
}

/// What is to be become.
#[derive(Debug, PartialEq, Eq)]
struct Call {
    name: OsString,
    arguments: Vec<OsString>,
}

impl Call {
    /// Reads the command line; an error is a text to print.
    fn read(name: &OsStr, arguments: Vec<OsString>) -> Result<Self, String> {
        let name = Path::new(name).file_name().unwrap_or_default();
        if name != NAME {
            return Ok(Self {
                name: name.to_owned(),
                arguments,
            });
        }
        match arguments.as_slice() {
            [word] if word == "--version" || word == "-V" => {
                Err(format!("{NAME} {}", env!("CARGO_PKG_VERSION")))
            }
            [command] if !command.as_encoded_bytes().starts_with(b"-") => Ok(Self {
                name: "bash".into(),
                arguments: vec!["-c".into(), command.clone()],
            }),
            _ => Err(HELP.to_owned()),
        }
    }

    /// Where the system has it. The agent's own PATH leads back here.
    fn program(&self) -> Option<PathBuf> {
        find(&self.name)
    }
}

/// Where the system has the program `name`.
#[must_use]
pub fn find(name: &OsStr) -> Option<PathBuf> {
    SYSTEM_PATH
        .split(':')
        .map(|directory| Path::new(directory).join(name))
        .find(|path| path.is_file())
}

/// Where this program is: beside the worker's own.
///
/// # Errors
/// One sentence, if it is not there.
pub fn locate() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name(NAME);
    if program.is_file() {
        Ok(program)
    } else {
        Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!(
                "{} is missing; install kai's programs together",
                program.display()
            ),
        ))
    }
}

/// Makes the kernel end a process before those with less, once there is no memory left; `file` is its
/// oom_score_adj.
///
/// # Errors
/// What the file system answers.
pub fn raise_oom_score(file: &Path, to: i32) -> io::Result<()> {
    let now: i32 = fs::read_to_string(file)?.trim().parse().unwrap_or(0);
    if now < to {
        fs::write(file, to.to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Call, String> {
        let mut words = words.iter().map(OsString::from);
        Call::read(&words.next().unwrap(), words.collect())
    }

    #[test]
    fn a_link_is_its_program_and_a_single_word_is_a_command() {
        let call = |name: &str, arguments: &[&str]| Call {
            name: name.into(),
            arguments: arguments.iter().map(OsString::from).collect(),
        };
        let table = [
            (
                &["/s/tools/bash", "-c", "-l", "x"][..],
                call("bash", &["-c", "-l", "x"]),
            ),
            (&["bash"], call("bash", &[])),
            (&["/s/tools/git", "status"], call("git", &["status"])),
            (
                &["/opt/kai/kai-tools", "id -u; x"],
                call("bash", &["-c", "id -u; x"]),
            ),
        ];
        for (words, expected) in table {
            assert_eq!(read(words), Ok(expected), "{words:?}");
        }
        for words in [
            &["kai-tools"][..],
            &["kai-tools", "-c", "id"],
            &["kai-tools", "a", "b"],
            &["kai-tools", "--help"],
            &["kai-tools", "--version"],
        ] {
            assert!(read(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn programs_are_the_systems() {
        assert!(find(OsStr::new("sh")).is_some_and(|path| path.starts_with("/")));
        assert_eq!(find(OsStr::new("no-such-program")), None);
    }
}
