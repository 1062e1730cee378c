//! The broker's connection to authd: one question an attach, answers in the order of the questions.
//!
//! Whoever cannot be asked about is not attached: a question without an answer in
//! [`ANSWER_DEADLINE`] is refused, whatever the reason.

use std::{
    collections::VecDeque,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use kai_proto::{
    broker_authd::{Reply, Request, Standing, User},
    connection::{Connection, ConnectionError},
    grant::Grant,
    hello::Hello,
    peer, sockets,
};
use nix::{
    sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket},
    unistd::Uid,
};
use tracing::{info, warn};

/// How long an attach waits for authd.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(2);
/// How long to wait between two tries to connect.
const RECONNECT: Duration = Duration::from_millis(200);

/// A question and the connection that waits for its answer.
#[derive(Debug)]
pub struct Question {
    /// Who is to be attached.
    pub user: User,
    /// To be attached, or refused.
    pub connection: UnixStream,
    grant: Option<Grant>,
    asked: Instant,
    sent: bool,
}

/// The client side of `RUN/broker/authd.sock`.
#[derive(Debug)]
pub struct Authd {
    socket: PathBuf,
    connection: Option<Connection>,
    greeted: bool,
    retry: Instant,
    questions: VecDeque<Question>,
}

impl Authd {
    /// Not yet connected.
    #[must_use]
    pub fn new(run: &Path, now: Instant) -> Self {
        Self {
            socket: sockets::broker_authd(run),
            connection: None,
            greeted: false,
            retry: now,
            questions: VecDeque::new(),
        }
    }

    /// True once authd answered Hello.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.greeted
    }

    /// The descriptor to poll, and whether for writing too.
    #[must_use]
    pub fn polled(&self) -> Option<(BorrowedFd<'_>, bool)> {
        self.connection
            .as_ref()
            .map(|connection| (connection.as_fd(), connection.has_unsent()))
    }

    /// When something is due: an answer, a Hello or the next try to connect.
    #[must_use]
    pub fn next_look(&self) -> Option<Instant> {
        let answer = self
            .questions
            .front()
            .map(|question| question.asked + ANSWER_DEADLINE);
        let other = match &self.connection {
            Some(connection) => connection.deadline(),
            None => Some(self.retry),
        };
        [answer, other].into_iter().flatten().min()
    }

    /// Asks whether `user` may be attached.
    pub fn ask(&mut self, user: User, grant: Option<Grant>, connection: UnixStream, now: Instant) {
        self.questions.push_back(Question {
            user,
            connection,
            grant,
            asked: now,
            sent: false,
        });
        self.send_questions(now);
    }

    /// How many attaches wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.questions.len()
    }

    /// Connects if it is time, and takes the questions that have waited too long.
    pub fn tick(&mut self, now: Instant) -> Vec<Question> {
        if self
            .connection
            .as_ref()
            .and_then(Connection::deadline)
            .is_some_and(|due| now >= due)
        {
            self.lose(now, "it does not answer");
        }
        if self.connection.is_none() && now >= self.retry {
            self.connect(now);
        }
        let late = self
            .questions
            .iter()
            .take_while(|question| now >= question.asked + ANSWER_DEADLINE)
            .count();
        if late > 0
            && self
                .questions
                .iter()
                .take(late)
                .any(|question| question.sent)
        {
            // An answer that comes later would be taken for the next question's.
            self.lose(now, "it took too long over an answer");
        }
        self.questions.drain(..late).collect()
    }

    /// Reads what has arrived: questions that were answered, each with how its user stands.
    pub fn receive(&mut self, now: Instant) -> Vec<(Question, Standing)> {
        let mut answered = Vec::new();
        loop {
            let Some(connection) = &mut self.connection else {
                return answered;
            };
            match connection.receive::<Reply>(now) {
                Ok(None) => break,
                Ok(Some(reply)) => {
                    if let Err(reason) = self.take(reply, &mut answered) {
                        self.lose(now, reason);
                    }
                }
                Err(error) => self.lose(now, &error.to_string()),
            }
        }
        self.send_questions(now);
        answered
    }

    fn take(
        &mut self,
        reply: Reply,
        answered: &mut Vec<(Question, Standing)>,
    ) -> Result<(), &'static str> {
        match reply {
            Reply::Hello(hello) if !self.greeted && hello.matches() => {
                self.greeted = true;
                info!("connected to authd");
                Ok(())
            }
            Reply::Checked { user, standing } if self.greeted => {
                let first = self.questions.front();
                if !first.is_some_and(|question| question.sent && question.user.id == user) {
                    return Err("it answered what was not asked");
                }
                answered.extend(
                    self.questions
                        .pop_front()
                        .map(|question| (question, standing)),
                );
                Ok(())
            }
            Reply::Ended { .. } => Ok(()),
            Reply::Refused(_) => Err("it refused a request"),
            Reply::Hello(_) | Reply::Checked { .. } => Err("it speaks another version"),
        }
    }

    fn connect(&mut self, now: Instant) {
        self.retry = now + RECONNECT;
        let connected = connect_at_once(&self.socket).ok().filter(|stream| {
            // Only root may answer for authd: whoever else listens there answers nothing.
            peer::credentials(stream).is_ok_and(|peer| peer.uid == Uid::effective())
        });
        let connection = connected.and_then(|stream| Connection::new(stream, now).ok());
        self.greeted = false;
        self.connection = connection;
        if let Some(connection) = &mut self.connection
            && let Err(error) = connection.send(&Request::Hello(Hello::ours()))
        {
            self.lose(now, &error.to_string());
        }
    }

    fn send_questions(&mut self, now: Instant) {
        if !self.greeted {
            return;
        }
        let Some(connection) = &mut self.connection else {
            return;
        };
        let sent = self
            .questions
            .iter_mut()
            .filter(|question| !question.sent)
            .try_for_each(|question| {
                question.sent = true;
                let grant = question.grant.clone();
                connection.send(&Request::Check {
                    user: question.user.clone(),
                    grant,
                })
            });
        if let Err(error) = sent {
            self.lose(now, &error.to_string());
        }
    }

    /// Writes what could not be written at once.
    pub fn flush(&mut self, now: Instant) {
        let flushed: Result<(), ConnectionError> =
            self.connection.as_mut().map_or(Ok(()), Connection::flush);
        if let Err(error) = flushed {
            self.lose(now, &error.to_string());
        }
    }

    fn lose(&mut self, now: Instant, reason: &str) {
        if self.greeted {
            warn!(reason, "lost authd");
        }
        self.connection = None;
        self.greeted = false;
        self.retry = now + RECONNECT;
        // What was not answered is asked again on the next connection, until its deadline.
        for question in &mut self.questions {
            question.sent = false;
        }
    }
}

/// Connects without waiting: connect(2) would block while the backlog of a stopped authd is full, and
/// with it everything that the poll loop does.
fn connect_at_once(path: &Path) -> Result<UnixStream, nix::Error> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(UnixStream::from(socket))
}
