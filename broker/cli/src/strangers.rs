//! The ids that the gateway turned away.

use kai_proto::admin_broker::{Reply, Request};
use serde::Serialize;

use crate::client::{Broker, ClientError};

/// Somebody who wrote and is not a user.
#[derive(Debug, Serialize)]
pub struct StrangerShown {
    /// The Telegram id, for `telegram_id` in users.yaml.
    pub id: i64,
    /// When they last wrote, in seconds since 1970.
    pub last: u64,
    /// How often since the broker started.
    pub times: u32,
}

/// Asks the daemon; the newest comes first.
///
/// # Errors
/// What the daemon's connection answers.
pub fn gather(broker: &mut Broker) -> Result<Vec<StrangerShown>, ClientError> {
    let Reply::Strangers(list) = broker.ask(Request::Strangers)? else {
        return Err(ClientError::Unexpected);
    };
    let shown = |stranger: &kai_proto::admin_broker::Stranger| StrangerShown {
        id: stranger.id.into(),
        last: stranger.last,
        times: stranger.times,
    };
    Ok(list.iter().rev().map(shown).collect())
}
