//! Debian's own programs: with a fixed PATH, an empty environment, and no standard input of the admin's.

use std::{
    ffi::OsStr,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use crate::failure::Failure;

/// Where Debian has them.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// How often a program is run that gives up while another one holds the account database.
const ATTEMPTS: u32 = 30;

/// The program `name`, if Debian's directories have it.
#[must_use]
pub fn find(name: &str) -> Option<PathBuf> {
    PATH.split(':')
        .map(|directory| Path::new(directory).join(name))
        .find(|path| path.is_file())
}

/// A command with nothing of the caller's in it.
#[must_use]
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C.UTF-8")
        .current_dir("/")
        .stdin(Stdio::null());
    command
}

/// Runs a program to its end, with `input` as its standard input, and returns what it wrote to its
/// standard output.
///
/// # Errors
/// [`Failure::Tool`] with what it said.
pub fn run<A: AsRef<OsStr>>(
    program: &str,
    arguments: &[A],
    input: Option<&[u8]>,
) -> Result<String, Failure> {
    let shown = || {
        let words = arguments.iter().map(|word| word.as_ref().to_string_lossy());
        std::iter::once(program.into())
            .chain(words)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let failed = |said: String| Failure::Tool {
        program: shown(),
        said,
    };
    let Some(path) = find(program) else {
        return Err(failed(format!(
            "there is no such program; find its package with: apt-cache search {program}"
        )));
    };
    for attempt in 1.. {
        let output = output(command(&path).args(arguments), input)
            .map_err(|error| failed(error.to_string()))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = last_line(&output);
        // useradd(8) and its kin do not wait for each other.
        if !(said.contains("cannot lock") && attempt < ATTEMPTS) {
            return Err(failed(said));
        }
        thread::sleep(Duration::from_millis(100));
    }
    Err(failed(String::new()))
}

/// Runs a command to its end, with `input` as its standard input.
///
/// # Errors
/// If it cannot be started.
pub fn output(command: &mut Command, input: Option<&[u8]>) -> std::io::Result<Output> {
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let (Some(input), Some(mut pipe)) = (input, child.stdin.take()) {
        // What does not read its input says why by its status.
        let _ = pipe.write_all(input);
    }
    child.wait_with_output()
}

/// What a program said last, in one line.
#[must_use]
pub fn last_line(output: &Output) -> String {
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said);
    let line = said
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("it failed without a word");
    line.chars().map(kai_program::json::printable).collect()
}
