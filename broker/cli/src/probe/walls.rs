//! One round: a worker in all walls, or what stands in for one in some of them, until its report is there.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File},
    io::{self, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    thread,
    time::{Duration, Instant},
};

use kai_brokerd::{
    assign,
    launch::{
        self, Failed, LaunchError, Order, Step, WorkerProgram, descriptors, identity, limits,
    },
    sys::{self, Side},
    users::Users,
};
use kai_probe::{answer::Answer, report};
use kai_program::config::Config;
use kai_proto::{
    codec,
    conversation::{Prompt, ToWorker},
    ids::PromptId,
    worker_broker::Assignment,
};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socketpair};

use super::{ProbeError, Wall, place::Place};

/// How long one round may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the attempts of a round came to.
pub type Answers = BTreeMap<String, Answer>;

/// Which walls stand beside the account, which always does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walls {
    /// Namespaces and mounts.
    pub namespaces: bool,
    /// Landlock.
    pub landlock: bool,
    /// seccomp.
    pub seccomp: bool,
}

impl Walls {
    /// All but these.
    #[must_use]
    pub fn without(left_out: &[Wall]) -> Self {
        Self {
            namespaces: !left_out.contains(&Wall::Namespaces),
            landlock: !left_out.contains(&Wall::Landlock),
            seccomp: !left_out.contains(&Wall::Seccomp),
        }
    }

    /// The account alone, and each wall alone with it.
    #[must_use]
    pub fn each_alone() -> [Self; 4] {
        let account = Self {
            namespaces: false,
            landlock: false,
            seccomp: false,
        };
        [
            account,
            Self {
                namespaces: true,
                ..account
            },
            Self {
                landlock: true,
                ..account
            },
            Self {
                seccomp: true,
                ..account
            },
        ]
    }

    fn all(self) -> bool {
        self.namespaces && self.landlock && self.seccomp
    }

    /// The names of those that stand.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        [
            (true, "account"),
            (self.namespaces, "namespaces"),
            (self.landlock, "landlock"),
            (self.seccomp, "seccomp"),
        ]
        .into_iter()
        .filter_map(|(stands, name)| stands.then_some(name))
        .collect()
    }
}

impl fmt::Display for Walls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.all() {
            return f.write_str("all walls");
        }
        match self.names().as_slice() {
            ["account"] => f.write_str("the account alone"),
            names => f.write_str(&names.join(" and ")),
        }
    }
}

/// Runs all attempts in `walls`: with all of them, in the real worker's hands.
///
/// # Errors
/// [`ProbeError`].
pub fn run(
    config: &Config,
    users: &Users,
    place: &Place,
    programs: &Path,
    walls: Walls,
) -> Result<Answers, ProbeError> {
    place.begin_round(&walls.names().join(","))?;
    let agent = programs.join(kai_probe::NAME);
    let program = if walls.all() {
        programs.join("kai-worker")
    } else {
        agent.clone()
    };
    let user = &place.user;
    let mut assignment = assign::assignment(config, user, &place.state, true);
    assignment.agent = vec![agent.display().to_string(), "agent".to_owned()];
    let mut world = assign::world(config, users, user, &place.state);
    // As those of other users are.
    world.hidden.push(place.path.join("neighbour"));
    let (connection, its_connection) =
        UnixStream::pair().map_err(ProbeError::place("a connection"))?;
    let key = File::open(&place.key).map_err(ProbeError::place(&place.key))?;
    let order = Order {
        account: &user.account,
        assignment: &assignment,
        program: WorkerProgram::open(&program).map_err(LaunchError::from)?,
        world: &world,
        network: user.policy.network,
        limits: &user.policy.limits,
        cgroup: None,
        connection: its_connection.as_fd(),
        key: Some(key.into()),
    };
    let log = place.path.join("log");
    let started = with_errors_in(&log, || {
        if walls.namespaces {
            launch::start(order).map(|launched| Round {
                pid: launched.pid,
                pidfd: launched.pidfd,
                status: launched.status,
                _control: launched.control,
            })
        } else {
            start_on_the_host(&order)
        }
    })?;
    drop(its_connection);
    let mut round = started?;
    prompt(connection, &log, || round.answers(place))
}

/// A worker, or what stands in for it; ended when this is dropped.
struct Round {
    pid: nix::unistd::Pid,
    pidfd: OwnedFd,
    status: File,
    _control: OwnedFd,
}

