//! `getUpdates`: one poller at a time, woken the moment there is something.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::Shared;
use super::params::Params;
use super::refusal::Refusal;

/// Telegram's longest poll.
const LONGEST: Duration = Duration::from_secs(50);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GetUpdates {
    offset: Option<i64>,
    limit: Option<usize>,
    timeout: Option<u64>,
    allowed_updates: Option<Vec<String>>,
}

/// Waits for updates until there are some, the time is over, or another poller comes.
pub(super) async fn get_updates(shared: &Shared, params: Params) -> Result<Value, Refusal> {
    let request: GetUpdates = params.only()?;
    let limit = request.limit.unwrap_or(100);
    if !(1..=100).contains(&limit) {
        return Err(Refusal::bad_request("limit must be between 1 and 100"));
    }
    let poller = shared.state.change(|state| {
        if let Some(kinds) = request.allowed_updates {
            state.queue.allow(kinds).map_err(|kind| {
                Refusal::bad_request(format_args!("unknown kind of update {kind:?}"))
            })?;
        }
        if let Some(offset) = request.offset.filter(|offset| *offset != 0) {
            state.queue.confirm(offset);
        }
        Ok(state.queue.begin_poll())
    })?;
    shared.pollers.notify_waiters();
    let patience = Duration::from_secs(request.timeout.unwrap_or(0)).min(LONGEST);
    let deadline = Instant::now() + patience;
    loop {
        // Registered before looking, so that nothing is missed in between.
        let mut bell = std::pin::pin!(shared.pollers.notified());
        bell.as_mut().enable();
        {
            let mut state = shared.state.lock();
            if !state.queue.is_latest(poller) {
                return Err(Refusal::conflict());
            }
            let batch = state.queue.batch(limit);
            if !batch.is_empty() {
                return Ok(Value::Array(batch));
            }
        }
        if timeout_at(deadline, bell).await.is_err() {
            return Ok(json!([]));
        }
    }
}
