//! What Telegram says when it says no, in its own words where a client matches on them.

use serde_json::{Value, json};

/// An error answer of the Bot API.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {description}")]
pub struct Refusal {
    /// The HTTP status, repeated in the body as `error_code`.
    pub code: u16,
    /// The text that clients tell errors apart by.
    pub description: String,
    /// Seconds to wait, in an answer to too many requests.
    pub retry_after: Option<u32>,
}

impl Refusal {
    /// A status and a description as they are to appear.
    pub fn new(code: u16, description: impl Into<String>) -> Self {
        Self {
            code,
            description: description.into(),
            retry_after: None,
        }
    }

    /// A 400 whose description begins as Telegram's do.
    pub(super) fn bad_request(what: impl std::fmt::Display) -> Self {
        Self::new(400, format!("Bad Request: {what}"))
    }

    /// Entities that do not fit their text.
    pub(super) fn entities(what: impl std::fmt::Display) -> Self {
        Self::bad_request(format_args!("can't parse entities: {what}"))
    }

    /// Too many requests.
    pub fn retry_after(seconds: u32) -> Self {
        Self {
            retry_after: Some(seconds),
            ..Self::new(429, format!("Too Many Requests: retry after {seconds}"))
        }
    }

    /// A well-formed token that belongs to no bot.
    pub(super) fn unauthorized() -> Self {
        Self::new(401, "Unauthorized")
    }

    /// A path that is not the Bot API's, a malformed token included.
    pub(super) fn not_found() -> Self {
        Self::new(404, "Not Found")
    }

    /// A method that does not exist, or that this emulator leaves out.
    pub(super) fn unknown_method() -> Self {
        Self::new(404, "Not Found: method not found")
    }

    /// Two pollers at once; the older one is told.
    pub(super) fn conflict() -> Self {
        Self::new(
            409,
            "Conflict: terminated by other getUpdates request; \
             make sure that only one bot instance is running",
        )
    }

    /// The person has blocked the bot.
    pub(super) fn blocked() -> Self {
        Self::new(403, "Forbidden: bot was blocked by the user")
    }

    /// An edit that would change nothing.
    pub(super) fn not_modified() -> Self {
        Self::bad_request(
            "message is not modified: specified new message content and reply markup are \
             exactly the same as a current content and reply markup of the message",
        )
    }

    /// The answer's body.
    pub(super) fn body(&self) -> Value {
        let mut body =
            json!({"ok": false, "error_code": self.code, "description": self.description});
        if let Some(seconds) = self.retry_after {
            body["parameters"] = json!({"retry_after": seconds});
        }
        body
    }
}
