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

/// Runs each prompt as a command of a tool and answers with what it writes; as its own command, if
/// `agent ` stands before it.
const AGENT: &str = r#"#!/bin/sh
export AGENT=$$
as_agent() { sh -c "${command#agent }"; }
as_tool() { "$CLAUDE_CODE_SHELL" -c "$command"; }
out() { printf '%s\n' "$1"; }
while read -r line; do case $line in *'"type":"user"'*)
    command=${line#*'"content":"'}; command=${command%'"}}'}
    out '{"type":"system","subtype":"init","session_id":"2c797a4c-d557-4c2e-a63c-9f6b29bafb1b"}'
    case $command in 'agent '*) as=as_agent;; *) as=as_tool;; esac
    text=$($as 2>&1 | tr '\n"\\' '   ')
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
        fs::copy(env!("CARGO_BIN_EXE_kai-tools"), path("program/kai-tools")).unwrap();
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
            only_if_begun: false,
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
        login: false,
        model: None,
        budget_micro_usd: None,
        clocks: Clocks {
            silence: hour,
            turn: hour,
            tool: hour,
        },
        connect_ports: Some(vec![443]),
        read_paths: Vec::new(),
        walls: kai_proto::worker_broker::Walls::default(),
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
        (
            "agent echo forged > /proc/$AGENT/fd/1".into(),
            "No such device",
        ),
        (
            "agent echo forged > /proc/$AGENT/fd/0".into(),
            "No such device",
        ),
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

    assert_eq!(
        launched.run("agent echo $ANTHROPIC_API_KEY").trim(),
        "sk-made-up"
    );
    assert_eq!(launched.run("echo $ANTHROPIC_API_KEY").trim(), "");
    // Standard input is the agent's own; the gateway's and the broker's sockets are not there.
    assert_eq!(
        launched
            .run("agent readlink /proc/self/fd/* | grep -c socket")
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

#[test]
fn a_tool_reaches_neither_the_agent_nor_the_workers_state() {
    if !can_run() {
        return;
    }
    let mut launched = Launched::new(Some("sk-made-up\n"));
    let abi = launched.report().landlock_abi;
    let state = launched.place.path().join("state").display().to_string();
    launched.run("echo x > file; ln -s /proc/$AGENT/environ link");

    let refusals = [
        ("cat /proc/$AGENT/environ", 1),
        ("cat link", 1),
        ("cat /proc/$AGENT/mem", 1),
        ("cat /proc/$AGENT/maps", 1),
        ("readlink /proc/$AGENT/fd/0", 1),
        ("timeout 2 cat /proc/$AGENT/fd/10", 1),
        ("readlink /proc/$AGENT/cwd", 1),
        ("readlink /proc/$AGENT/exe", 1),
        ("ls /proc/$AGENT/root/", 1),
        ("echo forged > /proc/$AGENT/fd/0", 1),
        ("echo forged > /proc/$AGENT/fd/1", 1),
        ("echo forged > /proc/1/fd/3", 1),
        ("cat /proc/1/environ", 1),
        // Between threads of one domain it is a matter of course, so the parents are looked at too.
        (
            "for file in /proc/[0-9]*/environ; do grep -q sk-made-up $file && exit 0; done; exit 1",
            1,
        ),
        ("kill -0 $AGENT", 6),
        ("kill -9 $AGENT", 6),
        ("kill -9 1", 6),
    ];
    for (command, from_abi) in refusals {
        if abi < from_abi {
            continue;
        }
        let said = launched.run(&format!("{command} && echo REACHED"));
        assert!(!said.contains("REACHED"), "{command}: {said}");
    }
    // Neither the agent nor its tools.
    for command in [
        format!("ls {state}"),
        format!("cat {state}/session"),
        format!("echo x > {state}/x"),
        format!("ln -sf /bin/true {state}/tools/bash; readlink {state}/tools/bash | grep true"),
        format!("rm -rf {state}/tools && ! ls {state}/tools/bash"),
    ] {
        for who in ["", "agent "] {
            let said = launched.run(&format!("{who}{command} && echo REACHED"));
            assert!(!said.contains("REACHED"), "{who}{command}: {said}");
        }
    }
    assert_eq!(
        launched
            .run("env | grep -c -e ANTHROPIC -e CLAUDE -e sk-made-up")
            .trim(),
        "0"
    );
    assert_eq!(launched.run("echo $SHELL").trim(), "/bin/bash");
    assert!(
        launched
            .run("mkdir d e; echo y > d/f; mv d/f e/ && cat e/f")
            .contains('y')
    );
    assert!(
        launched
            .run("sleep 50 & kill $! && echo ended")
            .contains("ended")
    );
}

#[test]
fn without_memory_the_tools_go_first_then_the_agent_then_the_worker() {
    if !can_run() {
        return;
    }
    let mut launched = Launched::new(None);
    let mut score = |command: &str| -> i32 { launched.run(command).trim().parse().unwrap() };

    let worker = score("cat /proc/1/oom_score_adj");
    let agent = score("cat /proc/$AGENT/oom_score_adj");
    let tool = score("cat /proc/self/oom_score_adj");

    assert!(worker < agent && agent < tool, "{worker}, {agent}, {tool}");
}

#[test]
fn a_shell_by_the_prefix_and_the_agents_own_git_are_kept_out_as_well() {
    if !can_run() {
        return;
    }
    let mut launched = Launched::new(Some("sk-made-up\n"));

    let by_prefix =
        launched.run("agent $CLAUDE_CODE_SHELL_PREFIX 'env; cat /proc/$AGENT/environ; echo end'");
    assert!(
        by_prefix.contains("end") && !by_prefix.contains("sk-made-up"),
        "{by_prefix}"
    );

    // What a repository names in its configuration, the agent's own calls of git start.
    launched.run("git init -q . && git config core.fsmonitor 'env > $HOME/planted; cat /proc/$AGENT/environ >> $HOME/planted; false'");
    launched.run("agent git status --short");
    let planted = launched.run("cat planted");
    assert!(
        planted.contains("HOME=") && !planted.contains("sk-made-up"),
        "{planted}"
    );
    let path = launched.run("agent echo $PATH");
    assert!(!path.contains(".local"), "{path}");
}

#[test]
fn what_a_tool_plants_for_the_agents_next_start_is_gone_by_then() {
    if !can_run() {
        return;
    }
    let mut launched = Launched::new(None);
    launched.run("printf '%s' '{\\u0022a\\u0022:1,\\u0022env\\u0022:{}}' | sed 's/.u0022/\\x22/g' > .claude.json; mkdir -p .claude; echo x > .claude/remote-settings.json");
    assert!(launched.run("cat .claude.json").contains("env"));
    let mut frame = Vec::new();
    codec::encode_frame(&ToWorker::NewSession, &mut frame).unwrap();
    launched.gateway.write_all(&frame).unwrap();
    while !matches!(launched.next(), FromWorker::Description(_)) {}

    let found = launched.run("cat .claude.json; ls .claude");

    assert!(
        found.contains("a") && !found.contains("env") && !found.contains("remote"),
        "{found}"
    );
}
