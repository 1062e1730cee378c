//! What users sent and what is not answered yet, on disk.
//!
//! Telegram is told to forget an update only when its row is committed. The database lives on a
//! thread of its own, so that nobody waits for the disk who does not have to; whatever arrives while
//! one commit is under way shares the next.

mod store;

use std::{
    collections::HashMap,
    fmt,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread::JoinHandle,
    time::Duration,
};

use kai_proto::ids::{ChatId, ModelName, PromptId, TelegramId, UnixSeconds};
use tokio::sync::oneshot;
use tracing::warn;

use store::Store;

/// How long the thread rests before it folds the log into the database and forgets what is old.
const QUIET: Duration = Duration::from_secs(3);

/// The stack of the database's thread, in bytes.
const STACK: usize = 512 * 1024;

/// A message that a user sent. What it says is never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Received {
    /// The update that brought it.
    pub id: PromptId,
    /// Who sent it.
    pub user: TelegramId,
    /// Where.
    pub chat: ChatId,
    /// Its number in that chat.
    pub message: i32,
    /// What it says; none if it is not text.
    pub text: Option<String>,
    /// When it arrived.
    pub at: UnixSeconds,
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received")
            .field("id", &self.id)
            .field("user", &self.user)
            .field("chat", &self.chat)
            .field("message", &self.message)
            .field("bytes", &self.text.as_ref().map(String::len))
            .finish_non_exhaustive()
    }
}

/// A message that is not answered yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unanswered {
    /// The message.
    pub received: Received,
    /// The messages in which its answer has begun, in their order.
    pub parts: Vec<i32>,
    /// True if its user had proved the second factor when it was handed on.
    pub cleared: bool,
}

/// Where a message stands that reads like a code. What it says is never written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodePlace {
    /// The update that brought it.
    pub id: PromptId,
    /// Who sent it.
    pub user: TelegramId,
    /// Where.
    pub chat: ChatId,
    /// Its number in that chat.
    pub message: i32,
}

/// What the database held at the start.
#[derive(Debug, Default)]
pub struct Saved {
    /// In the order of their arrival.
    pub unanswered: Vec<Unanswered>,
    /// What read like a code and may still stand in its chat.
    pub codes: Vec<CodePlace>,
    /// The newest updates that were taken, answered or not.
    pub taken: Vec<PromptId>,
    /// The model that each user chose.
    pub models: HashMap<TelegramId, ModelName>,
}

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory is not there and cannot be made.
    #[error("{path}: {error}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// What the kernel says.
        error: std::io::Error,
    },
    /// Others could read or replace what is in it.
    #[error("{0}: must belong to the gateway's account alone; mend it with: chmod 0700 {0}")]
    Exposed(PathBuf),
    /// It is of a later version of kai.
    #[error("{0}: was written by a later version of kai; install that one again")]
    Later(PathBuf),
    /// Another gateway has it open.
    #[error("{0}: another kai-gateway is using it; stop that one first")]
    Busy(PathBuf),
    /// SQLite cannot use it.
    #[error("{path}: {error}")]
    Database {
        /// Which.
        path: PathBuf,
        /// What SQLite says.
        error: rusqlite::Error,
    },
    /// No thread can be made for it.
    #[error("no thread for the database: {0}")]
    Thread(std::io::Error),
}

/// The database could not write; nothing of what was to be written is lost by that.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the inbox cannot be written: {0}")]
pub struct WriteError(String);

/// What is to be written.
#[derive(Debug)]
enum Change {
    /// Messages, and the places of those of which nothing else is kept.
    Taken(Vec<Received>, Vec<CodePlace>),
    Cleared(PromptId),
    Parts(PromptId, Vec<i32>),
    Answered(PromptId),
    Model(TelegramId, Option<ModelName>),
}

type Reply = oneshot::Sender<Result<(), WriteError>>;

/// What the thread is sent: something to write, and who waits for it. Its end is the thread's.
type Order = (Change, Option<Reply>);

/// The way to the database's thread.
#[derive(Debug, Clone)]
pub struct Inbox {
    orders: Sender<Order>,
}

/// Ends the thread, once everything that was sent to it is written and every [`Inbox`] is gone.
#[derive(Debug)]
pub struct InboxThread(JoinHandle<()>);

impl InboxThread {
    /// Waits for the end.
    pub fn join(self) {
        let _ = self.0.join();
    }
}

