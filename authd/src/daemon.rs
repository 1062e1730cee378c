//! The poll loop: three listeners, and connections whose requests are answered at once, one after the
//! other.
//!
//! Everything that needs a name, a capability or a file elsewhere is done first. Then the capabilities go,
//! then the walls of [`hardening`] stand, then the first peer is served.

use std::{
    io,
    os::fd::AsFd,
    path::Path,
    time::{Duration, Instant},
};

use kai_audit::{Log, OpenError};
use kai_program::{config::Config, notify::Notifier};
use kai_proto::{
    activation::Inherited, admin_authd::AuthdStatus, codec::Message, connection::ConnectionError,
    ids::UnixSeconds, sockets,
};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        stat::{Mode, umask},
        timer::{Expiration, TimerSetTimeFlags},
        timerfd::{ClockId, TimerFd, TimerFlags},
    },
    unistd::{Gid, Uid, User},
};
use tracing::{debug, info};

use crate::{
    answers::{Answer, Authority, Settings, State},
    audit::{self, Record},
    clock::Now,
    hardening::{self, Unconfined},
    peers::{Listener, Peer, Peers, Role},
    store::{Store, StoreError},
};

/// Connections that root's commands, and the broker, may hold at once.
const ROOT_CONNECTIONS: usize = 16;

/// Requests of one connection that are answered before others get their turn: a peer that floods must not
/// keep the loop from everything else.
const PER_WAKE: usize = 32;

/// Descriptors that are polled before those of the peers.
const BEFORE_PEERS: usize = 5;

/// How long the end may take: a log and a database are written once more.
const STOP: Duration = Duration::from_secs(5);

/// Exit status for what an admin must mend, as in sysexits(3): to start again is of no use before.
pub const FOR_AN_ADMIN: u8 = 78;

