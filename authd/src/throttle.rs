//! The ceiling on all attempts together: ten at once, then one a second. It only delays, and it cannot be
//! used to keep somebody out, because each user's first attempt in any quarter of an hour passes it.
//!
//! Whoever has many accounts gets no more guesses a day than this, whatever the lockouts of each allow. All
//! times are readings of `CLOCK_BOOTTIME`.

use std::{collections::BTreeMap, time::Duration};

use kai_proto::ids::TelegramId;

/// Attempts that may come at once.
const BURST: u32 = 10;

/// One more is allowed after so long.
const EVERY: Duration = Duration::from_secs(1);

/// Who made no attempt for so long makes the next one in any case.
const FIRST_IN: Duration = Duration::from_secs(15 * 60);

/// Who made an attempt lately, and how many were made.
#[derive(Debug, Default)]
pub struct Throttle {
    /// When as many as [`BURST`] are allowed at once again.
    full: Duration,
    /// Each user's last attempt, if it is not long ago. Only the enrolled make attempts.
    last: BTreeMap<TelegramId, Duration>,
}

impl Throttle {
    /// No attempt yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes an attempt of `user`, who is enrolled.
    ///
    /// # Errors
    /// After how long there is room for it again, if there is none: then it was not made.
    pub fn take(&mut self, user: TelegramId, now: Duration) -> Result<(), Duration> {
        let recent = |last: &Duration| now.saturating_sub(*last) < FIRST_IN;
        if self.last.get(&user).is_some_and(recent) {
            let full = self.full.max(now) + EVERY;
            let room = now + EVERY * BURST;
            if full > room {
                return Err(full - room);
            }
            self.full = full;
        } else {
            self.last.retain(|_, last| recent(last));
        }
        self.last.insert(user, now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: i64) -> TelegramId {
        id.try_into().unwrap()
    }

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// Attempts of a user that are taken, one at each of these moments.
    fn taken(throttle: &mut Throttle, id: i64, at: impl IntoIterator<Item = u64>) -> usize {
        at.into_iter()
            .filter(|now| throttle.take(user(id), ms(*now)).is_ok())
            .count()
    }

    #[test]
    fn ten_pass_at_once_and_then_one_a_second() {
        let mut throttle = Throttle::new();
        assert_eq!(taken(&mut throttle, 1, [0; 1000]), 1 + 10);
        assert_eq!(throttle.take(user(1), ms(0)), Err(ms(1000)));
        assert_eq!(throttle.take(user(1), ms(400)), Err(ms(600)));
        assert_eq!(taken(&mut throttle, 1, 0..10_000), 9);
        assert_eq!(taken(&mut throttle, 1, [60_000; 100]), 10);
    }

    #[test]
    fn who_waits_as_long_as_told_is_let_pass() {
        let mut throttle = Throttle::new();
        taken(&mut throttle, 1, [0; 100]);
        let wait = throttle.take(user(1), ms(250)).unwrap_err();
        assert_eq!(throttle.take(user(1), ms(250) + wait), Ok(()));
    }

    #[test]
    fn a_flood_of_some_delays_no_first_attempt_of_another() {
        let mut throttle = Throttle::new();
        for id in 1..=50 {
            taken(&mut throttle, id, [0; 100]);
        }
        assert_eq!(throttle.take(user(51), ms(1)), Ok(()));
        assert!(
            throttle.take(user(51), ms(2)).is_err(),
            "the second one waits"
        );
        let later = FIRST_IN + ms(1);
        for now in 0..=FIRST_IN.as_secs() {
            taken(&mut throttle, 1, [now * 1000; 5]);
        }
        assert_eq!(throttle.take(user(51), later), Ok(()));
    }

    #[test]
    fn who_made_no_attempt_lately_takes_no_memory() {
        let mut throttle = Throttle::new();
        for id in 1..=1000 {
            throttle.take(user(id), ms(0)).unwrap();
        }
        throttle.take(user(1001), FIRST_IN).unwrap();
        assert_eq!(throttle.last.len(), 1);
    }
}
