//! Gateway to authd, on `RUN/gateway/authd.sock`: each request has one reply, in their order.
//!
//! A user is named by name and Telegram id together, as the broker's table has them: an enrolment
//! holds for both or for neither.

use serde::{Deserialize, Serialize};

use crate::{
    code::Code,
    codec::control_messages,
    grant::Grant,
    hello::Hello,
    ids::{TelegramId, UnixSeconds, UserName},
};

/// What a gateway may ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// First on every connection.
    Hello(Hello),
    /// How does `user` stand?
    Standing {
        /// Who wrote.
        user: User,
        /// What the gateway holds for them.
        grant: Option<Grant>,
        /// True for a message, and now and then while a turn runs: it puts the idle end of the grant off.
        renew: bool,
    },
    /// `user` sent a code.
    Verify {
        /// Who sent it.
        user: User,
        /// The code.
        code: Code,
    },
    /// `user` wants to be asked again: ends the grant, whoever holds it.
    Lock {
        /// Who wants it.
        user: User,
    },
}

/// What authd answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// authd's Hello.
    Hello(Hello),
    /// To [`Request::Standing`].
    Standing(Standing),
    /// To [`Request::Verify`].
    Verdict(Verdict),
    /// To [`Request::Lock`]: no grant of this user stands any more.
    Locked,
    /// The connection ends here.
    Refused(Refusal),
}

/// A user as authd knows them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct User {
    /// What they are called in users.yaml.
    pub name: UserName,
    /// Who they are on Telegram.
    pub id: TelegramId,
}

/// How a user stands with authd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// No second factor is enrolled for this user.
    NotEnrolled,
    /// One is enrolled for this name with another id, or for this id with another name.
    Changed,
    /// The grant stands.
    Proven {
        /// Its absolute end, which nothing puts off.
        until: UnixSeconds,
    },
    /// One is enrolled, and the grant is missing or does not stand.
    CodeNeeded,
    /// The same, and no code is taken before this moment.
    Locked {
        /// When codes are taken again.
        until: UnixSeconds,
    },
    /// authd cannot tell: its state cannot be read.
    Unavailable,
}

/// What became of a code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It was right.
    Granted {
        /// The proof.
        grant: Grant,
        /// Its absolute end.
        until: UnixSeconds,
        /// How many recovery codes are left, if this was one.
        recovery_left: Option<u8>,
    },
    /// It was wrong, used or expired: one word for all of them.
    Refused,
    /// No code is taken before this moment; this one was not looked at, or was the last failure.
    Locked {
        /// When codes are taken again.
        until: UnixSeconds,
    },
    /// Too many codes come at once, from everybody together: ask again with the same code. This one
    /// was neither looked at nor counted.
    Later {
        /// After how many milliseconds.
        after_ms: u32,
    },
    /// There is nothing that a code could prove: see [`Standing::NotEnrolled`] and
    /// [`Standing::Changed`].
    NotEnrolled,
    /// authd cannot tell: its state cannot be read or written.
    Unavailable,
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
