//! Root's `kai-broker` to the broker, on `RUN/admin/broker.sock`.

use serde::{Deserialize, Serialize};

use crate::{
    codec::control_messages,
    gateway_broker::{Refusal, SecondFactor},
    hello::{AdminHello, Hello},
    ids::{AccountName, Role, TelegramId, UnixSeconds, UserName},
    worker_broker::Report,
};

/// What root may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// First on every connection.
    Hello(AdminHello),
    /// The users and their workers.
    Status,
    /// The last ids that were turned away.
    Strangers,
    /// Read users.yaml again.
    Reload,
}

/// What the broker answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The broker's Hello.
    Hello(Hello),
    /// The daemon itself; begins the answer to [`Request::Status`].
    Broker(BrokerStatus),
    /// One user; as many follow as there are.
    User(UserStatus),
    /// Ends the answer to [`Request::Status`].
    StatusEnd,
    /// At most [`STRANGERS`](crate::limits::STRANGERS), the newest last.
    Strangers(Vec<Stranger>),
    /// The new users.yaml is in force.
    Reloaded {
        /// How many users it has.
        users: u32,
        /// How many lost connection and worker because they are gone or changed.
        ended: u32,
    },
    /// The old users.yaml stays in force, for this reason: file, line and key, never a value.
    ReloadRefused(String),
    /// The connection ends here.
    Refused(Refusal),
}

/// The daemon's own word about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerStatus {
    /// Its process id.
    pub pid: u32,
    /// When it started.
    pub started: UnixSeconds,
    /// Workers that live now.
    pub workers: u32,
    /// The cap on them.
    pub workers_limit: u32,
    /// True if a gateway has a roll connection.
    pub gateway_connected: bool,
    /// True if authd answered its Hello.
    pub authd_connected: bool,
    /// True if one key of the agent is readable by every user.
    pub shared_key: bool,
}

/// One user and, where there is one, the worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserStatus {
    /// Who it is on Telegram.
    pub id: TelegramId,
    /// What they are called.
    pub name: UserName,
    /// What they are in kai.
    pub role: Role,
    /// The account of their worker.
    pub account: AccountName,
    /// That account's number.
    pub uid: u32,
    /// Whether they must have a second factor.
    pub second_factor: SecondFactor,
    /// True if the broker hands the agent a key of this user's own.
    pub own_key: bool,
    /// True if people can log in to the account, so that the files that run at a login are kept from
    /// the worker.
    pub login: bool,
    /// Each way in which the user's policy lowers a wall, in words.
    pub weakened: Vec<String>,
    /// The worker, if one lives or is ending.
    pub worker: Option<WorkerStatus>,
}

/// A worker as the daemon knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its process id on the host.
    pub pid: u32,
    /// Where it is in its life.
    pub life: WorkerLife,
    /// When it was forked.
    pub started: UnixSeconds,
    /// True if a gateway is attached.
    pub attached: bool,
    /// What it last said of itself, if it has.
    pub report: Option<Report>,
    /// When it last said so.
    pub reported: UnixSeconds,
}

/// Where a worker is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkerLife {
    /// Forked, and has not yet reported.
    Starting,
    /// Confined and usable.
    Live,
    /// Killed or ended, and not yet reaped.
    Dying,
}

/// Somebody who wrote and is not a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stranger {
    /// Who wrote.
    pub id: TelegramId,
    /// When last.
    pub last: UnixSeconds,
    /// How often since the broker started.
    pub times: u32,
}

/// Where a connection of root's command stands.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hello_comes_first_and_once() {
        for request in [Request::Status, Request::Strangers, Request::Reload] {
            assert!(!permitted(State::Fresh, &request));
            assert!(permitted(State::Greeted, &request));
        }
        assert!(permitted(State::Fresh, &Request::Hello(AdminHello::of(0))));
        assert!(!permitted(
            State::Greeted,
            &Request::Hello(AdminHello::of(0))
        ));
    }
}
