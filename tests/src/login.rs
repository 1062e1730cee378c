//! `kai-broker login` on a terminal of the test's own.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    os::unix::fs::MetadataExt,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::{Kai, Screen};

/// The admin, who needs no account for it.
pub const ADMIN: u32 = 58_990;
/// The admin's group.
pub const GROUP: u32 = 58_991;
/// What the agent asks.
pub const QUESTION: &str = "prompted > ";
/// How long the end of a login may take after its terminal, or its command, is gone.
pub const SOON: Duration = Duration::from_secs(2);

/// `kai-broker` with `arguments`, as sudo starts it for the admin.
#[must_use]
pub fn command(kai: &Kai, arguments: &[&str]) -> Command {
    let mut command = Command::new(kai.ground.programs().join("kai-broker"));
    command
        .args(arguments)
        .arg("--config")
        .arg(kai.ground.config())
        .env_clear()
        .env("TERM", "xterm")
        .env("LANG", "C.UTF-8")
        .env("SUDO_UID", ADMIN.to_string())
        .env("SUDO_GID", GROUP.to_string());
    command
}

/// `kai-broker login NAME` on a terminal of 30 lines of 90 columns.
#[must_use]
pub fn login(kai: &Kai, name: &str) -> Screen {
    Screen::start(&mut command(kai, &["login", name]), (30, 90))
}

/// A login of alice's that has asked its question.
#[must_use]
pub fn asked(kai: &Kai) -> Screen {
    let mut screen = login(kai, "alice");
    screen.wait_for(QUESTION);
    screen
}

/// What a shell command of the login prints.
///
/// # Panics
/// If the login does not show the end of it.
#[must_use]
pub fn ran(screen: &mut Screen, shell: &str) -> String {
    screen.type_in(&format!("!{shell}; echo e''nd\r"));
    let shown = screen.wait_for("end\r\n");
    let (_, output) = shown.split_once("e''nd\r\n").expect("the command");
    let output = output.strip_suffix("end\r\n").expect("its end");
    screen.wait_for(QUESTION);
    output.replace('\r', "").trim_end().to_owned()
}

/// Processes of this uid on the host.
///
/// # Panics
/// Without a /proc.
#[must_use]
pub fn processes(uid: u32) -> Vec<String> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    entries
        .filter(|entry| entry.metadata().is_ok_and(|found| found.uid() == uid))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.parse::<u32>().is_ok())
        .collect()
}

/// Waits until this uid has no process on the host.
///
/// # Panics
/// If it still has one after [`SOON`].
pub fn wait_until_none(uid: u32) {
    let due = Instant::now() + SOON;
    while !processes(uid).is_empty() {
        assert!(Instant::now() < due, "left: {:?}", processes(uid));
        thread::sleep(Duration::from_millis(10));
    }
}

/// The uid of a person's account.
///
/// # Panics
/// If there is no such account.
#[must_use]
pub fn uid(kai: &Kai, name: &str) -> u32 {
    kai.ground.account(name).expect("an account").uid
}

/// A field of /proc/PID/status, its words a space apart.
///
/// # Panics
/// If it is not there.
#[must_use]
pub fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.expect("the field")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}
