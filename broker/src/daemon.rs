//! The poll loop: one thread, nothing that blocks.

use std::{
    io,
    os::{
        fd::AsFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use kai_audit::OpenError;
use kai_program::{config::Config, notify::Notifier};
use kai_proto::{
    activation::Inherited,
    admin_broker::{self, LoginEnd},
    connection::Connection,
    gateway_broker,
    ids::{TelegramId, UnixSeconds},
    peer, sockets,
};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::{Uid, User as PasswdUser},
};
use tracing::{info, warn};

use crate::{
    admin, assign,
    audit::{self, Audit, NotRecorded},
    authd::Authd,
    capabilities,
    cgroups::{self, Cgroups},
    ending::EndReason,
    launch::{self, WorkerProgram},
    login::Login,
    pace::Pace,
    strangers::Strangers,
    users::{Users, UsersError},
    workers::Workers,
};

/// Connections taken from one listener before others get their turn.
pub(crate) const ACCEPTS_PER_WAKE: usize = 64;

/// How long the end of all workers may take.
const STOP: Duration = Duration::from_secs(10);

/// Why the daemon does not run, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// It is not root's process.
    #[error("must be started by root: only root can start workers under other accounts")]
    NotRoot,
    /// The gateway has no account.
    #[error("the gateway's account `{0}` does not exist; make it with: useradd --system {0}")]
    NoGatewayAccount(String),
    /// The table of users cannot be used.
    #[error(transparent)]
    Users(#[from] UsersError),
    /// The worker's program cannot be used.
    #[error(transparent)]
    Program(#[from] launch::program::Untrusted),
    /// A socket could not be made.
    #[error(transparent)]
    Listen(io::Error),
    /// The service manager cannot be told.
    #[error("cannot reach the service manager's socket, NOTIFY_SOCKET: {0}")]
    Notify(io::Error),
    /// The capabilities could not be given up.
    #[error("cannot give up capabilities: {0}")]
    Capabilities(caps::errors::CapsError),
    /// The audit log cannot be opened.
    #[error(transparent)]
    Audit(#[from] OpenError),
    /// The audit log cannot be written.
    #[error(transparent)]
    NotRecorded(#[from] NotRecorded),
    /// A call failed that does not fail.
    #[error("{0}: {1}")]
    System(&'static str, nix::Error),
}

/// A connection with its number, its state and when it is cut off.
#[derive(Debug)]
pub(crate) struct Peer<S> {
    pub(crate) key: u64,
    pub(crate) connection: Connection,
    pub(crate) state: S,
    pub(crate) due: Option<Instant>,
}

/// Everything that the broker knows.
#[derive(Debug)]
pub struct Daemon {
    pub(crate) config: Config,
    pub(crate) users: Users,
    pub(crate) workers: Workers,
    pub(crate) logins: Vec<Login>,
    pub(crate) authd: Authd,
    /// When authd is asked about living workers again.
    pub(crate) recheck_due: Instant,
    pub(crate) audit: Audit,
    pub(crate) pace: Pace,
    pub(crate) strangers: Strangers,
    pub(crate) worker_program: PathBuf,
    pub(crate) cgroups: Option<Cgroups>,
    pub(crate) started: UnixSeconds,
    pub(crate) stopping: bool,
    pub(crate) gateway_uid: Uid,
    pub(crate) gateway_listener: UnixListener,
    pub(crate) admin_listener: UnixListener,
    pub(crate) gateway: Vec<Peer<gateway_broker::State>>,
    pub(crate) admin: Vec<Peer<admin::Admin>>,
    signals: SignalFd,
    notifier: Notifier,
    next_key: u64,
}

/// What a descriptor in the poll set belongs to.
#[derive(Debug, Clone, Copy)]
enum Source {
    Signals,
    GatewayListener,
    AdminListener,
    Gateway(u64),
    Admin(u64),
    Authd,
    Control(TelegramId),
    Status(TelegramId),
    End(TelegramId),
    Attached(TelegramId),
    Login(u64),
}

/// Runs the broker until it is told to stop.
///
/// # Errors
/// Why it cannot run: one sentence that says how to mend it.
pub fn serve(config: Config) -> Result<(), DaemonError> {
    let mut daemon = Daemon::start(config)?;
    info!(users = daemon.users.len(), "ready");
    let ended = daemon.run();
    let why = ended.as_ref().err().map(DaemonError::to_string);
    daemon.audit.note(&audit::stopped(why));
    daemon.audit.close();
    ended
}

/// The wall clock, for people to read; deadlines use the monotonic one.
pub(crate) fn unix_now() -> UnixSeconds {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// The broker's control groups, or none where rlimits must do.
fn claim_cgroups() -> Option<Cgroups> {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    match Cgroups::claim(Path::new(cgroups::MOUNT), &own) {
        Ok(None) => {
            info!("no cgroup v2 with memory and pids: limits are rlimits, and memory has none");
            None
        }
        Ok(cgroups) => cgroups,
        Err(error) => {
            warn!("cgroup v2 cannot be used, so limits are rlimits, and memory has none: {error}");
            None
        }
    }
}

impl Daemon {
    fn start(config: Config) -> Result<Self, DaemonError> {
        if !Uid::effective().is_root() {
            return Err(DaemonError::NotRoot);
        }
        let system = |what| move |error| DaemonError::System(what, error);
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
        let gateway_name = config.accounts.gateway.clone();
        let gateway = PasswdUser::from_name(&gateway_name)
            .map_err(system("cannot look up the gateway's account"))?
            .ok_or(DaemonError::NoGatewayAccount(gateway_name))?;
        let worker_program = worker_program(&config)?;
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(system("getrlimit"))?;
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(system("setrlimit"))?;
        let run = &config.paths.run;
        let mut inherited = Inherited::take().map_err(DaemonError::Listen)?;
        let gateway_listener = inherited
            .listen(&sockets::gateway_broker(run), Some(gateway.gid))
            .map_err(DaemonError::Listen)?;
        let admin_listener = inherited
            .listen(&sockets::admin_broker(run), None)
            .map_err(DaemonError::Listen)?;
        inherited.finish().map_err(DaemonError::Listen)?;
        let notifier = Notifier::connect(Instant::now()).map_err(DaemonError::Notify)?;
        let cgroups = claim_cgroups();
        capabilities::keep_only_needed().map_err(DaemonError::Capabilities)?;
        // Not before the sockets: they are the proof that there is no second broker, and a log has one
        // writer.
        let mut audit = Audit::open(&config.audit_log("broker"))?;
        let users = match begin(&mut audit, &config) {
            Ok(users) => users,
            Err(problem) => {
                audit.note(&audit::stopped(Some(problem.to_string())));
                audit.close();
                return Err(problem);
            }
        };
        let mut mask = SigSet::empty();
        for signal in [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT] {
            mask.add(signal);
        }
        mask.thread_block().map_err(system("sigprocmask"))?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let signals = SignalFd::with_flags(&mask, flags).map_err(system("signalfd"))?;
        let now = Instant::now();
        Ok(Self {
            authd: Authd::new(run, now),
            recheck_due: now,
            audit,
            pace: Pace::default(),
            users,
            workers: Workers::default(),
            logins: Vec::new(),
            strangers: Strangers::default(),
            worker_program,
            cgroups,
            started: unix_now(),
            stopping: false,
            gateway_uid: gateway.uid,
            gateway_listener,
            admin_listener,
            signals,
            notifier,
            gateway: Vec::new(),
            admin: Vec::new(),
            next_key: 0,
            config,
        })
    }

    fn run(&mut self) -> Result<(), DaemonError> {
        self.notifier.ready();
        while !(self.stopping && self.workers.is_empty() && self.logins.is_empty()) {
            self.turn()?;
        }
        info!("stopped");
        Ok(())
    }

    /// Once around the loop.
    pub(crate) fn turn(&mut self) -> Result<(), DaemonError> {
        for (source, events) in self.wait(Instant::now())? {
            self.serve(source, events, Instant::now());
        }
        let now = Instant::now();
        self.take_answers(now);
        self.tick(now);
        Ok(())
    }

    /// Waits until something is to be done, and gives what has events.
    fn wait(&self, now: Instant) -> Result<Vec<(Source, PollFlags)>, DaemonError> {
        let mut polled = Vec::new();
        let mut sources = Vec::new();
        let mut add = |source, fd, events| {
            polled.push(PollFd::new(fd, events));
            sources.push(source);
        };
        let read = PollFlags::POLLIN;
        let read_and_maybe_write = |connection: &Connection| {
            if connection.has_unsent() {
                read | PollFlags::POLLOUT
            } else {
                read
            }
        };
        add(Source::Signals, self.signals.as_fd(), read);
        // Before all that may take long: here comes whose proof has ended.
        if let Some((fd, write)) = self.authd.polled() {
            let events = if write {
                read | PollFlags::POLLOUT
            } else {
                read
            };
            add(Source::Authd, fd, events);
        }
        add(Source::GatewayListener, self.gateway_listener.as_fd(), read);
        add(Source::AdminListener, self.admin_listener.as_fd(), read);
        for peer in &self.gateway {
            let events = read_and_maybe_write(&peer.connection);
            add(Source::Gateway(peer.key), peer.connection.as_fd(), events);
        }
        for peer in &self.admin {
            let events = read_and_maybe_write(&peer.connection);
            add(Source::Admin(peer.key), peer.connection.as_fd(), events);
        }
        for (user, worker) in self.workers.iter() {
            add(Source::End(user), worker.pidfd.as_fd(), read);
            if worker.life != admin_broker::WorkerLife::Dying {
                add(Source::Control(user), worker.control.as_fd(), read);
            }
            if let Some(status) = &worker.status {
                add(Source::Status(user), status.as_fd(), read);
            }
            if let Some(connection) = &worker.attached {
                // For hang-up alone: not a byte of it is the broker's to read.
                add(
                    Source::Attached(user),
                    connection.as_fd(),
                    PollFlags::empty(),
                );
            }
        }
        for login in &self.logins {
            add(Source::Login(login.peer()), login.pidfd(), read);
        }
        let timeout = self
            .next_look(now)
            .map(|at| at.saturating_duration_since(now));
        match poll(&mut polled, poll_timeout(timeout)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(DaemonError::System("poll", error)),
        }
        let events = polled
            .iter()
            .map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        Ok(sources
            .into_iter()
            .zip(events)
            .filter(|(_, events)| !events.is_empty())
            .collect())
    }

    /// The earliest moment at which [`tick`](Self::tick) has something to do.
    fn next_look(&self, now: Instant) -> Option<Instant> {
        let idle = self.config.limits.idle;
        let peers = self
            .gateway
            .iter()
            .filter_map(|peer| earliest([peer.due, peer.connection.deadline()]))
            .chain(
                self.admin
                    .iter()
                    .filter_map(|p| earliest([p.due, p.connection.deadline()])),
            );
        let workers = self
            .workers
            .iter()
            .filter_map(|(_, worker)| worker.next_look(idle));
        peers
            .chain(workers)
            .chain(self.logins.iter().filter_map(Login::due))
            .chain(self.authd_next_look(now))
            .chain(self.notifier.due())
            .min()
    }

    /// Does what the clock asks for.
    fn tick(&mut self, now: Instant) {
        self.notifier.alive(now);
        let late = |due: Option<Instant>| due.is_some_and(|due| now >= due);
        self.gateway
            .retain(|peer| !late(peer.due) && !late(peer.connection.deadline()));
        self.admin
            .retain(|peer| !late(peer.due) && !late(peer.connection.deadline()));
        self.mind_logins(now);
        self.mind_authd(now);
        let idle = self.config.limits.idle;
        let overdue: Vec<_> = self
            .workers
            .iter_mut()
            .filter_map(|(user, worker)| Some((user, worker.overdue(now, idle)?)))
            .collect();
        for (user, reason) in overdue {
            self.end_worker(user, reason);
        }
    }

    fn serve(&mut self, source: Source, events: PollFlags, now: Instant) {
        match source {
            Source::Signals => self.take_signals(),
            Source::GatewayListener => self.accept_gateway(now),
            Source::AdminListener => self.accept_admin(now),
            Source::Gateway(key) => self.serve_gateway(key, now),
            Source::Admin(key) => self.serve_admin(key, now),
            Source::Authd => {
                if events.contains(PollFlags::POLLOUT) {
                    self.authd.flush(now);
                }
                self.hear_authd(now);
            }
            Source::Control(user) => self.take_reports(user, now),
            Source::Status(user) => self.take_launch_outcome(user),
            Source::End(user) => self.reap(user, now),
            Source::Attached(user) => self.check_attached(user),
            Source::Login(peer) => self.reap_login(peer, now),
        }
    }

    fn take_signals(&mut self) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            match Signal::try_from(signal.ssi_signo.cast_signed()) {
                Ok(Signal::SIGHUP) => drop(self.reload(None)),
                _ => self.stop(),
            }
        }
    }

    fn stop(&mut self) {
        self.stopping = true;
        self.notifier.stopping(STOP);
        self.gateway.clear();
        let users: Vec<_> = self.workers.iter().map(|(user, _)| user).collect();
        for user in users {
            self.end_worker(user, EndReason::Stopping);
        }
        self.end_logins(|_| true, LoginEnd::Stopping);
    }

    /// Numbers a new connection.
    pub(crate) fn peer<S>(
        &mut self,
        stream: UnixStream,
        state: S,
        due: Instant,
        now: Instant,
    ) -> Option<Peer<S>> {
        self.next_key += 1;
        let connection = Connection::new(stream, now).ok()?;
        Some(Peer {
            key: self.next_key,
            connection,
            state,
            due: Some(due),
        })
    }
}

/// The first lines of the log, and the users, if they are fit to be served.
fn begin(audit: &mut Audit, config: &Config) -> Result<Users, DaemonError> {
    let users_file = &config.paths.users;
    audit.decide(&audit::started())?;
    audit.decide(&audit::loaded("config.loaded", &config.file, config.digest))?;
    let users = match Users::load(config) {
        Ok(users) => users,
        Err(problem) => {
            audit.note(&audit::users_refused(users_file, &problem));
            return Err(problem.into());
        }
    };
    audit.decide(&audit::loaded("users.loaded", users_file, users.digest()))?;
    Ok(users)
}

/// The worker's program, if it can be trusted.
fn worker_program(config: &Config) -> Result<PathBuf, DaemonError> {
    let program = assign::programs(config).join("kai-worker");
    WorkerProgram::open(&program)?;
    Ok(program)
}

/// The next connection from a peer of this uid; those of others are closed unread.
pub(crate) fn accept(listener: &UnixListener, uid: Uid) -> Option<UnixStream> {
    for _ in 0..ACCEPTS_PER_WAKE {
        let (stream, _) = listener.accept().ok()?;
        match peer::credentials(&stream) {
            Ok(peer) if peer.uid == uid => return Some(stream),
            Ok(peer) => warn!(
                uid = peer.uid.as_raw(),
                "turned away a peer of a foreign account"
            ),
            Err(error) => warn!("turned away a peer without credentials: {error}"),
        }
    }
    None
}

fn earliest<const N: usize>(moments: [Option<Instant>; N]) -> Option<Instant> {
    moments.into_iter().flatten().min()
}

/// Rounded up to the next millisecond: a wait that ends early would spin until the moment has come.
fn poll_timeout(wait: Option<Duration>) -> PollTimeout {
    let Some(wait) = wait else {
        return PollTimeout::NONE;
    };
    let milliseconds = wait.as_micros().div_ceil(1000);
    PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX)
}

#[cfg(test)]
mod tests;
