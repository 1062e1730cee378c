//! The transcript of a session, `$HOME/.kai-play/sessions/UUID.jsonl`: what was asked, so that a
//! resumed session knows how much it remembers.

use std::{
    fs::{DirBuilder, File},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use kai_proto::ids::SessionId;
/// Longest transcript that is read, in bytes.
const LONGEST: u64 = 64 * 1024 * 1024;

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum NoSession {
    /// It was to be resumed and is unknown. The words are those of Claude Code.
    #[error("No conversation found with session ID: {0}")]
    Unknown(SessionId),
    /// It was to be a new one and exists.
    #[error("Session ID {0} is already in use.")]
    InUse(SessionId),
    /// HOME is not set or cannot be written.
    #[error("the transcript cannot be kept: {0}")]
    Io(#[from] io::Error),
}

/// A session and its transcript: one JSON string a line, each a prompt. Appended to, because replacing
/// a file by a rename makes some file systems write it to the disk at once.
#[derive(Debug)]
pub struct Session {
    /// Which.
    pub id: SessionId,
    file: File,
    prompts: usize,
}

impl Session {
    /// Goes on with `resume`, or begins `new`, or one of a random name.
    ///
    /// # Errors
    /// [`NoSession`].
    pub fn open(
        home: &Path,
        resume: Option<SessionId>,
        new: Option<SessionId>,
    ) -> Result<Self, NoSession> {
        let directory = home.join(".kai-play/sessions");
        let path = |id: SessionId| directory.join(format!("{id}.jsonl"));
        if let Some(id) = resume {
            let unknown = |_| NoSession::Unknown(id);
            let file = File::options()
                .read(true)
                .append(true)
                .open(path(id))
                .map_err(unknown)?;
            let prompts = count(&file).ok_or(NoSession::Unknown(id))?;
            return Ok(Self { id, file, prompts });
        }
        let id = match new {
            Some(id) => id,
            None => random()?,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)?;
        let created = File::options()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(path(id));
        match created {
            Ok(file) => Ok(Self {
                id,
                file,
                prompts: 0,
            }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(NoSession::InUse(id)),
            Err(error) => Err(error.into()),
        }
    }

    /// Keeps a prompt.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn remember(&mut self, prompt: &str) -> io::Result<()> {
        let mut line = serde_json::to_vec(prompt)?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.prompts += 1;
        Ok(())
    }

    /// How many prompts it knows.
    #[must_use]
    pub fn prompts(&self) -> usize {
        self.prompts
    }
}

/// Prompts of a transcript; none if it is no transcript.
fn count(file: &File) -> Option<usize> {
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text).ok()?;
    text.lines().try_fold(0, |count, line| {
        serde_json::from_str::<String>(line).ok()?;
        Some(count + 1)
    })
}

/// A UUID of version 4, RFC 9562.
fn random() -> io::Result<SessionId> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    SessionId::from_bytes(bytes).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_resumed_with_what_it_remembers_and_an_unknown_one_is_not() {
        let home = tempfile::tempdir().unwrap();
        let mut session = Session::open(home.path(), None, None).unwrap();
        session.remember("one").unwrap();
        session.remember("two").unwrap();

        let resumed = Session::open(home.path(), Some(session.id), None).unwrap();
        assert_eq!(resumed.prompts(), 2);
        let again = Session::open(home.path(), None, Some(session.id));
        assert!(matches!(again, Err(NoSession::InUse(_))));
        let unknown = random().unwrap();
        let refused = Session::open(home.path(), Some(unknown), None);
        assert!(matches!(refused, Err(NoSession::Unknown(id)) if id == unknown));
    }
}
