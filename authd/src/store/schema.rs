//! The tables, how the database is used, and what is looked at before it is trusted.

use std::path::Path;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::StoreError;

/// The tables below. A program opens a database of its own major version alone; a newer minor one has
/// more than it knows, and nothing that it needs is different.
pub const MAJOR: i64 = 1;
/// See [`MAJOR`].
pub const MINOR: i64 = 1;

/// In the header of the file, where file(1) sees it too: `kaiA`.
const APPLICATION: i64 = 0x6b61_6941;

const TABLES: &str = "
    CREATE TABLE about (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        major INTEGER NOT NULL,
        minor INTEGER NOT NULL,
        opened INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE enrolment (
        telegram_id INTEGER PRIMARY KEY CHECK (telegram_id > 0),
        name TEXT NOT NULL UNIQUE,
        secret BLOB NOT NULL CHECK (length(secret) = 20),
        since INTEGER NOT NULL CHECK (since >= 0),
        last_step INTEGER NOT NULL CHECK (last_step >= 0),
        failures INTEGER NOT NULL DEFAULT 0 CHECK (failures >= 0),
        lockouts INTEGER NOT NULL DEFAULT 0 CHECK (lockouts >= 0),
        locked_until INTEGER CHECK (locked_until >= 0),
        locked_for_ms INTEGER CHECK (locked_for_ms >= 0),
        locked_boot_ms INTEGER CHECK (locked_boot_ms >= 0),
        seen_step INTEGER NOT NULL DEFAULT 0 CHECK (seen_step >= 0),
        CHECK ((locked_until IS NULL) = (locked_for_ms IS NULL)),
        CHECK ((locked_until IS NULL) = (locked_boot_ms IS NULL))
    ) STRICT;
    CREATE TABLE recovery_code (
        code INTEGER PRIMARY KEY,
        telegram_id INTEGER NOT NULL REFERENCES enrolment ON DELETE CASCADE,
        salt BLOB NOT NULL CHECK (length(salt) = 16),
        hash BLOB NOT NULL CHECK (length(hash) = 32)
    ) STRICT;
    CREATE INDEX recovery_codes ON recovery_code (telegram_id);";

/// How the database is used. `EXCLUSIVE` needs no shared memory for the journal and keeps every second
/// program out; the file is in the mode `WAL`, as [`make`] leaves it; `FULL` has each commit on disk
/// before it returns; `secure_delete` overwrites what is removed. Nothing in the schema is trusted to
/// run, and each page is looked at before it is used.
const SETTINGS: &str = "
    PRAGMA locking_mode = EXCLUSIVE;
    PRAGMA synchronous = FULL;
    PRAGMA secure_delete = ON;
    PRAGMA foreign_keys = ON;
    PRAGMA trusted_schema = OFF;
    PRAGMA cell_size_check = ON;
    PRAGMA cache_size = -48;
    PRAGMA mmap_size = 0;
    PRAGMA temp_store = MEMORY;
    PRAGMA wal_autocheckpoint = 64;";

/// What each minor version has more than the one before, from version 1.0 on.
const ADDED: [&str; 1] = [
    "ALTER TABLE enrolment ADD COLUMN seen_step INTEGER NOT NULL DEFAULT 0 CHECK (seen_step >= 0);",
];

/// Prepared statements that are kept: there are fewer.
const STATEMENTS: usize = 48;

/// What `error` means for the database at `path`.
pub(super) fn failed(path: &Path) -> impl Fn(rusqlite::Error) -> StoreError {
    move |error| match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            StoreError::Busy(path.to_owned())
        }
        Some(ErrorCode::ReadOnly) => StoreError::ReadOnly(path.to_owned()),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StoreError::corrupt(path, &error)
        }
        _ => StoreError::Database {
            path: path.to_owned(),
            error,
        },
    }
}

/// Opens the file at `path`, which must be there, for this process alone. Nothing is written to it.
pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    let failed = failed(path);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let database = Connection::open_with_flags(path, flags).map_err(&failed)?;
    // SQLite goes on with a file that it may only read, and says so later in other words.
    if database.is_readonly(rusqlite::MAIN_DB).map_err(&failed)? {
        return Err(StoreError::ReadOnly(path.to_owned()));
    }
    prepare(&database).map_err(&failed)?;
    Ok(database)
}

/// Sets how `database` is used.
pub(super) fn prepare(database: &Connection) -> Result<(), rusqlite::Error> {
    database.busy_timeout(std::time::Duration::ZERO)?;
    database.set_prepared_statement_cache_capacity(STATEMENTS);
    database.execute_batch(SETTINGS)
}

/// Makes the tables in an empty database.
pub(super) fn make(database: &Connection) -> Result<(), rusqlite::Error> {
    database.execute_batch(&format!(
        "PRAGMA journal_mode = WAL;
         BEGIN IMMEDIATE;
         PRAGMA application_id = {APPLICATION};
         {TABLES}
         INSERT INTO about (one, major, minor, opened) VALUES (1, {MAJOR}, {MINOR}, 0);
         COMMIT;"
    ))
}

/// Looks whether the database at `path` is authd's, of a version that this program knows, and whole.
pub(super) fn judge(database: &Connection, path: &Path) -> Result<(), StoreError> {
    let failed = failed(path);
    let number = |sql: &str| database.query_row(sql, [], |row| row.get::<_, i64>(0));
    if number("PRAGMA application_id").map_err(&failed)? != APPLICATION {
        return Err(StoreError::Foreign(path.to_owned()));
    }
    let journal: String = database
        .query_row("PRAGMA journal_mode", [], |row| row.get(0))
        .map_err(&failed)?;
    if journal != "wal" {
        return Err(StoreError::corrupt(path, &"it is not in the mode WAL"));
    }
    let major = number("SELECT major FROM about").map_err(|error| damaged(path, error))?;
    if major != MAJOR {
        return Err(StoreError::Later {
            path: path.to_owned(),
            major,
        });
    }
    let sound: String = database
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(&failed)?;
    if sound != "ok" {
        return Err(StoreError::corrupt(path, &sound));
    }
    let orphans = "SELECT count(*) FROM pragma_foreign_key_check";
    if number(orphans).map_err(&failed)? != 0 {
        return Err(StoreError::corrupt(path, &"a recovery code is nobody's"));
    }
    // What runs by itself when rows change has no place here, in this version or a later minor one.
    let moving = "SELECT count(*) FROM sqlite_schema WHERE type NOT IN ('table', 'index')";
    if number(moving).map_err(&failed)? != 0 {
        return Err(StoreError::corrupt(path, &"it has triggers or views"));
    }
    Ok(())
}

/// Gives an older database what this minor version has more.
pub(super) fn upgrade(database: &mut Connection) -> Result<(), rusqlite::Error> {
    let minor = "SELECT minor FROM about";
    let minor: i64 = database.query_row(minor, [], |row| row.get(0))?;
    let lacking = usize::try_from(minor).map_or(&[][..], |have| ADDED.get(have..).unwrap_or(&[]));
    if lacking.is_empty() {
        return Ok(());
    }
    let change = database.transaction()?;
    for sql in lacking {
        change.execute_batch(sql)?;
    }
    change.execute("UPDATE about SET minor = ?1", [MINOR])?;
    change.commit()
}

/// What `error` means where a table or a row that every database of ours has is not as it must be.
pub(super) fn damaged(path: &Path, error: rusqlite::Error) -> StoreError {
    let disk = matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::OutOfMemory
        )
    );
    match failed(path)(error) {
        StoreError::Database { path, error } if !disk => StoreError::corrupt(&path, &error),
        other => other,
    }
}
