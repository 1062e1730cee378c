//! What of a user's conversation outlives the worker, in the user's state directory:
//!
//! | file | what | written |
//! |---|---|---|
//! | `session` | the agent's session, as a UUID | when the agent has begun to keep it |
//! | `turn` | the prompt that the agent has | before the agent is given it |
//! | `answers/` | the answers to prompts | before the gateway is told that they are finished |
//! | `acknowledged` | the prompts whose answers were delivered | when the gateway says so |
//!
//! A worker killed at any moment leaves one of three things of a prompt: nothing, and it runs when the
//! gateway sends it again; the `turn` with no answer, and the next worker answers that it was cut off;
//! or the answer. The agent can write here too, as the same account. It can thereby make its own
//! user's answers wrong, which it can anyway, and nothing else.

mod acknowledged;
mod answers;
pub mod directory;

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use kai_proto::{
    codec::Message,
    conversation::{Failure, Finished, Outcome},
    ids::{PromptId, SessionId},
};
use nix::sys::statvfs::statvfs;
use serde::{Deserialize, Serialize};

use acknowledged::Acknowledged;
use answers::Answers;
use directory::Directory;

/// Longest answer, in bytes.
pub const ANSWER: usize = 8 * 1024 * 1024;

/// A finished answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// How it ended.
    pub finished: Finished,
    /// The whole text, at most [`ANSWER`] bytes.
    pub text: String,
}

impl Message for Answer {
    const LIMIT: usize = ANSWER + 4096;
}

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {error}")]
pub struct Unusable {
    path: PathBuf,
    error: io::Error,
}

/// The user's state directory.
#[derive(Debug)]
pub struct Journal {
    directory: Directory,
    slots: Directory,
    turn: File,
    session: Option<SessionId>,
    answers: Answers,
    acknowledged: Acknowledged,
}

/// Names that must be free too: a turn makes some, and whoever takes the last takes them from everybody.
const NAMES: u64 = 1000;

/// Whether each of these directories' file systems has `bytes` left for an account without privileges, and
/// some names, where it counts them.
/// The worker looks, at each turn, because it alone knows of turns. One that was taken over may not look, and
/// gains nothing: it could fill the disk without any turn, which quotas alone prevent. A file system that
/// cannot be asked does not stop a turn; what it does not take is told then.
#[must_use]
pub fn has_space(directories: &[&Path], bytes: u64) -> bool {
    directories.iter().all(|directory| {
        statvfs(*directory).map_or(true, |found| {
            let free = found
                .blocks_available()
                .saturating_mul(found.fragment_size());
            let names = found.files() == 0 || found.files_available() >= NAMES || bytes == 0;
            free >= bytes && names
        })
    })
}

