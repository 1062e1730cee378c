//! Root's requests: status, strangers, reload, login.

use std::time::{Duration, Instant};

use kai_proto::{
    admin_broker::{BrokerStatus, LoginEnd, Reply, Request, State, UserStatus, permitted},
    codec::shorten,
    connection::ConnectionError,
    gateway_broker::Refusal,
    hello::Hello,
    limits,
};
use nix::unistd::Uid;
use tracing::{info, warn};

use crate::{
    audit,
    daemon::{ACCEPTS_PER_WAKE, Daemon, Peer, accept},
    ending::EndReason,
    policy::Kernel,
    sys,
    users::{User, Users},
};

/// Connections that root's commands may hold at once.
const CONNECTIONS: usize = 16;
/// How long a connection of root's command may stay open.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a connection of root's command stands, and for whom it runs.
#[derive(Debug, Clone, Copy)]
pub struct Admin {
    pub(crate) state: State,
    /// The uid behind sudo(8), by the command's word: for the audit log alone.
    pub(crate) uid: u32,
}

impl Daemon {
    /// Takes new connections of root's commands.
    pub(crate) fn accept_admin(&mut self, now: Instant) {
        for _ in 0..ACCEPTS_PER_WAKE {
            let Some(stream) = accept(&self.admin_listener, Uid::effective()) else {
                return;
            };
            if self.admin.len() >= CONNECTIONS {
                continue;
            }
            let fresh = Admin {
                state: State::Fresh,
                uid: 0,
            };
            let peer = self.peer(stream, fresh, now + PATIENCE, now);
            self.admin.extend(peer);
        }
    }

    /// Answers what a connection of root's command has sent.
    pub(crate) fn serve_admin(&mut self, key: u64, now: Instant) {
        let Some(at) = self.admin.iter().position(|peer| peer.key == key) else {
            return;
        };
        // Out of the list while it is served, so that serving it may change everything else.
        let mut peer = self.admin.swap_remove(at);
        loop {
            match peer
                .connection
                .flush()
                .and_then(|()| peer.connection.receive(now))
            {
                Ok(None) => break self.admin.push(peer),
                Ok(Some(request)) => {
                    if self.admin_request(&mut peer, request, now).is_err() {
                        break;
                    }
                }
                Err(_) => break,
            }
        }
    }

    /// Answers one request; an error ends the connection.
    fn admin_request(
        &mut self,
        peer: &mut Peer<Admin>,
        request: Request,
        now: Instant,
    ) -> Result<(), ConnectionError> {
        let connection = &mut peer.connection;
        if !permitted(peer.state.state, &request) {
            connection.send(&Reply::Refused(Refusal::NotPermitted))?;
            return Err(ConnectionError::Closed);
        }
        match request {
            Request::Hello(hello) if hello.hello.matches() => {
                peer.state = Admin {
                    state: State::Greeted,
                    uid: hello.admin,
                };
                connection.send(&Reply::Hello(Hello::ours()))
            }
            Request::Hello(_) => {
                connection.send(&Reply::Refused(Refusal::Version))?;
                Err(ConnectionError::Closed)
            }
            Request::Status => {
                self.audit
                    .note(&audit::asked("admin.status", peer.state.uid));
                connection.send(&Reply::Broker(self.status()))?;
                for user in self.users.iter() {
                    connection.send(&Reply::User(self.user_status(user)))?;
                }
                connection.send(&Reply::StatusEnd)
            }
            Request::Strangers => {
                self.audit
                    .note(&audit::asked("admin.strangers", peer.state.uid));
                connection.send(&Reply::Strangers(self.strangers.list()))
            }
            Request::Reload => connection.send(&self.reload(Some(peer.state.uid))),
            Request::Login(name) => self.begin_login(peer, &name, now),
        }
    }

    /// Takes the new users.yaml whole, or keeps the old one and says why. `admin` is who asked for it,
    /// if it was not a signal.
    pub(crate) fn reload(&mut self, admin: Option<u32>) -> Reply {
        match self.read_users(admin) {
            Ok(new) => self.put_in_force(new),
            Err(reason) => {
                warn!("kept the old table of users: {reason}");
                Reply::ReloadRefused(shorten(reason, limits::RELOAD_REASON))
            }
        }
    }

    /// Reads the new users.yaml. Without its line in the audit log it is not taken: what is in force is
    /// what the log says.
    fn read_users(&mut self, admin: Option<u32>) -> Result<Users, String> {
        if let Some(admin) = admin {
            self.audit.note(&audit::asked("admin.reload", admin));
        }
        let file = &self.config.paths.users;
        let new = Users::load(&self.config).map_err(|problem| {
            self.audit.note(&audit::users_refused(file, &problem));
            problem.to_string()
        })?;
        let record = audit::loaded("users.loaded", file, new.digest());
        let recorded = self.audit.decide(&record);
        recorded
            .map(|()| new)
            .map_err(|problem| problem.to_string())
    }

    fn put_in_force(&mut self, new: Users) -> Reply {
        let ended = self.users.gone_or_changed(&new);
        self.users = new;
        self.pace.keep(|user| self.users.get(user).is_some());
        for user in &ended {
            self.end_worker(*user, EndReason::UserChanged);
        }
        self.end_logins(|user| ended.contains(&user), LoginEnd::UserChanged);
        self.send_roll();
        info!(
            users = self.users.len(),
            ended = ended.len(),
            "took the new table of users"
        );
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Reply::Reloaded {
            users: count(self.users.len()),
            ended: count(ended.len()),
        }
    }

    fn status(&self) -> BrokerStatus {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        BrokerStatus {
            pid: std::process::id(),
            started: self.started,
            workers: count(self.workers.alive()),
            workers_limit: count(self.config.limits.workers),
            gateway_connected: self.has_roll(),
            authd_connected: self.authd.connected(),
            shared_key: self.config.agent.shared_key_file.is_some(),
        }
    }

    fn user_status(&self, user: &User) -> UserStatus {
        UserStatus {
            id: user.entry.id,
            name: user.entry.name.clone(),
            role: user.entry.role,
            account: user.account.name.clone(),
            uid: user.account.uid.as_raw(),
            second_factor: user.entry.second_factor,
            own_key: user.key_file.is_some(),
            login: user.account.login,
            weakened: user.policy.weakened(
                self.config.agent.connect_ports.as_deref(),
                Kernel {
                    landlock_abi: sys::landlock_abi(),
                },
            ),
            worker: self
                .workers
                .get(user.entry.id)
                .map(|worker| worker.status()),
        }
    }
}
