//! Room on the disk that is kept for the database, so that users who fill it stop no decision.
//!
//! - The journal keeps blocks past its end, where SQLite does not look: a commit that goes on where the last
//!   checkpoint began writes over what has its place already.
//! - The file keeps free pages: a row that grows may need one, and the file none more.

use std::{fs::OpenOptions, io, os::unix::fs::OpenOptionsExt, path::Path};

use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, fallocate},
};
use rusqlite::Connection;

use super::place;

/// Bytes of the journal: a multiple of what it can come to between two checkpoints.
const JOURNAL: libc::off_t = 1 << 20;

/// Pages of the file.
const FREE_PAGES: i64 = 8;

/// Keeps room for the journal of the database at `path`, which must have one. A file system that cannot
/// do that has none to give away either.
///
/// # Errors
/// What the kernel answers: there is no room even now.
pub(super) fn in_the_journal(path: &Path) -> io::Result<()> {
    let [journal, _] = place::beside(path);
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(journal)?;
    match fallocate(&file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, JOURNAL) {
        Err(Errno::EOPNOTSUPP) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Makes sure that the file of `database` has free pages. They are written and on disk first, and given
/// back then: a page that is only counted has no place on the disk yet.
///
/// # Errors
/// If the disk takes nothing; the database is as it was.
pub(super) fn in_the_file(database: &Connection) -> Result<(), rusqlite::Error> {
    // What is there of a run that was killed in between.
    database.execute_batch("DROP TABLE IF EXISTS room")?;
    let free: i64 = database.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
    if free >= FREE_PAGES {
        return Ok(());
    }
    // Taken back when it is dropped, wherever it fails: an open one would refuse every later one.
    let written = database.unchecked_transaction()?;
    written.execute_batch(
        "CREATE TABLE room (page BLOB);
         INSERT INTO room SELECT randomblob(3 * 4096) FROM (VALUES (1), (2), (3), (4), (5));",
    )?;
    written.commit()?;
    checkpoint(database)?;
    database.execute_batch("DROP TABLE room")?;
    checkpoint(database)
}

/// Puts what is in the journal into the file, and leaves the journal as long as it is: its room stays.
///
/// # Errors
/// If the disk takes nothing.
pub(super) fn checkpoint(database: &Connection) -> Result<(), rusqlite::Error> {
    database.query_row("PRAGMA wal_checkpoint(FULL)", [], |_| Ok(()))
}
