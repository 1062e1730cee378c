//! The lines of a log, over all its files.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use kai_audit::writer::{CURRENT, rotated};
use serde_json::{Map, Value};

use super::AuditError;

/// One line and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Its file.
    pub file: PathBuf,
    /// Which line of it, from 1.
    pub number: usize,
    /// The line, without its end.
    pub text: String,
    /// What it says; none if it is no object.
    pub fields: Option<Map<String, Value>>,
}

impl Line {
    /// A text field.
    #[must_use]
    pub fn text_of(&self, key: &str) -> Option<&str> {
        self.fields.as_ref()?.get(key)?.as_str()
    }

    /// Its number in the log.
    #[must_use]
    pub fn seq(&self) -> Option<u64> {
        self.fields.as_ref()?.get("seq")?.as_u64()
    }
}

/// All lines of the log in `directory`, in order. A line that is still being written is left out.
///
/// # Errors
/// [`AuditError::Read`].
pub fn all(directory: &Path) -> Result<Vec<Line>, AuditError> {
    after(directory, 0)
}

/// The lines from the one numbered `seq + 1` on, without reading files that end before.
///
/// # Errors
/// [`AuditError::Read`].
pub fn after(directory: &Path, seq: u64) -> Result<Vec<Line>, AuditError> {
    // A rotation between the listing and the reading would lose a file's lines: then it is done again.
    for _ in 0..5 {
        let files = files(directory, seq)?;
        let mut found = Vec::new();
        for file in &files {
            read(file, seq, &mut found)?;
        }
        if self::files(directory, seq)? == files {
            return Ok(found);
        }
    }
    Err(AuditError::Read(
        directory.to_owned(),
        io::Error::other("it changes faster than it can be read"),
    ))
}

fn files(directory: &Path, seq: u64) -> Result<Vec<PathBuf>, AuditError> {
    let rotated =
        rotated(directory).map_err(|error| AuditError::Read(directory.to_owned(), error))?;
    // The last file that begins at or before the next line, and all that follow.
    let begin = rotated
        .iter()
        .rposition(|(first, _)| *first <= seq.saturating_add(1))
        .unwrap_or(0);
    let mut files: Vec<PathBuf> = rotated
        .into_iter()
        .skip(begin)
        .map(|(_, path)| path)
        .collect();
    files.push(directory.join(CURRENT));
    Ok(files)
}

fn read(file: &Path, seq: u64, found: &mut Vec<Line>) -> Result<(), AuditError> {
    let bytes = match fs::read(file) {
        Ok(bytes) => bytes,
        // Nothing was decided yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(AuditError::Read(file.to_owned(), error)),
    };
    let text = String::from_utf8_lossy(&bytes);
    let whole = text
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'));
    for (line, number) in whole.zip(1..) {
        let text = line.trim_end_matches('\n').to_owned();
        let fields = match serde_json::from_str(&text) {
            Ok(Value::Object(fields)) => Some(fields),
            _ => None,
        };
        let line = Line {
            file: file.to_owned(),
            number,
            text,
            fields,
        };
        if line.seq().is_none_or(|number| number > seq) {
            found.push(line);
        }
    }
    Ok(())
}
