//! How many attaches are looked at, whoever asks for them: each leaves lines in the audit log, and a
//! gateway that asks without end must not have the log rotate what matters out of it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use kai_proto::ids::TelegramId;

/// Attaches of one user that may come at once.
const BURST: u32 = 256;
/// Attaches that may come at once for ids that are no user's, all of them together.
const BURST_OF_STRANGERS: u32 = 16;
/// In the long run one attach comes so often.
const PAUSE: Duration = Duration::from_secs(1);

/// What becomes of an attach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Pass {
    /// It is looked at.
    Go,
    /// It is refused, as the first after one that was looked at.
    FirstTooMany,
    /// It is refused like the one before.
    TooMany,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// When all that was let pass would have been due at the long run's pace.
    paid: Instant,
    refusing: bool,
}

/// Counts the attaches of each user, and those of ids that are no user's together.
#[derive(Debug, Default)]
pub struct Pace {
    buckets: HashMap<Option<TelegramId>, Bucket>,
}

impl Pace {
    /// Judges an attach of this user, or of an id that is no user's.
    pub fn judge(&mut self, user: Option<TelegramId>, now: Instant) -> Pass {
        let burst = match user {
            Some(_) => BURST,
            None => BURST_OF_STRANGERS,
        };
        let bucket = self.buckets.entry(user).or_insert(Bucket {
            paid: now,
            refusing: false,
        });
        if bucket.paid.saturating_duration_since(now) > PAUSE * (burst - 1) {
            let first = !std::mem::replace(&mut bucket.refusing, true);
            return if first {
                Pass::FirstTooMany
            } else {
                Pass::TooMany
            };
        }
        bucket.paid = bucket.paid.max(now) + PAUSE;
        bucket.refusing = false;
        Pass::Go
    }

    /// Forgets who is no user any more.
    pub fn keep(&mut self, is_user: impl Fn(TelegramId) -> bool) {
        self.buckets.retain(|user, _| user.is_none_or(&is_user));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: i64) -> Option<TelegramId> {
        Some(TelegramId::try_from(id).unwrap())
    }

    fn pass(pace: &mut Pace, user: Option<TelegramId>, now: Instant) -> usize {
        let passed = |_: &i32| pace.judge(user, now) == Pass::Go;
        (0..1000).filter(passed).count()
    }

    #[test]
    fn a_burst_passes_and_then_one_a_second() {
        let mut pace = Pace::default();
        let now = Instant::now();

        assert_eq!(pass(&mut pace, user(1), now), 256);
        assert_eq!(
            pass(&mut pace, user(1), now + Duration::from_millis(999)),
            0
        );
        assert_eq!(pass(&mut pace, user(1), now + Duration::from_secs(1)), 1);
        assert_eq!(pass(&mut pace, user(1), now + Duration::from_secs(4)), 3);
    }

    #[test]
    fn nobody_uses_up_what_is_anothers() {
        let mut pace = Pace::default();
        let now = Instant::now();

        assert_eq!(pass(&mut pace, None, now), 16);
        assert_eq!(pass(&mut pace, user(1), now), 256);
        assert_eq!(pace.judge(user(2), now), Pass::Go);
    }

    #[test]
    fn only_the_first_of_many_refusals_is_worth_a_line() {
        let mut pace = Pace::default();
        let now = Instant::now();
        let refusals: Vec<Pass> = (0..300)
            .map(|_| pace.judge(user(1), now))
            .filter(|pass| *pass != Pass::Go)
            .collect();

        assert_eq!(refusals[0], Pass::FirstTooMany);
        assert!(refusals[1..].iter().all(|pass| *pass == Pass::TooMany));
    }

    #[test]
    fn who_is_no_user_any_more_is_forgotten() {
        let mut pace = Pace::default();
        let now = Instant::now();
        for id in [None, user(1), user(2)] {
            assert_eq!(pace.judge(id, now), Pass::Go);
        }

        pace.keep(|id| Some(id) == user(2));

        assert_eq!(pace.buckets.len(), 2);
    }
}
