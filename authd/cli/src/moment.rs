//! Times for people: in UTC, like the logs, with how far away they are.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kai_proto::ids::UnixSeconds;

/// Seconds of a day.
const DAY: u64 = 24 * 3600;

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
    let (year, month, day) = date(at / DAY);
    let minutes = at % DAY / 60;
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02} UTC",
        minutes / 60,
        minutes % 60
    )
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

/// The Gregorian date of a day since 1970-01-01.
fn date(days: u64) -> (u64, u64, u64) {
    // Years are counted from March, so that the leap day is a year's last; 719468 days lie between
    // 0000-03-01 and 1970-01-01, 146097 days are 400 years.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
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
        ] {
            assert_eq!(utc(at), text);
        }
    }

    #[test]
    fn every_day_of_four_centuries_follows_the_one_before() {
        let mut before = date(0);
        for day in 1..146_097 {
            let (year, month, number) = date(day);
            let next = (year, month, number);
            let follows = next == (before.0, before.1, before.2 + 1)
                || (number == 1
                    && before.2 >= 28
                    && (next == (before.0, before.1 + 1, 1) || next == (before.0 + 1, 1, 1)));
            assert!(follows, "{before:?} {next:?}");
            before = next;
        }
        assert_eq!(before, (2369, 12, 31));
    }

    #[test]
    fn spans_have_two_units() {
        for (seconds, text) in [(59, "59s"), (119, "1m"), (3660, "1h 1m"), (90_000, "1d 1h")] {
            assert_eq!(span(seconds), text);
        }
    }
}
