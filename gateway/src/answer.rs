//! The answer to one prompt as it comes from the worker: written by the user's task, read by the
//! delivery.

use std::sync::{Mutex, PoisonError};

use kai_proto::conversation::{Failure, Outcome};
use tokio::sync::Notify;

use crate::wording;

/// Longest answer, in bytes; what comes after it is left out. It would be 256 messages already.
const LONGEST: usize = 1024 * 1024;

/// The text so far, and whether it is all.
#[derive(Debug, Default)]
pub struct Answer {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    text: String,
    /// True once something was left out.
    is_cut: bool,
    version: u64,
    end: Option<End>,
}

/// How an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// What kai says below the agent's words.
    pub remark: Option<String>,
}

/// What a look at an answer tells without copying it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Glance {
    /// Grows with each change.
    pub version: u64,
    /// Bytes of text so far.
    pub length: usize,
    /// True if there is nothing to show yet.
    pub is_blank: bool,
    /// True if this is all.
    pub is_finished: bool,
}

impl Answer {
    /// The worker begins at the start again.
    pub fn restart(&self) {
        self.change(|state| {
            state.text.clear();
            state.is_cut = false;
        });
    }

    /// The worker sent a piece.
    pub fn push(&self, piece: &str) {
        self.change(|state| {
            state.is_cut |= state.text.len() + piece.len() > LONGEST;
            if !state.is_cut {
                state.text.push_str(piece);
            }
        });
    }

    /// It is over; what comes later changes nothing.
    pub fn finish(&self, remark: Option<String>) {
        self.change(|state| {
            let too_much = Outcome::Failed(Failure::TooMuchOutput);
            let cut = state.is_cut.then(|| wording::outcome(&too_much)).flatten();
            state.end = Some(End {
                remark: cut.or(remark),
            });
        });
    }

    /// True if it is over.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.with(|state| state.end.is_some())
    }

    /// How things stand.
    #[must_use]
    pub fn glance(&self) -> Glance {
        self.with(|state| Glance {
            version: state.version,
            length: state.text.len(),
            is_blank: state.text.trim_start().is_empty(),
            is_finished: state.end.is_some(),
        })
    }

    /// The text so far and its end.
    #[must_use]
    pub fn read(&self) -> (String, Option<End>) {
        self.with(|state| (state.text.clone(), state.end.clone()))
    }

    /// Waits for a change since the last wait. One task may wait at a time.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn change(&self, work: impl FnOnce(&mut State)) {
        self.with(|state| {
            if state.end.is_none() {
                work(state);
                state.version += 1;
            }
        });
        self.changed.notify_one();
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_the_text_since_the_last_restart() {
        let answer = Answer::default();
        answer.push("lost");
        answer.restart();
        answer.push("kept, ");
        answer.push("and this");
        assert_eq!(answer.read().0, "kept, and this");
    }

    #[test]
    fn an_answer_that_is_too_long_is_cut_and_says_so_at_its_end() {
        let answer = Answer::default();
        let piece = "x".repeat(LONGEST / 4 + 1);
        for _ in 0..10 {
            answer.push(&piece);
        }
        assert_eq!(answer.glance().length, 3 * piece.len());
        assert!(!answer.is_finished());
        answer.finish(None);
        assert!(answer.read().1.unwrap().remark.unwrap().contains("longer"));
    }

    #[test]
    fn nothing_changes_a_finished_answer() {
        let answer = Answer::default();
        answer.push("all");
        answer.finish(None);
        answer.restart();
        answer.push("late");
        answer.finish(Some("again".to_owned()));
        assert_eq!(
            answer.read(),
            ("all".to_owned(), Some(End { remark: None }))
        );
    }
}
