//! The agent's own login, on a terminal that the broker made, in the very walls in which the agent works.
//!
//! No conversation, no journal, no runtime: the walls, the agent, and its exit status, which is the worker's.
//! As the first process of its namespace it takes everything with it that the login has started, also when a
//! wall around the files that run at a login of the user is gone. The user's other worker may run meanwhile;
//! nothing of it is touched.

use std::{
    error::Error,
    fs::File,
    future::poll_fn,
    io::{self, Write},
    os::{fd::OwnedFd, unix::process::ExitStatusExt},
    path::Path,
    process::{Command, ExitCode, ExitStatus, Stdio},
    task::Poll,
};

use kai_proto::worker_broker::Assignment;
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    unistd::Pid,
};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    CANNOT,
    agent::{command, enclosure::Enclosure, planted, tree::Tree},
    confinement,
    inherited::Inherited,
    login_mounts::LoginMounts,
    sys, tools,
};

/// What a shell adds to the number of the signal that ended a program.
const BY_SIGNAL: i32 = 128;

/// A wall is gone (see [`LoginMounts`]).
const REPLACED: &str = "a file that runs at a login of this user was replaced outside, and with it its wall; \
                        begin it anew";

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
            tracing::error!("the login cannot go on: {problem}");
            // Whoever asked for it sees the terminal and not the broker's log. The agent may have stopped its
            // output, and this process is not to wait for that.
            if fcntl(&terminal, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).is_ok() {
                let _ = write!(
                    File::from(terminal),
                    "\r\nthe login cannot go on: {problem}\r\n"
                );
            }
            ExitCode::from(CANNOT)
        }
    }
}

fn log_in(assignment: &Assignment, terminal: &OwnedFd) -> Result<ExitStatus, Box<dyn Error>> {
    let (mut tree, _confined) = confinement::irrevocably_confine(assignment)?;
    let enclosure = Enclosure::new(assignment, tools::locate()?);
    let tmp = command::private_tmp()?;
    let home = Path::new(&assignment.home);
    planted::make_harmless(home)?;
    let mut command = command::login(assignment, &tmp);
    enclosure.put_around(&mut command)?;
    command.args(command::LOGIN);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let mut mounts = LoginMounts::watch(home)?;
        // Before there is a child, so that its end is not missed.
        let mut children = signal(SignalKind::child())?;
        let child = on(terminal, &mut command)?.spawn();
        let program = assignment.agent.first().map_or("", String::as_str);
        let mut child = child.map_err(|error| format!("{program}: {error}"))?;
        Enclosure::started(Pid::from_raw(child.id().cast_signed()));
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if mounts.as_mut().is_some_and(|mounts| !mounts.hold()) {
                tree.kill();
                return Err(REPLACED.into());
            }
            poll_fn(|cx| {
                let ended = children.poll_recv(cx).is_ready();
                let changed = mounts
                    .as_ref()
                    .is_some_and(|mounts| mounts.poll_changed(cx).is_ready());
                if ended || changed {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
        }
    })
}

/// Has `command` run on this terminal, as the first of its session.
fn on<'a>(terminal: &OwnedFd, command: &'a mut Command) -> io::Result<&'a mut Command> {
    let stream = || terminal.try_clone().map(Stdio::from);
    sys::own_terminal_at_exec(command);
    Ok(command.stdin(stream()?).stdout(stream()?).stderr(stream()?))
}
