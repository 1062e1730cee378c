//! A record of every request, to assert on keys, history and timing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;

use super::conversation;

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The conversation itself: it offers tools.
    Turn,
    /// Something that the agent asks a model on its own, such as a title.
    Side,
    /// A question that no model has to answer: models, tokens, whether the server is there.
    Service,
    /// It was refused, and `status` says how.
    Refused,
    /// No such address.
    Unknown,
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All of it was sent.
    Complete,
    /// The agent went away before that, as it does when it is interrupted or killed.
    Abandoned,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Received {
    /// When it had come in whole.
    pub at: Instant,
    /// `POST` and the like.
    pub method: String,
    /// The address with everything behind the question mark.
    pub path: String,
    /// The headers, by their names in small letters.
    pub headers: BTreeMap<String, String>,
    /// The body, null if it is no JSON.
    pub body: Arc<Value>,
    /// What it is about.
    pub kind: Kind,
    /// The status it was answered with, 0 before that.
    pub status: u16,
    /// When each piece of text was written.
    pub words: Vec<Instant>,
    /// When and how the answer ended; `None` while it goes on.
    pub ended: Option<(Instant, Ending)>,
}

impl Received {
    /// The key that it came with, in whichever header.
    pub fn key(&self) -> Option<&str> {
        let bearer = || self.headers.get("authorization")?.strip_prefix("Bearer ");
        self.headers
            .get("x-api-key")
            .map(String::as_str)
            .or_else(bearer)
    }

    /// Everything that the user said in the conversation so far, the oldest first.
    pub fn prompts(&self) -> Vec<String> {
        conversation::prompts(&self.body)
    }

    /// Everything that was answered in the conversation so far, the oldest first.
    pub fn answers(&self) -> Vec<String> {
        conversation::answers(&self.body)
    }
}
