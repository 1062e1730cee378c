//! `kai-probe`: the hostile program that `kai-broker probe` puts into the agent's place, on an account that
//! nobody has. It tries what an agent must not be able to do, and writes down what the kernel answered.
//!
//! No attempt harms anybody if it succeeds: what is attacked is the probe's own neighbour, or asked for with
//! arguments that the kernel refuses once it has got so far. It judges nothing; the command does, by
//! [`expected`].
//!
//! - [`attempts`]: what is tried, in groups;
//! - [`answer`]: what came of one;
//! - [`scene`]: what the command has laid out to be attacked; [`neighbour`] lives in it;
//! - [`expected`]: what is open on purpose, on which kernel and under which policy;
//! - [`run`]: one attempt at a time, each in a process of its own; [`report`] is what they are written to;
//! - [`stand_in`]: the worker's part, with some of the walls left out;
//! - `sys`: the only unsafe code.

pub mod answer;
pub mod attempts;
pub mod expected;
pub mod neighbour;
pub mod report;
pub mod run;
pub mod scene;
pub mod stand_in;
mod sys;

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use attempts::Position;
use report::Report;
use scene::Scene;

/// The program's name.
pub const NAME: &str = "kai-probe";

const HELP: &str = "\
Tries what an agent must not be able to do. Only `kai-broker probe` starts it.

Usage: kai-probe

Options:
  -h, --help     print this
  -V, --version  print the version";

/// The program. What it is started as says what it does.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let words: Vec<String> = arguments
        .into_iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        // The launch gives it the worker's name and no arguments.
        ["kai-worker"] => stand_in::stand_in_for_the_worker(),
        // The worker adds the agent's usual arguments.
        [_, "agent", ..] => be_the_agent(),
        [_, "tools", agent] => be_a_tool(agent),
        [_, "neighbour", place] => neighbour::live(Path::new(place)),
        [_, "whoami"] => {
            println!("{}", nix::unistd::geteuid());
            Ok(())
        }
        [_, "--version" | "-V"] => {
            println!("{NAME} {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        [_, "--help" | "-h"] => {
            println!("{HELP}");
            Ok(())
        }
        _ => {
            eprintln!("{NAME}: is started by `kai-broker probe` alone; see {NAME} --help");
            return ExitCode::from(64);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{NAME}: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Why the program cannot go on.
pub type Problem = Box<dyn std::error::Error>;

fn home() -> Result<PathBuf, Problem> {
    Ok(std::env::var_os("HOME").ok_or("has no HOME")?.into())
}

/// Runs what is tried from the agent's own process, then has a tool try the rest, as an agent would.
fn be_the_agent() -> Result<(), Problem> {
    let home = home()?;
    let scene = Scene::read(&home)?;
    let mut report = Report::append(&home)?;
    run::all_from(Position::Agent, &scene, &mut report)?;
    let program = std::env::current_exe()?.display().to_string();
    let agent = std::process::id().to_string();
    let tool = match std::env::var_os("CLAUDE_CODE_SHELL_PREFIX") {
        Some(prefix) => Command::new(prefix)
            .arg(format!("'{program}' tools {agent}"))
            .status(),
        None => Command::new(program).args(["tools", &agent]).status(),
    };
    match tool {
        Ok(status) if status.success() => Ok(report.end()?),
        Ok(status) => Err(format!("the tool ended with {status}").into()),
        Err(error) => Err(format!("the tool cannot be started: {error}").into()),
    }
}

fn be_a_tool(agent: &str) -> Result<(), Problem> {
    let home = home()?;
    let mut scene = Scene::read(&home)?;
    scene.agent = agent.parse()?;
    let status = fs::read_to_string(format!("/proc/{agent}/stat")).unwrap_or_default();
    // Behind the name, which is in brackets: the state, and the parent. In its own domain a tool does not
    // see so much of the agent; in walls of its own the worker is the first process.
    scene.worker = status
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok())
        .unwrap_or(1);
    let mut report = Report::append(&home)?;
    run::all_from(Position::Tool, &scene, &mut report)
}