/// Why the daemon does not run, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// It is not root's process.
    #[error("must be started by root: its sockets and its state are root's")]
    NotRoot,
    /// The gateway has no account.
    #[error("the gateway's account `{0}` does not exist; make it with: useradd --system {0}")]
    NoGatewayAccount(String),
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The service manager cannot be told.
    #[error("cannot reach the service manager's socket, NOTIFY_SOCKET: {0}")]
    Notify(io::Error),
    /// The audit log cannot be used.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// A line could not be put into it.
    #[error("the audit log cannot be written: {0}")]
    Append(io::Error),
    /// A socket could not be made.
    #[error(transparent)]
    Listen(io::Error),
    /// The capabilities could not be given up.
    #[error("cannot give up capabilities: {0}")]
    Capabilities(caps::errors::CapsError),
    /// The walls do not stand.
    #[error("cannot be confined: {0}")]
    Unconfined(#[from] Unconfined),
    /// A call failed that does not fail.
    #[error("{0}: {1}")]
    System(&'static str, nix::Error),
}

impl DaemonError {
    /// The exit status that says whether to start again is of use.
    #[must_use]
    pub fn status(&self) -> u8 {
        match self {
            Self::Store(error) if error.needs_an_admin() => FOR_AN_ADMIN,
            Self::Log(OpenError::Distrusted { .. } | OpenError::Damaged(_)) => FOR_AN_ADMIN,
            // The kernel will have no more in half a second.
            Self::Unconfined(_) => FOR_AN_ADMIN,
            _ => 1,
        }
    }
}

struct Daemon {
    listeners: [Listener; 3],
    notifier: Notifier,
    peers: Peers,
    signals: SignalFd,
    /// Readable when the next grant ends. A timeout of poll(2) would stand still while the host sleeps.
    next_end: TimerFd,
    authority: Authority<Log>,
    started: UnixSeconds,
    /// Questions of the gateway and of the broker.
    answered: u64,
}

/// Runs authd until it is told to stop.
///
/// # Errors
/// Why it cannot run: one sentence that says how to mend it.
pub fn serve(config: &Config) -> Result<(), DaemonError> {
    let mut daemon = Daemon::start(config)?;
    info!("ready");
    daemon.notifier.ready();
    daemon.run()?;
    daemon.notifier.stopping(STOP);
    daemon.stop()
}

impl Daemon {
    fn start(config: &Config) -> Result<Self, DaemonError> {
        if !Uid::effective().is_root() {
            return Err(DaemonError::NotRoot);
        }
        umask(Mode::from_bits_truncate(0o022));
        let gateway = gateway_account(&config.accounts.gateway)?;
        let (state, logs) = (config.authd_state(), config.audit_log("authd"));
        let store = Store::open(&state)?;
        let log = Log::open(&logs, kai_audit::Limits::STANDARD)?;
        let listeners = listen(config, &gateway)?;
        let notifier = Notifier::connect(Instant::now()).map_err(DaemonError::Notify)?;
        let signals = signals()?;
        let next_end = timer()?;
        give_up_everything()?;
        let confined = hardening::confine(&state, &logs)?;
        info!("confined: {confined}");
        let settings = Settings {
            rules: (&config.second_factor).into(),
            limits: (&config.second_factor).into(),
        };
        let now = now()?;
        let mut daemon = Self {
            listeners,
            notifier,
            peers: Peers::default(),
            signals,
            next_end,
            authority: authority(store, log, settings, now)?,
            started: now.unix(),
            answered: 0,
        };
        daemon.append(audit::started())?;
        daemon.append(audit::config_loaded(config))?;
        Ok(daemon)
    }

    fn append(&mut self, line: Record) -> Result<(), DaemonError> {
        let now = now()?;
        self.authority
            .log()
            .append(&line, now.wall)
            .map_err(DaemonError::Append)
    }

    fn run(&mut self) -> Result<(), DaemonError> {
        loop {
            let ready = self.wait()?;
            let now = Instant::now();
            self.notifier.alive(now);
            if matches!(self.signals.read_signal(), Ok(Some(_))) {
                return Ok(());
            }
            self.authority.expire(self::now()?);
            self.tell();
            for (at, ready) in ready.into_iter().enumerate() {
                self.serve(at, ready, now);
            }
            self.peers.sweep();
            for listener in &self.listeners {
                self.peers.accept(listener, now);
            }
        }
    }

    fn stop(self) -> Result<(), DaemonError> {
        let now = now()?;
        let (store, mut log) = self.authority.into_parts(now);
        let said = log.append(&audit::stopped(), now.wall);
        store.close();
        log.close();
        info!("stopped");
        said.map_err(DaemonError::Append)
    }

    /// Waits until something is to be done; gives for each peer whether it has something for us, or takes
    /// something.
    fn wait(&self) -> Result<Vec<bool>, DaemonError> {
        let mut polled = Vec::with_capacity(BEFORE_PEERS + self.peers.count());
        polled.push(PollFd::new(self.signals.as_fd(), PollFlags::POLLIN));
        polled.push(PollFd::new(self.next_end.as_fd(), PollFlags::POLLIN));
        let listeners = self.listeners.iter();
        polled.extend(listeners.map(|l| PollFd::new(l.socket.as_fd(), PollFlags::POLLIN)));
        polled.extend(self.peers.polled());
        self.set_timer()?;
        match poll(&mut polled, self.patience()) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(DaemonError::System("poll", error)),
        }
        let peers = polled.iter().skip(BEFORE_PEERS);
        Ok(peers.map(|fd| fd.any().unwrap_or(true)).collect())
    }

    /// How long no peer is late with a frame, and the service manager waits for nothing.
    fn patience(&self) -> PollTimeout {
        let due = [self.peers.deadline(), self.notifier.due()];
        match due.into_iter().flatten().min() {
            None => PollTimeout::NONE,
            // Rounded up: a wait that ends early would spin until the moment has come.
            Some(due) => {
                let wait = due.saturating_duration_since(Instant::now());
                let milliseconds = wait.as_nanos().div_ceil(1_000_000);
                PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX)
            }
        }
    }

    /// Sets the timer anew, which also takes back that it has gone off.
    fn set_timer(&self) -> Result<(), DaemonError> {
        let set = match self.authority.next_end() {
            None => self.next_end.unset(),
            // One of 0 would unset it.
            Some(end) => self.next_end.set(
                Expiration::OneShot(end.max(Duration::from_nanos(1)).into()),
                TimerSetTimeFlags::TFD_TIMER_ABSTIME,
            ),
        };
        set.map_err(|error| DaemonError::System("timerfd_settime", error))
    }

    /// Answers what the peer at this place has sent, if it is `ready`.
    fn serve(&mut self, at: usize, ready: bool, now: Instant) {
        let served = match self.peers.at(at) {
            Some(peer) if !peer.over && ready => self.converse(at, now),
            _ => Ok(()),
        };
        let Some(peer) = self.peers.at(at) else {
            return;
        };
        // After what has arrived was read: a disk that was slow is not the peer's fault.
        let late = || peer.connection.deadline().is_some_and(|due| now >= due);
        let ended = served
            .err()
            .or_else(|| late().then_some(ConnectionError::TooSlow));
        if let Some(error) = ended {
            debug!(role = ?peer.role, "a connection ended: {error}");
            peer.over = true;
        }
    }

    fn converse(&mut self, at: usize, now: Instant) -> Result<(), ConnectionError> {
        match self.peers.at(at).map(|peer| peer.role) {
            None => Ok(()),
            Some(Role::Gateway) => self.answer(at, now, |authority, peer, request, now| {
                authority.to_gateway(peer.state, &request, now)
            }),
            Some(Role::Broker) => self.answer(at, now, |authority, peer, request, now| {
                authority.to_broker(peer.state, &request, now)
            }),
            Some(Role::Admin) => {
                let status = self.status();
                self.answer(at, now, |authority, peer, request, now| {
                    authority.to_admin(peer.state, &mut peer.session, request, status, now)
                })
            }
        }
    }

    /// Answers each whole request that has arrived, as long as the peer takes its answers.
    fn answer<Q: Message, R: Message>(
        &mut self,
        at: usize,
        now: Instant,
        by: impl Fn(&mut Authority<Log>, &mut Peer, Q, Now) -> Answer<R>,
    ) -> Result<(), ConnectionError> {
        for _ in 0..PER_WAKE {
            let Some(peer) = self.peers.at(at) else {
                break;
            };
            peer.connection.flush()?;
            if peer.connection.has_unsent() {
                break;
            }
            let Some(request) = peer.connection.receive::<Q>(now)? else {
                break;
            };
            peer.heard = now;
            self.answered += u64::from(peer.role != Role::Admin);
            let clocks = Now::read().map_err(io::Error::from)?;
            let Answer { reply, more, next } = by(&mut self.authority, peer, request, clocks);
            self.tell();
            let Some(peer) = self.peers.at(at) else {
                break;
            };
            for reply in [reply].iter().chain(&more) {
                peer.connection.send(reply)?;
            }
            peer.state = next.ok_or(ConnectionError::Closed)?;
        }
        Ok(())
    }

    /// Tells the broker whose proofs have ended.
    fn tell(&mut self) {
        let ended = self.authority.take_ended();
        if !ended.is_empty() {
            self.peers.tell(&ended);
        }
    }

    fn status(&self) -> AuthdStatus {
        let mut brokers = self.peers.of(Role::Broker);
        AuthdStatus {
            pid: std::process::id(),
            started: self.started,
            gateway_connections: u32::try_from(self.peers.of(Role::Gateway).count())
                .unwrap_or(u32::MAX),
            broker_connected: brokers.any(|peer| peer.state == State::Greeted),
            answered: self.answered,
        }
    }
}

