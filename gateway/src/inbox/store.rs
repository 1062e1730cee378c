//! The database itself: its tables and every statement over them. Runs on the inbox's thread.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use kai_proto::ids::{ChatId, ModelName, PromptId, TelegramId, UnixSeconds};
use rusqlite::{Connection, ErrorCode, Row, Transaction, TransactionBehavior, params};
use tracing::warn;

use super::{Change, CodePlace, OpenError, Received, Saved, Unanswered};

/// The version of the tables below, in the database's `user_version`.
const VERSION: i64 = 3;

/// How long the number of an answered message is kept, so that it is recognised if it comes again.
/// Telegram itself forgets an update after a day.
const KEPT: UnixSeconds = 7 * 24 * 3600;

/// In place of a text that reads like a code and went on as a message: it is written down nowhere, and what
/// has begun of it is known by its number.
const UNWRITTEN: &str = "(six digits)";

/// How many messages may be cleared before they are taken.
const EARLY: usize = 10_000;

/// How many of the newest numbers are given back at the start.
const RECALLED: i64 = 10_000;

const TABLES: &str = "
    CREATE TABLE message (
        update_id INTEGER PRIMARY KEY,
        arrival INTEGER NOT NULL,
        user INTEGER NOT NULL,
        chat INTEGER NOT NULL,
        message INTEGER NOT NULL,
        text TEXT,
        received_at INTEGER NOT NULL,
        answered INTEGER NOT NULL DEFAULT 0,
        parts TEXT NOT NULL DEFAULT '',
        cleared INTEGER NOT NULL DEFAULT 0,
        code INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE INDEX unanswered ON message (arrival) WHERE answered = 0;
    CREATE INDEX age ON message (received_at);
    CREATE TABLE setting (
        user INTEGER PRIMARY KEY,
        model TEXT NOT NULL
    ) STRICT;
    PRAGMA user_version = 3;";

/// Makes the tables of version 1 into those of version 2. What waits there was cleared by nobody who could
/// ask for a code, so it counts as not cleared.
const FROM_VERSION_1: &str = "
    ALTER TABLE message ADD COLUMN cleared INTEGER NOT NULL DEFAULT 0;";

/// Makes the tables of version 2 into those above.
const FROM_VERSION_2: &str = "
    ALTER TABLE message ADD COLUMN code INTEGER NOT NULL DEFAULT 0;
    PRAGMA user_version = 3;";

/// How the database is used. `EXCLUSIVE` needs no shared memory for the log and keeps a second
/// gateway out; `secure_delete` overwrites what is removed. The cache is small because hardly
/// anything is read twice.
const SETTINGS: &str = "
    PRAGMA locking_mode = EXCLUSIVE;
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA secure_delete = ON;
    PRAGMA cache_size = -64;
    PRAGMA mmap_size = 0;
    PRAGMA temp_store = MEMORY;
    PRAGMA journal_size_limit = 0;";

/// The open database.
pub struct Store {
    database: Connection,
    path: PathBuf,
    next_arrival: i64,
    /// Messages that were cleared before they were taken.
    early: HashSet<PromptId>,
}

impl Store {
    /// Opens or makes the database at `path`.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let failed = |error: rusqlite::Error| match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                OpenError::Busy(path.to_owned())
            }
            _ => OpenError::Database {
                path: path.to_owned(),
                error,
            },
        };
        let mut database = Connection::open(path).map_err(failed)?;
        database
            .busy_timeout(std::time::Duration::ZERO)
            .map_err(failed)?;
        database.set_prepared_statement_cache_capacity(8);
        database.execute_batch(SETTINGS).map_err(failed)?;
        let transaction = database
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        let version: i64 = transaction
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(failed)?;
        match version {
            0 => transaction.execute_batch(TABLES).map_err(failed)?,
            1 => transaction
                .execute_batch(FROM_VERSION_1)
                .and_then(|()| transaction.execute_batch(FROM_VERSION_2))
                .map_err(failed)?,
            2 => transaction.execute_batch(FROM_VERSION_2).map_err(failed)?,
            VERSION => {}
            _ => return Err(OpenError::Later(path.to_owned())),
        }
        transaction.commit().map_err(failed)?;
        let next_arrival = database
            .query_row(
                "SELECT coalesce(max(arrival), 0) + 1 FROM message",
                [],
                |row| row.get(0),
            )
            .map_err(failed)?;
        Ok(Self {
            database,
            path: path.to_owned(),
            next_arrival,
            early: HashSet::new(),
        })
    }

    /// Forgets what is old and gives what is there.
    ///
    /// # Errors
    /// [`OpenError::Database`].
    pub fn load(&mut self, now: UnixSeconds) -> Result<Saved, OpenError> {
        self.tidy(now);
        self.read().map_err(|error| OpenError::Database {
            path: self.path.clone(),
            error,
        })
    }

    fn read(&self) -> Result<Saved, rusqlite::Error> {
        let mut saved = Saved::default();
        let mut statement = self.database.prepare(
            "SELECT update_id, user, chat, message, iif(code, ?1, text), received_at, parts, cleared
             FROM message WHERE answered = 0 AND (code = 0 OR cleared = 1) ORDER BY arrival",
        )?;
        let mut rows = statement.query([UNWRITTEN])?;
        while let Some(row) = rows.next()? {
            saved.unanswered.push(unanswered(row)?);
        }
        let mut statement = self.database.prepare(
            "SELECT update_id, user, chat, message FROM message
             WHERE answered = 0 AND code = 1 AND cleared = 0",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            saved.codes.push(CodePlace {
                id: checked(row, 0, PromptId::try_from)?,
                user: checked(row, 1, TelegramId::try_from)?,
                chat: checked(row, 2, ChatId::try_from)?,
                message: row.get(3)?,
            });
        }
        let mut statement = self
            .database
            .prepare("SELECT update_id FROM message ORDER BY received_at DESC LIMIT ?1")?;
        let mut rows = statement.query([RECALLED])?;
        while let Some(row) = rows.next()? {
            saved.taken.push(checked(row, 0, PromptId::try_from)?);
        }
        let mut statement = self.database.prepare("SELECT user, model FROM setting")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            // A name that is no longer taken as one is as good as none.
            if let Ok(model) = ModelName::try_from(row.get::<_, String>(1)?) {
                saved
                    .models
                    .insert(checked(row, 0, TelegramId::try_from)?, model);
            }
        }
        Ok(saved)
    }

    /// Writes all of `changes`, or none.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn write(&mut self, changes: &[Change]) -> Result<(), rusqlite::Error> {
        let mut next_arrival = self.next_arrival;
        let mut early = self.early.clone();
        let transaction = self
            .database
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        for change in changes {
            match change {
                Change::Taken(messages, codes) => {
                    let mut insert = transaction.prepare_cached(
                        "INSERT OR IGNORE INTO message
                         (update_id, arrival, user, chat, message, text, received_at, cleared)
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                    )?;
                    for received in messages {
                        insert.execute(params![
                            i64::from(received.id),
                            next_arrival,
                            i64::from(received.user),
                            i64::from(received.chat),
                            received.message,
                            received.text,
                            seconds(received.at),
                            early.remove(&received.id),
                        ])?;
                        next_arrival += 1;
                    }
                    drop(insert);
                    let mut insert = transaction.prepare_cached(
                        "INSERT OR IGNORE INTO message
                         (update_id, arrival, user, chat, message, received_at, code, cleared)
                         VALUES (?1, ?2, ?3, ?4, ?5, unixepoch(), 1, ?6)",
                    )?;
                    for code in codes {
                        insert.execute(params![
                            i64::from(code.id),
                            next_arrival,
                            i64::from(code.user),
                            i64::from(code.chat),
                            code.message,
                            early.remove(&code.id),
                        ])?;
                        next_arrival += 1;
                    }
                }
                Change::Cleared(id) => {
                    let there = transaction
                        .prepare_cached("UPDATE message SET cleared = 1 WHERE update_id = ?1")?
                        .execute([i64::from(*id)])?;
                    if there == 0 && early.len() < EARLY {
                        early.insert(*id);
                    }
                }
                Change::Parts(id, parts) => {
                    let parts: Vec<String> = parts.iter().map(i32::to_string).collect();
                    transaction
                        .prepare_cached(
                            "UPDATE message SET parts = ?2 WHERE update_id = ?1 AND answered = 0",
                        )?
                        .execute(params![i64::from(*id), parts.join(" ")])?;
                }
                Change::Answered(id) => {
                    settle(&transaction, *id, next_arrival)?;
                    next_arrival += 1;
                }
                Change::Model(user, Some(model)) => {
                    transaction.execute(
                        "INSERT INTO setting (user, model) VALUES (?1, ?2)
                         ON CONFLICT (user) DO UPDATE SET model = ?2",
                        params![i64::from(*user), model.as_str()],
                    )?;
                }
                Change::Model(user, None) => {
                    transaction
                        .execute("DELETE FROM setting WHERE user = ?1", [i64::from(*user)])?;
                }
            }
        }
        transaction.commit()?;
        self.next_arrival = next_arrival;
        self.early = early;
        Ok(())
    }

    /// Forgets the numbers of what was answered long ago, and empties the log, in which wiped texts
    /// would still stand.
    pub fn tidy(&mut self, now: UnixSeconds) {
        let forgotten = self.database.execute(
            "DELETE FROM message WHERE answered = 1 AND received_at < ?1",
            [seconds(now.saturating_sub(KEPT))],
        );
        let folded = self
            .database
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        if let Err(error) = forgotten.map(drop).and(folded) {
            warn!("the inbox cannot be tidied: {error}");
        }
    }
}

