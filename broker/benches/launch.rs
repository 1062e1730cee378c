//! What the walls cost: from the fork to the moment at which a program is confined and can speak, beside a
//! bare fork and exec of the same program as another user, alternately; one at a time, and ten at once. And
//! what they cost a turn: commands, files and sockets, inside beside outside. Fails where a bound is not held
//! in any of six attempts. Needs root.
//!
//! The program is this one: launched, it confines itself as a worker does, and says so on the gateway's
//! connection; started bare, it only says so. For each byte that it is sent it then does a turn's work.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    env, fs,
    io::{Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::{PermissionsExt, chown},
            net::UnixStream,
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use kai_brokerd::{
    accounts::Account,
    launch::{self, LoginFiles, Order, WorkerProgram, World},
    policy::{Limits, Network},
    sys,
};
use kai_proto::worker_broker::{Assignment, Clocks, Walls};
use kai_worker::{confinement, inherited::Inherited};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::{Gid, Uid},
};

/// An account that nobody has.
const ACCOUNT: u32 = 61_312;
/// Starts of each kind that are counted, one at a time.
const STARTS: usize = 60;
/// Batches of ten of each kind.
const BATCHES: usize = 12;
const ALONE: Bound = Bound {
    more: Duration::from_millis(5),
    bare: Duration::from_micros(1200),
};
const AMONG_TEN: Bound = Bound {
    more: Duration::from_millis(8),
    bare: Duration::from_millis(3),
};
/// Turns of each kind.
const TURNS: usize = 150;
/// At the median, how many times as long as outside a turn's calls into the kernel take inside, where a turn
/// is nothing else. Of a turn with an agent in it they are a few hundredths.
const TURN: f64 = 1.15;
/// Of each figure, with a pause between two: what else the machine does passes by.
const ATTEMPTS: u32 = 6;
const PAUSE: Duration = Duration::from_secs(3);

/// At the median, what a confined start takes beyond a bare one at most.
struct Bound {
    more: Duration,
    /// Where a bare start takes longer than this, the machine is slow or busy, and both may take longer in proportion.
    bare: Duration,
}

impl Bound {
    fn beside(&self, bare: Duration) -> Duration {
        let slower = bare.as_secs_f64() / self.bare.as_secs_f64();
        self.more.mul_f64(slower.max(1.0))
    }
}

fn main() {
    let arguments: Vec<_> = env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["kai-worker"] => return confined(),
        [_, "bare"] => return bare(),
        _ => {}
    }
    // `cargo test --benches` runs this too, with an argument that cargo bench does not give.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    if !nix::unistd::geteuid().is_root() {
        assert!(env::var_os("KAI_TESTS_MUST_RUN").is_none(), "needs root");
        return eprintln!("skipped: needs root");
    }
    for (network, login_files) in [
        (Network::Host, LoginFiles::Own),
        (Network::Host, LoginFiles::ReadOnly),
        (Network::None, LoginFiles::Own),
    ] {
        let place = Place::new(network, login_files);
        println!("network {network:?}, login files {login_files:?}:");
        place.hold("one at a time", 1, STARTS, ALONE);
        place.hold("ten at once", 10, BATCHES, AMONG_TEN);
        place.hold_turns();
    }
}

/// What the launch executes.
fn confined() {
    let inherited = Inherited::take().unwrap();
    let (_, reached) = confinement::irrevocably_confine(&inherited.assignment).unwrap();
    assert!(reached.seccomp && reached.landlock_abi > 0);
    speak_and_work(&inherited.connection.into());
}

fn bare() {
    let connection = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    speak_and_work(&UnixStream::from(connection));
}

/// Until the connection ends.
fn speak_and_work(mut connection: &UnixStream) {
    connection.write_all(b"r").unwrap();
    while matches!(connection.read(&mut [0]), Ok(1)) {
        turn();
        connection.write_all(b"d").unwrap();
    }
}

/// What an agent's turn is made of for the kernel: a few commands, files read and written, lines exchanged.
fn turn() {
    for _ in 0..3 {
        let status = Command::new("/bin/true").env_clear().status();
        assert!(status.unwrap().success());
    }
    // Memory on both sides.
    let own = format!("/dev/shm/kai-bench-{}", std::process::id());
    for round in 0..200 {
        fs::write(&own, "a line\n").unwrap();
        assert!(fs::read("/etc/passwd").unwrap().len() > 10);
        assert!(fs::metadata("/usr/bin").unwrap().is_dir());
        if round % 20 == 0 {
            assert!(fs::read_dir("/usr/lib").unwrap().count() > 1);
        }
    }
    fs::remove_file(&own).unwrap();
    let (mut one, mut other) = UnixStream::pair().unwrap();
    for _ in 0..500 {
        one.write_all(b"a line of what an agent says\n").unwrap();
        let _ = other.read(&mut [0; 64]).unwrap();
    }
}

struct Place {
    directory: tempfile::TempDir,
    account: Account,
    world: World,
    network: Network,
}

/// One that was started, and by which its end is seen.
enum Started {
    Launched(launch::Launched),
    Bare(Child),
}

