//! What becomes of an attach: refused, parked, handed to a running worker, or the reason to start one.
//!
//! ```text
//! Attach -> authd asked -> no worker:    launched with the connection
//!                          dying worker: parked until it is reaped, then launched
//!                          else:         handed over
//! ```

use std::{
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            fs::{DirBuilderExt, MetadataExt, chown},
            net::UnixStream,
        },
    },
    path::{Path, PathBuf},
    time::Instant,
};

use kai_program::trusted_file::{Trust, TrustedFile};
use kai_proto::{
    admin_broker::WorkerLife,
    broker_authd::Standing,
    codec,
    conversation::FromWorker,
    gateway_broker::{Refusal, SecondFactor},
    ids::TelegramId,
    worker_broker::{Assignment, Clocks, Walls},
};
use nix::sys::{
    socket::{MsgFlags, send},
    sysinfo::sysinfo,
};
use tracing::{error, info, warn};

use crate::{
    accounts::Account,
    daemon::{Daemon, unix_now},
    launch::{self, LaunchError, LoginFiles, Order, WorkerProgram, World},
    policy::Confinement,
    second_factor::may_attach,
    users::User,
    workers::{EndReason, Handover, Worker},
};

impl Daemon {
    /// Goes on with an attach, now that authd has said how the user stands.
    pub(crate) fn attach(
        &mut self,
        user: TelegramId,
        standing: Standing,
        connection: UnixStream,
        now: Instant,
    ) {
        let rule = match self.users.get(user) {
            Some(user) => user.entry.second_factor,
            None => SecondFactor::Required,
        };
        match may_attach(rule, standing) {
            Ok(()) => self.place(user, connection, now),
            Err(refusal) => refuse(&connection, refusal),
        }
    }

    /// Finds or makes the worker for a connection that may be attached.
    fn place(&mut self, user: TelegramId, connection: UnixStream, now: Instant) {
        if self.stopping {
            return refuse(&connection, Refusal::Stopping);
        }
        // The table may have changed while authd was asked.
        if self.users.get(user).is_none() {
            return refuse(&connection, Refusal::UnknownUser);
        }
        match self.workers.get_mut(user) {
            None => self.launch(user, connection, now),
            Some(worker) if worker.life == WorkerLife::Dying => {
                // One place: whoever waited there is a connection that the gateway gave up.
                worker.parked = Some(connection);
            }
            Some(worker) => {
                if worker.hand_over(connection, now) == Handover::Refused {
                    self.end_worker(user, EndReason::Closed);
                }
            }
        }
    }

    fn launch(&mut self, id: TelegramId, connection: UnixStream, now: Instant) {
        if self.workers.alive() >= self.config.limits.workers {
            match self.workers.most_idle(now) {
                Some(idle) => self.end_worker(idle, EndReason::Idle),
                None => return refuse(&connection, Refusal::TooManyWorkers),
            }
        }
        let Some(user) = self.users.get(id).cloned() else {
            return;
        };
        match self.start_worker(&user, &connection) {
            Ok(launched) => {
                let mut worker = Worker::new(launched, connection, now, unix_now());
                worker.turn_limit = Some(user.turn.unwrap_or(self.config.limits.turn));
                info!(user = %user.entry.name, account = %user.account.name,
                      pid = worker.pid.as_raw(), "worker forked");
                self.workers.insert(id, worker);
            }
            Err(problem) => {
                error!(user = %user.entry.name, "{problem}");
                refuse(&connection, Refusal::LaunchFailed);
            }
        }
    }

    /// Sees a worker off that was reaped, and starts the next one if a connection waits for it.
    pub(crate) fn reaped(&mut self, id: TelegramId, mut worker: Worker, now: Instant) {
        if !worker.has_reported() {
            // It wrote no Hello either: the broker still has the first word.
            if let Some(connection) = &worker.attached {
                refuse(connection, Refusal::LaunchFailed);
            }
        }
        worker.end_connection();
        if let Some(connection) = worker.parked.take() {
            self.place(id, connection, now);
        }
    }

    /// Kills the worker of `user`, if there is one that is not ending.
    pub(crate) fn end_worker(&mut self, user: TelegramId, reason: EndReason) {
        let Some(worker) = self.workers.get_mut(user) else {
            return;
        };
        if worker.life == WorkerLife::Dying {
            return;
        }
        match reason {
            EndReason::Idle | EndReason::UserChanged | EndReason::Stopping => {
                info!(pid = worker.pid.as_raw(), ?reason, "ending a worker");
            }
            _ => warn!(pid = worker.pid.as_raw(), ?reason, "ending a worker"),
        }
        if !worker.has_reported()
            && let Some(connection) = &worker.attached
        {
            refuse(connection, Refusal::LaunchFailed);
        }
        worker.kill();
    }
}

