//! The database: who is enrolled, what they have failed, and until when they are locked.
//!
//! One file of root's in a directory of root's, used by one process at a time. `kai-auth init` makes
//! it, once, and the daemon never does: to the daemon a missing database is a lost one. Reads come from
//! the database itself, there is no second copy of its truth, and what changes does so in a [`Change`],
//! whole or not at all.
//!
//! - [`place`]: the directory and the file, and who may touch them;
//! - [`schema`]: the tables, their version, and what is looked at before they are trusted;
//! - `room`: what is kept of the disk for it;
//! - [`rows`]: a row as what it means;
//! - [`change`]: what changes, in one transaction;
//! - [`restore`]: a copy comes back.

pub mod change;
pub mod place;
mod restore;
mod room;
pub mod rows;
pub mod schema;

use std::{
    fmt,
    path::{Path, PathBuf},
};

use kai_program::trusted_file::Distrust;
use kai_proto::{
    gateway_authd::User,
    ids::{TelegramId, UserName},
};
use rusqlite::{Connection, TransactionBehavior, config::DbConfig};
use tracing::warn;

pub use change::{Change, NewEnrolment, RecoveryRow};
pub use rows::{Enrolled, Found, Listed, Secret};

use crate::clock::Now;

/// Why the database cannot be used: one sentence that says how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is none.
    #[error(
        "{0}: there is no database; if it was lost, bring a copy back with `kai-auth init --restore FILE`, \
         otherwise make an empty one with `kai-auth init`"
    )]
    Missing(PathBuf),
    /// There is one, or what is left of one, where one was to be made.
    #[error("{0}: is there already, and was left alone; to begin anew, move it away")]
    Exists(PathBuf),
    /// Its directory is none.
    #[error("{0}: must be a directory")]
    NotADirectory(PathBuf),
    /// Somebody else could touch it.
    #[error(transparent)]
    Distrust(#[from] Distrust),
    /// The disk takes nothing, whoever asks.
    #[error("{0}: cannot be written; is its file system mounted read-only?")]
    ReadOnly(PathBuf),
    /// It is another program's.
    #[error(
        "{0}: is not a database of kai-authd; move it away, and bring a copy back with \
         `kai-auth init --restore FILE`"
    )]
    Foreign(PathBuf),
    /// A later program made it.
    #[error(
        "{path}: has version {major} of the tables, and this kai-authd knows version {known}; install the \
         kai that made it",
        known = schema::MAJOR
    )]
    Later {
        /// Which.
        path: PathBuf,
        /// Its major version.
        major: i64,
    },
    /// It is damaged.
    #[error(
        "{path}: is damaged ({what}); bring a copy back with `kai-auth init --restore FILE`, or move it away \
         and begin with nobody enrolled with `kai-auth init`"
    )]
    Corrupt {
        /// Which.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// Another process has it.
    #[error("{0}: another process has it; is kai-authd running?")]
    Busy(PathBuf),
    /// The database, or the disk under it, answers something else.
    #[error("{path}: {error}")]
    Database {
        /// Which.
        path: PathBuf,
        /// What SQLite says.
        error: rusqlite::Error,
    },
}

impl StoreError {
    /// True if it stays so until an admin does something: to try again is of no use.
    #[must_use]
    pub fn needs_an_admin(&self) -> bool {
        match self {
            Self::Busy(_) | Self::Database { .. } | Self::Distrust(Distrust::Io { .. }) => false,
            Self::Missing(_)
            | Self::Exists(_)
            | Self::NotADirectory(_)
            | Self::Distrust(_)
            | Self::ReadOnly(_)
            | Self::Foreign(_)
            | Self::Later { .. }
            | Self::Corrupt { .. } => true,
        }
    }

    /// What was found, in one line whatever it holds.
    fn corrupt(path: &Path, what: &dyn fmt::Display) -> Self {
        let what = what.to_string();
        Self::Corrupt {
            path: path.to_owned(),
            what: what.chars().map(kai_program::json::printable).collect(),
        }
    }
}

/// The open database. No other process can open it meanwhile.
#[derive(Debug)]
pub struct Store {
    database: Connection,
    path: PathBuf,
}

impl Store {
    /// Refuses if there is a database in `directory`, or a part of one.
    ///
    /// # Errors
    /// [`StoreError::Exists`].
    pub fn must_be_missing(directory: &Path) -> Result<(), StoreError> {
        refuse_to_replace(&place::file_in(directory))
    }

    /// Makes an empty database in `directory`, which is made too if it is missing. It is there whole or
    /// not at all.
    ///
    /// # Errors
    /// [`StoreError::Exists`] if there is one; others as they come, and nothing is left then that the next
    /// attempt would not remove.
    pub fn create(directory: &Path) -> Result<Self, StoreError> {
        place::make_directory(directory)?;
        let path = place::file_in(directory);
        refuse_to_replace(&path)?;
        let new = directory.join("new.sqlite");
        drop(place::make_file(&new)?);
        let database = schema::open(&new)?;
        schema::make(&database).map_err(schema::failed(&new))?;
        close(database, &new)?;
        put_in_place(&new, &path)?;
        Self::open(directory)
    }

