//! Asking authd how a user stands, once for every message, on one connection that stays open.
//!
//! No answer means no: while authd is away a question waits, and its message with it.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use kai_proto::{
    framed::{self, Reader, Writer},
    gateway_authd::{Reply, Request, Standing, User},
    hello::Hello,
    limits,
};
use tokio::{
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    time::Instant,
};
use tracing::{info, warn};

/// The shortest and the longest wait before authd is tried again.
const WAITS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// A question, and what is to happen with its answer.
struct Question {
    user: User,
    answer: Box<dyn FnOnce(Standing) + Send>,
}

/// The way to authd.
#[derive(Clone)]
pub struct Authd {
    questions: mpsc::UnboundedSender<Question>,
}

impl Authd {
    /// Starts to keep a connection to authd's `socket`.
    #[must_use]
    pub fn start(socket: PathBuf) -> Self {
        let (questions, incoming) = mpsc::unbounded_channel();
        tokio::spawn(keep(socket, incoming));
        Self { questions }
    }

    /// Asks how `user` stands; `answer` is called with what authd says, however late.
    pub fn ask(&self, user: User, answer: impl FnOnce(Standing) + Send + 'static) {
        let answer = Box::new(answer);
        let _ = self.questions.send(Question { user, answer });
    }
}

type Connection = (
    Reader<OwnedReadHalf, Reply>,
    Writer<OwnedWriteHalf, Request>,
);

async fn keep(socket: PathBuf, mut incoming: mpsc::UnboundedReceiver<Question>) {
    // What was asked and not answered, in the order of the answers to come.
    let mut open = VecDeque::new();
    let mut wait = WAITS.0;
    let mut said = false;
    loop {
        let ended = match connect(&socket).await {
            Ok(connection) => {
                if said {
                    info!("authd is back");
                }
                said = false;
                wait = WAITS.0;
                match converse(connection, &mut incoming, &mut open).await {
                    Ok(()) => return,
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        if !said {
            said = true;
            warn!("authd cannot be asked, messages wait: {ended}");
        }
        tokio::time::sleep(wait).await;
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

/// Asks and listens until the connection ends, which is an error, or nobody asks any more.
async fn converse(
    (mut replies, mut requests): Connection,
    incoming: &mut mpsc::UnboundedReceiver<Question>,
    open: &mut VecDeque<Question>,
) -> io::Result<()> {
    let again: Vec<User> = open.iter().map(|question| question.user.clone()).collect();
    for user in again {
        requests
            .feed(Request::Standing { user, grant: None })
            .await?;
    }
    requests.flush().await?;
    let mut due = Instant::now() + limits::FRAME_DEADLINE;
    loop {
        tokio::select! {
            question = incoming.recv() => {
                let Some(question) = question else {
                    return Ok(());
                };
                if open.is_empty() {
                    due = Instant::now() + limits::FRAME_DEADLINE;
                }
                let user = question.user.clone();
                // Kept before it is sent: if that fails it is asked again.
                open.push_back(question);
                requests.send(Request::Standing { user, grant: None }).await?;
            }
            reply = replies.next() => match reply {
                Some(Ok(Reply::Standing(standing))) => {
                    let Some(question) = open.pop_front() else {
                        return Err(io::Error::other("it answered what was not asked"));
                    };
                    (question.answer)(standing);
                    due = Instant::now() + limits::FRAME_DEADLINE;
                }
                Some(Ok(Reply::Refused(refusal))) => return Err(io::Error::other(refusal)),
                Some(Ok(Reply::Verdict(_) | Reply::Locked)) => {
                    return Err(io::Error::other("it answered what was not asked"));
                }
                Some(Ok(Reply::Hello(_))) => return Err(io::Error::other("it greeted twice")),
                Some(Err(error)) => return Err(error),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            },
            () = tokio::time::sleep_until(due), if !open.is_empty() => {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }
}