impl Journal {
    /// Opens the directory at `path`, and answers the prompt that an earlier worker left unfinished.
    ///
    /// # Errors
    /// [`Unusable`] if the directory or a file in it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, Unusable> {
        Self::open_directory(path).map_err(|error| Unusable {
            path: path.to_owned(),
            error,
        })
    }

    fn open_directory(path: &Path) -> io::Result<Self> {
        let directory = Directory::open(path)?;
        let slots = directory.child("answers")?;
        let answers = Answers::read(&slots);
        let turn = open_or_replace(&directory, "turn")?;
        let acknowledged = Acknowledged::read(open_or_replace(&directory, "acknowledged")?);
        let session = directory
            .read("session", 64)
            .and_then(|bytes| String::from_utf8(bytes).ok()?.trim().parse().ok());
        let mut journal = Self {
            directory,
            slots,
            turn,
            session,
            answers,
            acknowledged,
        };
        journal.answer_what_was_cut_off();
        Ok(journal)
    }

    fn answer_what_was_cut_off(&mut self) {
        let mut bytes = [0xff; 8];
        let Ok(8) = self.turn.read_at(&mut bytes, 0) else {
            return;
        };
        let Ok(prompt) = PromptId::try_from(i64::from_le_bytes(bytes)) else {
            return;
        };
        if self.is_finished(prompt) || self.is_acknowledged(prompt) {
            return;
        }
        let outcome = Outcome::Failed(Failure::WorkerEnded);
        let finished = Finished {
            outcome,
            cost_micro_usd: 0,
            duration_ms: 0,
        };
        // Without room for it the mark stays, and the next worker tries again.
        if let Err(error) = self.finish(
            prompt,
            &Answer {
                finished,
                text: String::new(),
            },
        ) {
            tracing::warn!(%error, "what was cut off cannot be recorded");
        }
    }

    /// The session to resume.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        self.session
    }

    /// Keeps the session, or forgets it.
    pub fn set_session(&mut self, session: Option<SessionId>) {
        if self.session == session {
            return;
        }
        self.session = session;
        let written = match session {
            Some(session) => self
                .directory
                .replace("session", session.to_string().as_bytes()),
            None => self.directory.remove("session"),
        };
        if let Err(error) = written {
            tracing::warn!(%error, "the session cannot be recorded");
        }
    }

    /// Notes that the agent is about to be given `prompt`. The note stays when the prompt is answered:
    /// the answer, or that it was acknowledged, says more.
    ///
    /// # Errors
    /// The prompt must then not be given: a worker that is killed would let it run twice.
    pub fn begin(&mut self, prompt: PromptId) -> io::Result<()> {
        self.turn.write_all_at(&i64::from(prompt).to_le_bytes(), 0)
    }

    /// Keeps the answer to `prompt` until it is acknowledged. Beyond
    /// [`limits::UNACKNOWLEDGED`](kai_proto::limits::UNACKNOWLEDGED) the oldest goes.
    ///
    /// # Errors
    /// What the file system answers; nothing is kept then.
    pub fn finish(&mut self, prompt: PromptId, answer: &Answer) -> io::Result<()> {
        match self.answers.keep(&self.slots, prompt, answer) {
            // The agent removed the directory.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.slots = self.directory.child("answers")?;
                self.answers.keep(&self.slots, prompt, answer)
            }
            other => other,
        }
    }

    /// True if there is an answer to `prompt`.
    #[must_use]
    pub fn is_finished(&self, prompt: PromptId) -> bool {
        self.answers.contains(prompt)
    }

    /// True if the answer to `prompt` was delivered.
    #[must_use]
    pub fn is_acknowledged(&self, prompt: PromptId) -> bool {
        self.acknowledged.contains(prompt)
    }

    /// The answer to `prompt`. None also if somebody has spoilt the file.
    pub fn answer(&mut self, prompt: PromptId) -> Option<Answer> {
        let answer = self.answers.get(&self.slots, prompt)?;
        (answer.text.len() <= ANSWER).then_some(answer)
    }

    /// Forgets the answer to `prompt`, and remembers that it was delivered. A prompt without an
    /// answer is left alone.
    pub fn acknowledge(&mut self, prompt: PromptId) {
        if self.is_finished(prompt) {
            // In this order: killed in between, the worker knows both, and the answer is sent again.
            self.acknowledged.add(prompt);
            self.answers.forget(&self.slots, prompt);
        }
    }
}

