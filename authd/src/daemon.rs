//! The poll loop: three listeners, and connections whose requests are answered at once.

use std::{
    io,
    os::{fd::AsFd, unix::net::UnixListener},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use kai_program::config::Config;
use kai_proto::{
    admin_authd::AuthdStatus,
    codec::Message,
    connection::{Connection, ConnectionError},
    ids::UnixSeconds,
    peer, sockets,
};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::{Uid, User},
};
use tracing::{debug, info, warn};

use crate::answers::{self, Answer, State};

/// Connections that root's commands, and the broker, may hold at once.
const ROOT_CONNECTIONS: usize = 16;

/// Connections taken from one listener, and requests of one connection answered, before others get
/// their turn: a peer that floods must not keep the loop from everything else.
const PER_WAKE: u64 = 32;

/// Why the daemon does not run, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// It is not root's process.
    #[error("must be started by root: its sockets and its state are root's")]
    NotRoot,
    /// The gateway has no account.
    #[error("the gateway's account `{0}` does not exist; make it with: useradd --system {0}")]
    NoGatewayAccount(String),
    /// A socket could not be made.
    #[error(transparent)]
    Listen(io::Error),
    /// The capabilities could not be given up.
    #[error("cannot give up capabilities: {0}")]
    Capabilities(caps::errors::CapsError),
    /// A call failed that does not fail.
    #[error("{0}: {1}")]
    System(&'static str, nix::Error),
}

/// Who is at the other end of a connection; each has a listener of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Gateway,
    Broker,
    Admin,
}

#[derive(Debug)]
struct Listener {
    role: Role,
    socket: UnixListener,
    uid: Uid,
    limit: usize,
}

#[derive(Debug)]
struct Peer {
    role: Role,
    connection: Connection,
    state: State,
}

#[derive(Debug)]
struct Daemon {
    listeners: [Listener; 3],
    peers: Vec<Peer>,
    signals: SignalFd,
    started: UnixSeconds,
    answered: u64,
}

/// Runs authd until it is told to stop.
///
/// # Errors
/// Why it cannot run: one sentence that says how to mend it.
pub fn serve(config: &Config) -> Result<(), DaemonError> {
    let mut daemon = Daemon::start(config)?;
    info!("ready");
    daemon.run()
}

