//! Root's requests: status, strangers, reload.

use std::time::{Duration, Instant};

use kai_proto::{
    admin_broker::{BrokerStatus, Reply, Request, State, UserStatus, permitted},
    codec::shorten,
    connection::ConnectionError,
    gateway_broker::Refusal,
    hello::Hello,
    limits,
};
use nix::unistd::Uid;
use tracing::{info, warn};

use crate::{
    daemon::{ACCEPTS_PER_WAKE, Daemon, Peer, accept},
    users::{User, Users},
    workers::EndReason,
};

/// Connections that root's commands may hold at once.
const CONNECTIONS: usize = 16;
/// How long a connection of root's command may stay open.
const PATIENCE: Duration = Duration::from_secs(60);

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
            let peer = self.peer(stream, State::Fresh, now + PATIENCE, now);
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
                    if self.admin_request(&mut peer, request).is_err() {
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
        peer: &mut Peer<State>,
        request: Request,
    ) -> Result<(), ConnectionError> {
        let connection = &mut peer.connection;
        if !permitted(peer.state, &request) {
            connection.send(&Reply::Refused(Refusal::NotPermitted))?;
            return Err(ConnectionError::Closed);
        }
        match request {
            Request::Hello(hello) if hello.hello.matches() => {
                peer.state = State::Greeted;
                connection.send(&Reply::Hello(Hello::ours()))
            }
            Request::Hello(_) => {
                connection.send(&Reply::Refused(Refusal::Version))?;
                Err(ConnectionError::Closed)
            }
            Request::Status => {
                connection.send(&Reply::Broker(self.status()))?;
                for user in self.users.iter() {
                    connection.send(&Reply::User(self.user_status(user)))?;
                }
                connection.send(&Reply::StatusEnd)
            }
            Request::Strangers => connection.send(&Reply::Strangers(self.strangers.list())),
            Request::Reload => connection.send(&self.reload()),
        }
    }

    /// Takes the new users.yaml whole, or keeps the old one and says why.
    pub(crate) fn reload(&mut self) -> Reply {
        let new = match Users::load(&self.config) {
            Ok(new) => new,
            Err(problem) => {
                warn!("kept the old table of users: {problem}");
                let reason = shorten(problem.to_string(), limits::RELOAD_REASON);
                return Reply::ReloadRefused(reason);
            }
        };
        let ended = self.users.gone_or_changed(&new);
        self.users = new;
        for user in &ended {
            self.end_worker(*user, EndReason::UserChanged);
        }
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
            weakened: user
                .policy
                .weakened(self.config.agent.connect_ports.as_deref()),
            worker: self
                .workers
                .get(user.entry.id)
                .map(|worker| worker.status()),
        }
    }
}
