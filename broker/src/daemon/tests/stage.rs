//! A broker in a thread of its own, with everything around it played by the test: authd, the gateway and
//! workers that are processes which only wait.

use std::{
    fs,
    os::{
        fd::OwnedFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use kai_program::{config::Config, notify::Notifier};
use kai_proto::{
    admin_broker,
    broker_authd::{Reply, Request, Standing, User},
    connection::{Client, Connection},
    gateway_broker,
    grant::Grant,
    hello::{AdminHello, Hello},
    sockets,
};
use nix::{
    sys::{
        prctl,
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        socket::{AddressFamily, SockFlag, SockType, socketpair},
        stat::Mode,
    },
    unistd::{Gid, Pid, Uid, close, mkfifo, pause},
};
use tempfile::TempDir;

use super::played::{PlayedAuthd, PlayedGateway, PlayedWorker};
use crate::{
    accounts::Account,
    audit::Audit,
    authd::Authd,
    daemon::Daemon,
    launch::Launched,
    pace::Pace,
    policy::Kernel,
    strangers::Strangers,
    sys::{self, Side},
    users::Users,
    worker::{Proof, Worker},
    workers::Workers,
};

/// What a test waits for comes within this, or does not come.
pub const SOON: Duration = Duration::from_secs(5);

/// Has no second factor to prove, and needs none.
pub const BOB: i64 = 12;
/// Is enrolled, by her own rule `required`.
pub const ALICE: i64 = 11;

const USERS: &str = "users:\n\
    - {telegram_id: 11, name: alice, os_user: alice, second_factor: required}\n\
    - {telegram_id: 12, name: bob, os_user: bob}\n";

pub const PROVEN: Standing = Standing::Proven {
    until: 2_000_000_000,
};

pub fn grant(byte: u8) -> Grant {
    Grant::from_random([byte; 32])
}

pub fn user(id: i64) -> User {
    let name = if id == ALICE { "alice" } else { "bob" };
    User {
        name: name.to_owned().try_into().unwrap(),
        id: id.try_into().unwrap(),
    }
}

pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let due = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < due, "{what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A broker that is not running yet.
pub struct Stage {
    directory: TempDir,
    daemon: Daemon,
}

impl Stage {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().display();
        let text = format!(
            "agent: {{command: /bin/true}}\n\
             paths: {{run: {path}/run, state: {path}/state, log: {path}/log}}\n\
             limits: {{turn: 3s}}\n"
        );
        let config = Config::parse(&directory.path().join("kai.yaml"), &text).unwrap();
        let kernel = Kernel { landlock_abi: 7 };
        let users = Users::parse(Path::new("users.yaml"), USERS, kernel, |name| {
            Ok(Account {
                name: name.clone(),
                uid: Uid::from_raw(if name.as_str() == "alice" { 4001 } else { 4002 }),
                gid: Gid::from_raw(4001),
                groups: vec![],
                home: "/nonexistent".into(),
                shell: "/bin/sh".into(),
                login: false,
            })
        });
        let run = config.paths.run.clone();
        let now = Instant::now();
        let signals = SignalFd::with_flags(&SigSet::empty(), SfdFlags::SFD_NONBLOCK);
        let daemon = Daemon {
            users: users.unwrap(),
            workers: Workers::default(),
            logins: Vec::new(),
            authd: Authd::new(&run, now),
            recheck_due: now,
            audit: Audit::open(&config.audit_log("broker")).unwrap(),
            pace: Pace::default(),
            strangers: Strangers::default(),
            worker_program: "/nonexistent".into(),
            cgroups: None,
            started: 0,
            stopping: false,
            gateway_uid: Uid::effective(),
            gateway_listener: sockets::listen(&sockets::gateway_broker(&run), None).unwrap(),
            admin_listener: sockets::listen(&sockets::admin_broker(&run), None).unwrap(),
            gateway: Vec::new(),
            admin: Vec::new(),
            signals: signals.unwrap(),
            notifier: Notifier::connect(now).unwrap(),
            next_key: 0,
            config,
        };
        Self { directory, daemon }
    }

    /// The audit log cannot be written from now on.
    pub fn without_audit(mut self) -> Self {
        self.daemon.audit.break_off();
        self
    }

    /// Adds a living worker, attached a while ago with this behind it.
    pub fn worker(&mut self, id: i64, grant: Option<Grant>, standing: Standing) -> PlayedWorker {
        let played = self.starting_worker(id, grant, standing);
        played.report(false, 0);
        let worker = self.daemon.workers.get_mut(id.try_into().unwrap());
        worker.unwrap().take_reports(played.since, 0).unwrap();
        played
    }

    /// Adds a worker that has not reported yet.
    pub fn starting_worker(
        &mut self,
        id: i64,
        grant: Option<Grant>,
        standing: Standing,
    ) -> PlayedWorker {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .unwrap();
        let (attached, gateway) = UnixStream::pair().unwrap();
        let (pid, pidfd) = waiting_process();
        let status = self.directory.path().join(format!("status-{pid}"));
        mkfifo(&status, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        let launched = Launched {
            pid,
            pidfd,
            control: ours,
            status: fs::OpenOptions::new()
                .read(true)
                .write(true)
                .open(status)
                .unwrap(),
            cgroup: None,
        };
        // Long enough ago to be idle for sure.
        let since = Instant::now() - Duration::from_secs(1);
        let proof = Proof { grant, standing };
        let name = user(id).name;
        let worker = Worker::new(launched, name, (attached, proof), since, 0);
        self.daemon.workers.insert(id.try_into().unwrap(), worker);
        PlayedWorker {
            pid,
            control: theirs,
            gateway,
            since,
        }
    }

    /// Lets the broker run until the stage is dropped.
    pub fn run(self) -> Running {
        let run = self.daemon.config.paths.run.clone();
        let log = self.daemon.config.audit_log("broker");
        let stop = Arc::new(AtomicBool::new(false));
        let mut daemon = self.daemon;
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                daemon.turn().unwrap();
            }
        });
        let authd = sockets::listen(&sockets::broker_authd(&run), None).unwrap();
        Running {
            _directory: self.directory,
            run,
            log,
            authd: Some(authd),
            stop,
            thread: Some(thread),
        }
    }
}

