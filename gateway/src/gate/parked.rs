//! Messages that wait for a code, and which of them its sender could see quoted.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use kai_proto::ids::{ChatId, PromptId, UnixSeconds};

use super::Arrival;
use crate::{quote, rendered, telegram::Posted};

/// How many messages wait at once, in all chats of a user together.
pub const KEPT: usize = 5;
/// Longest of all their quotes together, in UTF-16 units: they stand in one message of Telegram's,
/// whole, because what is left out could be what matters.
pub const QUOTED: usize = 2800;
/// How a message without text is quoted.
const NO_TEXT: &str = "(a message without text)";

/// Why a message is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotKept {
    /// As many as may wait do.
    Full,
    /// It cannot be quoted whole beside the others.
    TooLong,
}

/// A message that waits.
#[derive(Debug)]
pub struct Item {
    /// The message.
    pub arrival: Arrival,
    /// All of it on one line.
    pub quote: String,
    /// True if it was taken back after the code that lets it run.
    pub voided: bool,
    /// The question that quotes it first.
    version: Option<u64>,
    /// The first question that its chat has shown with it.
    shown: Option<Posted>,
}

impl Item {
    /// True for the message with this number in this chat.
    #[must_use]
    pub fn is(&self, chat: ChatId, message: i32) -> bool {
        let received = &self.arrival.message.received;
        received.chat == chat && received.message == message
    }
}

/// The messages of one user that wait for a code, in their order.
#[derive(Debug, Default)]
pub struct Parked {
    items: Vec<Item>,
    /// When the first of them came, and when they lapse.
    time: Option<(Instant, Instant)>,
}

impl Parked {
    /// Keeps a message. Those that wait lapse together `patience` after the newest came, but no later
    /// than if each had come at the last moment.
    ///
    /// # Errors
    /// The message, if it is not kept.
    pub fn add(
        &mut self,
        arrival: Arrival,
        patience: Duration,
        now: Instant,
    ) -> Result<(), (Arrival, NotKept)> {
        if self.items.len() >= KEPT {
            return Err((arrival, NotKept::Full));
        }
        let quote = match &arrival.message.received.text {
            Some(text) => quote::visible(text),
            None => NO_TEXT.to_owned(),
        };
        let quoted: usize = self.items.iter().map(|i| rendered::length(&i.quote)).sum();
        if quoted + rendered::length(&quote) > QUOTED {
            return Err((arrival, NotKept::TooLong));
        }
        self.items.push(Item {
            arrival,
            quote,
            voided: false,
            version: None,
            shown: None,
        });
        let first = self.time.map_or(now, |(first, _)| first);
        let kept = u32::try_from(KEPT).unwrap_or(1);
        self.time = Some((first, (now + patience).min(first + patience * kept)));
        Ok(())
    }

    /// Takes out the message with this number in this chat.
    pub fn remove(&mut self, chat: ChatId, message: i32) -> Option<Item> {
        let index = self.items.iter().position(|item| item.is(chat, message))?;
        let item = self.items.remove(index);
        if self.items.is_empty() {
            self.time = None;
        }
        Some(item)
    }

    /// Takes all of them out.
    pub fn take(&mut self) -> Vec<Item> {
        self.time = None;
        std::mem::take(&mut self.items)
    }

    /// Takes out what came from a chat that `stays` refuses.
    pub fn remove_from(&mut self, stays: impl Fn(ChatId) -> bool) -> Vec<Item> {
        let (stay, go) = std::mem::take(&mut self.items)
            .into_iter()
            .partition(|item| stays(item.arrival.chat()));
        self.items = stay;
        if self.items.is_empty() {
            self.time = None;
        }
        go
    }

    /// The chats in which something waits.
    #[must_use]
    pub fn chats(&self) -> BTreeSet<ChatId> {
        self.items.iter().map(|item| item.arrival.chat()).collect()
    }

    /// The quotes of what waits in a chat; from now on the question of this `version` has them.
    pub fn quotes(&mut self, chat: ChatId, version: u64) -> Vec<&str> {
        let here = self.items.iter_mut().filter(|i| i.arrival.chat() == chat);
        here.map(|item| {
            item.version.get_or_insert(version);
            item.quote.as_str()
        })
        .collect()
    }

    /// A chat shows the question of this `version`, as it was posted.
    pub fn shown(&mut self, chat: ChatId, version: u64, question: Posted) {
        let here = self.items.iter_mut().filter(|i| i.arrival.chat() == chat);
        for item in here {
            if item.version.is_some_and(|first| first <= version) {
                item.shown.get_or_insert(question);
            }
        }
    }

    /// The messages whose quotes stood above a message of a chat, whenever that was read, and did so
    /// from the moment `read` on at least, by Telegram's clock: numbers of messages grow within a chat.
    /// What only another chat shows, its sender may not have looked at.
    #[must_use]
    pub fn quoted_above(&self, chat: ChatId, message: i32, read: UnixSeconds) -> Vec<PromptId> {
        let here = self.items.iter().filter(|i| i.arrival.chat() == chat);
        let seen = |question: Posted| question.message < message && question.at <= read;
        let above = here.filter(|item| item.shown.is_some_and(seen));
        above.map(|item| item.arrival.id()).collect()
    }

    /// When they lapse.
    #[must_use]
    pub fn lapse(&self) -> Option<Instant> {
        self.time.map(|(_, until)| until)
    }
}
