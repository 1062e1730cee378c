//! The table of workers: one a user at most.

use std::{collections::HashMap, time::Instant};

use kai_proto::{admin_broker::WorkerLife, ids::TelegramId};

use crate::{ending::REPORT_DELAY, worker::Worker};

/// All workers by user.
#[derive(Debug, Default)]
pub struct Workers {
    by_user: HashMap<TelegramId, Worker>,
}

impl Workers {
    /// The worker of this user.
    pub fn get_mut(&mut self, user: TelegramId) -> Option<&mut Worker> {
        self.by_user.get_mut(&user)
    }

    /// The worker of this user.
    #[must_use]
    pub fn get(&self, user: TelegramId) -> Option<&Worker> {
        self.by_user.get(&user)
    }

    /// Adds the worker of a user who has none.
    pub fn insert(&mut self, user: TelegramId, worker: Worker) {
        self.by_user.insert(user, worker);
    }

    /// Takes a reaped worker out.
    pub fn remove(&mut self, user: TelegramId) -> Option<Worker> {
        self.by_user.remove(&user)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (TelegramId, &Worker)> {
        self.by_user.iter().map(|(user, worker)| (*user, worker))
    }

    /// All of them, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (TelegramId, &mut Worker)> {
        self.by_user
            .iter_mut()
            .map(|(user, worker)| (*user, worker))
    }

    /// How many are not ending.
    #[must_use]
    pub fn alive(&self) -> usize {
        self.by_user
            .values()
            .filter(|worker| worker.life != WorkerLife::Dying)
            .count()
    }

    /// True if there are none, ending ones included.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_user.is_empty()
    }

    /// The worker that has been idle for longest, and long enough that it surely is.
    #[must_use]
    pub fn most_idle(&self, now: Instant) -> Option<TelegramId> {
        self.by_user
            .iter()
            .filter_map(|(user, worker)| Some((*user, worker.idle(now)?)))
            .filter(|(_, idle)| *idle >= REPORT_DELAY)
            .max_by_key(|(_, idle)| *idle)
            .map(|(user, _)| user)
    }
}
