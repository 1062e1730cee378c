//! Asking authd: how a user stands, whether a code is right, and to lock. All on one connection that
//! stays open; authd answers in the order of the questions.
//!
//! No answer means no. How a user stands and locking may be asked any number of times, so these
//! questions wait while authd is away and are asked again when a connection is lost. A code is asked
//! about at most once: it may have been counted although no answer came, and a repeated one would be
//! refused as used.

use std::{
    collections::VecDeque,
    future::Future,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use kai_proto::{
    code::Code,
    framed::{self, Reader, Writer},
    gateway_authd::{Reply, Request, Standing, User, Verdict},
    grant::Grant,
    hello::Hello,
    limits,
};
use tokio::{
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot},
    time::Instant,
};
use tracing::{info, warn};

/// The shortest and the longest wait before authd is tried again.
const WAITS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Questions that wait to be asked. Each user's task has at most three open.
const WAITING: usize = 4096;
/// Questions that are asked and not answered; the others wait.
const OPEN: usize = 256;

/// Why nobody knows whether a code is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoVerdict {
    /// authd is away: the code was not asked about.
    Away,
    /// The connection was lost before the answer: the code may have been counted.
    Lost,
}

/// What to do with an answer.
type Then<A> = Box<dyn FnOnce(A) + Send>;

/// A question, and what is to happen with its answer.
enum Question {
    /// With true if it is about a message, which puts off the idle end of the grant.
    Standing(User, Option<Grant>, bool, Then<Standing>),
    /// The same, for somebody who does not wait while authd is away.
    StandingNow(User, Option<Grant>, oneshot::Sender<Standing>),
    Verify(User, Code, Then<Result<Verdict, NoVerdict>>),
    Lock(User, Then<bool>),
}

/// A question that was asked.
enum Asked {
    /// May be asked again.
    Again(Question),
    /// May not.
    Verify(Then<Result<Verdict, NoVerdict>>),
}

/// The way to authd.
#[derive(Clone)]
pub struct Authd {
    questions: mpsc::Sender<Question>,
}

impl Authd {
    /// Starts to keep a connection to authd's `socket`.
    #[must_use]
    pub fn start(socket: PathBuf) -> Self {
        let (questions, incoming) = mpsc::channel(WAITING);
        tokio::spawn(keep(socket, incoming));
        Self { questions }
    }

    /// Asks how `user` stands with this grant, whose idle end is put off if this is to `renew` it; `then`
    /// is called with what authd says, however late.
    pub fn standing(
        &self,
        user: User,
        grant: Option<Grant>,
        renew: bool,
        then: impl FnOnce(Standing) + Send + 'static,
    ) {
        self.ask(Question::Standing(user, grant, renew, Box::new(then)));
    }

    /// The same without a renewal, at once or not at all: none if authd is away or takes longer than
    /// [`limits::FRAME_DEADLINE`].
    pub async fn standing_now(&self, user: User, grant: Option<Grant>) -> Option<Standing> {
        let (reply, answer) = oneshot::channel();
        self.ask(Question::StandingNow(user, grant, reply));
        let answer = tokio::time::timeout(limits::FRAME_DEADLINE, answer).await;
        answer.ok().and_then(Result::ok)
    }

    /// Asks whether `code` is right, once.
    pub fn verify(
        &self,
        user: User,
        code: Code,
        then: impl FnOnce(Result<Verdict, NoVerdict>) + Send + 'static,
    ) {
        self.ask(Question::Verify(user, code, Box::new(then)));
    }

    /// Ends the proof of `user`; `then` is called once authd has done it, however late. It is called
    /// with false if so many questions wait that this one cannot.
    pub fn lock(&self, user: User, then: impl FnOnce(bool) + Send + 'static) {
        self.ask(Question::Lock(user, Box::new(then)));
    }

    fn ask(&self, question: Question) {
        if let Err(error) = self.questions.try_send(question) {
            error.into_inner().give_up();
        }
    }
}

impl Question {
    /// The request, and what to keep until it is answered.
    fn put(self) -> (Request, Asked) {
        let request = match self {
            Self::Verify(user, code, then) => {
                return (Request::Verify { user, code }, Asked::Verify(then));
            }
            Self::Standing(ref user, ref grant, renew, _) => Request::Standing {
                user: user.clone(),
                grant: grant.clone(),
                renew,
            },
            Self::StandingNow(ref user, ref grant, _) => Request::Standing {
                user: user.clone(),
                grant: grant.clone(),
                renew: false,
            },
            Self::Lock(ref user, _) => Request::Lock { user: user.clone() },
        };
        (request, Asked::Again(self))
    }

    /// True if it waits while authd is away.
    fn is_patient(&self) -> bool {
        matches!(self, Self::Standing(..) | Self::Lock(..))
    }

    /// Nobody will answer it.
    fn give_up(self) {
        match self {
            Self::Standing(_, _, _, then) => then(Standing::Unavailable),
            // The other side sees that nothing comes.
            Self::StandingNow(_, _, reply) => drop(reply),
            Self::Verify(_, _, then) => then(Err(NoVerdict::Away)),
            Self::Lock(_, then) => then(false),
        }
    }
}

