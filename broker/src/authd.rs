//! The broker's connection to authd: one question an attach, answers in the order of the questions, and
//! between the answers authd's word that somebody's proof has ended.
//!
//! Whoever cannot be asked about is not attached: a question without an answer in
//! [`ANSWER_DEADLINE`] is refused, whatever the reason. Nothing is read for longer than it takes to find
//! that word: answers wait in a queue, no longer than the questions were, and are taken from it a few at
//! a time, so that no number of attaches keeps the end of a proof waiting.

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
    broker_authd::{GrantEnd, Reply, Request, Standing, User},
    connection::{Connection, ConnectionError},
    grant::Grant,
    hello::Hello,
    ids::TelegramId,
    peer, sockets,
};
use nix::{
    sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket},
    unistd::Uid,
};
use tracing::{info, warn};

/// How long an attach waits for authd, and how long authd may be away before it is as good as silent.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(2);
/// How long to wait between two tries to connect.
const RECONNECT: Duration = Duration::from_millis(200);
/// Replies that are read before others get their turn.
const REPLIES_PER_WAKE: usize = 256;

/// What an answer decides.
#[derive(Debug)]
pub enum Purpose {
    /// Whether this connection is attached.
    Attach(UnixStream),
    /// Whether the user's worker stays.
    Stay,
}

/// A question.
#[derive(Debug)]
pub struct Question {
    /// Who is asked about.
    pub user: User,
    /// What the gateway presented for them.
    pub grant: Option<Grant>,
    /// What the answer decides.
    pub purpose: Purpose,
    asked: Instant,
    sent: bool,
}

/// What authd says that is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// It is there again, and it may have forgotten every grant: it keeps them in memory.
    Hello,
    /// Whatever this user proved does not hold any more. It is void for every answer about them that was
    /// not taken yet.
    Ended(TelegramId, GrantEnd),
}

/// The client side of `RUN/broker/authd.sock`.
#[derive(Debug)]
pub struct Authd {
    socket: PathBuf,
    connection: Option<Connection>,
    /// When the last greeted connection was lost; none while there is one.
    away_since: Option<Instant>,
    retry: Instant,
    questions: VecDeque<Question>,
    answered: VecDeque<(Question, Standing)>,
}

impl Authd {
    /// Not yet connected.
    #[must_use]
    pub fn new(run: &Path, now: Instant) -> Self {
        Self {
            socket: sockets::broker_authd(run),
            connection: None,
            away_since: Some(now),
            retry: now,
            questions: VecDeque::new(),
            answered: VecDeque::new(),
        }
    }

    /// True once authd answered Hello.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.away_since.is_none()
    }

    /// When authd has been away for too long; none while it is there.
    #[must_use]
    pub fn silent_at(&self) -> Option<Instant> {
        self.away_since.map(|since| since + ANSWER_DEADLINE)
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

    /// Asks how `user` stands who presented `grant`.
    pub fn ask(&mut self, user: User, grant: Option<Grant>, purpose: Purpose, now: Instant) {
        self.questions.push_back(Question {
            user,
            grant,
            purpose,
            asked: now,
            sent: false,
        });
        self.send_questions(now);
    }

    /// How many connections wait to be attached.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let answered = self.answered.iter().map(|(question, _)| question);
        self.questions
            .iter()
            .chain(answered)
            .filter(|question| matches!(question.purpose, Purpose::Attach(_)))
            .count()
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
        let is_late = |question: &&Question| now >= question.asked + ANSWER_DEADLINE;
        let count = self.questions.iter().take_while(is_late).count();
        let late: Vec<Question> = self.questions.drain(..count).collect();
        if late.iter().any(|question| question.sent) {
            // An answer that comes later would be taken for the next question's.
            self.lose(now, "it took too long over an answer");
        }
        late
    }

    /// Reads what has arrived: gives what is no answer, and puts the answers where
    /// [`next_answer`](Self::next_answer) takes them from.
    pub fn receive(&mut self, now: Instant) -> Vec<Said> {
        let mut said = Vec::new();
        for _ in 0..REPLIES_PER_WAKE {
            let Some(connection) = &mut self.connection else {
                return said;
            };
            match connection.receive::<Reply>(now) {
                Ok(None) => break,
                Ok(Some(reply)) => {
                    if let Err(reason) = self.take(reply, &mut said) {
                        self.lose(now, reason);
                    }
                }
                Err(error) => self.lose(now, &error.to_string()),
            }
        }
        self.send_questions(now);
        said
    }

    /// True if [`next_answer`](Self::next_answer) has one: there is no event to wait for then.
    #[must_use]
    pub fn has_answers(&self) -> bool {
        !self.answered.is_empty()
    }

    /// Takes the question that was answered first, with how its user stands.
    pub fn next_answer(&mut self) -> Option<(Question, Standing)> {
        self.answered.pop_front()
    }

    fn take(&mut self, reply: Reply, said: &mut Vec<Said>) -> Result<(), &'static str> {
        match reply {
            Reply::Hello(hello) if !self.connected() && hello.matches() => {
                self.away_since = None;
                info!("connected to authd");
                said.push(Said::Hello);
                Ok(())
            }
            Reply::Checked { user, standing } if self.connected() => {
                let first = self.questions.front();
                if !first.is_some_and(|question| question.sent && question.user.id == user) {
                    return Err("it answered what was not asked");
                }
                let question = self.questions.pop_front();
                self.answered
                    .extend(question.map(|question| (question, standing)));
                Ok(())
            }
            Reply::Ended { user, end } if self.connected() => {
                self.void_answers(user);
                said.push(Said::Ended(user, end));
                Ok(())
            }
            Reply::Refused(_) => Err("it refused a request"),
            Reply::Hello(_) | Reply::Checked { .. } | Reply::Ended { .. } => {
                Err("it speaks another version")
            }
        }
    }

    /// What was answered about `user` before their proof ended, and was not taken yet, is not true any
    /// more.
    fn void_answers(&mut self, user: TelegramId) {
        // The end itself decides about the worker.
        self.answered.retain(|(question, _)| {
            question.user.id != user || matches!(question.purpose, Purpose::Attach(_))
        });
        for (question, standing) in &mut self.answered {
            if question.user.id == user {
                *standing = Standing::CodeNeeded;
            }
        }
    }

    fn connect(&mut self, now: Instant) {
        self.retry = now + RECONNECT;
        let connected = connect_at_once(&self.socket).ok().filter(|stream| {
            // Only root may answer for authd: whoever else listens there answers nothing.
            peer::credentials(stream).is_ok_and(|peer| peer.uid == Uid::effective())
        });
        self.connection = connected.and_then(|stream| Connection::new(stream, now).ok());
        if let Some(connection) = &mut self.connection
            && let Err(error) = connection.send(&Request::Hello(Hello::ours()))
        {
            self.lose(now, &error.to_string());
        }
    }

    fn send_questions(&mut self, now: Instant) {
        if !self.connected() {
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
                connection.send(&Request::Check {
                    user: question.user.clone(),
                    grant: question.grant.clone(),
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
        if self.connected() {
            warn!(reason, "lost authd");
            self.away_since = Some(now);
        }
        self.connection = None;
        self.retry = now + RECONNECT;
        // An answer that was not taken is one of an authd that may be gone with all its grants.
        while let Some((question, _)) = self.answered.pop_back() {
            self.questions.push_front(question);
        }
        // Attaches are asked about again on the next connection, until their deadline. So is every worker,
        // by whoever hears the Hello: a question about one that is kept here would be a second one.
        self.questions
            .retain(|question| matches!(question.purpose, Purpose::Attach(_)));
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
