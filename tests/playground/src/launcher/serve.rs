//! The poll loop of the launcher: the broker's sockets and the broker's tables, in short.

use std::{
    io,
    os::{
        fd::AsFd,
        unix::net::{UnixListener, UnixStream},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use kai_brokerd::{
    authd::Authd,
    ending::EndReason,
    strangers::Strangers,
    sys,
    worker::{Handover, Parked, Proof, Worker},
    workers::Workers,
};
use kai_program::config::Config;
use kai_proto::{
    admin_broker::{self, WorkerLife},
    codec,
    connection::Connection,
    conversation::FromWorker,
    gateway_broker::{self, Refusal},
    ids::{TelegramId, UnixSeconds},
    peer, sockets,
};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::geteuid,
};
use tracing::{error, info, warn};

use super::{
    assign,
    people::{self, NoPeople, Person},
};

/// How long the loop sleeps if nothing happens: then it looks at the clocks.
const TICK: u16 = 50;

/// Why the launcher does not run, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum LauncherError {
    /// Workers would be root's.
    #[error("refuses to run as root, whose workers would be root's: root has kai-brokerd")]
    Root,
    /// There is nobody to serve.
    #[error(transparent)]
    People(#[from] NoPeople),
    /// A socket could not be made, or a call failed.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// A connection and where it stands.
pub(super) struct Peer<S> {
    pub(super) connection: Connection,
    pub(super) state: S,
}

/// Everything that the launcher knows.
pub(super) struct Launcher {
    pub(super) config: Config,
    pub(super) people: Vec<Person>,
    pub(super) workers: Workers,
    pub(super) authd: Authd,
    pub(super) strangers: Strangers,
    pub(super) started: UnixSeconds,
    gateway_listener: UnixListener,
    admin_listener: UnixListener,
    pub(super) gateway: Vec<Peer<gateway_broker::State>>,
    pub(super) admin: Vec<Peer<admin_broker::State>>,
}

/// Serves until it is killed; its workers end with it.
///
/// # Errors
/// Why it cannot.
pub fn serve(config: Config) -> Result<(), LauncherError> {
    if geteuid().is_root() {
        return Err(LauncherError::Root);
    }
    let run = &config.paths.run;
    let mut launcher = Launcher {
        people: people::load(&config.paths.users)?,
        workers: Workers::default(),
        authd: Authd::new(run, Instant::now()),
        strangers: Strangers::default(),
        started: unix_now(),
        gateway_listener: sockets::listen(&sockets::gateway_broker(run), None)?,
        admin_listener: sockets::listen(&sockets::admin_broker(run), None)?,
        gateway: Vec::new(),
        admin: Vec::new(),
        config,
    };
    info!("ready");
    loop {
        launcher.wait()?;
        let now = Instant::now();
        launcher.accept(now);
        launcher.serve_gateway(now);
        launcher.serve_admin(now);
        launcher.mind_authd(now);
        launcher.look_after_workers(now);
    }
}

fn unix_now() -> UnixSeconds {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

impl Launcher {
    fn wait(&self) -> io::Result<()> {
        let read = PollFlags::POLLIN;
        let mut polled = vec![
            PollFd::new(self.gateway_listener.as_fd(), read),
            PollFd::new(self.admin_listener.as_fd(), read),
        ];
        let gateway = self.gateway.iter().map(|peer| peer.connection.as_fd());
        let admin = self.admin.iter().map(|peer| peer.connection.as_fd());
        let authd = self.authd.polled().map(|(descriptor, _)| descriptor);
        for descriptor in gateway.chain(admin).chain(authd) {
            polled.push(PollFd::new(descriptor, read));
        }
        for (_, worker) in self.workers.iter() {
            polled.push(PollFd::new(worker.pidfd.as_fd(), read));
            if worker.life != WorkerLife::Dying {
                polled.push(PollFd::new(worker.control.as_fd(), read));
            }
        }
        match poll(&mut polled, PollTimeout::from(TICK)) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn accept(&mut self, now: Instant) {
        while let Some(connection) = accept(&self.gateway_listener, now) {
            self.gateway.push(Peer {
                connection,
                state: gateway_broker::State::Fresh,
            });
        }
        while let Some(connection) = accept(&self.admin_listener, now) {
            self.admin.push(Peer {
                connection,
                state: admin_broker::State::Fresh,
            });
        }
    }

    pub(super) fn attach(
        &mut self,
        user: TelegramId,
        proof: Proof,
        connection: UnixStream,
        now: Instant,
    ) {
        match self.workers.get_mut(user) {
            None => self.launch(user, proof, connection, now),
            Some(worker) if worker.life == WorkerLife::Dying => {
                let grant = proof.grant;
                worker.parked = Some(Parked { connection, grant });
            }
            Some(worker) => {
                if worker.hand_over(connection, proof, now) == Handover::Refused {
                    worker.kill(EndReason::Closed);
                }
            }
        }
    }

    fn launch(&mut self, user: TelegramId, proof: Proof, connection: UnixStream, now: Instant) {
        let Some(person) = self.person(user) else {
            return;
        };
        match assign::start_worker(&self.config, person, &connection) {
            Ok(launched) => {
                info!(user = %person.entry.name, pid = launched.pid.as_raw(), "worker forked");
                let name = person.entry.name.clone();
                let worker = Worker::new(launched, name, (connection, proof), now, unix_now());
                self.workers.insert(user, worker);
            }
            Err(problem) => {
                error!(user = %person.entry.name, "{problem}");
                refuse(&connection, Refusal::LaunchFailed);
            }
        }
    }

    fn look_after_workers(&mut self, now: Instant) {
        let idle = self.config.limits.idle;
        let mut gone = Vec::new();
        for (user, worker) in self.workers.iter_mut() {
            if worker.life != WorkerLife::Dying
                && let Err(reason) = worker.take_reports(now, unix_now())
            {
                worker.kill(reason);
            }
            if let Some(reason) = worker.overdue(now, idle) {
                info!(pid = worker.pid.as_raw(), ?reason, "ending a worker");
                worker.kill(reason);
            }
            if worker.attached.as_ref().is_some_and(has_hung_up) {
                worker.end_connection();
            }
            if sys::reap(worker.pid).is_ok_and(|ended| ended.is_some()) {
                gone.push(user);
            }
        }
        for user in gone {
            let Some(mut worker) = self.workers.remove(user) else {
                continue;
            };
            info!(pid = worker.pid.as_raw(), "worker ended");
            if !worker.has_reported()
                && let Some(connection) = &worker.attached
            {
                refuse(connection, Refusal::LaunchFailed);
            }
            worker.end_connection();
            if let Some(parked) = worker.parked.take() {
                self.ask(user, parked.grant, parked.connection, now);
            }
        }
    }

    pub(super) fn person(&self, user: TelegramId) -> Option<&Person> {
        self.people.iter().find(|person| person.entry.id == user)
    }
}

/// The next connection from this very account.
fn accept(listener: &UnixListener, now: Instant) -> Option<Connection> {
    let (stream, _) = listener.accept().ok()?;
    match peer::credentials(&stream) {
        Ok(peer) if peer.uid == geteuid() => Connection::new(stream, now).ok(),
        _ => {
            warn!("turned away a peer of a foreign account");
            None
        }
    }
}

/// Writes the refusal in the worker's place and ends the connection.
pub(super) fn refuse(mut connection: &UnixStream, refusal: Refusal) {
    let mut frame = Vec::new();
    if codec::encode_frame(&FromWorker::Refused(refusal), &mut frame).is_ok() {
        let _ = io::Write::write_all(&mut connection, &frame);
    }
    let _ = connection.shutdown(std::net::Shutdown::Both);
}

fn has_hung_up(connection: &UnixStream) -> bool {
    let mut polled = [PollFd::new(connection.as_fd(), PollFlags::empty())];
    poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}
