//! The state of all processes, looked at only while somebody watches.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use crate::{ground::Daemon, stage::Stage};

/// How often `kai-broker status` is run while a page is open.
const EVERY: Duration = Duration::from_millis(1000);
/// How soon after something was killed.
const SOON: Duration = Duration::from_millis(120);

/// What is known of the processes, for all open pages.
#[derive(Debug)]
pub struct Vitals {
    known: watch::Sender<Value>,
    look_now: Notify,
}

impl Vitals {
    /// Begins with nothing known.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            known: watch::Sender::new(Value::Null),
            look_now: Notify::new(),
        })
    }

    /// What is known now, and whenever it changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Value> {
        // A page that opens does not wait for the next round.
        self.look_now.notify_one();
        self.known.subscribe()
    }

    /// Looks soon instead of when it is time.
    pub fn hurry(&self) {
        self.look_now.notify_one();
    }

    /// Looks every second while a page is open, for as long as the task lives.
    pub async fn keep(self: Arc<Self>, stage: Arc<Stage>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = self.look_now.notified() => tokio::time::sleep(SOON).await,
            }
            if self.known.receiver_count() == 0 {
                continue;
            }
            let stage = Arc::clone(&stage);
            if let Ok(found) = tokio::task::spawn_blocking(move || look(&stage)).await {
                self.known.send_replace(found);
            }
        }
    }
}

fn look(stage: &Stage) -> Value {
    let ground = stage.ground();
    let daemons: Vec<Value> = Daemon::ALL
        .into_iter()
        .map(|daemon| json!({"name": daemon.name(), "pid": ground.pid(daemon)}))
        .collect();
    let (status, problem) = match ground.status_json() {
        Ok(status) => (status, None),
        Err(problem) => (Value::Null, Some(problem.to_string())),
    };
    json!({
        "kind": "vitals", "daemons": daemons, "status": status, "problem": problem,
        "strangers": strangers(stage),
    })
}

/// Whom the broker was told of that the gateway turned away.
fn strangers(stage: &Stage) -> Value {
    let listed = stage.ground().broker_command(&["strangers", "--json"]);
    listed
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or(Value::Null)
}
