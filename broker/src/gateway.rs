//! The gateway's connections, until each is the roll or a worker's.

use std::{io::Write, os::unix::net::UnixStream, time::Instant};

use kai_proto::{
    codec,
    connection::ConnectionError,
    gateway_broker::{Refusal, Reply, Request, State, permitted},
    hello::Hello,
    limits::FRAME_DEADLINE,
};
use tracing::debug;

use crate::daemon::{ACCEPTS_PER_WAKE, Daemon, Peer, accept};

/// Requests of one connection that are answered before others get their turn: a peer that floods
/// must not keep the loop from everything else.
const REQUESTS_PER_WAKE: usize = 32;

impl Daemon {
    /// Takes new connections of the gateway.
    pub(crate) fn accept_gateway(&mut self, now: Instant) {
        for _ in 0..ACCEPTS_PER_WAKE {
            let Some(stream) = accept(&self.gateway_listener, self.gateway_uid) else {
                return;
            };
            let open = self.gateway.len() + self.authd.waiting();
            if self.stopping {
                refuse_greeting(&stream, Refusal::Stopping);
            } else if open >= self.config.limits.connections {
                refuse_greeting(&stream, Refusal::TooManyConnections);
            } else {
                // By then it has said what it is for, or is cut off.
                let peer = self.peer(stream, State::Fresh, now + FRAME_DEADLINE, now);
                self.gateway.extend(peer);
            }
        }
    }

    /// Answers what a connection of the gateway has sent.
    pub(crate) fn serve_gateway(&mut self, key: u64, now: Instant) {
        let Some(at) = self.gateway.iter().position(|peer| peer.key == key) else {
            return;
        };
        // Out of the list while it is served, so that serving it may change everything else.
        let mut peer = self.gateway.swap_remove(at);
        for _ in 0..REQUESTS_PER_WAKE {
            let request = peer
                .connection
                .flush()
                .and_then(|()| peer.connection.receive(now));
            let ended = match request {
                Ok(None) => return self.gateway.push(peer),
                Ok(Some(request)) if !permitted(peer.state, &request) => {
                    let _ = peer.connection.send(&Reply::Refused(Refusal::NotPermitted));
                    Err(ConnectionError::Closed)
                }
                // Nothing was read beyond this frame: the rest of the stream is the worker's.
                Ok(Some(Request::Attach { user, grant })) => {
                    let stream = peer.connection.into_stream();
                    return self.begin_attach(user, grant, stream, now);
                }
                Ok(Some(request)) => self.gateway_request(&mut peer, &request),
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
                return debug!("a connection of the gateway ended: {error}");
            }
        }
        self.gateway.push(peer);
    }

    fn gateway_request(
        &mut self,
        peer: &mut Peer<State>,
        request: &Request,
    ) -> Result<(), ConnectionError> {
        match request {
            Request::Hello(hello) if hello.matches() => {
                peer.state = State::Greeted;
                peer.connection.send(&Reply::Hello(Hello::ours()))
            }
            Request::Hello(_) => {
                peer.connection.send(&Reply::Refused(Refusal::Version))?;
                Err(ConnectionError::Closed)
            }
            Request::Subscribe => {
                // There is one gateway: an older roll connection is that of one that is gone.
                self.gateway
                    .retain(|other| other.state != State::Subscribed);
                peer.state = State::Subscribed;
                peer.due = None;
                self.send_users(peer)
            }
            Request::Stranger { id, at } => {
                self.strangers.note(*id, *at);
                Ok(())
            }
            Request::Attach { .. } => Ok(()),
        }
    }

    /// True if a gateway has the roll.
    pub(crate) fn has_roll(&self) -> bool {
        self.gateway
            .iter()
            .any(|peer| peer.state == State::Subscribed)
    }

    /// Sends the table of users to the gateway that subscribed to it.
    pub(crate) fn send_roll(&mut self) {
        let Some(at) = self
            .gateway
            .iter()
            .position(|peer| peer.state == State::Subscribed)
        else {
            return;
        };
        let mut peer = self.gateway.swap_remove(at);
        match self.send_users(&mut peer) {
            Ok(()) => self.gateway.push(peer),
            Err(error) => debug!("the roll connection ended: {error}"),
        }
    }

    fn send_users(&self, peer: &mut Peer<State>) -> Result<(), ConnectionError> {
        for user in self.users.iter() {
            peer.connection.send(&Reply::User(user.entry.clone()))?;
        }
        peer.connection.send(&Reply::UsersEnd)
    }
}

/// Answers a connection that is not taken, before anything was read from it.
fn refuse_greeting(mut stream: &UnixStream, refusal: Refusal) {
    let mut frame = Vec::new();
    if stream.set_nonblocking(true).is_ok()
        && codec::encode_frame(&Reply::Refused(refusal), &mut frame).is_ok()
    {
        let _ = stream.write_all(&frame);
    }
}
