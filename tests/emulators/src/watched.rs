//! State that a server's thread changes and that tests, pages and pollers wait on.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// A value under a lock, with a bell for each kind of waiter: threads and tasks.
#[derive(Debug)]
pub(crate) struct Watched<T> {
    value: Mutex<T>,
    threads: Condvar,
    tasks: watch::Sender<u64>,
}

impl<T> Watched<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            value: Mutex::new(value),
            threads: Condvar::new(),
            tasks: watch::Sender::new(0),
        }
    }

    /// A look that changes nothing that anyone waits for.
    ///
    /// A poisoned lock is taken all the same: the panic that poisoned it fails its own test, and
    /// the state is only ever replaced whole.
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the value and wakes whoever waits.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(&mut self.lock());
        self.threads.notify_all();
        self.tasks.send_modify(|version| *version += 1);
        result
    }

    /// Waits in this thread until `look` finds something. On a timeout it gives `None`.
    pub(crate) fn wait<R>(
        &self,
        timeout: Duration,
        mut look: impl FnMut(&T) -> Option<R>,
    ) -> Option<R> {
        let deadline = Instant::now() + timeout;
        let mut value = self.lock();
        loop {
            if let Some(found) = look(&value) {
                return Some(found);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            value = self
                .threads
                .wait_timeout(value, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// A version number that rises with every change, for tasks to await.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.tasks.subscribe()
    }
}
