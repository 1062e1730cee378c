//! Times for people: in UTC, like the logs, with how far away they are.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kai_proto::ids::UnixSeconds;

/// Seconds of a day.
const DAY: u64 = 24 * 3600;

/// The end of the year 9999.
const LATEST: UnixSeconds = 253_402_300_799;

/// Seconds since 1970; 0 for a clock before that.
#[must_use]
pub fn unix(now: SystemTime) -> UnixSeconds {
    now.duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs()
}

/// As `2026-11-02 10:12 UTC`.
#[must_use]
pub fn utc(at: UnixSeconds) -> String {
    // Of what is beyond the year 9999 there is no such form.
    let at = UNIX_EPOCH + Duration::from_secs(at.min(LATEST));
    let text = humantime::format_rfc3339_seconds(at).to_string();
    match text.split_once('T') {
        Some((date, time)) => format!("{date} {} UTC", time.get(..5).unwrap_or(time)),
        None => text,
    }
}

/// A moment to come, as `2026-11-02 10:12 UTC (in 11h 20m)`.
#[must_use]
pub fn until(at: UnixSeconds, now: UnixSeconds) -> String {
    format!("{} (in {})", utc(at), span(at.saturating_sub(now)))
}

/// A length of time, by its two largest units.
#[must_use]
pub fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..DAY => format!("{}h {}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / DAY, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments_have_their_dates() {
        for (at, text) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_399, "2000-02-28 23:59 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (1_709_164_800, "2024-02-29 00:00 UTC"),
            (1_735_689_599, "2024-12-31 23:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00 UTC"),
            (u64::MAX, "9999-12-31 23:59 UTC"),
        ] {
            assert_eq!(utc(at), text);
        }
    }

    #[test]
    fn spans_have_two_units() {
        for (seconds, text) in [(59, "59s"), (119, "1m"), (3660, "1h 1m"), (90_000, "1d 1h")] {
            assert_eq!(span(seconds), text);
        }
    }
}