impl Inbox {
    /// Opens the database in `directory`, which is made if it is missing, and starts its thread.
    ///
    /// # Errors
    /// One sentence that names the path and how to mend it.
    pub fn open(
        directory: &Path,
        now: UnixSeconds,
    ) -> Result<(Self, Saved, InboxThread), OpenError> {
        own_directory(directory)?;
        let mut store = Store::open(&directory.join("inbox.db"))?;
        let saved = store.load(now)?;
        let (orders, incoming) = channel();
        let thread = std::thread::Builder::new()
            .name("inbox".to_owned())
            .stack_size(STACK)
            .spawn(move || keep(store, &incoming))
            .map_err(OpenError::Thread)?;
        Ok((Self { orders }, saved, InboxThread(thread)))
    }

    /// Writes down what arrived; what is already there stays as it is. Of what reads like a code only
    /// the number is kept, by which it is recognised when it comes again, and the place, until it is
    /// [answered](Self::answered): a code is removed from its chat also by the next run.
    ///
    /// # Errors
    /// [`WriteError`] if it is not on disk.
    pub async fn taken(
        &self,
        received: Vec<Received>,
        codes: Vec<CodePlace>,
    ) -> Result<(), WriteError> {
        self.write(Change::Taken(received, codes)).await
    }

    /// Notes that a message was handed on with a proof of the second factor, so that after a restart it
    /// is held until the next one and not asked about like one that came without. Nobody waits for it.
    pub fn cleared(&self, id: PromptId) {
        let _ = self.orders.send((Change::Cleared(id), None));
    }

    /// Marks a message as answered and wipes its text.
    ///
    /// # Errors
    /// [`WriteError`] if that is not on disk.
    pub async fn answered(&self, id: PromptId) -> Result<(), WriteError> {
        self.write(Change::Answered(id)).await
    }

    /// Notes in which messages an answer stands, so that it goes on in them after a restart. Nobody
    /// waits for it.
    pub fn parts(&self, id: PromptId, messages: Vec<i32>) {
        let _ = self.orders.send((Change::Parts(id, messages), None));
    }

    /// Keeps the model that a user chose, or forgets it. Nobody waits for it; what is sent later is
    /// written later.
    pub fn model(&self, user: TelegramId, model: Option<ModelName>) {
        let _ = self.orders.send((Change::Model(user, model), None));
    }

    async fn write(&self, change: Change) -> Result<(), WriteError> {
        let ended = || WriteError("its thread has ended".to_owned());
        let (reply, written) = oneshot::channel();
        let sent = self.orders.send((change, Some(reply)));
        sent.map_err(|_| ended())?;
        written.await.map_err(|_| ended())?
    }
}

