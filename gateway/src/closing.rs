//! How the gateway ends: what runs may finish, nothing begins, and in the end what still runs is stopped.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use kai_proto::ids::TelegramId;
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It has not begun.
    Open,
    /// What the workers were told may finish; they are told nothing more.
    Finishing,
    /// What has not finished is stopped.
    Stopping,
}

/// The end, as everybody sees it.
#[derive(Debug)]
pub struct Closing {
    phase: watch::Sender<Phase>,
    /// Whose task has something under way.
    busy: Mutex<HashSet<TelegramId>>,
    changed: Notify,
}

impl Default for Closing {
    fn default() -> Self {
        Self {
            phase: watch::Sender::new(Phase::Open),
            busy: Mutex::default(),
            changed: Notify::new(),
        }
    }
}

impl Closing {
    /// Follows the end.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// A user's task has something under way, or has not any more.
    pub fn set_busy(&self, user: TelegramId, busy: bool) {
        let mut all = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if busy {
            all.insert(user);
        } else if all.remove(&user) {
            self.changed.notify_one();
        }
    }

    /// Comes to this phase, and waits until nothing is under way, for `patience` at most; true if nothing
    /// is.
    pub async fn come_to(&self, phase: Phase, patience: Duration) -> bool {
        let _ = self.phase.send(phase);
        let quiet = async {
            while !self.is_quiet() {
                self.changed.notified().await;
            }
        };
        timeout(patience, quiet).await.is_ok()
    }

    fn is_quiet(&self) -> bool {
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.is_empty()
    }
}
