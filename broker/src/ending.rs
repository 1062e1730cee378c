//! Why a worker is ended, and the one end that waits: a turn may finish that was begun with a proof which
//! stood, and which nobody took back.

use std::time::{Duration, Instant};

use kai_proto::{broker_authd::GrantEnd, gateway_broker::Refusal};

/// A worker that was idle for less may have begun a turn that it has not reported yet.
pub const REPORT_DELAY: Duration = Duration::from_millis(200);

/// Why a worker is to be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// It did not report in time.
    NeverReported,
    /// It did not take a connection in time.
    Stuck,
    /// It reports too often, or something that is not a report.
    BadReports,
    /// Its control socket closed, which is seen before its end is.
    Closed,
    /// It says that a turn runs, for longer than it should have let one run.
    TurnTooLong,
    /// It had nothing to do for long.
    Idle,
    /// Its user is gone or changed.
    UserChanged,
    /// What its user proved does not hold any more.
    ProofEnded(GrantEnd),
    /// authd does not know what its user proved: it has started anew, or the user stands otherwise now.
    ProofUnknown,
    /// Nobody can say whether its user's proof still holds.
    AuthdAway,
    /// Its start could not be written down.
    NotRecorded,
    /// The broker stops.
    Stopping,
}

impl EndReason {
    /// The word for it in the audit log.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::NeverReported => "never_reported",
            Self::Stuck => "stuck",
            Self::BadReports => "bad_reports",
            Self::Closed => "by_itself",
            Self::TurnTooLong => "turn_too_long",
            Self::Idle => "idle",
            Self::UserChanged => "user_changed",
            Self::ProofEnded(GrantEnd::Idle) => "grant_idle",
            Self::ProofEnded(GrantEnd::Absolute) => "grant_absolute",
            Self::ProofEnded(GrantEnd::Locked) => "locked_by_user",
            Self::ProofEnded(GrantEnd::Enrolment) => "enrolment_changed",
            Self::ProofEnded(GrantEnd::Replaced) => "grant_replaced",
            Self::ProofUnknown => "grant_unknown",
            Self::AuthdAway => "authd_away",
            Self::NotRecorded => "not_recorded",
            Self::Stopping => "stopping",
        }
    }

    /// What the gateway is told if the worker has not said anything to it yet.
    #[must_use]
    pub fn refusal(self) -> Refusal {
        match self {
            Self::ProofEnded(_) | Self::ProofUnknown => Refusal::SecondFactor,
            Self::AuthdAway => Refusal::AuthdUnavailable,
            Self::Stopping => Refusal::Stopping,
            _ => Refusal::LaunchFailed,
        }
    }

    /// True if it is nobody's fault.
    #[must_use]
    pub fn is_ordinary(self) -> bool {
        matches!(
            self,
            Self::Idle | Self::UserChanged | Self::ProofEnded(_) | Self::Stopping
        )
    }
}

/// The last turn of a worker whose user's proof has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastTurn {
    end: GrantEnd,
    turns: u32,
    look: Instant,
    due: Instant,
}

impl LastTurn {
    /// Of a worker that has reported `turns` finished turns and none that runs, or one that does
    /// (`in_turn`); no turn is longer than `longest`.
    #[must_use]
    pub fn new(end: GrantEnd, in_turn: bool, turns: u32, longest: Duration, now: Instant) -> Self {
        Self {
            end,
            turns,
            // Without one that is reported, one may have begun that will be.
            look: if in_turn { now } else { now + REPORT_DELAY },
            due: now + longest,
        }
    }

    /// Why the worker is to be ended.
    #[must_use]
    pub fn reason(&self) -> EndReason {
        EndReason::ProofEnded(self.end)
    }

    /// True once the turn is over: another one has no proof behind it. Not by the worker's word alone,
    /// which could be that a turn runs for ever.
    #[must_use]
    pub fn is_over(&self, in_turn: bool, turns: u32, now: Instant) -> bool {
        turns != self.turns || (!in_turn && now >= self.look) || now >= self.due
    }

    /// When [`is_over`](Self::is_over) may change without a report.
    #[must_use]
    pub fn next_look(&self, in_turn: bool) -> Instant {
        if in_turn { self.due } else { self.look }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_turn_that_runs_is_over_when_it_is_reported_to_be() {
        let now = Instant::now();
        let last = LastTurn::new(GrantEnd::Absolute, true, 7, HOUR, now);

        assert!(!last.is_over(true, 7, now + HOUR / 2));
        assert!(last.is_over(false, 7, now));
        assert!(
            last.is_over(true, 8, now),
            "the next one has no proof behind it"
        );
    }

    #[test]
    fn a_turn_that_nobody_has_reported_yet_is_waited_for() {
        let now = Instant::now();
        let last = LastTurn::new(GrantEnd::Idle, false, 0, HOUR, now);

        assert!(!last.is_over(false, 0, now + REPORT_DELAY / 2));
        assert!(!last.is_over(true, 0, now + REPORT_DELAY));
        assert!(last.is_over(false, 0, now + REPORT_DELAY));
        assert_eq!(last.next_look(false), now + REPORT_DELAY);
    }

    #[test]
    fn a_turn_for_ever_ends_with_the_limit_of_turns() {
        let now = Instant::now();
        let last = LastTurn::new(GrantEnd::Idle, true, 0, HOUR, now);

        assert_eq!(last.next_look(true), now + HOUR);
        assert!(last.is_over(true, 0, now + HOUR));
    }
}
