//! How often the Bot API may be called: about 30 times a second in all; in one chat one edit a second
//! and a message a second with a few at once; in a group 20 a minute. These are the bounds that
//! Telegram's "Bots FAQ" names. What Telegram itself asks to wait (`retry_after`) pauses one chat.
//!
//! Pure: the time is a parameter, and nothing here waits.

use std::time::{Duration, Instant};

/// Between two edits in a chat: a second, and a little because calls travel at different speeds.
const EDITS: Duration = Duration::from_millis(1010);
/// Between two messages in a chat, once those are used up that may come at once.
const POSTS: Duration = Duration::from_secs(1);
/// Between two calls in a group, likewise.
const GROUP: Duration = Duration::from_secs(3);

/// Lets a number of events pass at once and then one per period.
#[derive(Debug, Clone)]
pub struct Bucket {
    period: Duration,
    burst: u32,
    /// When the bucket will be full again, if it is not.
    full_at: Option<Instant>,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub fn new(burst: u32, period: Duration) -> Self {
        Self {
            period,
            burst: burst.max(1),
            full_at: None,
        }
    }

    /// When the next event may pass; `now` or earlier if it may at once.
    #[must_use]
    pub fn ready_at(&self, now: Instant) -> Instant {
        match self.full_at {
            Some(full_at) => full_at
                .checked_sub(self.period * (self.burst - 1))
                .unwrap_or(now),
            None => now,
        }
    }

    /// Takes one event out; those taken early make the next ones later.
    pub fn take(&mut self, now: Instant) {
        let from = self.full_at.map_or(now, |full_at| full_at.max(now));
        self.full_at = Some(from + self.period);
    }
}

/// A call that shows something in a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// A new message.
    Post,
    /// Another text in an old one.
    Edit,
}

/// The pace of one chat.
#[derive(Debug)]
pub struct Pace {
    edits: Bucket,
    posts: Bucket,
    group: Option<Bucket>,
    paused_until: Option<Instant>,
}

impl Pace {
    /// The pace of a private chat, or of a group.
    #[must_use]
    pub fn new(is_group: bool) -> Self {
        Self {
            edits: Bucket::new(1, EDITS),
            // Telegram lets short bursts pass and answers 429 to long ones: first words do not wait for
            // what somebody might do next.
            posts: Bucket::new(20, POSTS),
            group: is_group.then(|| Bucket::new(20, GROUP)),
            paused_until: None,
        }
    }

    /// When `call` may be made; `now` or earlier if at once.
    #[must_use]
    pub fn ready_at(&self, call: Call, now: Instant) -> Instant {
        let own = match call {
            Call::Post => &self.posts,
            Call::Edit => &self.edits,
        };
        let group = self.group.as_ref().map(|group| group.ready_at(now));
        let pause = self.paused_until.unwrap_or(now);
        own.ready_at(now).max(group.unwrap_or(now)).max(pause)
    }

    /// Counts a call that is made now.
    pub fn take(&mut self, call: Call, now: Instant) {
        match call {
            Call::Post => self.posts.take(now),
            Call::Edit => self.edits.take(now),
        }
        if let Some(group) = &mut self.group {
            group.take(now);
        }
    }

    /// Makes no call before `until`.
    pub fn pause(&mut self, until: Instant) {
        self.paused_until = self.paused_until.max(Some(until));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_bucket_lets_its_burst_pass_and_then_one_per_period() {
        let start = Instant::now();
        let mut bucket = Bucket::new(3, SECOND);
        for _ in 0..3 {
            assert!(bucket.ready_at(start) <= start);
            bucket.take(start);
        }
        assert_eq!(bucket.ready_at(start), start + SECOND);
        bucket.take(start + SECOND);
        assert_eq!(bucket.ready_at(start + SECOND), start + 2 * SECOND);
    }

    #[test]
    fn a_bucket_that_rested_is_full_and_no_fuller() {
        let start = Instant::now();
        let mut bucket = Bucket::new(2, SECOND);
        bucket.take(start);
        let later = start + 100 * SECOND;
        bucket.take(later);
        bucket.take(later);
        assert_eq!(bucket.ready_at(later), later + SECOND);
    }

    #[test]
    fn a_post_is_edited_at_once_and_then_once_a_second() {
        let start = Instant::now();
        let mut pace = Pace::new(false);
        pace.take(Call::Post, start);
        assert!(pace.ready_at(Call::Edit, start) <= start);
        pace.take(Call::Edit, start);
        assert_eq!(pace.ready_at(Call::Edit, start), start + EDITS);
    }

    #[test]
    fn a_group_sees_no_more_than_twenty_calls_a_minute() {
        let start = Instant::now();
        let mut pace = Pace::new(true);
        let mut now = start;
        let mut calls = 0;
        while now < start + 60 * SECOND {
            now = pace.ready_at(Call::Edit, now).max(now);
            pace.take(Call::Edit, now);
            calls += 1;
        }
        assert!(calls <= 40, "{calls}");
        let later = now + 60 * SECOND;
        for _ in 0..20 {
            pace.take(Call::Post, later);
        }
        assert!(pace.ready_at(Call::Edit, later) >= later + SECOND);
    }

    #[test]
    fn a_pause_holds_every_call_and_never_shrinks() {
        let start = Instant::now();
        let mut pace = Pace::new(false);
        pace.pause(start + 9 * SECOND);
        pace.pause(start + 2 * SECOND);
        assert_eq!(pace.ready_at(Call::Post, start), start + 9 * SECOND);
        assert_eq!(pace.ready_at(Call::Edit, start), start + 9 * SECOND);
    }
}