impl Daemon {
    fn start(config: &Config) -> Result<Self, DaemonError> {
        if !Uid::effective().is_root() {
            return Err(DaemonError::NotRoot);
        }
        let system = |what| move |error| DaemonError::System(what, error);
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
        let name = &config.accounts.gateway;
        let gateway = User::from_name(name)
            .map_err(system("cannot look up the gateway's account"))?
            .ok_or_else(|| DaemonError::NoGatewayAccount(name.clone()))?;
        let run = &config.paths.run;
        let listen = |path: &std::path::Path, group| {
            sockets::listen(path, group).map_err(DaemonError::Listen)
        };
        let root = Uid::effective();
        let listeners = [
            Listener {
                role: Role::Gateway,
                socket: listen(&sockets::gateway_authd(run), Some(gateway.gid))?,
                uid: gateway.uid,
                limit: config.limits.connections,
            },
            Listener {
                role: Role::Broker,
                socket: listen(&sockets::broker_authd(run), None)?,
                uid: root,
                limit: ROOT_CONNECTIONS,
            },
            Listener {
                role: Role::Admin,
                socket: listen(&sockets::admin_authd(run), None)?,
                uid: root,
                limit: ROOT_CONNECTIONS,
            },
        ];
        give_up_everything()?;
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGTERM);
        mask.add(Signal::SIGINT);
        mask.thread_block().map_err(system("sigprocmask"))?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let signals = SignalFd::with_flags(&mask, flags).map_err(system("signalfd"))?;
        let started = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        Ok(Self {
            listeners,
            peers: Vec::new(),
            signals,
            started,
            answered: 0,
        })
    }

    fn run(&mut self) -> Result<(), DaemonError> {
        loop {
            self.wait()?;
            let now = Instant::now();
            if matches!(self.signals.read_signal(), Ok(Some(_))) {
                info!("stopped");
                return Ok(());
            }
            self.accept(now);
            let mut at = 0;
            while at < self.peers.len() {
                match self.serve(at, now) {
                    Ok(()) => at += 1,
                    Err(error) => {
                        debug!(role = ?self.peers[at].role, "a connection ended: {error}");
                        self.peers.swap_remove(at);
                    }
                }
            }
        }
    }

    fn wait(&self) -> Result<(), DaemonError> {
        let mut polled = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        polled.extend(
            self.listeners
                .iter()
                .map(|l| PollFd::new(l.socket.as_fd(), PollFlags::POLLIN)),
        );
        polled.extend(self.peers.iter().map(|peer| {
            let write = if peer.connection.has_unsent() {
                PollFlags::POLLOUT
            } else {
                PollFlags::empty()
            };
            PollFd::new(peer.connection.as_fd(), PollFlags::POLLIN | write)
        }));
        let due = self
            .peers
            .iter()
            .filter_map(|peer| peer.connection.deadline())
            .min();
        let timeout = match due {
            None => PollTimeout::NONE,
            // Rounded up: a wait that ends early would spin until the moment has come.
            Some(due) => {
                let wait: Duration = due.saturating_duration_since(Instant::now());
                PollTimeout::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX)
            }
        };
        match poll(&mut polled, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(DaemonError::System("poll", error)),
        }
    }

    fn accept(&mut self, now: Instant) {
        for listener in &self.listeners {
            for _ in 0..PER_WAKE {
                let Ok((stream, _)) = listener.socket.accept() else {
                    break;
                };
                match peer::credentials(&stream) {
                    Ok(found) if found.uid == listener.uid => {}
                    _ => {
                        warn!(role = ?listener.role, "turned away a peer of a foreign account");
                        continue;
                    }
                }
                let open = self
                    .peers
                    .iter()
                    .filter(|peer| peer.role == listener.role)
                    .count();
                if open >= listener.limit {
                    debug!(role = ?listener.role, "too many connections");
                    continue;
                }
                if let Ok(connection) = Connection::new(stream, now) {
                    let state = State::Fresh;
                    self.peers.push(Peer {
                        role: listener.role,
                        connection,
                        state,
                    });
                }
            }
        }
    }

    /// Answers all that this peer has sent; an error ends the connection.
    fn serve(&mut self, at: usize, now: Instant) -> Result<(), ConnectionError> {
        let status = self.status();
        let peer = &mut self.peers[at];
        if peer.connection.deadline().is_some_and(|due| now >= due) {
            return Err(ConnectionError::TooSlow);
        }
        let answered = match peer.role {
            Role::Gateway => converse(peer, now, answers::to_gateway),
            Role::Broker => converse(peer, now, |state, request| {
                answers::to_broker(state, &request)
            }),
            Role::Admin => converse(peer, now, |state, request| {
                answers::to_admin(state, request, status)
            }),
        }?;
        self.answered += answered;
        Ok(())
    }

    fn status(&self) -> AuthdStatus {
        let connected = |role| self.peers.iter().filter(move |peer| peer.role == role);
        AuthdStatus {
            pid: std::process::id(),
            started: self.started,
            gateway_connections: u32::try_from(connected(Role::Gateway).count())
                .unwrap_or(u32::MAX),
            broker_connected: connected(Role::Broker).any(|peer| peer.state == State::Greeted),
            answered: self.answered,
        }
    }
}

/// Answers each whole request that has arrived and tells how many there were.
fn converse<Q: Message, R: Message>(
    peer: &mut Peer,
    now: Instant,
    answer: impl Fn(State, Q) -> Answer<R>,
) -> Result<u64, ConnectionError> {
    peer.connection.flush()?;
    let mut answered = 0;
    while answered < PER_WAKE
        && let Some(request) = peer.connection.receive::<Q>(now)?
    {
        let Answer { reply, next } = answer(peer.state, request);
        peer.connection.send(&reply)?;
        peer.state = next.ok_or(ConnectionError::Closed)?;
        answered += 1;
    }
    Ok(answered)
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
