//! The program itself, as the first process of a PID namespace and as an account without privileges:
//! what its agent can and cannot do with the other walls, namespaces and accounts, mostly off.
//! Needs root, unshare(1) and setpriv(1).
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    fs,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{
            fs::{PermissionsExt, chown},
            net::UnixStream,
        },
    },
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use kai_proto::{
    codec::{self, Message},
    conversation::{FromWorker, Outcome, Prompt, ToWorker, TurnEvent},
    frame::FrameReader,
    ids::PromptId,
    worker_broker::{Assignment, Clocks, Report},
};
use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair},
};

/// An account that nobody has.
const ACCOUNT: u32 = 61_234;

/// Runs each prompt as a command and answers with what it writes.
const AGENT: &str = r#"#!/bin/sh
export AGENT=$$
out() { printf '%s\n' "$1"; }
while read -r line; do case $line in *'"type":"user"'*)
    command=${line#*'"content":"'}; command=${command%'"}}'}
    out '{"type":"system","subtype":"init","session_id":"2c797a4c-d557-4c2e-a63c-9f6b29bafb1b"}'
    text=$(sh -c "$command" 2>&1 | tr '\n"\\' '   ')
    out '{"type":"stream_event","parent_tool_use_id":null,"event":{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"'"$text"'"}}}'
    out '{"type":"result","subtype":"success","is_error":false,"result":"","total_cost_usd":0}'
esac; done
"#;

struct Launched {
    place: tempfile::TempDir,
    child: Child,
    control: OwnedFd,
    gateway: UnixStream,
    frames: FrameReader,
    id: i64,
}

/// False, with the reason, where it cannot run; the CI does not let it pass.
fn can_run() -> bool {
    let tools = ["unshare", "setpriv", "bash"]
        .iter()
        .all(|tool| Command::new(tool).arg("--version").output().is_ok());
    let can = nix::unistd::geteuid().is_root() && tools;
    if !can {
        assert!(
            std::env::var_os("KAI_TESTS_MUST_RUN").is_none(),
            "needs root, unshare, setpriv"
        );
        eprintln!("skipped: needs root");
    }
    can
}

impl Launched {
    fn new(key: Option<&str>) -> Self {
        // One start at a time: another would inherit what is meant for this one, the program's file
        // among it while it is being written.
        static STARTS: Mutex<()> = Mutex::new(());
        let start = STARTS.lock().unwrap_or_else(PoisonError::into_inner);
        let place = tempfile::Builder::new()
            .prefix("kai-worker-test")
            .tempdir_in("/var/lib")
            .unwrap();
        let path = |name: &str| place.path().join(name);
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["home", "state"] {
            fs::create_dir(path(name)).unwrap();
            chown(path(name), Some(ACCOUNT), Some(ACCOUNT)).unwrap();
        }
        fs::create_dir(path("program")).unwrap();
        fs::write(path("program/agent"), AGENT).unwrap();
        fs::set_permissions(path("program/agent"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_kai-worker"), path("program/kai-worker")).unwrap();
        fs::write(path("outside"), "everybody may read this").unwrap();
        fs::write(path("key"), key.unwrap_or_default()).unwrap();
        let assignment = assignment(place.path(), key.is_some());
        let (control, its_control) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .unwrap();
        let datagram = codec::encode(&assignment).unwrap();
        send(control.as_raw_fd(), &datagram, MsgFlags::empty()).unwrap();
        let (gateway, its_gateway) = UnixStream::pair().unwrap();
        for inherited in [its_gateway.as_fd(), its_control.as_fd()] {
            fcntl(inherited, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        }
        let (connection, control_fd) = (its_gateway.as_raw_fd(), its_control.as_raw_fd());
        // Moved up first: the numbers that are wanted may be those that are there.
        let script = format!(
            "exec 103<&{connection} 104<&{control_fd} 105<{key}; exec 3<&103 4<&104 5<&105; \
             exec 103<&- 104<&- 105<&-{close}; \
             exec unshare --pid --fork --kill-child --mount-proc --ipc \
             setpriv --reuid {ACCOUNT} --regid {ACCOUNT} --clear-groups --no-new-privs \
             --inh-caps=-all --bounding-set=-all {program}",
            key = path("key").display(),
            close = [connection, control_fd]
                .iter()
                .filter(|number| **number > 5)
                .map(|number| format!(" {number}<&-"))
                .collect::<String>(),
            program = path("program/kai-worker").display(),
        );
        let child = Command::new("bash")
            .args(["-c", &script])
            .stdin(Stdio::null())
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .spawn()
            .unwrap();
        drop((its_gateway, its_control, start));
        gateway
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut launched = Self {
            place,
            child,
            control,
            gateway,
            frames: FrameReader::new(),
            id: 0,
        };
        assert!(matches!(launched.next(), FromWorker::Hello(_)));
        launched
    }

    fn next(&mut self) -> FromWorker {
        let mut chunk = [0; 4096];
        loop {
            let wanted = self.frames.wanted().min(chunk.len());
            let read = match self.gateway.read(&mut chunk[..wanted]) {
                // A read with a time limit is not begun again by the kernel, signal(7).
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read.unwrap(),
            };
            assert!(read > 0, "the worker has ended");
            if let Some(body) = self.frames.push(&chunk[..read], FromWorker::LIMIT).unwrap() {
                return codec::decode(&body).unwrap();
            }
        }
    }

    fn report(&self) -> Report {
        let mut bytes = [0; 64];
        let length = recv(self.control.as_raw_fd(), &mut bytes, MsgFlags::empty()).unwrap();
        Report::from_bytes(&bytes[..length]).unwrap()
    }

    /// What a command in the agent's hands writes.
    fn run(&mut self, command: &str) -> String {
        self.id += 1;
        let prompt = Prompt {
            id: PromptId::try_from(self.id).unwrap(),
            text: command.to_owned(),
            model: None,
        };
        let mut frame = Vec::new();
        codec::encode_frame(&ToWorker::Prompt(prompt), &mut frame).unwrap();
        self.gateway.write_all(&frame).unwrap();
        let mut answer = String::new();
        loop {
            let FromWorker::Turn { event, .. } = self.next() else {
                continue;
            };
            match event {
                TurnEvent::Text(text) => answer.push_str(&text),
                TurnEvent::Finished(finished) => {
                    assert_eq!(finished.outcome, Outcome::Done, "{command}");
                    return answer;
                }
                _ => {}
            }
        }
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn assignment(place: &Path, has_key: bool) -> Assignment {
    let text = |name: &str| place.join(name).to_str().unwrap().to_owned();
    let hour = Duration::from_secs(3600);
    Assignment {
        account: "alice".to_owned().try_into().unwrap(),
        home: text("home"),
        shell: "/bin/sh".into(),
        state: text("state"),
        agent: vec![text("program/agent")],
        base_url: None,
        has_key,
        model: None,
        budget_micro_usd: None,
        clocks: Clocks {
            silence: hour,
            turn: hour,
            tool: hour,
        },
        connect_ports: Some(vec![443]),
        read_paths: Vec::new(),
    }
}

#[test]
fn the_agent_works_and_the_walls_stand() {
    if !can_run() {
        return;
    }
    let mut launched = Launched::new(None);
    let report = launched.report();
    assert!(report.seccomp && report.landlock_abi > 0, "{report:?}");
    let outside = launched.place.path().join("outside").display().to_string();
    let mut run = |command: &str| launched.run(command);

    assert_eq!(run("id -u").trim(), ACCOUNT.to_string());
    assert_eq!(
        run("pwd; echo x > file && cat file")
            .split_whitespace()
            .last(),
        Some("x")
    );
    assert_eq!(
        run("echo ok > $TMPDIR/x && stat -c %a $TMPDIR").trim(),
        "700"
    );
    assert_eq!(run("head -c 3 /etc/passwd").trim(), "roo");
    for (command, refusal) in [
        (format!("cat {outside}"), "Permission denied"),
        ("ls /etc/ssl/private".into(), "Permission denied"),
        ("cat /proc/1/environ".into(), "Permission denied"),
        ("ls /proc/1/fd".into(), "Permission denied"),
        ("unshare --user true".into(), "Operation not permitted"),
        ("unshare --mount true".into(), "Operation not permitted"),
        ("mount -t tmpfs x /tmp".into(), ""),
        ("echo forged > /proc/$AGENT/fd/1".into(), "No such device"),
        ("echo forged > /proc/$AGENT/fd/0".into(), "No such device"),
    ] {
        let said = run(&format!("{command} && echo REACHED"));
        assert!(
            !said.contains("REACHED") && said.contains(refusal),
            "{command}: {said}"
        );
    }
    // Signals reach neither the worker, which is first in its namespace, nor anything outside.
    assert!(run("kill -9 1; kill -STOP 1; echo still").contains("still"));
}

#[test]
fn the_key_is_in_the_agents_environment_and_nowhere_in_the_workers_reach() {
    if !can_run() {
        return;
    }
    let mut launched = Launched::new(Some("sk-made-up\n"));

    assert_eq!(launched.run("echo $ANTHROPIC_API_KEY").trim(), "sk-made-up");
    // Standard input is the agent's own; the gateway's and the broker's sockets are not there.
    assert_eq!(
        launched
            .run("readlink /proc/self/fd/* | grep -c socket")
            .trim(),
        "1"
    );
}

#[test]
fn a_tool_that_left_its_session_ends_with_the_agent() {
    if !can_run() {
        return;
    }
    let mut launched = Launched::new(None);
    let count = "cat /proc/[0-9]*/comm | grep -c sleep";
    launched.run(
        "setsid -f sleep 1000 >&- 2>&-; setsid -f sh -c 'trap : TERM; sleep 2000; :' >&- 2>&-",
    );
    // setsid -f does not wait for what it starts.
    launched.run("while [ $(cat /proc/[0-9]*/comm | grep -c sleep) -lt 2 ]; do :; done");
    assert_eq!(launched.run(count).trim(), "2");

    let mut frame = Vec::new();
    codec::encode_frame(&ToWorker::NewSession, &mut frame).unwrap();
    let begin = Instant::now();
    launched.gateway.write_all(&frame).unwrap();
    while !matches!(launched.next(), FromWorker::Description(_)) {}
    let took = begin.elapsed();
    assert_eq!(launched.run(count).trim(), "0");
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn the_worker_ends_when_the_broker_does_and_leaves_nothing() {
    if !can_run() {
        return;
    }
    let mut launched = Launched::new(None);
    launched.run("setsid -f sleep 54321 >&- 2>&-");
    let (other, _) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::empty(),
    )
    .unwrap();

    drop(std::mem::replace(&mut launched.control, other));

    let mut byte = [0];
    assert_eq!(launched.gateway.read(&mut byte).unwrap(), 0);
    launched.child.wait().unwrap();
    let left = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| {
            std::fs::read(entry.path().join("cmdline"))
                .is_ok_and(|words| words == b"sleep\x0054321\0")
        });
    assert_eq!(left.count(), 0);
}
