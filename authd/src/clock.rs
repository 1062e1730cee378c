//! The two clocks: the wall's, which an admin or NTP may set, and the kernel's `CLOCK_BOOTTIME`, which
//! nobody sets and which goes on while the host sleeps (clock_gettime(2)).
//!
//! Codes and what people read go by the wall; grants and lockouts end by boottime.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kai_proto::ids::UnixSeconds;
use nix::time::{ClockId, clock_gettime};

/// Seconds by which two readings of the wall's clock may differ although nobody has set it: each end
/// of the difference is rounded, and NTP steers.
const JITTER: UnixSeconds = 2;

/// One reading of both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The wall's.
    pub wall: SystemTime,
    /// Since the kernel's start.
    pub boot: Duration,
}

impl Now {
    /// Reads both clocks.
    ///
    /// # Errors
    /// What clock_gettime(2) answers, which on Linux it does not.
    pub fn read() -> Result<Self, nix::Error> {
        Ok(Self {
            wall: SystemTime::now(),
            boot: clock_gettime(ClockId::CLOCK_BOOTTIME)?.into(),
        })
    }

    /// The wall's clock in whole seconds; 0 before 1970.
    #[must_use]
    pub fn unix(&self) -> UnixSeconds {
        unix(self.wall)
    }

    /// What the wall's clock will show at `boot`, which is `foretold` unless it was set since.
    #[must_use]
    pub fn unix_at(&self, boot: Duration, foretold: UnixSeconds) -> UnixSeconds {
        let since_1970 = self.wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        let found = (since_1970 + boot).saturating_sub(self.boot).as_secs();
        if found.abs_diff(foretold) <= JITTER {
            foretold
        } else {
            found
        }
    }
}

/// Whole seconds since 1970; 0 before it.
#[must_use]
pub fn unix(wall: SystemTime) -> UnixSeconds {
    wall.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(wall: u64, boot: u64) -> Now {
        Now {
            wall: UNIX_EPOCH + Duration::from_secs(wall),
            boot: Duration::from_secs(boot),
        }
    }

    #[test]
    fn a_moment_is_shown_as_foretold_until_the_clock_is_set() {
        let end = Duration::from_secs(900);
        assert_eq!(now(1_000, 100).unix_at(end, 1_801), 1_801);
        assert_eq!(now(5_000, 100).unix_at(end, 1_801), 5_800);
        assert_eq!(now(500, 100).unix_at(end, 1_801), 1_300);
    }

    #[test]
    fn both_clocks_can_be_read() {
        let first = Now::read().unwrap();
        let second = Now::read().unwrap();
        assert!(second.boot >= first.boot && first.unix() > 0);
    }

    #[test]
    fn before_1970_is_0() {
        assert_eq!(unix(UNIX_EPOCH - Duration::from_secs(5)), 0);
    }
}
