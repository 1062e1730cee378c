//! What becomes of an attach: refused, parked, handed to a running worker, or the reason to start one.
//!
//! ```text
//! Attach -> authd asked -> no worker:    launched with the connection
//!                          dying worker: parked until it is reaped, then authd is asked again
//!                          else:         handed over
//! ```
//!
//! Each way has its line in the audit log before it is gone.

use std::{
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{
            fs::{DirBuilderExt, MetadataExt, chown},
            net::UnixStream,
        },
    },
    path::Path,
    time::Instant,
};

use kai_program::trusted_file::{Trust, TrustedFile};
use kai_proto::{
    admin_broker::WorkerLife,
    broker_authd, codec,
    conversation::FromWorker,
    gateway_broker::{Refusal, UserEntry},
    grant::Grant,
    ids::TelegramId,
};
use nix::sys::{
    socket::{MsgFlags, send},
    sysinfo::sysinfo,
};
use tracing::{error, info, warn};

use crate::{
    accounts::Account,
    assign, audit,
    authd::Purpose,
    daemon::{Daemon, unix_now},
    ending::EndReason,
    launch::{self, LaunchError, Order, WorkerProgram},
    pace::Pass,
    second_factor::may_attach,
    users::User,
    worker::{Handover, Parked, Proof, Worker},
};

impl Daemon {
    /// Takes an attach from the gateway: authd is asked about whoever is a user.
    pub(crate) fn begin_attach(
        &mut self,
        id: TelegramId,
        grant: Option<Grant>,
        connection: UnixStream,
        now: Instant,
    ) {
        let known = self.users.get(id).is_some();
        match self.pace.judge(known.then_some(id), now) {
            Pass::Go => self.ask(id, grant, connection, now),
            Pass::FirstTooMany => {
                warn!(user = i64::from(id), "the gateway attaches too often");
                self.refuse_attach(id, &connection, Refusal::TooManyConnections);
            }
            Pass::TooMany => refuse(&connection, Refusal::TooManyConnections),
        }
    }

    /// Asks authd about a connection that is to be attached.
    pub(crate) fn ask(
        &mut self,
        id: TelegramId,
        grant: Option<Grant>,
        connection: UnixStream,
        now: Instant,
    ) {
        match self.users.get(id) {
            Some(user) => {
                let purpose = Purpose::Attach(connection);
                self.authd.ask(authd_user(&user.entry), grant, purpose, now);
            }
            None => self.refuse_attach(id, &connection, Refusal::UnknownUser),
        }
    }

    /// Goes on with an attach, now that authd has said how the user stands.
    pub(crate) fn attach(
        &mut self,
        asked: &broker_authd::User,
        proof: Proof,
        connection: UnixStream,
        now: Instant,
    ) {
        let id = asked.id;
        if self.stopping {
            return self.refuse_attach(id, &connection, Refusal::Stopping);
        }
        // The table may have changed while authd was asked: its answer is about that name and id.
        let user = self.users.get(id);
        let Some(user) = user.filter(|user| authd_user(&user.entry) == *asked) else {
            return self.refuse_attach(id, &connection, Refusal::UnknownUser);
        };
        if let Err(why) = may_attach(user.entry.second_factor, proof.standing) {
            return self.refuse_attach(id, &connection, why);
        }
        let Some(worker) = self.workers.get_mut(id) else {
            return self.launch(id, proof, connection, now);
        };
        if worker.life == WorkerLife::Dying {
            // One place: whoever waited there is a connection that the gateway gave up.
            let grant = proof.grant;
            worker.parked = Some(Parked { connection, grant });
            return;
        }
        let record = audit::allowed(user, proof.standing, Some(worker));
        if self.audit.decide(&record).is_err() {
            return refuse(&connection, Refusal::LaunchFailed);
        }
        if worker.hand_over(connection, proof, now) == Handover::Refused {
            self.end_worker(id, EndReason::Closed);
        }
    }

    /// Starts the worker of a user who has none. What the log shows of it: `attach.allowed` is on disk
    /// before there is a process at all, and `worker.started` right after the fork, because only then
    /// has it a pid. A worker without that second line is ended.
    fn launch(&mut self, id: TelegramId, proof: Proof, connection: UnixStream, now: Instant) {
        let mut in_the_way = None;
        if self.workers.alive() >= self.config.limits.workers {
            in_the_way = self.workers.most_idle(now);
            if in_the_way.is_none() {
                return self.refuse_attach(id, &connection, Refusal::TooManyWorkers);
            }
        }
        let Some(user) = self.users.get(id).cloned() else {
            return;
        };
        let record = audit::allowed(&user, proof.standing, None);
        if self.audit.decide(&record).is_err() {
            return refuse(&connection, Refusal::LaunchFailed);
        }
        if let Some(idle) = in_the_way {
            self.end_worker(idle, EndReason::Idle);
        }
        match self.start_worker(&user, Work::Conversations(connection.as_fd())) {
            Ok(launched) => {
                let pid = launched.pid.as_raw();
                let recorded = self.audit.decide(&audit::worker_started(&user, pid));
                info!(user = %user.entry.name, account = %user.account.name, pid, "worker forked");
                let name = user.entry.name.clone();
                let mut worker = Worker::new(launched, name, (connection, proof), now, unix_now());
                worker.turn_limit = Some(user.turn.unwrap_or(self.config.limits.turn));
                self.workers.insert(id, worker);
                if recorded.is_err() {
                    self.end_worker(id, EndReason::NotRecorded);
                }
            }
            Err(problem) => {
                error!(user = %user.entry.name, "{problem}");
                self.refuse_attach(id, &connection, Refusal::LaunchFailed);
            }
        }
    }

    /// Refuses a connection that was to be attached.
    pub(crate) fn refuse_attach(&mut self, id: TelegramId, connection: &UnixStream, why: Refusal) {
        let user = self.users.get(id).map(|user| &user.entry.name);
        self.audit.note(&audit::refused(id, user, why));
        refuse(connection, why);
    }
}

/// A user as authd knows them.
pub(crate) fn authd_user(entry: &UserEntry) -> broker_authd::User {
    broker_authd::User {
        name: entry.name.clone(),
        id: entry.id,
    }
}

impl Daemon {
    /// Forks a worker, in its own cgroup where there are any.
    ///
    /// # Errors
    /// One sentence for the admin.
    pub(crate) fn start_worker(
        &mut self,
        user: &User,
        work: Work<'_>,
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
        let (connection, login) = match work {
            Work::Conversations(connection) => (connection, false),
            Work::Login(terminal) => (terminal, true),
        };
        let world = assign::world(&self.config, &self.users, user, &state);
        let mut assignment = assign::assignment(&self.config, user, &state, key.is_some());
        assignment.login = login;
        let cgroup = match &mut self.cgroups {
            Some(cgroups) => {
                let memory = sysinfo().map_or(0, |host| host.ram_total());
                let made = cgroups.child(&user.policy.limits, memory);
                Some(made.map_err(StartError::Cgroup)?)
            }
            None => None,
        };
        Ok(launch::start(Order {
            account,
            assignment: &assignment,
            program: WorkerProgram::open(&self.worker_program).map_err(LaunchError::from)?,
            world: &world,
            network: user.policy.network,
            limits: &user.policy.limits,
            cgroup,
            connection,
            key,
        })?)
    }
}

/// What a worker is started for, with its descriptor 3.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Work<'a> {
    /// Conversations, the first on this connection of the gateway.
    Conversations(BorrowedFd<'a>),
    /// The agent's own login, on this terminal.
    Login(BorrowedFd<'a>),
}

/// Why a worker could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
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
