//! The poll loop of the launcher: the broker's sockets and the broker's tables, in short.

use std::{
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::DirBuilderExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use kai_brokerd::{
    authd::Authd,
    launch,
    strangers::Strangers,
    sys,
    workers::{Handover, Worker, Workers},
};
use kai_program::{
    config::Config,
    trusted_file::{Distrust, Trust, TrustedFile},
};
use kai_proto::{
    admin_broker::{self, BrokerStatus, UserStatus, WorkerLife},
    codec,
    connection::{Connection, ConnectionError},
    conversation::FromWorker,
    gateway_broker::{self, Refusal},
    hello::Hello,
    ids::{Role, TelegramId, UnixSeconds},
    peer, sockets,
    worker_broker::{Assignment, Clocks},
};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::geteuid,
};
use tracing::{error, info, warn};

use super::{
    launch::{Order, start},
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

struct Peer<S> {
    connection: Connection,
    state: S,
}

struct Launcher {
    config: Config,
    people: Vec<Person>,
    workers: Workers,
    authd: Authd,
    strangers: Strangers,
    started: UnixSeconds,
    gateway_listener: UnixListener,
    admin_listener: UnixListener,
    gateway: Vec<Peer<gateway_broker::State>>,
    admin: Vec<Peer<admin_broker::State>>,
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
        launcher.ask_authd(now);
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
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
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

    fn serve_gateway(&mut self, now: Instant) {
        for mut peer in std::mem::take(&mut self.gateway) {
            loop {
                match peer
                    .connection
                    .flush()
                    .and_then(|()| peer.connection.receive(now))
                {
                    Ok(None) if peer.connection.deadline().is_some_and(|due| now >= due) => break,
                    Ok(None) => break self.gateway.push(peer),
                    // Nothing was read beyond this frame: the rest of the stream is the worker's.
                    Ok(Some(gateway_broker::Request::Attach { user, grant }))
                        if peer.state == gateway_broker::State::Greeted =>
                    {
                        let stream = peer.connection.into_stream();
                        match self.person(user) {
                            Some(_) => self.authd.ask(user, grant, stream, now),
                            None => refuse(&stream, Refusal::UnknownUser),
                        }
                        break;
                    }
                    Ok(Some(request)) => {
                        if self.gateway_request(&mut peer, &request).is_err() {
                            break;
                        }
                    }
                    Err(_) => break,
                }
            }
        }
    }

    fn gateway_request(
        &mut self,
        peer: &mut Peer<gateway_broker::State>,
        request: &gateway_broker::Request,
    ) -> Result<(), ConnectionError> {
        use gateway_broker::{Reply, Request, State, permitted};

        let connection = &mut peer.connection;
        if !permitted(peer.state, request) {
            connection.send(&Reply::Refused(Refusal::NotPermitted))?;
            return Err(ConnectionError::Closed);
        }
        match request {
            Request::Hello(hello) if hello.matches() => {
                peer.state = State::Greeted;
                connection.send(&Reply::Hello(Hello::ours()))
            }
            Request::Subscribe => {
                peer.state = State::Subscribed;
                for person in &self.people {
                    connection.send(&Reply::User(person.entry.clone()))?;
                }
                connection.send(&Reply::UsersEnd)
            }
            Request::Stranger { id, at } => {
                self.strangers.note(*id, *at);
                Ok(())
            }
            Request::Hello(_) | Request::Attach { .. } => {
                connection.send(&Reply::Refused(Refusal::Version))?;
                Err(ConnectionError::Closed)
            }
        }
    }

    fn serve_admin(&mut self, now: Instant) {
        for mut peer in std::mem::take(&mut self.admin) {
            loop {
                match peer
                    .connection
                    .flush()
                    .and_then(|()| peer.connection.receive(now))
                {
                    Ok(None) if peer.connection.deadline().is_some_and(|due| now >= due) => break,
                    Ok(None) => break self.admin.push(peer),
                    Ok(Some(request)) => {
                        if self.admin_request(&mut peer, request).is_err() {
                            break;
                        }
                    }
                    Err(_) => break,
                }
            }
        }
    }

    fn admin_request(
        &mut self,
        peer: &mut Peer<admin_broker::State>,
        request: admin_broker::Request,
    ) -> Result<(), ConnectionError> {
        use admin_broker::{Reply, Request, State, permitted};

        let connection = &mut peer.connection;
        if !permitted(peer.state, &request) {
            connection.send(&Reply::Refused(Refusal::NotPermitted))?;
            return Err(ConnectionError::Closed);
        }
        match request {
            Request::Hello(hello) if hello.matches() => {
                peer.state = State::Greeted;
                connection.send(&Reply::Hello(Hello::ours()))
            }
            Request::Hello(_) => {
                connection.send(&Reply::Refused(Refusal::Version))?;
                Err(ConnectionError::Closed)
            }
            Request::Status => {
                connection.send(&Reply::Broker(self.status()))?;
                for person in &self.people {
                    connection.send(&Reply::User(self.user_status(person)))?;
                }
                connection.send(&Reply::StatusEnd)
            }
            Request::Strangers => connection.send(&Reply::Strangers(self.strangers.list())),
            Request::Reload => connection.send(&Reply::ReloadRefused(
                "the playground's launcher keeps the table that it began with".to_owned(),
            )),
        }
    }

    fn status(&self) -> BrokerStatus {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let mut roll = self.gateway.iter().map(|peer| peer.state);
        BrokerStatus {
            pid: std::process::id(),
            started: self.started,
            workers: count(self.workers.alive()),
            workers_limit: count(self.config.limits.workers),
            gateway_connected: roll.any(|state| state == gateway_broker::State::Subscribed),
            authd_connected: self.authd.connected(),
            shared_key: false,
        }
    }

    fn user_status(&self, person: &Person) -> UserStatus {
        UserStatus {
            id: person.entry.id,
            name: person.entry.name.clone(),
            role: Role::User,
            account: person.account.clone(),
            uid: geteuid().as_raw(),
            own_key: person.key_file.is_some(),
            worker: self.workers.get(person.entry.id).map(Worker::status),
        }
    }

    fn ask_authd(&mut self, now: Instant) {
        for question in self.authd.tick(now) {
            refuse(&question.connection, Refusal::AuthdUnavailable);
        }
        self.authd.flush(now);
        for (question, _standing) in self.authd.receive(now) {
            self.attach(question.user, question.connection, now);
        }
    }

    fn attach(&mut self, user: TelegramId, connection: UnixStream, now: Instant) {
        match self.workers.get_mut(user) {
            None => self.launch(user, connection, now),
            Some(worker) if worker.life == WorkerLife::Dying => worker.parked = Some(connection),
            Some(worker) => {
                if worker.hand_over(connection, now) == Handover::Refused {
                    worker.kill();
                }
            }
        }
    }

    fn launch(&mut self, user: TelegramId, connection: UnixStream, now: Instant) {
        let Some(person) = self.person(user) else {
            return;
        };
        match self.start_worker(person, &connection) {
            Ok(launched) => {
                info!(user = %person.entry.name, pid = launched.pid.as_raw(), "worker forked");
                let worker = Worker::new(launched, connection, now, unix_now());
                self.workers.insert(user, worker);
            }
            Err(problem) => {
                error!(user = %person.entry.name, "{problem}");
                refuse(&connection, Refusal::LaunchFailed);
            }
        }
    }

    fn start_worker(
        &self,
        person: &Person,
        connection: &UnixStream,
    ) -> io::Result<launch::Launched> {
        let state = self
            .config
            .paths
            .state
            .join("users")
            .join(person.entry.name.as_str());
        fs::DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(&state)?;
        let agent = &self.config.agent;
        let limits = &self.config.limits;
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let assignment = Assignment {
            account: person.account.clone(),
            home: text(&person.home),
            shell: "/bin/sh".to_owned(),
            state: text(&state),
            agent: agent.command.clone(),
            base_url: agent.base_url.clone(),
            has_key: person.key_file.is_some(),
            model: person.entry.model.clone(),
            budget_micro_usd: None,
            clocks: Clocks {
                silence: limits.silence,
                turn: limits.turn,
                tool: limits.tool,
            },
            connect_ports: agent
                .connect_ports
                .clone()
                .map(|ports| ports.into_iter().chain(agent.base_port()).collect()),
            read_paths: agent.read_paths.iter().map(|path| text(path)).collect(),
        };
        let programs = self.config.paths.programs.clone().unwrap_or_default();
        start(&Order {
            assignment: &assignment,
            program: &programs.join("kai-worker"),
            hidden: &hidden(&self.config),
            own: &[person.home.clone(), state],
            readable: &agent.read_paths,
            connection,
            key: person.key_file.as_deref().map(open_key).transpose()?,
        })
    }

    fn look_after_workers(&mut self, now: Instant) {
        let idle = self.config.limits.idle;
        let mut gone = Vec::new();
        for (user, worker) in self.workers.iter_mut() {
            if worker.life != WorkerLife::Dying && worker.take_reports(now, unix_now()).is_err() {
                worker.kill();
            }
            if let Some(reason) = worker.overdue(now, idle) {
                info!(pid = worker.pid.as_raw(), ?reason, "ending a worker");
                worker.kill();
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
            if let Some(connection) = worker.parked.take() {
                self.attach(user, connection, now);
            }
        }
    }

    fn person(&self, user: TelegramId) -> Option<&Person> {
        self.people.iter().find(|person| person.entry.id == user)
    }
}

/// What a worker sees as an empty directory: what a broker's worker does, and everything that is the
/// account's own.
fn hidden(config: &Config) -> Vec<PathBuf> {
    let mut hidden: Vec<PathBuf> = ["/tmp", "/var/tmp", "/dev/shm", "/home", "/root", "/run"]
        .map(PathBuf::from)
        .to_vec();
    hidden.extend(
        nix::unistd::User::from_uid(geteuid())
            .ok()
            .flatten()
            .map(|user| user.dir),
    );
    hidden.extend(
        config
            .file
            .parent()
            .and_then(Path::parent)
            .map(Path::to_owned),
    );
    // A directory below one that is hidden is hidden with it.
    let all = hidden.clone();
    hidden.retain(|path| {
        !all.iter()
            .any(|other| path != other && path.starts_with(other))
    });
    hidden.retain(|path| path != Path::new("/"));
    hidden.sort();
    hidden.dedup();
    hidden
}

fn open_key(file: &Path) -> io::Result<OwnedFd> {
    let untrusted = |problem: Distrust| io::Error::other(problem.to_string());
    Ok(TrustedFile::open(file, Trust::Private)
        .map_err(untrusted)?
        .into_descriptor())
}

fn has_hung_up(connection: &UnixStream) -> bool {
    let mut polled = [PollFd::new(connection.as_fd(), PollFlags::empty())];
    poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
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
fn refuse(mut connection: &UnixStream, refusal: Refusal) {
    let mut frame = Vec::new();
    if codec::encode_frame(&FromWorker::Refused(refusal), &mut frame).is_ok() {
        let _ = io::Write::write_all(&mut connection, &frame);
    }
    let _ = connection.shutdown(std::net::Shutdown::Both);
}
