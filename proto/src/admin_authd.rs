//! Root's `kai-auth` to authd, on `RUN/admin/authd.sock`.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

pub use crate::gateway_authd::{Refusal, State, User};
use crate::{
    code::{RecoveryCode, TotpCode},
    codec::control_messages,
    hello::AdminHello,
    ids::{UnixSeconds, UserName},
};

/// Bytes of a secret: 160 bits, what RFC 4226 recommends.
pub const SECRET: usize = 20;

/// How many recovery codes an enrolment gives.
pub const RECOVERY_CODES: usize = 10;

/// What root may ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// First on every connection.
    Hello(AdminHello),
    /// The daemon itself.
    Status,
    /// Everybody who is enrolled.
    Enrolments,
    /// A new secret for `user`. Nothing changes before it is confirmed on this connection.
    Enrol {
        /// For whom.
        user: User,
        /// Whether an enrolment that stands may be replaced.
        replace: bool,
    },
    /// A code of the new secret: the enrolment takes effect.
    Confirm {
        /// The code.
        code: TotpCode,
    },
    /// Forget the second factor of this name, whatever the id.
    Remove {
        /// Whose.
        name: UserName,
    },
    /// Take codes of this name again at once, and count failures from nothing.
    Unlock {
        /// Whose.
        name: UserName,
    },
}

/// What authd answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// authd's Hello.
    Hello(crate::hello::Hello),
    /// To [`Request::Status`].
    Status(AuthdStatus),
    /// One of the enrolled; as many follow as there are.
    Enrolment(Enrolment),
    /// Ends the answer to [`Request::Enrolments`].
    EnrolmentsEnd,
    /// To [`Request::Enrol`].
    Secret(Secret),
    /// To a right [`Request::Confirm`]: the only time that these are shown.
    Confirmed(Vec<RecoveryCode>),
    /// To [`Request::Remove`] and [`Request::Unlock`].
    Done,
    /// The request was understood and not carried out; the connection goes on.
    NotDone(NotDone),
    /// The connection ends here.
    Refused(Refusal),
}

/// Why an admin's request was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum NotDone {
    /// A second factor is enrolled for this name or id.
    #[error("a second factor is enrolled already")]
    EnrolledAlready,
    /// None is.
    #[error("no second factor is enrolled")]
    NotEnrolled,
    /// Nothing waits for a confirmation, or too many wrong codes ended it.
    #[error("nothing waits for a confirmation")]
    NothingToConfirm,
    /// The code is not one of the new secret, now.
    #[error("the code is wrong")]
    WrongCode,
    /// authd's state, or its audit log, cannot be written.
    #[error("kai-authd cannot write its state; its log says why")]
    Unavailable,
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

/// One enrolled user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    /// Who.
    pub user: User,
    /// When it was confirmed.
    pub since: UnixSeconds,
    /// The absolute end of a grant that stands.
    pub authenticated_until: Option<UnixSeconds>,
    /// Until when no code is taken.
    pub locked_until: Option<UnixSeconds>,
    /// Wrong codes since the last right one, or the last lockout.
    pub failures: u32,
    /// Recovery codes that are left.
    pub recovery_left: u8,
    /// True if codes of a time that has not come count as used: the clock was set back, and codes are
    /// refused until that time, or until the user is unlocked or enrolled again.
    pub ahead_of_clock: bool,
}

/// A new secret on its way to the admin's terminal.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(pub [u8; SECRET]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Whether `request` has a place in `state`: Hello first and once, then anything else.
#[must_use]
pub fn permitted(state: State, request: &Request) -> bool {
    matches!(request, Request::Hello(_)) == (state == State::Fresh)
}

control_messages!(Request, Reply);
