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

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixStream, time::Duration};

    use kai_proto::{connection::Client, gateway_authd::Reply};

    use super::*;

    const LIMIT: usize = 4;

    /// A listener of this role, and connections of clients to it that were taken one after the other.
    struct Taken {
        place: tempfile::TempDir,
        listener: Listener,
        peers: Peers,
        began: Instant,
    }

    impl Taken {
        fn new(role: Role) -> Self {
            let place = tempfile::tempdir().unwrap();
            let socket = UnixListener::bind(place.path().join("s")).unwrap();
            socket.set_nonblocking(true).unwrap();
            Self {
                place,
                listener: Listener {
                    role,
                    socket,
                    uid: nix::unistd::geteuid(),
                    limit: LIMIT,
                },
                peers: Peers::default(),
                began: Instant::now(),
            }
        }

        fn connect(&mut self, second: u64) -> UnixStream {
            let client = UnixStream::connect(self.place.path().join("s")).unwrap();
            self.take(second);
            client
        }

        fn take(&mut self, second: u64) {
            let now = self.began + Duration::from_secs(second);
            self.peers.accept(&self.listener, now);
        }

        /// When each was last heard, in seconds, those that have said Hello first.
        fn heard(&self) -> Vec<(bool, u64)> {
            let mut heard: Vec<(bool, u64)> = self
                .peers
                .of(self.listener.role)
                .map(|peer| {
                    let greeted = peer.state == State::Greeted;
                    (greeted, (peer.heard - self.began).as_secs())
                })
                .collect();
            heard.sort_by_key(|(greeted, at)| (!greeted, *at));
            heard
        }

        fn greet(&mut self, at: usize) {
            self.peers.at(at).unwrap().state = State::Greeted;
        }
    }

    #[test]
    fn a_gateway_that_holds_connections_and_says_nothing_keeps_no_other_out() {
        let mut taken = Taken::new(Role::Gateway);
        let mut clients: Vec<UnixStream> = (0..4).map(|second| taken.connect(second)).collect();
        for at in [0, 1, 3] {
            taken.greet(at);
        }

        // First the one that has not said Hello, then the one that was silent for the longest time.
        clients.push(taken.connect(10));
        assert_eq!(
            taken.heard(),
            [(true, 0), (true, 1), (true, 3), (false, 10)]
        );
        taken.greet(3);
        clients.push(taken.connect(11));
        assert_eq!(
            taken.heard(),
            [(true, 1), (true, 3), (true, 10), (false, 11)]
        );
    }

    #[test]
    fn roots_connections_are_not_ended_for_others_and_the_others_are_told() {
        let mut taken = Taken::new(Role::Admin);
        let _clients: Vec<UnixStream> = (0..4).map(|second| taken.connect(second)).collect();

        let path = taken.place.path().join("s");
        let mut client = Client::connect(&path, Duration::from_secs(5)).unwrap();
        taken.take(5);

        let refused: admin_authd::Reply = client.receive().unwrap();
        assert_eq!(
            refused,
            admin_authd::Reply::Refused(Refusal::TooManyConnections)
        );
        assert_eq!(taken.heard().len(), LIMIT);
    }

    #[test]
    fn another_account_is_not_listened_to() {
        let mut taken = Taken::new(Role::Gateway);
        taken.listener.uid = Uid::from_raw(nix::unistd::geteuid().as_raw() + 1);
        let path = taken.place.path().join("s");
        let mut client = Client::connect(&path, Duration::from_secs(5)).unwrap();
        taken.take(0);

        assert!(client.receive::<Reply>().is_err());
        assert_eq!(taken.peers.count(), 0);
    }
}
