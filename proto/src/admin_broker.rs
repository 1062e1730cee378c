//! Root's `kai-broker` to the broker, on `RUN/admin/broker.sock`.
//!
//! The answer to [`Request::Login`] is [`Reply::LoginBegins`] and, right behind that frame, the single byte
//! [`TERMINAL`] with the master of the login's terminal as its one descriptor. From then on nothing may be
//! asked on this connection any more: whoever holds it copies what a user's agent writes. Its end is the end of
//! the login.

use serde::{Deserialize, Serialize};

use crate::{
    codec::control_messages,
    gateway_broker::{Refusal, SecondFactor},
    hello::{AdminHello, Hello},
    ids::{AccountName, Role, TelegramId, UnixSeconds, UserName},
    worker_broker::Report,
};

/// The byte that carries the terminal of a login.
pub const TERMINAL: u8 = b't';

/// What root may ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// First on every connection.
    Hello(AdminHello),
    /// The users and their workers.
    Status,
    /// The last ids that were turned away.
    Strangers,
    /// Read users.yaml again.
    Reload,
    /// Run the agent's own login for this user.
    Login(UserName),
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
    /// The login runs; its terminal follows.
    LoginBegins,
    /// There is no login, for this reason.
    LoginRefused(String),
    /// The login is over, and with it all that it started.
    LoginEnded {
        /// Its exit status, or the negated number of the signal that ended it.
        status: i32,
        /// What ended it.
        why: LoginEnd,
    },
    /// The connection ends here.
    Refused(Refusal),
}

/// What ended a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LoginEnd {
    /// It ended by itself.
    ByItself,
    /// The command that asked for it is gone.
    HungUp,
    /// It took too long.
    TooLong,
    /// Its user is gone from users.yaml, or changed.
    UserChanged,
    /// Its start could not be written down.
    NotRecorded,
    /// The broker stops.
    Stopping,
}

impl LoginEnd {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::ByItself,
        Self::HungUp,
        Self::TooLong,
        Self::UserChanged,
        Self::NotRecorded,
        Self::Stopping,
    ];
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
    /// A login was asked for, and may run.
    LoggingIn,
}

/// Whether `request` has a place in `state`: Hello first and once, then anything else, and nothing after a
/// login.
#[must_use]
pub fn permitted(state: State, request: &Request) -> bool {
    match state {
        State::Fresh => matches!(request, Request::Hello(_)),
        State::Greeted => !matches!(request, Request::Hello(_)),
        State::LoggingIn => false,
    }
}

control_messages!(Request, Reply);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hello_comes_first_and_once() {
        let login = Request::Login("alice".to_owned().try_into().unwrap());
        for request in [Request::Status, Request::Strangers, Request::Reload, login] {
            assert!(!permitted(State::Fresh, &request));
            assert!(permitted(State::Greeted, &request));
            assert!(!permitted(State::LoggingIn, &request), "{request:?}");
        }
        assert!(permitted(State::Fresh, &Request::Hello(AdminHello::of(0))));
        assert!(!permitted(
            State::Greeted,
            &Request::Hello(AdminHello::of(0))
        ));
        assert!(!permitted(
            State::LoggingIn,
            &Request::Hello(AdminHello::of(0))
        ));
    }
}
