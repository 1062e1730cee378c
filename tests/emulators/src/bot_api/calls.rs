//! A record of every call the bot made, to assert on their number, spacing and overlap.

use std::time::Instant;

use serde_json::Value;

use super::ids::ChatId;
use super::refusal::Refusal;

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was refused.
    Refused(Refusal),
    /// It got this status and a page instead of an answer, on demand.
    ServerError(u16),
    /// Its connection was cut before anything was done, on demand.
    Dropped,
    /// It was done and its answer was lost, on demand.
    AnswerLost,
    /// The bot went away before it had an answer.
    Abandoned,
}

/// One call of the Bot API.
#[derive(Clone, Debug)]
pub struct Call {
    /// Its name as the documentation writes it.
    pub method: &'static str,
    /// The chat it is about.
    pub chat: Option<ChatId>,
    /// What came with it, files left out.
    pub params: Value,
    /// When its first line had arrived.
    pub started: Instant,
    /// When its answer was given, and which one. `None` is in flight.
    pub ended: Option<(Instant, Outcome)>,
}

impl Call {
    /// Whether it did what it was for, even if the bot never heard of it.
    pub fn was_done(&self) -> bool {
        matches!(self.ended, Some((_, Outcome::Done | Outcome::AnswerLost)))
    }

    /// Whether it changes a message that stands in the chat.
    pub fn is_edit(&self) -> bool {
        matches!(self.method, "editMessageText" | "editMessageReplyMarkup")
    }

    fn overlaps(&self, later: &Self) -> bool {
        self.ended
            .as_ref()
            .is_none_or(|(ended, _)| later.started < *ended)
    }
}

/// All calls in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct CallLog {
    calls: Vec<Call>,
    // How many were dropped from the front, so that numbers given out stay right.
    dropped: usize,
}

impl CallLog {
    pub(super) fn open(&mut self, call: Call) -> usize {
        self.calls.push(call);
        self.dropped + self.calls.len() - 1
    }

    pub(super) fn close(&mut self, number: usize, at: Instant, outcome: Outcome) {
        let call = number
            .checked_sub(self.dropped)
            .and_then(|index| self.calls.get_mut(index));
        if let Some(call) = call.filter(|call| call.ended.is_none()) {
            call.ended = Some((at, outcome));
        }
    }

    pub(super) fn all(&self) -> &[Call] {
        &self.calls
    }

    pub(super) fn forget(&mut self) {
        self.dropped += self.calls.len();
        self.calls.clear();
    }

    /// Pairs of edits of one chat of which the second came before the first was answered.
    pub(super) fn overlapping_edits(&self, chat: ChatId) -> Vec<(Call, Call)> {
        let edits: Vec<&Call> = self
            .calls
            .iter()
            .filter(|call| call.chat == Some(chat) && call.is_edit())
            .collect();
        let mut pairs = Vec::new();
        for (index, earlier) in edits.iter().enumerate() {
            for later in edits
                .iter()
                .skip(index + 1)
                .filter(|later| earlier.overlaps(later))
            {
                pairs.push(((*earlier).clone(), (*later).clone()));
            }
        }
        pairs
    }
}