impl Round {
    fn answers(&mut self, place: &Place) -> Result<Option<Answers>, ProbeError> {
        let begin = Instant::now();
        let mut ended = false;
        loop {
            if let Some(Err(failed)) = launch::outcome(&mut self.status) {
                return Err(failed.into());
            }
            let answers = report::finished(&place.scene.home)
                .map_err(ProbeError::place(&place.scene.home))?;
            if answers.is_some() || ended || begin.elapsed() > PATIENCE {
                return Ok(answers);
            }
            // One more look after its end: the report may have come in between.
            ended = !matches!(sys::reap(self.pid), Ok(None));
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Round {
    fn drop(&mut self) {
        let _ = sys::kill(&self.pidfd);
        while matches!(sys::reap(self.pid), Ok(None)) {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Sends the one prompt that has the worker start its agent, and keeps the connection while `wait` waits.
fn prompt(
    mut connection: UnixStream,
    log: &Path,
    wait: impl FnOnce() -> Result<Option<Answers>, ProbeError>,
) -> Result<Answers, ProbeError> {
    let unfinished = |problem: String| ProbeError::Unfinished(problem);
    let id = PromptId::try_from(1).map_err(|error| unfinished(error.to_string()))?;
    let prompt = ToWorker::Prompt(Prompt {
        id,
        text: "probe".to_owned(),
        model: None,
        only_if_begun: false,
    });
    let mut frame = Vec::new();
    codec::encode_frame(&prompt, &mut frame).map_err(|error| unfinished(error.to_string()))?;
    // What stands in for the worker may have ended already, and the report says more about that.
    let _ = connection.write_all(&frame);
    wait()?.ok_or_else(|| {
        let said = fs::read_to_string(log).unwrap_or_default();
        let last = said.lines().last().unwrap_or("it said nothing");
        unfinished(last.to_owned())
    })
}

/// Has what is started meanwhile write its errors to `log`.
fn with_errors_in<R>(log: &Path, start: impl FnOnce() -> R) -> Result<R, ProbeError> {
    let problem = |error: nix::Error| ProbeError::Place(log.display().to_string(), error.into());
    let file = File::create(log).map_err(ProbeError::place(log))?;
    let own = nix::unistd::dup(io::stderr().as_fd()).map_err(problem)?;
    nix::unistd::dup2_stderr(&file).map_err(problem)?;
    let started = start();
    nix::unistd::dup2_stderr(&own).map_err(problem)?;
    Ok(started)
}

/// The launch without its namespaces and mounts. It is here and not in the daemon's library, because the
/// daemon must have no such way.
fn start_on_the_host(order: &Order<'_>) -> Result<Round, LaunchError> {
    let sockets = |error: nix::Error| LaunchError::Sockets(error.into());
    let kind = SockType::SeqPacket;
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).map_err(sockets)?;
    let assignment: &Assignment = order.assignment;
    let assignment = codec::encode(assignment)?;
    send(ours.as_raw_fd(), &assignment, MsgFlags::MSG_DONTWAIT).map_err(sockets)?;
    let flags = nix::fcntl::OFlag::O_CLOEXEC | nix::fcntl::OFlag::O_NONBLOCK;
    let (status, report) = nix::unistd::pipe2(flags).map_err(sockets)?;
    match sys::fork_into(0, None).map_err(LaunchError::Fork)? {
        Side::Parent { pid, pidfd } => Ok(Round {
            pid,
            pidfd,
            status: status.into(),
            _control: ours,
        }),
        Side::Child => {
            drop(ours);
            let (step, error) = become_stand_in(order, &theirs);
            let [a, b, c, d] = error.raw_os_error().unwrap_or(0).to_le_bytes();
            let _ = File::from(report).write_all(&[step as u8, a, b, c, d]);
            sys::exit_now(70);
        }
    }
}

fn become_stand_in(order: &Order<'_>, control: &OwnedFd) -> Failed {
    let prepared = (|| {
        limits::set(order.limits, false)?;
        identity::become_account(order.account)?;
        identity::end_with_the_broker(control)?;
        identity::give_up_new_privileges()?;
        std::env::set_current_dir(&order.account.home)
            .map_err(|error| (Step::Descriptors, error))?;
        let key = order.key.as_ref();
        descriptors::place(order.connection, control, key, order.program.as_fd())
    })();
    match prepared {
        Ok(program) => (Step::Exec, sys::execute(&program, c"kai-worker")),
        Err(failed) => failed,
    }
}
