//! What a wrong code costs: failures, lockouts and how long these are. Arithmetic alone.

use std::time::{Duration, UNIX_EPOCH};

use kai_program::config::SecondFactor;
use kai_proto::ids::UnixSeconds;

use crate::clock::Now;

/// What an admin has set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Wrong codes that lock, at least 1.
    pub failures: u32,
    /// The first lockout.
    pub lockout: Duration,
    /// The longest.
    pub lockout_limit: Duration,
}

impl From<&SecondFactor> for Rules {
    fn from(config: &SecondFactor) -> Self {
        Self {
            failures: config.failures.max(1),
            lockout: config.lockout,
            lockout_limit: config.lockout_limit,
        }
    }
}

/// Wrong codes so far. A right one sets both to 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Since the last right code or the last lockout.
    pub failures: u32,
    /// Lockouts since the last right code.
    pub lockouts: u32,
}

/// A time in which no code is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lockout {
    /// Its length.
    pub length: Duration,
    /// Its end by the wall's clock, as foretold when it began.
    pub until: UnixSeconds,
    /// Its end by `CLOCK_BOOTTIME` of this run of the kernel, which is the one that holds.
    pub ends: Duration,
}

impl Lockout {
    /// One that begins now.
    #[must_use]
    pub fn of(length: Duration, now: Now) -> Self {
        Self {
            length,
            // Rounded up: whoever waits until then has waited long enough.
            until: now.unix().saturating_add(length.as_secs() + 1),
            ends: now.boot.saturating_add(length),
        }
    }

    /// The same one after a restart, when the old boottime says nothing any more: it ends by the wall's
    /// clock, but never later than its own length from now. So a clock that was set back makes it
    /// longer, at most to its whole length, and never shorter.
    #[must_use]
    pub fn after_restart(length: Duration, until: UnixSeconds, now: Now) -> Self {
        let end = UNIX_EPOCH.checked_add(Duration::from_secs(until));
        let left = end
            .and_then(|end| end.duration_since(now.wall).ok())
            .unwrap_or_default()
            .min(length);
        Self {
            length,
            until,
            ends: now.boot.saturating_add(left),
        }
    }

    /// When codes are taken again, by the wall's clock as it goes now; none if they are.
    #[must_use]
    pub fn holds_until(&self, now: Now) -> Option<UnixSeconds> {
        (now.boot < self.ends).then(|| now.unix_at(self.ends, self.until))
    }
}

/// What is counted after one more wrong code, and the length of the lockout that it brings, if it does.
#[must_use]
pub fn after_failure(before: Counts, rules: Rules) -> (Counts, Option<Duration>) {
    let failures = before.failures.saturating_add(1);
    if failures < rules.failures {
        let counts = Counts { failures, ..before };
        return (counts, None);
    }
    let counts = Counts {
        failures: 0,
        lockouts: before.lockouts.saturating_add(1),
    };
    (counts, Some(lockout_length(before.lockouts, rules)))
}

/// The length of a lockout that follows `earlier` ones without a right code between: each doubles, up to
/// the limit. A limit below the first lockout does not shorten that one.
fn lockout_length(earlier: u32, rules: Rules) -> Duration {
    let times = 1_u32.checked_shl(earlier).unwrap_or(u32::MAX);
    rules
        .lockout
        .checked_mul(times)
        .unwrap_or(Duration::MAX)
        .min(rules.lockout_limit.max(rules.lockout))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60;
    const RULES: Rules = Rules {
        failures: 3,
        lockout: Duration::from_secs(15 * MINUTE),
        lockout_limit: Duration::from_secs(24 * 60 * MINUTE),
    };

    fn now(wall: u64, boot: u64) -> Now {
        Now {
            wall: UNIX_EPOCH + Duration::from_secs(wall),
            boot: Duration::from_secs(boot),
        }
    }

    #[test]
    fn the_third_failure_locks_and_each_further_lockout_doubles_up_to_a_day() {
        let mut counts = Counts::default();
        let mut lengths = Vec::new();
        for attempt in 1..=40 {
            let (after, lockout) = after_failure(counts, RULES);
            assert_eq!(lockout.is_some(), attempt % 3 == 0, "attempt {attempt}");
            assert_eq!(after.failures, attempt % 3);
            lengths.extend(lockout.map(|length| length.as_secs() / MINUTE));
            counts = after;
        }
        assert_eq!(
            lengths,
            [
                15, 30, 60, 120, 240, 480, 960, 1440, 1440, 1440, 1440, 1440, 1440
            ]
        );
    }

    #[test]
    fn no_number_of_lockouts_makes_one_shorter() {
        for earlier in [0, 1, 6, 7, 31, 32, 33, 64, u32::MAX] {
            let length = lockout_length(earlier, RULES);
            assert!(
                (RULES.lockout..=RULES.lockout_limit).contains(&length),
                "{earlier}"
            );
        }
        let odd = Rules {
            lockout_limit: Duration::from_secs(1),
            ..RULES
        };
        assert_eq!(lockout_length(5, odd), RULES.lockout);
    }

    #[test]
    fn one_failure_may_be_the_limit() {
        let rules = Rules {
            failures: 1,
            ..RULES
        };
        assert!(after_failure(Counts::default(), rules).1.is_some());
    }

    #[test]
    fn while_the_daemon_lives_no_clock_that_is_set_ends_a_lockout() {
        let lockout = Lockout::of(RULES.lockout, now(10_000, 100));
        for wall in [0, 5_000, 10_000, 10_901, 900_000] {
            assert!(lockout.holds_until(now(wall, 999)).is_some(), "{wall}");
            assert!(lockout.holds_until(now(wall, 1_000)).is_none(), "{wall}");
        }
        assert_eq!(lockout.holds_until(now(10_500, 600)), Some(10_901));
    }

    #[test]
    fn after_a_restart_a_lockout_is_as_long_as_it_was_or_longer_and_never_beyond_its_length() {
        let length = Duration::from_secs(900);
        // (the wall's clock at the restart, what is left of a lockout until 10,900)
        for (wall, left) in [
            (10_000, 900),
            (10_300, 600),
            (10_899, 1),
            (10_900, 0),
            (99_999, 0),
            (9_000, 900),
            (0, 900),
        ] {
            let again = Lockout::after_restart(length, 10_900, now(wall, 5));
            assert_eq!(again.ends, Duration::from_secs(5 + left), "{wall}");
        }
    }
}
