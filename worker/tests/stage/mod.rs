//! A worker's host in this process, unconfined, with a scripted agent; the test is its gateway and its
//! broker.

use std::{
    fs,
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{fs::PermissionsExt, net::UnixStream},
    },
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
    time::Duration,
};

use kai_proto::{
    codec::{self, Message},
    conversation::{Failure, Finished, FromWorker, Outcome, Prompt, ToWorker, TurnEvent},
    frame::FrameReader,
    hello::Hello,
    ids::PromptId,
    worker_broker::{Assignment, Clocks, HANDOVER, Report},
};
use kai_worker::{
    agent::tree::{Reaped, Tree},
    conversation::engine::Engine,
    durable::Journal,
    host::{Host, Parts},
};
use nix::{
    sys::{
        signal::{Signal, kill},
        socket::{
            AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, recv, sendmsg, socketpair,
        },
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The agent alone, as it is in no namespace of its own here.
pub struct OneChild(Option<Pid>);

impl Tree for OneChild {
    fn kill(&mut self) {
        if let Some(pid) = self.0 {
            let _ = kill(pid, Signal::SIGKILL);
        }
    }

    fn reap(&mut self) -> Reaped {
        let Some(pid) = self.0 else {
            return Reaped::NoneLeft;
        };
        let status = match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, status)) => status,
            Ok(WaitStatus::Signaled(_, signal, _)) => -(signal as i32),
            Ok(_) => return Reaped::Running,
            Err(_) => return Reaped::NoneLeft,
        };
        self.0 = None;
        Reaped::Ended { pid, status }
    }

    fn started(&mut self, agent: Pid) {
        self.0 = Some(agent);
    }
}

/// A user's directories, which outlive workers.
pub struct Place {
    directory: tempfile::TempDir,
    /// What a worker of it is told.
    pub assignment: Assignment,
}

impl Place {
    /// A user whose agent is this shell script. Its arguments are in `$*`; `say TEXT` in it writes a
    /// piece of the answer, `done_` ends the turn, and `$line` is what it read.
    pub fn new(script: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["home", "state"] {
            fs::create_dir(path(name)).unwrap();
        }
        write_agent(&path("agent"), script);
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        let hour = Duration::from_secs(3600);
        let assignment = Assignment {
            account: "alice".to_owned().try_into().unwrap(),
            home: text(path("home")),
            shell: "/bin/sh".into(),
            state: text(path("state")),
            agent: vec![text(path("agent"))],
            base_url: None,
            has_key: false,
            login: false,
            model: None,
            budget_micro_usd: None,
            clocks: Clocks {
                silence: hour,
                turn: hour,
                tool: hour,
            },
            connect_ports: None,
            read_paths: Vec::new(),
            walls: kai_proto::worker_broker::Walls::default(),
        };
        Self {
            directory,
            assignment,
        }
    }

    /// Gives the next agent another script.
    pub fn rewrite(&self, script: &str) {
        write_agent(&self.directory.path().join("agent"), script);
    }

    pub fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    /// A worker that has said Hello.
    pub fn worker(&self) -> Worker {
        let assignment = self.assignment.clone();
        let (control, its_control) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .unwrap();
        let (gateway, its_gateway) = UnixStream::pair().unwrap();
        let thread = thread::spawn(move || {
            let journal = Journal::open(Path::new(&assignment.state)).unwrap();
            let engine = Engine::new(&assignment, journal, 0);
            let report = Report {
                in_turn: false,
                agent_pid: 0,
                landlock_abi: 0,
                landlock_whole: false,
                seccomp: false,
                session: [0; 16],
                turns: 0,
            };
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let parts = Parts {
                    assignment,
                    key: None,
                    tree: OneChild(None),
                    enclosure: None,
                    engine,
                    control: its_control,
                    connection: its_gateway.into(),
                    report,
                };
                Host::new(parts).unwrap().run().await;
            });
        });
        let mut worker = Worker {
            gateway: Gateway::new(gateway),
            control: Some(control),
            thread,
        };
        worker.gateway.hello();
        worker
    }
}

fn write_agent(path: &Path, script: &str) {
    fs::write(path, format!("#!/bin/sh\n{PRELUDE}\n{script}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Written so that dash forks as little as can be.
const PRELUDE: &str = r#"
SESSION=2c797a4c-d557-4c2e-a63c-9f6b29bafb1b
COST=0
out() { printf '%s\n' "$1"; }
init() { out '{"type":"system","subtype":"init","session_id":"'$SESSION'","model":"m","claude_code_version":"9"}'; }
say() { out '{"type":"stream_event","parent_tool_use_id":null,"event":{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"'"$1"'"}}}'; }
block() { out '{"type":"stream_event","parent_tool_use_id":null,"event":{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}}'; }
tool() { out '{"type":"stream_event","parent_tool_use_id":null,"event":{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"t1","name":"'"$1"'","input":{}}}}'; }
whole() { out '{"type":"assistant","parent_tool_use_id":null,"message":{"id":"w1","model":"m","content":[{"type":"text","text":"'"$1"'"}]}}'; }
result() { out '{"type":"result","subtype":"'"$1"'","is_error":'"$2"',"result":"'"$3"'","total_cost_usd":0.00'$COST'}'; }
done_() { COST=$((COST+1)); result success false "$1"; }
ended() { result error_during_execution true ""; }
prompts() { while read -r line; do case $line in *'"type":"user"'*) init; turn;; *'"interrupt"'*) ended;; *set_model*) MODEL=$line;; esac; done; }
"#;