impl Asked {
    /// Gives the answer on, or the question back if this is no answer to it.
    fn answer(self, reply: Reply) -> Result<(), Self> {
        match (self, reply) {
            (Self::Again(Question::Standing(_, _, _, then)), Reply::Standing(standing)) => {
                then(standing);
            }
            (Self::Again(Question::StandingNow(_, _, reply)), Reply::Standing(standing)) => {
                // Who asked may have given up by now.
                let _ = reply.send(standing);
            }
            (Self::Verify(then), Reply::Verdict(verdict)) => then(Ok(verdict)),
            (Self::Again(Question::Lock(_, then)), Reply::Locked) => then(true),
            (asked, _) => return Err(asked),
        }
        Ok(())
    }
}

type Connection = (
    Reader<OwnedReadHalf, Reply>,
    Writer<OwnedWriteHalf, Request>,
);

/// The questions on this side.
struct Desk {
    incoming: mpsc::Receiver<Question>,
    /// To be asked before anything else.
    first: VecDeque<Question>,
    /// Asked and not answered, in the order of the answers to come.
    open: VecDeque<Asked>,
}

async fn keep(socket: PathBuf, incoming: mpsc::Receiver<Question>) {
    let mut desk = Desk {
        incoming,
        first: VecDeque::new(),
        open: VecDeque::new(),
    };
    let mut wait = WAITS.0;
    let mut said = false;
    loop {
        // The first time nobody knows yet whether authd is there, and everybody waits to hear it.
        let connecting = connect(&socket);
        let connected = if said {
            desk.meanwhile(connecting).await
        } else {
            Some(connecting.await)
        };
        let ended = match connected {
            Some(Ok(connection)) => {
                if said {
                    info!("authd is back");
                }
                said = false;
                wait = WAITS.0;
                match desk.converse(connection).await {
                    Ok(()) => return,
                    Err(error) => error,
                }
            }
            Some(Err(error)) => error,
            None => return,
        };
        desk.is_away();
        if !said {
            said = true;
            warn!("authd cannot be asked, messages wait: {ended}");
        }
        if desk.meanwhile(tokio::time::sleep(wait)).await.is_none() {
            return;
        }
        wait = (wait * 2).min(WAITS.1);
    }
}

async fn connect(socket: &Path) -> io::Result<Connection> {
    let mut stream = UnixStream::connect(socket).await?;
    framed::send_one(&mut stream, &Request::Hello(Hello::ours())).await?;
    match framed::receive_one(&mut stream).await? {
        Reply::Hello(hello) if hello.matches() => {}
        Reply::Refused(refusal) => return Err(io::Error::other(refusal)),
        _ => {
            return Err(io::Error::other(
                "it is of another version; restart all of kai",
            ));
        }
    }
    let (read, write) = stream.into_split();
    Ok((framed::reader(read), framed::writer(write)))
}

impl Desk {
    /// Asks and listens until the connection ends, which is an error, or nobody asks any more.
    async fn converse(&mut self, (mut replies, mut requests): Connection) -> io::Result<()> {
        while let Some(question) = self.first.pop_front() {
            let (request, asked) = question.put();
            self.open.push_back(asked);
            requests.feed(request).await?;
        }
        requests.flush().await?;
        let mut due = Instant::now() + limits::FRAME_DEADLINE;
        loop {
            tokio::select! {
                question = self.incoming.recv(), if self.open.len() < OPEN => {
                    let Some(question) = question else {
                        return Ok(());
                    };
                    if self.open.is_empty() {
                        due = Instant::now() + limits::FRAME_DEADLINE;
                    }
                    let (request, asked) = question.put();
                    // Kept before it is sent: what fails half way counts as sent.
                    self.open.push_back(asked);
                    requests.send(request).await?;
                }
                reply = replies.next() => match reply {
                    Some(Ok(Reply::Refused(refusal))) => return Err(io::Error::other(refusal)),
                    Some(Ok(reply)) => {
                        let answered = match self.open.pop_front() {
                            Some(asked) => asked.answer(reply).map_err(Some),
                            None => Err(None),
                        };
                        if let Err(asked) = answered {
                            self.open.extend(asked);
                            return Err(io::Error::other("it answered what was not asked"));
                        }
                        due = Instant::now() + limits::FRAME_DEADLINE;
                    }
                    Some(Err(error)) => return Err(error),
                    None => return Err(io::ErrorKind::UnexpectedEof.into()),
                },
                () = tokio::time::sleep_until(due), if !self.open.is_empty() => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
        }
    }

    /// There is no connection: keeps what waits and answers the rest.
    fn is_away(&mut self) {
        for asked in self.open.drain(..) {
            match asked {
                Asked::Again(question) => self.first.push_back(question),
                Asked::Verify(then) => then(Err(NoVerdict::Lost)),
            }
        }
        while let Ok(question) = self.incoming.try_recv() {
            self.first.push_back(question);
        }
        let (patient, hasty) = std::mem::take(&mut self.first)
            .into_iter()
            .partition(Question::is_patient);
        self.first = patient;
        let hasty: VecDeque<_> = hasty;
        for question in hasty {
            question.give_up();
        }
    }

    /// Waits for something while there is no connection: what is asked and does not wait is answered at
    /// once. None if nobody asks any more.
    async fn meanwhile<T>(&mut self, what: impl Future<Output = T>) -> Option<T> {
        let mut what = std::pin::pin!(what);
        loop {
            tokio::select! {
                come = &mut what => return Some(come),
                question = self.incoming.recv() => match question? {
                    patient if patient.is_patient() && self.first.len() < WAITING => {
                        self.first.push_back(patient);
                    }
                    other => other.give_up(),
                }
            }
        }
    }
}