/// Keeps the number of a message that needs nothing more, and nothing else of it. It may not be there
/// yet: the answer may be ready before the message could be written.
fn settle(
    transaction: &Transaction<'_>,
    id: PromptId,
    arrival: i64,
) -> Result<(), rusqlite::Error> {
    transaction
        .prepare_cached(
            "INSERT INTO message (update_id, arrival, user, chat, message, received_at, answered)
             VALUES (?1, ?2, 0, 0, 0, unixepoch(), 1)
             ON CONFLICT (update_id) DO UPDATE
             SET answered = 1, user = 0, chat = 0, message = 0, text = NULL, parts = ''",
        )?
        .execute(params![i64::from(id), arrival])?;
    Ok(())
}

fn unanswered(row: &Row<'_>) -> Result<Unanswered, rusqlite::Error> {
    Ok(Unanswered {
        received: Received {
            id: checked(row, 0, PromptId::try_from)?,
            user: checked(row, 1, TelegramId::try_from)?,
            chat: checked(row, 2, ChatId::try_from)?,
            message: row.get(3)?,
            text: row.get(4)?,
            at: u64::try_from(row.get::<_, i64>(5)?).unwrap_or(0),
        },
        parts: row
            .get::<_, String>(6)?
            .split(' ')
            .filter_map(|part| part.parse().ok())
            .collect(),
        cleared: row.get(7)?,
    })
}

/// Reads a number of the gateway's own, which must be one of its kind.
fn checked<T, E>(
    row: &Row<'_>,
    column: usize,
    kind: fn(i64) -> Result<T, E>,
) -> Result<T, rusqlite::Error> {
    let number: i64 = row.get(column)?;
    kind(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

/// SQLite's numbers are signed.
fn seconds(time: UnixSeconds) -> i64 {
    i64::try_from(time).unwrap_or(i64::MAX)
}
