//! What comes to a [`Gate`](super::Gate), and what it wants done.

use std::time::Instant;

use kai_proto::{
    code::Code,
    grant::Grant,
    ids::{ChatId, PromptId, UnixSeconds},
};
use teloxide::types::CallbackQueryId;

use crate::{inbox::Unanswered, rendered::Rendered};

/// The time, in both of its kinds.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For what is measured here.
    pub at: Instant,
    /// For what authd names.
    pub unix: UnixSeconds,
}

/// A message on its way through the gate.
#[derive(Debug)]
pub struct Arrival {
    /// The message, and where its answer has begun.
    pub message: Unanswered,
    /// True if an earlier run of the gateway took it, so that a worker may know of it.
    pub replayed: bool,
    /// True if it reads like a code. It came while none was wanted, and must never be quoted.
    pub like_a_code: bool,
    /// True if it stands in a topic of a forum, where no question for a code does.
    pub in_topic: bool,
}

impl Arrival {
    /// The update that brought it.
    #[must_use]
    pub fn id(&self) -> PromptId {
        self.message.received.id
    }

    /// Where it stands.
    #[must_use]
    pub fn chat(&self) -> ChatId {
        self.message.received.chat
    }
}

/// A code that arrived. Its update is written down by its number alone.
#[derive(Debug)]
pub struct Presented {
    /// The update that brought it.
    pub id: PromptId,
    /// The chat in which it stands.
    pub chat: ChatId,
    /// Its message there.
    pub message: i32,
    /// True if it stands in a topic of a forum, where no question for a code does.
    pub in_topic: bool,
    /// When it was sent, by Telegram's clock.
    pub sent: UnixSeconds,
    /// The code.
    pub code: Code,
    /// What authd said of its user before.
    pub reading: Reading,
    /// The grant that authd was asked about then: it does not stand if a code is wanted.
    pub asked_with: Option<Grant>,
}

/// What authd said of a user who sent something that reads like a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// A code is wanted.
    Wanted,
    /// None is taken before this moment.
    Locked(UnixSeconds),
    /// The enrolment holds for another name or id.
    Changed,
    /// authd is away or cannot tell.
    Unknown,
    /// None is wanted, and a recovery code is nothing else.
    Proven,
}

/// Whether a message that is about to be handed on still stands in its chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It does.
    There,
    /// It was deleted.
    Deleted,
    /// The question that quoted it was deleted.
    Unquoted,
    /// Telegram does not say.
    Unknown,
}

/// A message that is about to be handed on.
#[derive(Debug, Clone)]
pub struct Sought {
    /// The update that brought it.
    pub id: PromptId,
    /// Where it stands.
    pub chat: ChatId,
    /// Its number there.
    pub message: i32,
    /// All of it on one line.
    pub quote: String,
}

/// What the gate wants done.
#[derive(Debug)]
pub enum Effect {
    /// Ask authd how the user stands; the answer goes to [`Gate::standing`](super::Gate::standing).
    AskStanding {
        /// With this grant.
        grant: Option<Grant>,
        /// True if its idle end is to be put off.
        renew: bool,
    },
    /// Ask authd about a code, once; the answer goes to [`Gate::verdict`](super::Gate::verdict).
    Verify(PromptId, Code),
    /// Tell authd to lock; the answer goes to [`Gate::locked`](super::Gate::locked).
    Lock,
    /// Let a message do what it asks for.
    Admit {
        /// The message.
        arrival: Arrival,
        /// True if the inbox has to know that it passed with a proof.
        mark: bool,
        /// True if it passed with a proof that has ended since: it may go on, and not begin.
        resume: bool,
    },
    /// Mark a message as answered without a word.
    Settle(PromptId),
    /// Say something in a chat, as the answer to a message if one is named.
    Say {
        /// Where.
        chat: ChatId,
        /// What it answers.
        answers: Option<PromptId>,
        /// The words.
        words: String,
    },
    /// Answer the press of a button.
    AnswerButton {
        /// The press.
        query: CallbackQueryId,
        /// The words.
        words: &'static str,
    },
    /// Remove a code from its chat.
    DeleteCode {
        /// The update that brought it.
        id: PromptId,
        /// Where.
        chat: ChatId,
        /// Which message.
        message: i32,
    },
    /// Post the question for a code in a chat, or change the one that stands there. Once Telegram has
    /// it, [`Gate::shown`](super::Gate::shown) is told the version.
    Ask {
        /// Where.
        chat: ChatId,
        /// Grows with each text.
        version: u64,
        /// The words.
        text: Rendered,
        /// True if it has to be the newest message of the chat; the older one then goes.
        anew: bool,
    },
    /// The question is over: these words take its place.
    Close {
        /// Where.
        chat: ChatId,
        /// The words.
        text: Rendered,
    },
    /// Close these questions, see whether these messages and the questions that quoted them still stand,
    /// and say of those that do that they run now; the answers go to [`Gate::looked`](super::Gate::looked).
    Look {
        /// The messages.
        messages: Vec<Sought>,
        /// The questions and the words that take their places.
        questions: Vec<(ChatId, Rendered)>,
    },
    /// What runs, and what waits for a worker, is to be stopped and settled.
    Interrupt,
    /// The gate was open and is shut: [`Gate::hold`](super::Gate::hold) has to be told what is not
    /// answered yet.
    Shut,
}
