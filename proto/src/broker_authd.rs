//! Broker to authd, on `RUN/broker/authd.sock`: one question per attach, answered in the order of the
//! questions. Between the answers authd says whose grant has ended.

use serde::{Deserialize, Serialize};

pub use crate::gateway_authd::{Refusal, Standing, State, User};
use crate::{codec::control_messages, grant::Grant, hello::Hello, ids::TelegramId};

/// What the broker may ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// First on every connection.
    Hello(Hello),
    /// May `user` be attached, or stay so, with this grant? Renews nothing.
    Check {
        /// Whose worker.
        user: User,
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
    /// Unasked: whatever `user` proved before does not hold any more.
    Ended {
        /// Whose grant.
        user: TelegramId,
        /// Why.
        end: GrantEnd,
    },
    /// The connection ends here.
    Refused(Refusal),
}

/// Why a grant ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum GrantEnd {
    /// No message came for the idle limit.
    Idle,
    /// The absolute limit was reached.
    Absolute,
    /// The user said /lock.
    Locked,
    /// An admin enrolled, replaced or removed the second factor.
    Enrolment,
    /// The user proved the second factor once more: another grant stands in its place, and may be
    /// presented at any moment.
    Replaced,
}

impl GrantEnd {
    /// Whether a turn that runs may come to its end: it was begun with a grant that stood, and no
    /// one took that back. Its answer is held until the user proves the second factor again.
    #[must_use]
    pub fn lets_a_turn_finish(self) -> bool {
        matches!(self, Self::Idle | Self::Absolute)
    }
}

/// Whether `request` has a place in `state`: Hello first and once, then anything else.
#[must_use]
pub fn permitted(state: State, request: &Request) -> bool {
    matches!(request, Request::Hello(_)) == (state == State::Fresh)
}

control_messages!(Request, Reply);
