//! Stands in the worker's place in tests and benchmarks of the launch, which launch themselves: runs each
//! line that comes on the gateway's connection with sh(1), and sends back what it prints, ended by a NUL.

use std::process::Command;

use kai_proto::worker_broker::CONNECTION_FD;
use nix::{
    sys::{
        socket::{MsgFlags, recv, send},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

/// True in a process that the launch made of this program.
pub fn am_launched() -> bool {
    std::env::args_os().eq(["kai-worker"])
}

/// What such a process does until its connection ends.
pub fn serve() {
    say(b"ready\0");
    let mut line = Vec::new();
    let mut byte = [0];
    while matches!(recv(CONNECTION_FD, &mut byte, MsgFlags::empty()), Ok(1)) {
        if byte != *b"\n" {
            line.extend_from_slice(&byte);
            continue;
        }
        let command = format!("exec 2>&1\n{}", String::from_utf8_lossy(&line));
        let said = Command::new("/bin/sh")
            .args(["-c", &command])
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .output();
        say(&said.map_or_else(|error| error.to_string().into_bytes(), |said| said.stdout));
        say(&[0]);
        // The first process of a namespace is the parent of all whose own have ended.
        while matches!(
            waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)),
            Ok(status) if status != WaitStatus::StillAlive
        ) {}
        line.clear();
    }
}

fn say(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match send(CONNECTION_FD, bytes, MsgFlags::MSG_NOSIGNAL) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(_) => return,
        }
    }
}
