//! Gateway to broker, on `RUN/gateway/broker.sock`.
//!
//! A connection is one of two kinds. The **roll** connection subscribes to the table of users and
//! reports strangers for as long as both live. An **attach** connection says Hello, names one user and
//! then belongs to that user's worker: see [`crate::conversation`]. What the broker answers to an
//! attach is [`FromWorker::Refused`](crate::conversation::FromWorker::Refused) or nothing: the
//! acceptance is the worker's own first frame.

use serde::{Deserialize, Serialize};

use crate::{
    codec::control_messages,
    grant::Grant,
    hello::Hello,
    ids::{ChatId, ModelName, Role, TelegramId, UnixSeconds, UserName},
};

/// What a gateway may say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// First on every connection.
    Hello(Hello),
    /// Makes this the roll connection: the users now, and again after every reload.
    Subscribe,
    /// Somebody who is not in the table wrote; only the number and the time are kept.
    Stranger {
        /// Who wrote.
        id: TelegramId,
        /// When.
        at: UnixSeconds,
    },
    /// Hands this connection to the worker of `user`.
    Attach {
        /// Whose worker.
        user: TelegramId,
        /// Proof of the second factor, where there is one.
        grant: Option<Grant>,
    },
}

/// What the broker answers on the roll connection, and to Hello on either kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The broker's Hello.
    Hello(Hello),
    /// One user of the table that is being sent.
    User(UserEntry),
    /// The table is whole; what is not in it is not a user any more.
    UsersEnd,
    /// The connection ends here.
    Refused(Refusal),
}

/// What the gateway needs to know of a user. Not the account: the gateway has no use for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserEntry {
    /// Who it is.
    pub id: TelegramId,
    /// What to call them.
    pub name: UserName,
    /// What they are in kai.
    pub role: Role,
    /// Whether they must have a second factor.
    pub second_factor: SecondFactor,
    /// Chats beside the private one in which they may talk to their agent.
    pub chats: Vec<ChatId>,
    /// The model to begin with; none means the agent's own choice.
    pub model: Option<ModelName>,
}

/// The admin's rule for one user; only the broker's own table counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SecondFactor {
    /// Nobody is attached who is not enrolled.
    Required,
    /// Who is enrolled has to prove it, who is not is let in.
    Optional,
}

/// Why a request was refused: enough for the gateway to tell the user what to do, and no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The peer speaks another version: the programs were not installed together.
    #[error("the programs are of different versions")]
    Version,
    /// The request has no place in the connection's state.
    #[error("the request is not permitted here")]
    NotPermitted,
    /// Nobody in users.yaml has this id.
    #[error("there is no such user")]
    UnknownUser,
    /// The user has a second factor, and the grant is missing or does not stand.
    #[error("the second factor is needed")]
    SecondFactor,
    /// The user must have a second factor, and none is enrolled.
    #[error("a second factor must be enrolled first")]
    NotEnrolled,
    /// The second factor was enrolled for another name or Telegram id.
    #[error("the second factor must be enrolled again")]
    EnrolmentChanged,
    /// authd gave no answer within its deadline, or cannot tell.
    #[error("the second factor cannot be checked")]
    AuthdUnavailable,
    /// As many workers as `limits.workers` are busy.
    #[error("all places for agents are taken")]
    TooManyWorkers,
    /// As many connections as `limits.connections` are open.
    #[error("there are too many connections")]
    TooManyConnections,
    /// The worker could not be started; the broker's log says which step failed.
    #[error("the worker could not be started")]
    LaunchFailed,
    /// The broker is stopping.
    #[error("kai is stopping")]
    Stopping,
}

/// Where a connection of the gateway stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing was said yet.
    Fresh,
    /// Hello was said.
    Greeted,
    /// This is the roll connection.
    Subscribed,
    /// An attach is on its way; the rest of the stream is the worker's.
    Attaching,
}

/// Whether `request` has a place in `state`; anything else ends the connection.
///
/// | | Hello | Subscribe | Stranger | Attach |
/// |---|---|---|---|---|
/// | Fresh | yes | | | |
/// | Greeted | | yes | | yes |
/// | Subscribed | | | yes | |
/// | Attaching | | | | |
#[must_use]
pub fn permitted(state: State, request: &Request) -> bool {
    matches!(
        (state, request),
        (State::Fresh, Request::Hello(_))
            | (State::Greeted, Request::Subscribe | Request::Attach { .. })
            | (State::Subscribed, Request::Stranger { .. })
    )
}

control_messages!(Request, Reply);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_permitted_requests_is_the_documented_one() {
        let id = TelegramId::try_from(7).unwrap();
        let requests = [
            Request::Hello(Hello::ours()),
            Request::Subscribe,
            Request::Stranger { id, at: 0 },
            Request::Attach {
                user: id,
                grant: None,
            },
        ];
        let table = [
            (State::Fresh, [true, false, false, false]),
            (State::Greeted, [false, true, false, true]),
            (State::Subscribed, [false, false, true, false]),
            (State::Attaching, [false, false, false, false]),
        ];

        for (state, row) in table {
            assert_eq!(
                requests.each_ref().map(|r| permitted(state, r)),
                row,
                "{state:?}"
            );
        }
    }
}