/// A running worker.
pub struct Worker {
    pub gateway: Gateway,
    control: Option<OwnedFd>,
    thread: JoinHandle<()>,
}

impl Worker {
    /// Hands a further connection over; the earlier one is given back.
    pub fn attach_again(&mut self) -> Gateway {
        let (gateway, its_gateway) = UnixStream::pair().unwrap();
        let descriptors = [its_gateway.as_raw_fd()];
        sendmsg::<()>(
            self.control.as_ref().unwrap().as_raw_fd(),
            &[std::io::IoSlice::new(&[HANDOVER])],
            &[ControlMessage::ScmRights(&descriptors)],
            MsgFlags::empty(),
            None,
        )
        .unwrap();
        let earlier = std::mem::replace(&mut self.gateway, Gateway::new(gateway));
        self.gateway.hello();
        earlier
    }

    /// The next report.
    pub fn report(&self) -> Report {
        let mut bytes = [0; 64];
        let control = self.control.as_ref().unwrap().as_raw_fd();
        let length = recv(control, &mut bytes, MsgFlags::empty()).unwrap();
        Report::from_bytes(&bytes[..length]).unwrap()
    }

    /// Ends as when the broker is gone.
    pub fn end(mut self) {
        drop(self.control.take());
        self.thread.join().unwrap();
    }
}

/// The gateway's side.
pub struct Gateway {
    stream: UnixStream,
    frames: FrameReader,
}

impl Gateway {
    pub fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            frames: FrameReader::new(),
        }
    }

    /// Waits longer from now on.
    pub fn patient(&self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).unwrap();
    }

    pub fn say(&mut self, message: &ToWorker) {
        let mut frame = Vec::new();
        codec::encode_frame(message, &mut frame).unwrap();
        self.stream.write_all(&frame).unwrap();
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub fn prompt(&mut self, id: i64, text: &str) {
        self.say(&ToWorker::Prompt(Prompt {
            id: prompt_id(id),
            text: text.to_owned(),
            model: None,
            only_if_begun: false,
        }));
    }

    /// The next frame; none at the end of the connection.
    pub fn next(&mut self) -> Option<FromWorker> {
        let mut chunk = [0; 4096];
        loop {
            let wanted = self.frames.wanted().min(chunk.len());
            let read = match self.stream.read(&mut chunk[..wanted]) {
                // A read with a time limit is not begun again by the kernel, signal(7).
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read.unwrap(),
            };
            if read == 0 {
                return None;
            }
            if let Some(body) = self.frames.push(&chunk[..read], FromWorker::LIMIT).unwrap() {
                return Some(codec::decode(&body).unwrap());
            }
        }
    }

    fn hello(&mut self) {
        assert_eq!(self.next(), Some(FromWorker::Hello(Hello::ours())));
    }

    /// The next event of this prompt.
    pub fn event(&mut self, id: i64) -> TurnEvent {
        loop {
            match self.next() {
                Some(FromWorker::Turn { prompt, event }) if prompt == prompt_id(id) => {
                    return event;
                }
                Some(_) => {}
                None => panic!("the connection ended"),
            }
        }
    }

    /// The answer to this prompt: the text since its last `Accepted`, and how it ended.
    pub fn answer(&mut self, id: i64) -> (String, Finished) {
        let mut text = String::new();
        loop {
            match self.event(id) {
                TurnEvent::Accepted => text.clear(),
                TurnEvent::Text(piece) => text.push_str(&piece),
                TurnEvent::Finished(finished) => return (text, finished),
                _ => {}
            }
        }
    }

    /// How this prompt ended.
    pub fn outcome(&mut self, id: i64) -> Outcome {
        self.answer(id).1.outcome
    }

    /// Sends the prompt and gives its answer.
    pub fn ask(&mut self, id: i64, text: &str) -> (String, Outcome) {
        self.prompt(id, text);
        let (text, finished) = self.answer(id);
        (text, finished.outcome)
    }
}

pub fn prompt_id(id: i64) -> PromptId {
    PromptId::try_from(id).unwrap()
}

pub fn failed(failure: Failure) -> Outcome {
    Outcome::Failed(failure)
}
