//! What the gateway and root's command ask of the launcher, answered as the broker would.

use std::time::Instant;

use kai_brokerd::worker::Worker;
use kai_proto::{
    admin_broker::{self, BrokerStatus, UserStatus},
    connection::ConnectionError,
    gateway_broker::{self, Refusal},
    hello::Hello,
    ids::Role,
};
use nix::unistd::geteuid;

use super::{
    people::Person,
    serve::{Launcher, Peer},
};

impl Launcher {
    /// Answers what the gateway's connections have sent.
    pub(super) fn serve_gateway(&mut self, now: Instant) {
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
                        self.ask(user, grant, stream, now);
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

    /// Answers what the connections of root's command have sent.
    pub(super) fn serve_admin(&mut self, now: Instant) {
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
                for person in &self.people {
                    connection.send(&Reply::User(self.user_status(person)))?;
                }
                connection.send(&Reply::StatusEnd)
            }
            Request::Strangers => connection.send(&Reply::Strangers(self.strangers.list())),
            Request::Login(_) => connection.send(&Reply::LoginRefused(
                "the playground's launcher, which is not root, runs no login".to_owned(),
            )),
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
            second_factor: person.entry.second_factor,
            own_key: person.key_file.is_some(),
            login: false,
            weakened: Vec::new(),
            worker: self.workers.get(person.entry.id).map(Worker::status),
        }
    }
}
