//! The agent's own login, on a terminal that the broker made, in the very walls in which the agent works.
//!
//! No conversation, no journal, no runtime: the walls, the agent, and its exit status, which is the worker's.
//! As the first process of its namespace it takes everything with it that the login has started. The user's
//! other worker may run meanwhile; nothing of it is touched.

use std::{
    error::Error,
    fs::File,
    io::{self, Write},
    os::{fd::OwnedFd, unix::process::ExitStatusExt},
    path::Path,
    process::{Command, ExitCode, ExitStatus, Stdio},
};

use kai_proto::worker_broker::Assignment;
use nix::unistd::Pid;

use crate::{
    CANNOT,
    agent::{command, enclosure::Enclosure, planted},
    confinement,
    inherited::Inherited,
    sys, tools,
};

/// What a shell adds to the number of the signal that ended a program.
const BY_SIGNAL: i32 = 128;

/// Confines this process and logs in; the status is the login's.
#[must_use]
pub fn run(inherited: Inherited) -> ExitCode {
    let Inherited {
        connection: terminal,
        control: _control,
        assignment,
        ..
    } = inherited;
    match log_in(&assignment, &terminal) {
        Ok(ended) => {
            let status = ended
                .code()
                .unwrap_or_else(|| BY_SIGNAL + ended.signal().unwrap_or(0));
            ExitCode::from(u8::try_from(status).unwrap_or(CANNOT))
        }
        Err(problem) => {
            tracing::error!("the login cannot begin: {problem}");
            // Whoever asked for it sees the terminal and not the broker's log.
            let _ = writeln!(File::from(terminal), "the login cannot begin: {problem}");
            ExitCode::from(CANNOT)
        }
    }
}

fn log_in(assignment: &Assignment, terminal: &OwnedFd) -> Result<ExitStatus, Box<dyn Error>> {
    let (_first, _confined) = confinement::irrevocably_confine(assignment)?;
    let enclosure = Enclosure::new(assignment, tools::locate()?);
    let tmp = command::private_tmp()?;
    planted::make_harmless(Path::new(&assignment.home))?;
    let mut command = command::login(assignment, &tmp);
    enclosure.put_around(&mut command)?;
    command.args(command::LOGIN);
    let child = on(terminal, &mut command)?.spawn();
    let program = assignment.agent.first().map_or("", String::as_str);
    let mut child = child.map_err(|error| format!("{program}: {error}"))?;
    Enclosure::started(Pid::from_raw(child.id().cast_signed()));
    Ok(child.wait()?)
}

/// Has `command` run on this terminal, as the first of its session.
fn on<'a>(terminal: &OwnedFd, command: &'a mut Command) -> io::Result<&'a mut Command> {
    let stream = || terminal.try_clone().map(Stdio::from);
    sys::own_terminal_at_exec(command);
    Ok(command.stdin(stream()?).stdout(stream()?).stderr(stream()?))
}