impl Daemon {
    fn start_worker(
        &mut self,
        user: &User,
        connection: &UnixStream,
    ) -> Result<launch::Launched, StartError> {
        let account = &user.account;
        let state = self.config.user_state(account.name.as_str());
        own_directory(&state, account)
            .map_err(|error| StartError::State(state.display().to_string(), error))?;
        let key = user
            .key_file
            .as_ref()
            .or(self.config.agent.shared_key_file.as_ref());
        let key: Option<OwnedFd> = key
            .map(|path| TrustedFile::open(path, Trust::Private).map(TrustedFile::into_descriptor))
            .transpose()
            .map_err(|distrust| StartError::Key(distrust.to_string()))?;
        let paths = &self.config.paths;
        let configuration = self.config.file.parent().unwrap_or(Path::new("/etc/kai"));
        let own = [&*paths.run, &*paths.state, &*paths.log, configuration];
        let homes = self.users.iter().filter(|other| {
            let home = &other.account.home;
            // Those below /home are hidden with it. Others are, unless they are somebody's by name
            // alone, such as /usr/games.
            other.account != *account
                && !home.starts_with("/home")
                && fs::metadata(home).is_ok_and(|found| found.uid() == other.account.uid.as_raw())
        });
        let own: Vec<&Path> = homes.map(|other| &*other.account.home).chain(own).collect();
        let policy = &user.policy;
        let readable = [&self.config.agent.read_paths[..], &policy.read].concat();
        let mut world = World::new(&account.home, &state, &own, &readable, &policy.write);
        world.temporary = policy.limits.tmp;
        world.login_files = match (account.login, policy.confinement) {
            (false, _) => LoginFiles::Own,
            (true, Confinement::Strict) => LoginFiles::ReadOnly,
            (true, Confinement::BestEffort) => LoginFiles::ReadOnlyIfPossible,
        };
        let assignment = self.assignment(user, &state, key.is_some());
        let cgroup = match &mut self.cgroups {
            Some(cgroups) => {
                let memory = sysinfo().map_or(0, |host| host.ram_total());
                let made = cgroups.child(&policy.limits, memory);
                Some(made.map_err(StartError::Cgroup)?)
            }
            None => None,
        };
        Ok(launch::start(Order {
            account,
            assignment: &assignment,
            program: WorkerProgram::open(&self.worker_program).map_err(LaunchError::from)?,
            world: &world,
            network: policy.network,
            limits: &policy.limits,
            cgroup,
            connection,
            key,
        })?)
    }

    fn assignment(&self, user: &User, state: &Path, has_key: bool) -> Assignment {
        let agent = &self.config.agent;
        let limits = &self.config.limits;
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let policy = &user.policy;
        let texts =
            |paths: &[PathBuf]| -> Vec<String> { paths.iter().map(|path| text(path)).collect() };
        Assignment {
            account: user.account.name.clone(),
            home: text(&user.account.home),
            shell: text(&user.account.shell),
            state: text(state),
            agent: agent.command.clone(),
            base_url: agent.base_url.clone(),
            has_key,
            model: user.entry.model.clone(),
            budget_micro_usd: user.budget_micro_usd,
            clocks: Clocks {
                silence: limits.silence,
                turn: user.turn.unwrap_or(limits.turn),
                tool: limits.tool,
            },
            connect_ports: policy.connect_ports(agent.connect_ports.as_deref(), agent.base_port()),
            read_paths: texts(&[&agent.read_paths[..], &policy.read].concat()),
            walls: Walls {
                strict: policy.confinement == Confinement::Strict,
                allow: policy.allow.clone(),
                write_paths: texts(&policy.write),
                free: policy.limits.free,
            },
        }
    }
}

/// Why a worker could not be started.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("the directory {0} for the worker's state cannot be used: {1}")]
    State(String, io::Error),
    #[error("the worker's cgroup cannot be made: {0}; does the broker's unit have Delegate=?")]
    Cgroup(io::Error),
    #[error("the agent's key cannot be used: {0}")]
    Key(String),
    #[error(transparent)]
    Launch(#[from] LaunchError),
}

/// Makes `directory` the account's own, 0700. Its parents are root's, so nobody can put another thing
/// in its place.
fn own_directory(directory: &Path, account: &Account) -> io::Result<()> {
    match fs::symlink_metadata(directory) {
        Ok(found) if found.is_dir() && found.uid() == account.uid.as_raw() => return Ok(()),
        // Left by a run that was killed between the two calls below.
        Ok(found) if found.is_dir() && found.uid() == 0 => {}
        Ok(_) => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "it belongs to another account; move it away",
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = directory.parent() {
                fs::DirBuilder::new()
                    .mode(0o711)
                    .recursive(true)
                    .create(parent)?;
            }
            fs::DirBuilder::new().mode(0o700).create(directory)?;
        }
        Err(error) => return Err(error),
    }
    chown(
        directory,
        Some(account.uid.as_raw()),
        Some(account.gid.as_raw()),
    )
}

/// Writes the refusal in the worker's place and ends the connection. The frame is smaller than any
/// socket buffer, and nothing was written before it.
pub(crate) fn refuse(connection: &UnixStream, refusal: Refusal) {
    let mut frame = Vec::new();
    if codec::encode_frame(&FromWorker::Refused(refusal), &mut frame).is_ok() {
        // O_NONBLOCK belongs to the worker's copy too, and the worker may have cleared it.
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let _ = send(connection.as_raw_fd(), &frame, flags);
    }
    let _ = connection.shutdown(std::net::Shutdown::Both);
}