impl Drop for Started {
    fn drop(&mut self) {
        match self {
            Self::Launched(launched) => {
                let _ = sys::kill(&launched.pidfd);
                while matches!(sys::reap(launched.pid), Ok(None)) {
                    let mut polled = [PollFd::new(launched.pidfd.as_fd(), PollFlags::POLLIN)];
                    let _ = poll(&mut polled, PollTimeout::from(1000_u16));
                }
            }
            Self::Bare(child) => {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

impl Place {
    fn new(network: Network, login_files: LoginFiles) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("kai-launch-bench")
            .tempdir_in("/var/lib")
            .unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["home", "state"] {
            fs::create_dir(path(name)).unwrap();
            chown(path(name), Some(ACCOUNT), Some(ACCOUNT)).unwrap();
        }
        fs::copy(env::current_exe().unwrap(), path("program")).unwrap();
        let account = Account {
            name: "kai-bench".to_owned().try_into().unwrap(),
            uid: Uid::from_raw(ACCOUNT),
            gid: Gid::from_raw(ACCOUNT),
            groups: vec![Gid::from_raw(ACCOUNT)],
            home: path("home"),
            shell: "/bin/sh".into(),
            login: login_files != LoginFiles::Own,
        };
        let mut world = World::new(&path("home"), &path("state"), &[], &[], &[]);
        world.login_files = login_files;
        Self {
            directory,
            account,
            world,
            network,
        }
    }

    fn program(&self) -> PathBuf {
        self.directory.path().join("program")
    }

    /// Measures until the bound is held, at most a few times: another program's moment is not a cost.
    fn hold(&self, what: &str, at_once: usize, times: usize, bound: Bound) {
        for attempt in 1..=ATTEMPTS {
            let (mut confined, mut bare) = (Vec::new(), Vec::new());
            for _ in 0..times {
                bare.extend(batch(at_once, |theirs| self.start_bare(theirs)));
                confined.extend(batch(at_once, |theirs| self.launch(&theirs)));
            }
            let (confined, bare) = (median(confined), median(bare));
            let more = confined.saturating_sub(bare);
            let bound = bound.beside(bare);
            println!(
                "  {what}: confined {confined:.2?}, bare {bare:.2?}, {more:.2?} more (at most {bound:.2?})"
            );
            if more <= bound {
                return;
            }
            assert!(
                attempt < ATTEMPTS,
                "{what}: more than {bound:?} beyond a bare start"
            );
            thread::sleep(PAUSE);
        }
    }

    /// The same of a turn's work.
    fn hold_turns(&self) {
        for attempt in 1..=ATTEMPTS {
            let [inside, outside] = [true, false].map(|confined| {
                let (mut ours, theirs) = UnixStream::pair().unwrap();
                let started = if confined {
                    self.launch(&theirs)
                } else {
                    self.start_bare(theirs)
                };
                ours.read_exact(&mut [0]).unwrap();
                (ours, started)
            });
            let mut took = [Vec::new(), Vec::new()];
            for _ in 0..TURNS {
                for (at, (ours, _)) in [&inside, &outside].into_iter().enumerate() {
                    let begin = Instant::now();
                    let mut ours: &UnixStream = ours;
                    ours.write_all(b"t").unwrap();
                    ours.read_exact(&mut [0]).unwrap();
                    took[at].push(begin.elapsed());
                }
            }
            let [inside, outside] = took.map(median);
            let ratio = inside.as_secs_f64() / outside.as_secs_f64();
            println!(
                "  a turn's work: inside {inside:.2?}, outside {outside:.2?}, {ratio:.2} times"
            );
            if ratio <= TURN {
                return;
            }
            assert!(attempt < ATTEMPTS, "a turn takes {ratio:.2} times as long");
            thread::sleep(PAUSE);
        }
    }

    fn launch(&self, theirs: &UnixStream) -> Started {
        let assignment = self.assignment();
        let launched = launch::start(Order {
            account: &self.account,
            assignment: &assignment,
            program: WorkerProgram::open(&self.program()).unwrap(),
            world: &self.world,
            network: self.network,
            limits: &Limits::default(),
            cgroup: None,
            connection: theirs.as_fd(),
            key: None,
        });
        Started::Launched(launched.unwrap())
    }

    fn start_bare(&self, theirs: UnixStream) -> Started {
        let child = Command::new(self.program())
            .arg("bare")
            .env_clear()
            .uid(ACCOUNT)
            .gid(ACCOUNT)
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .spawn();
        Started::Bare(child.unwrap())
    }

    fn assignment(&self) -> Assignment {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let hour = Duration::from_secs(3600);
        Assignment {
            account: self.account.name.clone(),
            home: text(&self.account.home),
            shell: "/bin/sh".into(),
            state: text(&self.directory.path().join("state")),
            agent: vec![text(&self.program())],
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
            connect_ports: Some(vec![53, 80, 443]),
            read_paths: Vec::new(),
            walls: Walls::default(),
        }
    }
}

/// Starts so many, and gives how long each took from its fork until it could speak.
fn batch<S>(at_once: usize, mut start: impl FnMut(UnixStream) -> S) -> Vec<Duration> {
    let mut waiting: Vec<(UnixStream, Instant, S)> = Vec::with_capacity(at_once);
    for _ in 0..at_once {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let begin = Instant::now();
        let started = start(theirs);
        waiting.push((ours, begin, started));
    }
    let mut took = vec![None; at_once];
    while took.iter().any(Option::is_none) {
        let left: Vec<usize> = (0..at_once).filter(|at| took[*at].is_none()).collect();
        let mut polled: Vec<_> = left
            .iter()
            .map(|at| PollFd::new(waiting[*at].0.as_fd(), PollFlags::POLLIN))
            .collect();
        assert!(
            poll(&mut polled, PollTimeout::from(10_000_u16)).unwrap() > 0,
            "none speaks"
        );
        let now = Instant::now();
        let spoke: Vec<bool> = polled
            .iter()
            .map(|fd| fd.revents().is_some_and(|events| !events.is_empty()))
            .collect();
        for (at, _) in left.into_iter().zip(spoke).filter(|(_, spoke)| *spoke) {
            let (ours, begin, _) = &mut waiting[at];
            assert_eq!(
                ours.read(&mut [0]).unwrap(),
                1,
                "it ended before it could speak"
            );
            took[at] = Some(now.duration_since(*begin));
        }
    }
    took.into_iter().flatten().collect()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
