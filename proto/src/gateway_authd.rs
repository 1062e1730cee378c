//! Gateway to authd, on `RUN/gateway/authd.sock`.

use serde::{Deserialize, Serialize};

use crate::{codec::control_messages, hello::Hello, ids::TelegramId};

/// What a gateway may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// First on every connection.
    Hello(Hello),
    /// Does `user` have to prove a second factor before anything is handed on?
    Standing {
        /// Who wrote.
        user: TelegramId,
    },
}

/// What authd answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// authd's Hello.
    Hello(Hello),
    /// To [`Request::Standing`].
    Standing(Standing),
    /// The connection ends here.
    Refused(Refusal),
}

/// How a user stands with authd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// No second factor is enrolled for this user.
    NotEnrolled,
}

/// Why authd ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The peer speaks another version.
    #[error("the programs are of different versions")]
    Version,
    /// The request has no place in the connection's state.
    #[error("the request is not permitted here")]
    NotPermitted,
    /// As many connections as this socket takes are open.
    #[error("there are too many connections")]
    TooManyConnections,
}

/// Where a connection stands; the same on each of authd's sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing was said yet.
    Fresh,
    /// Hello was said.
    Greeted,
}

/// Whether `request` has a place in `state`: Hello first and once, then anything else.
#[must_use]
pub fn permitted(state: State, request: &Request) -> bool {
    matches!(request, Request::Hello(_)) == (state == State::Fresh)
}

control_messages!(Request, Reply);