    /// Opens the database in `directory`, after it was looked at from the outside and the inside, and
    /// writes to it, so that a disk that takes nothing is known before somebody needs it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        place::judge(directory)?;
        let path = place::file_in(directory);
        let mut database = schema::open(&path)?;
        schema::judge(&database, &path)?;
        schema::upgrade(&mut database).map_err(schema::failed(&path))?;
        // The journal stays, with the room that it has on the disk.
        database
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
            .map_err(schema::failed(&path))?;
        // A row that cannot be read is a damaged one, and better found now.
        rows::list(&database).map_err(|error| schema::damaged(&path, error))?;
        database
            .execute("UPDATE about SET opened = opened + 1", [])
            .map_err(schema::failed(&path))?;
        let store = Self { database, path };
        store.keep_room();
        Ok(store)
    }

    /// Ends its use; what is in the journal is in the file then, too, as long as the disk takes it.
    pub fn close(self) {
        if let Err(error) = room::checkpoint(&self.database) {
            warn!("the journal is taken in at the next start: {error}");
        }
    }

    /// An empty one that is nowhere on disk and ends with its value: for tests, fuzzing and measurements.
    ///
    /// # Errors
    /// Out of memory.
    pub fn in_memory() -> Result<Self, StoreError> {
        let path = PathBuf::from(":memory:");
        let database = Connection::open_in_memory().map_err(schema::failed(&path))?;
        schema::prepare(&database).map_err(schema::failed(&path))?;
        schema::make(&database).map_err(schema::failed(&path))?;
        Ok(Self { database, path })
    }

    /// Has each lockout end by this run's boottime; to be called once after [`open`](Self::open),
    /// because what an earlier run of the kernel counted says nothing any more.
    ///
    /// # Errors
    /// As for every [`Change`].
    pub fn anchor_lockouts(&mut self, now: Now) -> Result<(), StoreError> {
        let change = self.change()?;
        change.anchor_lockouts(now)?;
        change.commit()
    }

    /// Looks for `user` by name and by id.
    ///
    /// # Errors
    /// If the database cannot be read: then nobody can tell.
    pub fn find(&self, user: &User) -> Result<Found, StoreError> {
        rows::find(&self.database, user).map_err(self.failed())
    }

    /// Everybody who is enrolled with this name or this id: at most two.
    ///
    /// # Errors
    /// As for [`find`](Self::find).
    pub fn matching(
        &self,
        name: Option<&UserName>,
        id: Option<TelegramId>,
    ) -> Result<Vec<User>, StoreError> {
        rows::matching(&self.database, name, id).map_err(self.failed())
    }

    /// Everybody who is enrolled, by name.
    ///
    /// # Errors
    /// As for [`find`](Self::find).
    pub fn list(&self) -> Result<Vec<Listed>, StoreError> {
        rows::list(&self.database).map_err(self.failed())
    }

    /// Begins a change, which takes effect with [`Change::commit`] and is as if it had never been
    /// without.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub fn change(&mut self) -> Result<Change<'_>, StoreError> {
        let failed = schema::failed(&self.path);
        let transaction = self
            .database
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        Ok(Change::new(transaction, &self.path))
    }

    /// Has nothing left on disk of what was removed, the journal included, and everything new in its place
    /// in the file.
    ///
    /// # Errors
    /// If the disk takes nothing; it is then tried again by itself with a later change.
    pub fn settle(&self) -> Result<(), StoreError> {
        let settled = empty_journal(&self.database).map_err(self.failed());
        self.keep_room();
        settled
    }

    /// Keeps room in the file, and for the journal, which was made anew. Without it codes are judged as
    /// long as the disk has some.
    fn keep_room(&self) {
        if let Err(error) = room::in_the_file(&self.database) {
            warn!("no room is kept in the database: {error}");
        }
        if let Err(error) = room::in_the_journal(&self.path) {
            warn!("no room is kept for the database: {error}");
        }
    }

    fn failed(&self) -> impl Fn(rusqlite::Error) -> StoreError {
        schema::failed(&self.path)
    }
}

/// Refuses if there is a database at `path`, or a part of one.
fn refuse_to_replace(path: &Path) -> Result<(), StoreError> {
    for path in [path.to_owned()].iter().chain(&place::beside(path)) {
        if place::exists(path)? {
            return Err(StoreError::Exists(path.clone()));
        }
    }
    Ok(())
}

/// Closes `database`, which has its journal in its file then and nothing beside it.
fn close(database: Connection, path: &Path) -> Result<(), StoreError> {
    empty_journal(&database).map_err(schema::failed(path))?;
    database
        .close()
        .map_err(|(_, error)| schema::failed(path)(error))
}

/// Has nothing left in the journal, nor its room.
fn empty_journal(database: &Connection) -> Result<(), rusqlite::Error> {
    // (busy, frames in the journal, frames put into the file): with one process never busy.
    database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

/// Gives a finished file the database's name, unless something has it.
fn put_in_place(new: &Path, path: &Path) -> Result<(), StoreError> {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    match renameat2(AT_FDCWD, new, AT_FDCWD, path, RenameFlags::RENAME_NOREPLACE) {
        Ok(()) => place::sync(path.parent().unwrap_or(Path::new("/"))),
        Err(nix::Error::EEXIST) => Err(StoreError::Exists(path.to_owned())),
        Err(error) => Err(place::io_error(path)(error.into())),
    }
}

#[cfg(test)]
mod tests;