/// The thread: writes what arrives, in transactions of all that is there.
fn keep(mut store: Store, incoming: &Receiver<Order>) {
    let mut unfolded = false;
    // What nobody waits for is kept until it could be written.
    let mut kept: Vec<Change> = Vec::new();
    loop {
        let first = if unfolded {
            match incoming.recv_timeout(QUIET) {
                Ok(order) => order,
                Err(RecvTimeoutError::Timeout) => {
                    store.tidy(now());
                    unfolded = false;
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        } else {
            match incoming.recv() {
                Ok(order) => order,
                Err(_) => return,
            }
        };
        let mut changes = std::mem::take(&mut kept);
        let patient = changes.len();
        let mut replies = Vec::new();
        for (change, reply) in std::iter::once(first).chain(incoming.try_iter()) {
            changes.push(change);
            replies.push(reply);
        }
        let written = store.write(&changes).map_err(|error| {
            warn!("the inbox cannot be written: {error}");
            WriteError(error.to_string())
        });
        unfolded = true;
        if written.is_err() {
            let unheard = changes.drain(..patient).collect::<Vec<_>>();
            kept = unheard;
            kept.extend(
                changes
                    .into_iter()
                    .zip(&replies)
                    .filter_map(|(change, reply)| reply.is_none().then_some(change)),
            );
        }
        for reply in replies.into_iter().flatten() {
            let _ = reply.send(written.clone());
        }
    }
}

/// Makes `directory` for this account alone, or makes sure that it is.
fn own_directory(directory: &Path) -> Result<(), OpenError> {
    let io = |error| OpenError::Directory {
        path: directory.to_owned(),
        error,
    };
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory);
    made.map_err(io)?;
    let found = std::fs::symlink_metadata(directory).map_err(io)?;
    let is_own = found.is_dir() && found.uid() == nix::unistd::geteuid().as_raw();
    if !is_own || found.mode() & 0o077 != 0 {
        return Err(OpenError::Exposed(directory.to_owned()));
    }
    Ok(())
}

fn now() -> UnixSeconds {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn received(id: i64, text: &str) -> Received {
        Received {
            id: PromptId::try_from(id).unwrap(),
            user: TelegramId::try_from(7).unwrap(),
            chat: ChatId::try_from(7).unwrap(),
            message: 1,
            text: Some(text.to_owned()),
            at: now(),
        }
    }

    async fn reopened(directory: &Path, inbox: Inbox, thread: InboxThread) -> Saved {
        drop(inbox);
        tokio::task::spawn_blocking(|| thread.join()).await.unwrap();
        let (_, saved, _) = Inbox::open(directory, now()).unwrap();
        saved
    }

    fn place() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("gateway");
        (directory, place)
    }

    #[tokio::test]
    async fn what_was_taken_and_not_answered_is_there_after_a_restart_in_its_order() {
        let (_directory, place) = place();
        let (inbox, _, thread) = Inbox::open(&place, now()).unwrap();
        inbox
            .taken(vec![received(9, "late id first")], vec![])
            .await
            .unwrap();
        inbox
            .taken(vec![received(8, "second"), received(5, "third")], vec![])
            .await
            .unwrap();
        inbox.parts(received(8, "").id, vec![31, 32]);
        inbox.answered(received(9, "").id).await.unwrap();

        let saved = reopened(&place, inbox, thread).await;

        let texts: Vec<_> = saved
            .unanswered
            .iter()
            .map(|row| (row.received.text.as_deref(), row.parts.as_slice()))
            .collect();
        assert_eq!(
            texts,
            [(Some("second"), [31, 32].as_slice()), (Some("third"), &[])]
        );
        assert_eq!(saved.taken.len(), 3);
    }

    #[tokio::test]
    async fn a_message_that_is_taken_again_stays_answered() {
        let (_directory, place) = place();
        let (inbox, _, thread) = Inbox::open(&place, now()).unwrap();
        // The answer may be on disk before the message is.
        inbox.answered(received(3, "").id).await.unwrap();
        inbox
            .taken(vec![received(3, "again")], vec![])
            .await
            .unwrap();

        let saved = reopened(&place, inbox, thread).await;

        assert_eq!(saved.unanswered, []);
    }

    #[tokio::test]
    async fn the_text_of_an_answered_message_is_nowhere_on_disk() {
        let (_directory, place) = place();
        let (inbox, _, thread) = Inbox::open(&place, now()).unwrap();
        let words = "the-words-that-must-go";
        inbox.taken(vec![received(3, words)], vec![]).await.unwrap();
        inbox.answered(received(3, "").id).await.unwrap();

        reopened(&place, inbox, thread).await;

        for file in std::fs::read_dir(&place).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            let found = bytes
                .windows(words.len())
                .any(|part| part == words.as_bytes());
            assert!(!found);
        }
    }

    #[tokio::test]
    async fn of_a_code_the_number_is_kept_and_the_place_until_it_is_removed() {
        let (_directory, place) = place();
        let (inbox, _, thread) = Inbox::open(&place, now()).unwrap();
        let [first, second] = [4, 5].map(|number| {
            let Received {
                id,
                user,
                chat,
                message,
                ..
            } = received(number, "");
            CodePlace {
                id,
                user,
                chat,
                message,
            }
        });
        inbox
            .taken(vec![received(3, "words")], vec![first, second])
            .await
            .unwrap();
        inbox.answered(second.id).await.unwrap();

        let saved = reopened(&place, inbox, thread).await;

        assert!(saved.taken.contains(&first.id) && saved.taken.contains(&second.id));
        assert_eq!(saved.unanswered.len(), 1);
        assert_eq!(saved.unanswered[0].received.id, received(3, "").id);
        assert_eq!(saved.codes, [first]);
    }

    #[tokio::test]
    async fn what_reads_like_a_code_and_went_on_is_held_without_its_words() {
        let (_directory, place) = place();
        let (inbox, _, thread) = Inbox::open(&place, now()).unwrap();
        let Received {
            id,
            user,
            chat,
            message,
            ..
        } = received(4, "");
        let place_of_it = CodePlace {
            id,
            user,
            chat,
            message,
        };
        inbox.cleared(id);
        inbox.taken(vec![], vec![place_of_it]).await.unwrap();

        let saved = reopened(&place, inbox, thread).await;

        assert_eq!(saved.codes, []);
        assert_eq!(saved.unanswered.len(), 1);
        assert!(saved.unanswered[0].cleared);
        let text = saved.unanswered[0].received.text.as_deref();
        assert_eq!(text, Some("(six digits)"));
    }

    #[tokio::test]
    async fn what_was_cleared_is_so_after_a_restart_whichever_is_written_first() {
        let (_directory, place) = place();
        let (inbox, _, thread) = Inbox::open(&place, now()).unwrap();
        inbox.cleared(received(4, "").id);
        inbox
            .taken(vec![received(3, "a"), received(4, "b")], vec![])
            .await
            .unwrap();
        inbox.taken(vec![received(5, "c")], vec![]).await.unwrap();
        inbox.cleared(received(5, "").id);

        let saved = reopened(&place, inbox, thread).await;

        let cleared: Vec<_> = saved.unanswered.iter().map(|row| row.cleared).collect();
        assert_eq!(cleared, [false, true, true]);
    }

    #[tokio::test]
    async fn an_inbox_of_the_first_schema_is_taken_over_with_nothing_cleared() {
        let (_directory, place) = place();
        own_directory(&place).unwrap();
        let old = rusqlite::Connection::open(place.join("inbox.db")).unwrap();
        old.execute_batch(
            "CREATE TABLE message (
                 update_id INTEGER PRIMARY KEY, arrival INTEGER NOT NULL, user INTEGER NOT NULL,
                 chat INTEGER NOT NULL, message INTEGER NOT NULL, text TEXT,
                 received_at INTEGER NOT NULL, answered INTEGER NOT NULL DEFAULT 0,
                 parts TEXT NOT NULL DEFAULT ''
             ) STRICT;
             CREATE INDEX unanswered ON message (arrival) WHERE answered = 0;
             CREATE INDEX age ON message (received_at);
             CREATE TABLE setting (user INTEGER PRIMARY KEY, model TEXT NOT NULL) STRICT;
             INSERT INTO message VALUES (3, 1, 7, 7, 1, 'kept', unixepoch(), 0, '5 6');
             PRAGMA user_version = 1;",
        )
        .unwrap();
        drop(old);

        let (inbox, saved, thread) = Inbox::open(&place, now()).unwrap();

        assert_eq!(saved.unanswered[0].received.text.as_deref(), Some("kept"));
        assert!(!saved.unanswered[0].cleared);
        inbox.cleared(received(3, "").id);
        let saved = reopened(&place, inbox, thread).await;
        assert!(saved.unanswered[0].cleared);
        assert_eq!(saved.unanswered[0].parts, [5, 6]);
    }

    #[tokio::test]
    async fn a_chosen_model_is_kept_until_it_is_reset() {
        let (_directory, place) = place();
        let (inbox, _, thread) = Inbox::open(&place, now()).unwrap();
        let user = TelegramId::try_from(7).unwrap();
        let model = ModelName::try_from("opus".to_owned()).unwrap();
        inbox.model(user, Some(model.clone()));
        let saved = reopened(&place, inbox, thread).await;
        assert_eq!(saved.models.get(&user), Some(&model));
    }

    #[test]
    fn a_directory_that_others_can_enter_is_refused_with_the_mend() {
        let (_directory, place) = place();
        std::fs::create_dir(&place).unwrap();
        std::fs::set_permissions(&place, PermissionsExt::from_mode(0o750)).unwrap();
        let refused = Inbox::open(&place, now()).unwrap_err().to_string();
        assert!(refused.contains("chmod 0700"), "{refused}");
    }

    #[test]
    fn a_second_gateway_is_refused() {
        let (_directory, place) = place();
        let (_inbox, _, _thread) = Inbox::open(&place, now()).unwrap();
        let refused = Inbox::open(&place, now()).unwrap_err();
        assert!(matches!(refused, OpenError::Busy(_)), "{refused}");
    }
}
