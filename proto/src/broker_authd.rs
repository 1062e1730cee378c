//! Broker to authd, on `RUN/broker/authd.sock`: one connection, one question per attach.

use serde::{Deserialize, Serialize};

pub use crate::gateway_authd::{Refusal, Standing, State};
use crate::{codec::control_messages, grant::Grant, hello::Hello, ids::TelegramId};

/// What the broker may ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// First on every connection.
    Hello(Hello),
    /// May `user` be attached with this grant? Answers come in the order of the questions.
    Check {
        /// Who is to be attached.
        user: TelegramId,
        /// What the gateway presented.
        grant: Option<Grant>,
    },
}

/// What authd answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// authd's Hello.
    Hello(Hello),
    /// To [`Request::Check`].
    Checked {
        /// The user of the question.
        user: TelegramId,
        /// How they stand.
        standing: Standing,
    },
    /// The connection ends here.
    Refused(Refusal),
}

/// Whether `request` has a place in `state`: Hello first and once, then anything else.
#[must_use]
pub fn permitted(state: State, request: &Request) -> bool {
    matches!(request, Request::Hello(_)) == (state == State::Fresh)
}

control_messages!(Request, Reply);
