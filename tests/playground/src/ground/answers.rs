//! Asking the running programs: root's sockets, and the command `kai-broker`.

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use kai_proto::{
    admin_authd,
    admin_broker::{self, BrokerStatus},
    connection::Client,
    hello::AdminHello,
    sockets,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::GroundError;

/// How long one answer on a socket may take.
const ANSWER: Duration = Duration::from_secs(1);
/// How long `kai-broker` may take.
const COMMAND: Duration = Duration::from_secs(10);

/// The broker's word about itself, if it answers.
pub(super) fn broker(run: &Path) -> Option<BrokerStatus> {
    let mut client = Client::connect(&sockets::admin_broker(run), ANSWER).ok()?;
    client
        .send(&admin_broker::Request::Hello(AdminHello::of(0)))
        .ok()?;
    match client.receive().ok()? {
        admin_broker::Reply::Hello(hello) if hello.matches() => {}
        _ => return None,
    }
    client.send(&admin_broker::Request::Status).ok()?;
    match client.receive().ok()? {
        admin_broker::Reply::Broker(status) => Some(status),
        _ => None,
    }
}

/// True if authd answers root.
pub(super) fn authd(run: &Path) -> bool {
    let answer = || -> Option<admin_authd::Reply> {
        let mut client = Client::connect(&sockets::admin_authd(run), ANSWER).ok()?;
        client
            .send(&admin_authd::Request::Hello(AdminHello::of(0)))
            .ok()?;
        client.receive().ok()
    };
    matches!(answer(), Some(admin_authd::Reply::Hello(hello)) if hello.matches())
}

/// What a command printed, and how it ended.
#[derive(Debug)]
pub(super) struct Ran {
    /// Its standard output.
    pub(super) printed: String,
    /// What is wrong if its exit status is not 0.
    pub(super) complaint: Option<String>,
}

/// Runs a command to its end, with nothing of this process's environment.
///
/// # Errors
/// If it cannot be run.
pub(super) fn run(command: &mut Command) -> Result<Ran, GroundError> {
    let name = command.get_program().to_string_lossy().into_owned();
    let failed = |error: std::io::Error| GroundError::Daemon(format!("{name}: {error}"));
    let child = command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let pid = Pid::from_raw(child.id().cast_signed());
    let (done, alarm) = mpsc::channel::<()>();
    // The wait below reads both pipes to their ends; a command that hangs is cut off from here.
    let watch = thread::spawn(move || {
        if alarm.recv_timeout(COMMAND) == Err(RecvTimeoutError::Timeout) {
            let _ = kill(pid, Signal::SIGKILL);
        }
    });
    let output = child.wait_with_output();
    drop(done);
    let _ = watch.join();
    let output = output.map_err(failed)?;
    let said = String::from_utf8_lossy(&output.stderr);
    Ok(Ran {
        printed: String::from_utf8_lossy(&output.stdout).into_owned(),
        complaint: (!output.status.success())
            .then(|| format!("{name}: {}: {}", output.status, said.trim())),
    })
}