/// Opens a file that is changed in place; whatever else has its name is not kai's, and goes.
fn open_or_replace(directory: &Directory, name: &str) -> io::Result<File> {
    directory.open_in_place(name).or_else(|_| {
        directory.remove(name)?;
        directory.open_in_place(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(number: i64) -> PromptId {
        PromptId::try_from(number).unwrap()
    }

    fn answer(text: &str) -> Answer {
        let finished = Finished {
            outcome: Outcome::Done,
            cost_micro_usd: 5,
            duration_ms: 7,
        };
        Answer {
            finished,
            text: text.to_owned(),
        }
    }

    #[test]
    fn an_answer_outlives_the_worker_until_it_is_acknowledged() {
        let place = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(place.path()).unwrap();
        journal.begin(prompt(1)).unwrap();
        journal.finish(prompt(1), &answer("whole")).unwrap();
        drop(journal);

        let mut journal = Journal::open(place.path()).unwrap();
        assert_eq!(journal.answer(prompt(1)), Some(answer("whole")));
        journal.acknowledge(prompt(1));
        drop(journal);

        let mut journal = Journal::open(place.path()).unwrap();
        assert!(!journal.is_finished(prompt(1)) && journal.is_acknowledged(prompt(1)));
        assert_eq!(journal.answer(prompt(1)), None);
    }

    #[test]
    fn a_prompt_that_the_agent_had_and_no_answer_was_cut_off() {
        let place = tempfile::tempdir().unwrap();
        Journal::open(place.path())
            .unwrap()
            .begin(prompt(3))
            .unwrap();

        let mut journal = Journal::open(place.path()).unwrap();

        let outcome = journal.answer(prompt(3)).unwrap().finished.outcome;
        assert_eq!(outcome, Outcome::Failed(Failure::WorkerEnded));
    }

    #[test]
    fn spoilt_files_are_as_if_absent_and_no_obstacle() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        std::fs::create_dir(path("answers")).unwrap();
        std::fs::write(path("answers/7"), b"\xff\xff\xff\xff\xff\xff\xff\xff").unwrap();
        std::fs::write(path("session"), "--dangerously").unwrap();
        std::fs::write(path("turn"), "x").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", path("acknowledged")).unwrap();

        let mut journal = Journal::open(place.path()).unwrap();

        assert_eq!(journal.session(), None);
        assert_eq!(journal.answer(prompt(7)), None);
        journal.finish(prompt(8), &answer("x")).unwrap();
        journal.acknowledge(prompt(8));
        assert!(
            std::fs::symlink_metadata(path("acknowledged"))
                .unwrap()
                .is_file()
        );
    }

    #[test]
    fn an_answer_that_is_not_whole_or_not_the_prompts_is_none() {
        let place = tempfile::tempdir().unwrap();
        let slot = place.path().join("answers/0");
        let mut journal = Journal::open(place.path()).unwrap();
        journal.finish(prompt(1), &answer("whole")).unwrap();
        let whole = std::fs::read(&slot).unwrap();
        for spoil in [
            |bytes: &mut Vec<u8>| bytes.truncate(30),
            |bytes: &mut Vec<u8>| bytes.truncate(7),
            |bytes: &mut Vec<u8>| bytes[16..24].fill(0xff),
            |bytes: &mut Vec<u8>| bytes[0] += 1,
            |bytes: &mut Vec<u8>| bytes[24..].fill(0xff),
        ] {
            let mut bytes = whole.clone();
            spoil(&mut bytes);
            std::fs::write(&slot, bytes).unwrap();
            assert_eq!(journal.answer(prompt(1)), None);
            assert_eq!(Journal::open(place.path()).unwrap().answer(prompt(1)), None);
        }
        std::fs::write(&slot, whole).unwrap();
        assert_eq!(journal.answer(prompt(1)), Some(answer("whole")));
    }

    #[test]
    fn a_slot_is_used_again_and_a_long_one_is_cut() {
        let place = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(place.path()).unwrap();
        for number in 0..5 {
            journal
                .finish(prompt(number), &answer(&"x".repeat(1 << 20)))
                .unwrap();
            journal.acknowledge(prompt(number));
        }

        let slots: Vec<_> = std::fs::read_dir(place.path().join("answers"))
            .unwrap()
            .collect();
        assert_eq!(slots.len(), 1);
        let length = slots[0].as_ref().unwrap().metadata().unwrap().len();
        assert!(length < 1024, "{length}");
    }

    #[test]
    fn an_answer_is_kept_also_if_the_agent_removes_the_directory() {
        let place = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(place.path()).unwrap();
        std::fs::remove_dir_all(place.path().join("answers")).unwrap();

        journal.finish(prompt(1), &answer("x")).unwrap();

        assert_eq!(
            Journal::open(place.path()).unwrap().answer(prompt(1)),
            Some(answer("x"))
        );
    }

    #[test]
    fn the_oldest_answers_go_when_nobody_acknowledges() {
        let place = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(place.path()).unwrap();
        for number in 0..=kai_proto::limits::UNACKNOWLEDGED as i64 {
            journal.finish(prompt(number), &answer("")).unwrap();
        }

        assert!(!journal.is_finished(prompt(0)) && journal.is_finished(prompt(1)));
        assert_eq!(journal.answer(prompt(0)), None);
    }
}