/// A process that does nothing until it is killed, which it is at the latest with this thread.
fn waiting_process() -> (Pid, OwnedFd) {
    match sys::fork_into(0, None).unwrap() {
        Side::Parent { pid, pidfd } => (pid, pidfd),
        Side::Child => {
            // Only calls that are safe after a fork among threads: the process has no other use.
            let _ = prctl::set_pdeathsig(Signal::SIGKILL);
            for descriptor in 0..256 {
                let _ = close(descriptor);
            }
            loop {
                pause();
            }
        }
    }
}

/// A broker that runs.
pub struct Running {
    _directory: TempDir,
    run: PathBuf,
    log: PathBuf,
    authd: Option<UnixListener>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Waits for the broker as authd does, and exchanges Hello.
    pub fn authd(&self) -> PlayedAuthd {
        let listener = self.authd.as_ref().unwrap();
        let mut stream = None;
        eventually("the broker does not connect to authd", || {
            stream = listener.accept().ok();
            stream.is_some()
        });
        let connection = Connection::new(stream.unwrap().0, Instant::now()).unwrap();
        let mut authd = PlayedAuthd { connection };
        assert_eq!(authd.next(), Request::Hello(Hello::ours()));
        authd.say(&[Reply::Hello(Hello::ours())]);
        authd
    }

    /// Nobody listens on authd's socket any more.
    pub fn without_authd(&mut self) {
        self.authd = None;
        fs::remove_file(sockets::broker_authd(&self.run)).unwrap();
    }

    /// Asks for an attach as the gateway does.
    pub fn attach(&self, id: i64, grant: Option<Grant>) -> PlayedGateway {
        let mut client = Client::connect(&sockets::gateway_broker(&self.run), SOON).unwrap();
        client
            .send(&gateway_broker::Request::Hello(Hello::ours()))
            .unwrap();
        let hello: gateway_broker::Reply = client.receive().unwrap();
        assert_eq!(hello, gateway_broker::Reply::Hello(Hello::ours()));
        let user = id.try_into().unwrap();
        client
            .send(&gateway_broker::Request::Attach { user, grant })
            .unwrap();
        PlayedGateway(client)
    }

    /// Asks for a login as root's command does, and gives the answer.
    pub fn log_in(&self, name: &str) -> admin_broker::Reply {
        let mut client = Client::connect(&sockets::admin_broker(&self.run), SOON).unwrap();
        let hello = admin_broker::Request::Hello(AdminHello::of(7));
        client.send(&hello).unwrap();
        let hello: admin_broker::Reply = client.receive().unwrap();
        assert_eq!(hello, admin_broker::Reply::Hello(Hello::ours()));
        let name = name.to_owned().try_into().unwrap();
        client.send(&admin_broker::Request::Login(name)).unwrap();
        client.receive().unwrap()
    }

    /// The lines of the audit log with this event.
    pub fn lines(&self, event: &str) -> Vec<serde_json::Value> {
        let mut lines = Vec::new();
        for entry in fs::read_dir(&self.log).unwrap() {
            let bytes = fs::read(entry.unwrap().path()).unwrap();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            lines.extend(
                text.lines()
                    .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
                    .filter(|line| line["event"] == event),
            );
        }
        lines
    }

    /// Why the worker with this pid was ended, once it is.
    pub fn why_ended(&self, pid: Pid) -> String {
        let mut found = None;
        eventually("no worker.ended is in the audit log", || {
            let lines = self.lines("worker.ended");
            found = lines.into_iter().find(|line| line["pid"] == pid.as_raw());
            found.is_some()
        });
        found.unwrap()["why"].as_str().unwrap().to_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes it.
        let _ = UnixStream::connect(sockets::admin_broker(&self.run));
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking(), "the broker panicked");
    }
}
