//! What the daemons told the journal of their logs: every hundred lines, and when they stop, the number
//! and the hash of the last line.

use std::{
    fs,
    io::{self, Read},
    path::PathBuf,
    process::{Command, Stdio},
};

use super::{AuditError, LOGS};

/// How each mark begins; kai-audit writes it.
const MARK: &str = "audit mark log=";

/// One mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Of which log.
    pub log: String,
    /// The number of a line.
    pub seq: u64,
    /// That line's hash, in hexadecimal.
    pub hash: String,
}

/// The marks in a text of any kind.
#[must_use]
pub fn find(text: &str) -> Vec<Mark> {
    text.lines().filter_map(mark).collect()
}

fn mark(line: &str) -> Option<Mark> {
    let (_, rest) = line.split_once(MARK)?;
    let (log, rest) = rest.split_once(" seq=")?;
    let (seq, rest) = rest.split_once(" hash=")?;
    let hash = rest.get(..64)?;
    let is_hash = hash
        .bytes()
        .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if !is_hash || !LOGS.contains(&log) {
        return None;
    }
    Some(Mark {
        log: log.to_owned(),
        seq: seq.parse().ok()?,
        hash: hash.to_owned(),
    })
}

/// The marks in these files; `-` is standard input.
///
/// # Errors
/// [`AuditError::Marks`].
pub fn of_files(files: &[PathBuf]) -> Result<Vec<Mark>, AuditError> {
    let mut marks = Vec::new();
    for file in files {
        let mut bytes = Vec::new();
        let read = if file.as_os_str() == "-" {
            io::stdin().read_to_end(&mut bytes).map(drop)
        } else {
            fs::read(file).map(|read| bytes = read)
        };
        read.map_err(|error| AuditError::Marks(file.display().to_string(), error))?;
        marks.extend(find(&String::from_utf8_lossy(&bytes)));
    }
    Ok(marks)
}

/// The marks in this host's journal. Only what root's processes said counts: workers write to the
/// broker's journal too, under their users' accounts.
///
/// # Errors
/// [`AuditError::Marks`], as where there is no journal.
pub fn of_journal() -> Result<Vec<Mark>, AuditError> {
    let refused = |error| AuditError::Marks("of the journal".to_owned(), error);
    let ran = Command::new("/usr/bin/journalctl")
        .args(["--unit=kai-authd", "--unit=kai-broker", "_UID=0"])
        .args(["--output=cat", "--no-pager", "--quiet"])
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .map_err(|error| {
            refused(io::Error::new(
                error.kind(),
                format!("{error}; give a copy of it with --marks FILE"),
            ))
        })?;
    if !ran.status.success() {
        let said = String::from_utf8_lossy(&ran.stderr);
        let said: String = said.chars().map(kai_program::json::printable).collect();
        return Err(refused(io::Error::other(format!("journalctl: {said}"))));
    }
    Ok(find(&String::from_utf8_lossy(&ran.stdout)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_in_each_form_of_the_daemons_logs() {
        let hash = "ab".repeat(32);
        let mark = format!("audit mark log=authd seq=100 hash={hash}");
        for line in [
            mark.clone(),
            format!("2026-11-21T08:00:00Z  INFO {mark}"),
            format!("{{\"level\":\"info\",\"message\":\"{mark}\"}}"),
        ] {
            let found = find(&format!("something\n{line}\nelse\n"));
            assert_eq!(found.len(), 1, "{line}");
            assert_eq!((found[0].seq, found[0].hash.as_str()), (100, hash.as_str()));
        }
    }

    #[test]
    fn what_only_looks_like_a_mark_is_none() {
        let hash = "ab".repeat(32);
        for line in [
            format!("audit mark log=other seq=1 hash={hash}"),
            format!("audit mark log=authd seq=x hash={hash}"),
            format!("audit mark log=authd seq=1 hash={}", "zz".repeat(32)),
            "audit mark log=authd seq=1 hash=ab".to_owned(),
        ] {
            assert_eq!(find(&line), [], "{line}");
        }
    }
}
