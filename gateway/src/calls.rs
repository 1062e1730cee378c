//! Which calls are under way, so that a gateway that is told to stop can let them end.

use std::{
    future::pending,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

/// Counts the calls under way, and lets no further one begin once it is closed.
#[derive(Debug)]
pub struct Calls {
    open: AtomicBool,
    under_way: AtomicUsize,
    ended: tokio::sync::Notify,
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            open: AtomicBool::new(true),
            under_way: AtomicUsize::new(0),
            ended: tokio::sync::Notify::new(),
        }
    }
}

/// A call that is under way until this is dropped.
#[derive(Debug)]
pub struct UnderWay<'a>(&'a Calls);

impl Calls {
    /// Begins a call; never, once closed.
    pub async fn begin(&self) -> UnderWay<'_> {
        if !self.open.load(Ordering::Relaxed) {
            pending::<()>().await;
        }
        self.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(self)
    }

    /// Lets no further call begin and waits at most `patience` for the last one to end.
    pub async fn close(&self, patience: Duration) {
        self.open.store(false, Ordering::Relaxed);
        let all = async {
            while self.under_way.load(Ordering::Relaxed) > 0 {
                self.ended.notified().await;
            }
        };
        let _ = tokio::time::timeout(patience, all).await;
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
        self.0.ended.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn closing_waits_for_what_is_under_way_and_lets_nothing_begin() {
        let calls = std::sync::Arc::new(Calls::default());
        let first = calls.begin().await;
        let closing = tokio::spawn({
            let calls = calls.clone();
            async move { calls.close(Duration::from_secs(5)).await }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!closing.is_finished());
        let second = tokio::time::timeout(Duration::from_secs(1), calls.begin()).await;
        assert!(second.is_err());
        drop(first);
        closing.await.unwrap();
    }
}
