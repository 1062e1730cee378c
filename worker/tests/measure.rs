//! The program itself, as the first process of a PID namespace and as an account without privileges:
//! what its agent can and cannot do with the other walls, namespaces and accounts, mostly off.
//! Needs root, unshare(1) and setpriv(1).

use std::{
    fs,
    io::{Read, Write},
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
        assert!(std::env::var_os("KAI_TESTS_MUST_RUN").is_none(), "needs root, unshare, setpriv");
        eprintln!("skipped: needs root");
    }
    can
}

impl Launched {
    fn new(key: Option<&str>) -> Self {
        let place = tempfile::Builder::new().prefix("kai-worker-test").tempdir_in("/var/lib").unwrap();
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
        let (control, its_control) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .unwrap();
        let datagram = codec::encode(&assignment).unwrap();
        send(control.as_raw_fd(), &datagram, MsgFlags::empty()).unwrap();
        let (gateway, its_gateway) = UnixStream::pair().unwrap();
        // One start at a time, or it would inherit what is meant for another.
        static STARTS: Mutex<()> = Mutex::new(());
        let start = STARTS.lock().unwrap_or_else(PoisonError::into_inner);
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
        gateway.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut launched = Self { place, child, control, gateway, frames: FrameReader::new(), id: 0 };
        assert!(matches!(launched.next(), FromWorker::Hello(_)));
        launched
    }

    fn next(&mut self) -> FromWorker {
        let mut chunk = [0; 4096];
        loop {
            let wanted = self.frames.wanted().min(chunk.len());
            let read = self.gateway.read(&mut chunk[..wanted]).unwrap();
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
            let FromWorker::Turn { event, .. } = self.next() else { continue };
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
        agent: vec![std::env::var("M_AGENT").unwrap()],
        base_url: std::env::var("M_URL").ok(),
        has_key,
        model: None,
        budget_micro_usd: None,
        clocks: Clocks { silence: hour, turn: hour, tool: hour },
        connect_ports: Some(vec![443, 18080]),
        read_paths: vec!["/work/main/target".into()],
    }
}


fn pss(pid: i32) -> (u64, u64) {
    let t = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let g = |k: &str| t.lines().find(|l| l.starts_with(k)).unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
    (g("Pss:"), g("Rss:"))
}
fn worker_pid(l: &Launched) -> i32 {
    let p = l.child.id();
    let c = fs::read_to_string(format!("/proc/{p}/task/{p}/children")).unwrap();
    c.split_whitespace().next().unwrap().parse().unwrap()
}
#[test]
fn measure() {
    let t = Instant::now();
    let mut l = Launched::new(Some("sk-made-up"));
    println!("spawn to hello incl bash+unshare+setpriv {:?}", t.elapsed());
    println!("report {:?}", l.report());
    let pid = worker_pid(&l);
    println!("idle pss {:?}", pss(pid));
    let prompts = std::env::var("M_PROMPTS").unwrap();
    let n: usize = std::env::var("M_N").map_or(1, |n| n.parse().unwrap());
    for p in prompts.split('|') {
        let mut took = vec![]; let mut firsts = vec![];
        for _ in 0..n {
            l.id += 1;
            let prompt = Prompt { id: PromptId::try_from(l.id).unwrap(), text: p.to_owned(), model: None };
            let mut frame = Vec::new();
            codec::encode_frame(&ToWorker::Prompt(prompt), &mut frame).unwrap();
            let t = Instant::now();
            l.gateway.write_all(&frame).unwrap();
            let mut answer = String::new(); let mut first = None;
            loop {
                match l.next() {
                    FromWorker::Turn { event: TurnEvent::Text(x), .. } => { first.get_or_insert(t.elapsed()); answer.push_str(&x) }
                    FromWorker::Turn { event: TurnEvent::Finished(f), .. } => { if n == 1 { println!("{p}: {answer:?} {f:?}"); } break }
                    FromWorker::Turn { event, .. } => if n == 1 { println!("   {event:?} {:?}", t.elapsed()) },
                    _ => {}
                }
            }
            took.push(t.elapsed()); firsts.extend(first);
        }
        took.sort(); firsts.sort();
        println!("{p}: median turn {:?} first {:?}", took[took.len()/2], firsts.get(firsts.len()/2));
        println!("pss {:?}", pss(pid));
    }
}