fn now() -> Result<Now, DaemonError> {
    Now::read().map_err(|error| DaemonError::System("clock_gettime", error))
}

fn authority(
    mut store: Store,
    log: Log,
    settings: Settings,
    now: Now,
) -> Result<Authority<Log>, DaemonError> {
    store.anchor_lockouts(now)?;
    Ok(Authority::new(store, log, settings, getrandom::fill))
}

fn gateway_account(name: &str) -> Result<User, DaemonError> {
    User::from_name(name)
        .map_err(|error| DaemonError::System("cannot look up the gateway's account", error))?
        .ok_or_else(|| DaemonError::NoGatewayAccount(name.to_owned()))
}

fn listen(config: &Config, gateway: &User) -> Result<[Listener; 3], DaemonError> {
    let run = &config.paths.run;
    let mut inherited = Inherited::take().map_err(DaemonError::Listen)?;
    let mut listener = |role, path: &Path, group: Option<Gid>, uid, limit| {
        inherited
            .listen(path, group)
            .map_err(DaemonError::Listen)
            .map(|socket| Listener {
                role,
                socket,
                uid,
                limit,
            })
    };
    let root = Uid::effective();
    let (of_gateway, of_broker, of_admin) = (
        sockets::gateway_authd(run),
        sockets::broker_authd(run),
        sockets::admin_authd(run),
    );
    let connections = config.limits.connections;
    let listeners = [
        listener(
            Role::Gateway,
            &of_gateway,
            Some(gateway.gid),
            gateway.uid,
            connections,
        )?,
        listener(Role::Broker, &of_broker, None, root, ROOT_CONNECTIONS)?,
        listener(Role::Admin, &of_admin, None, root, ROOT_CONNECTIONS)?,
    ];
    inherited.finish().map_err(DaemonError::Listen)?;
    Ok(listeners)
}

/// The signals that end the daemon, as a descriptor.
fn signals() -> Result<SignalFd, DaemonError> {
    let system = |what| move |error| DaemonError::System(what, error);
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGTERM);
    mask.add(Signal::SIGINT);
    mask.thread_block().map_err(system("sigprocmask"))?;
    let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
    SignalFd::with_flags(&mask, flags).map_err(system("signalfd"))
}

/// A timer by the clock that grants end by (timerfd_create(2)).
fn timer() -> Result<TimerFd, DaemonError> {
    let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
    TimerFd::new(ClockId::CLOCK_BOOTTIME, flags)
        .map_err(|error| DaemonError::System("timerfd_create", error))
}

/// Root's account is enough to own the files; every capability goes, for good.
fn give_up_everything() -> Result<(), DaemonError> {
    let capabilities = DaemonError::Capabilities;
    caps::clear(None, caps::CapSet::Ambient).map_err(capabilities)?;
    caps::clear(None, caps::CapSet::Bounding).map_err(capabilities)?;
    caps::clear(None, caps::CapSet::Inheritable).map_err(capabilities)?;
    caps::clear(None, caps::CapSet::Effective).map_err(capabilities)?;
    caps::clear(None, caps::CapSet::Permitted).map_err(capabilities)?;
    let system = |what| move |error| DaemonError::System(what, error);
    prctl::set_no_new_privs().map_err(system("no_new_privs"))?;
    prctl::set_dumpable(false).map_err(system("not dumpable"))
}
