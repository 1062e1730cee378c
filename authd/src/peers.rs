//! Who is connected: the three listeners, and the connections that they gave.

use std::{
    os::{fd::AsFd, unix::net::UnixListener},
    time::Instant,
};

use kai_proto::{
    admin_authd, broker_authd,
    connection::{Connection, ConnectionError},
    gateway_authd::Refusal,
    peer,
};
use nix::{
    poll::{PollFd, PollFlags},
    unistd::Uid,
};
use tracing::{debug, warn};

use crate::answers::{Ended, Session, State};

/// Connections taken from one listener before others get their turn.
const PER_WAKE: usize = 32;

/// Who is at the other end of a connection; each has a listener of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The gateway, under its own account.
    Gateway,
    /// The broker.
    Broker,
    /// Root's command.
    Admin,
}

/// A socket that one role can reach.
#[derive(Debug)]
pub struct Listener {
    /// Which.
    pub role: Role,
    /// The socket.
    pub socket: UnixListener,
    /// The account of whoever may connect.
    pub uid: Uid,
    /// Connections that are held at once.
    pub limit: usize,
}

/// One connection.
#[derive(Debug)]
pub struct Peer {
    /// Who is at its other end.
    pub role: Role,
    /// The connection.
    pub connection: Connection,
    /// What was said on it.
    pub state: State,
    /// What an admin's connection has beside.
    pub session: Session,
    /// When the last whole request came, or the connection.
    pub heard: Instant,
    /// True once it is of no more use.
    pub over: bool,
}

/// All connections.
#[derive(Debug, Default)]
pub struct Peers {
    all: Vec<Peer>,
}

impl Peers {
    /// What to poll each of them for, in their order.
    pub fn polled(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.all.iter().map(|peer| {
            // Who does not take its answers is asked for nothing more: what it is owed stays one answer.
            let flags = if peer.connection.has_unsent() {
                PollFlags::POLLOUT
            } else {
                PollFlags::POLLIN
            };
            PollFd::new(peer.connection.as_fd(), flags)
        })
    }

    /// When the first frame is due that a peer has begun.
    pub fn deadline(&self) -> Option<Instant> {
        self.all
            .iter()
            .filter_map(|peer| peer.connection.deadline())
            .min()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// The one at this place.
    pub fn at(&mut self, at: usize) -> Option<&mut Peer> {
        self.all.get_mut(at)
    }

    /// Those of a role.
    pub fn of(&self, role: Role) -> impl Iterator<Item = &Peer> {
        self.all.iter().filter(move |peer| peer.role == role)
    }

    /// Drops those that are over.
    pub fn sweep(&mut self) {
        self.all.retain(|peer| !peer.over);
    }

    /// Tells every broker that has said Hello whose proofs have ended.
    pub fn tell(&mut self, ended: &[Ended]) {
        let brokers = self
            .all
            .iter_mut()
            .filter(|peer| peer.role == Role::Broker && peer.state == State::Greeted && !peer.over);
        for peer in brokers {
            for &Ended { user, end } in ended {
                let said = peer
                    .connection
                    .send(&broker_authd::Reply::Ended { user, end });
                if let Err(error) = said {
                    // It connects again and asks about everybody.
                    warn!("the broker could not be told of an end: {error}");
                    peer.over = true;
                    break;
                }
            }
        }
    }

    /// Takes the connections that wait at `listener`.
    pub fn accept(&mut self, listener: &Listener, now: Instant) {
        for _ in 0..PER_WAKE {
            let Ok((stream, _)) = listener.socket.accept() else {
                return;
            };
            let role = listener.role;
            match peer::credentials(&stream) {
                Ok(found) if found.uid == listener.uid => {}
                _ => {
                    warn!(?role, "turned away a peer of a foreign account");
                    continue;
                }
            }
            let Ok(mut connection) = Connection::new(stream, now) else {
                continue;
            };
            if self.of(role).count() >= listener.limit && !self.make_room(role) {
                debug!(?role, "too many connections");
                let _ = refuse(role, &mut connection);
                continue;
            }
            self.all.push(Peer {
                role,
                connection,
                state: State::Fresh,
                session: Session::default(),
                heard: now,
                over: false,
            });
        }
    }

    /// Ends the gateway's connection of which nothing was heard for the longest time, first of all one that
    /// has not said Hello: a gateway that holds connections and says nothing keeps no other out. Root's own
    /// are not ended, because one may wait for somebody to type a code.
    fn make_room(&mut self, role: Role) -> bool {
        if role != Role::Gateway {
            return false;
        }
        let longest = (0..self.all.len())
            .filter(|at| self.all[*at].role == role)
            .min_by_key(|at| (self.all[*at].state == State::Greeted, self.all[*at].heard));
        if let Some(at) = longest {
            debug!(?role, "ended an idle connection to make room");
            self.all.swap_remove(at);
        }
        longest.is_some()
    }
}

fn refuse(role: Role, connection: &mut Connection) -> Result<(), ConnectionError> {
    let refusal = Refusal::TooManyConnections;
    match role {
        Role::Gateway => connection.send(&kai_proto::gateway_authd::Reply::Refused(refusal)),
        Role::Broker => connection.send(&broker_authd::Reply::Refused(refusal)),
        Role::Admin => connection.send(&admin_authd::Reply::Refused(refusal)),
    }
}
