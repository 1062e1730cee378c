//! Root's `kai-auth` to authd, on `RUN/admin/authd.sock`.

use serde::{Deserialize, Serialize};

pub use crate::gateway_authd::{Refusal, State};
use crate::{codec::control_messages, hello::Hello, ids::UnixSeconds};

/// What root may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// First on every connection.
    Hello(Hello),
    /// The daemon itself.
    Status,
}

/// What authd answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// authd's Hello.
    Hello(Hello),
    /// To [`Request::Status`].
    Status(AuthdStatus),
    /// The connection ends here.
    Refused(Refusal),
}

/// The daemon's own word about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthdStatus {
    /// Its process id.
    pub pid: u32,
    /// When it started.
    pub started: UnixSeconds,
    /// Connections of the gateway that are open.
    pub gateway_connections: u32,
    /// True if the broker is connected.
    pub broker_connected: bool,
    /// Questions answered since the start, of the gateway and of the broker.
    pub answered: u64,
}

/// Whether `request` has a place in `state`: Hello first and once, then anything else.
#[must_use]
pub fn permitted(state: State, request: &Request) -> bool {
    matches!(request, Request::Hello(_)) == (state == State::Fresh)
}

control_messages!(Request, Reply);
