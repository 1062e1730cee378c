//! Reads `kai.db`, which another account wrote: a copy of it, in a directory that holds nothing else and that
//! the process is shut into, under a uid that nobody has, with little memory and time.

use std::{
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use nix::sys::resource::{Resource, setrlimit};
use rusqlite::{Connection, OpenFlags, types::ValueRef};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Part, start};

/// Tables of which the number of rows is told.
const COUNTED: [&str; 3] = ["sessions", "settings", "workspace_history"];
/// How many jobs are read.
const JOBS: usize = 10_000;
/// Longest job, in bytes.
const JOB: usize = 256 * 1024;
/// Longest answer, in bytes.
const ANSWER: u64 = 64 * 1024 * 1024;
/// How long it may take, and how much memory.
const PATIENCE: Duration = Duration::from_secs(60);
const SECONDS: u64 = 30;
const MEMORY: u64 = 1024 * 1024 * 1024;

/// One job.
#[derive(Debug, Serialize, Deserialize)]
pub struct Job {
    /// The chat that it belongs to.
    pub chat: i64,
    /// Its columns.
    pub columns: Map<String, Value>,
}

/// What is in the database.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Contents {
    /// The jobs.
    pub jobs: Vec<Job>,
    /// Rows of the table of jobs that are none, or too long, or too many.
    pub unreadable: usize,
    /// Other tables, and how many rows each has.
    pub counted: Vec<(String, u64)>,
    /// Why no more of it was read.
    pub problem: Option<String>,
}

/// Reads the database `kai.db` in the directory, as `uid`, whose both are and who has nothing else.
///
/// # Errors
/// One sentence.
pub fn read(directory: &std::os::fd::OwnedFd, uid: u32) -> Result<Contents, String> {
    let said = start(
        Part::Database,
        directory,
        (uid, uid),
        PATIENCE,
        ANSWER,
        drop,
    )?;
    serde_json::from_slice(&said).map_err(|_| "holds more than is read".to_owned())
}

/// The child's side.
pub(super) fn run() -> ExitCode {
    for (resource, limit) in [
        (Resource::RLIMIT_CPU, SECONDS),
        (Resource::RLIMIT_AS, MEMORY),
        (Resource::RLIMIT_FSIZE, MEMORY),
    ] {
        if setrlimit(resource, limit, limit).is_err() {
            return ExitCode::FAILURE;
        }
    }
    let mut contents = Contents::default();
    contents.problem = fill(&mut contents).err().map(|error| error.to_string());
    let Ok(said) = serde_json::to_vec(&contents) else {
        return ExitCode::FAILURE;
    };
    match io::stdout().write_all(&said) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn fill(contents: &mut Contents) -> rusqlite::Result<()> {
    // For writing: what the old one had not brought into the file yet is brought into the copy.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let database = Connection::open_with_flags("/kai.db", flags)?;
    database.pragma_update(None, "trusted_schema", false)?;
    database.pragma_update(None, "cell_size_check", true)?;
    for table in COUNTED {
        if let Ok(Some(rows)) = count(&database, table) {
            contents.counted.push((table.to_owned(), rows));
        }
    }
    if count(&database, "jobs")?.is_some() {
        jobs(&database, contents)?;
    }
    Ok(())
}

/// How many rows the table has; none if there is no such table.
fn count(database: &Connection, table: &str) -> rusqlite::Result<Option<u64>> {
    let query = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1";
    let is_there: i64 = database.query_row(query, [table], |row| row.get(0))?;
    if is_there != 1 {
        return Ok(None);
    }
    // Its name is one of those above.
    let query = format!("SELECT count(*) FROM {table}");
    let rows: i64 = database.query_row(&query, [], |row| row.get(0))?;
    Ok(u64::try_from(rows).ok())
}

fn jobs(database: &Connection, contents: &mut Contents) -> rusqlite::Result<()> {
    let mut query = database.prepare("SELECT * FROM jobs")?;
    let names: Vec<String> = query.column_names().map(str::to_owned).collect();
    let mut rows = query.query([])?;
    let mut length = 0;
    while let Some(row) = rows.next()? {
        let mut columns = Map::new();
        let mut is_whole = true;
        for (at, name) in names.iter().enumerate() {
            let value = match row.get_ref(at)? {
                ValueRef::Null => Value::Null,
                ValueRef::Integer(number) => number.into(),
                ValueRef::Real(number) => number.into(),
                ValueRef::Text(text) if text.len() <= JOB => String::from_utf8_lossy(text).into(),
                ValueRef::Text(_) | ValueRef::Blob(_) => {
                    is_whole = false;
                    break;
                }
            };
            columns.insert(name.clone(), value);
        }
        let chat = columns.get("chat_id").and_then(Value::as_i64);
        length += columns
            .values()
            .map(|value| value.as_str().map_or(16, str::len))
            .sum::<usize>();
        match chat {
            Some(chat)
                if is_whole && contents.jobs.len() < JOBS && length < ANSWER as usize / 8 =>
            {
                contents.jobs.push(Job { chat, columns });
            }
            _ => contents.unreadable += 1,
        }
    }
    Ok(())
}
