//! What to do when there is no worker at the other end: how soon to try again, what to tell the user
//! and when, and when to give up.
//!
//! Pure: the time is a parameter. What will mend itself is tried for ever, because the messages are
//! kept; what will not is said, and the messages are answered with it.

use std::time::{Duration, Instant};

use kai_proto::{gateway_broker::Refusal, ids::TelegramId};
use tracing::{error, warn};

use crate::{broker::AttachError, wording};

/// The shortest wait before another try, and the longest while a restart is likely.
const QUICK: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));
/// Between two tries after that.
const SLOW: Duration = Duration::from_secs(2);
/// How long a restart takes at most. A worker that has not come up by then does not.
const RESTART: Duration = Duration::from_secs(10);
/// How long nothing is said: most troubles end before anybody notices.
const SILENCE: Duration = Duration::from_secs(5);

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Try again after this time.
    Again(Duration),
    /// Answer what waits with these words.
    Never(&'static str),
}

/// The trouble that one user's connection is in.
#[derive(Debug, Default)]
pub struct Trouble {
    since: Option<Instant>,
    tries: u32,
    /// What to tell the user, from when on.
    words: Option<(&'static str, Instant)>,
    told: bool,
}

impl Trouble {
    /// A worker did what it is for: all is well.
    pub fn is_over(&mut self) {
        *self = Self::default();
    }

    /// A connection to a worker ended while it was needed: how long to wait before the next. At once,
    /// unless worker after worker ends without a word.
    pub fn ended(&mut self, now: Instant) -> Duration {
        self.since.get_or_insert(now);
        self.tries += 1;
        if self.tries == 1 {
            return Duration::ZERO;
        }
        self.pause(now)
    }

    /// There is no connection, for this reason.
    pub fn failed(&mut self, user: TelegramId, reason: &AttachError, now: Instant) -> Next {
        if self.tries == 0 {
            warn!(user = i64::from(user), "no worker: {reason}");
        }
        let since = *self.since.get_or_insert(now);
        self.tries += 1;
        let mut wait = |words, from: Instant, pause| {
            if self.words.is_none_or(|(known, _)| known != words) {
                self.told = false;
                self.words = Some((words, from));
            }
            Next::Again(pause)
        };
        let refusal = match reason {
            AttachError::Unreachable(_) | AttachError::Refused(Refusal::Stopping) => {
                let next = wait(wording::BROKER_AWAY, since + SILENCE, SLOW);
                return match next {
                    Next::Again(_) => Next::Again(self.pause(now)),
                    never @ Next::Never(_) => never,
                };
            }
            AttachError::EndedEarly(_) if now < since + RESTART => {
                return Next::Again(self.pause(now));
            }
            AttachError::EndedEarly(_) => return Next::Never(wording::NO_WORKER),
            AttachError::Refused(refusal) => *refusal,
        };
        let words = wording::refusal(refusal);
        match refusal {
            Refusal::TooManyWorkers | Refusal::TooManyConnections => wait(words, now, SLOW),
            Refusal::AuthdUnavailable => wait(words, now, SLOW / 2),
            // The table may be on its way.
            Refusal::UnknownUser => wait(words, since + SILENCE, SLOW),
            Refusal::Version => {
                error!("the programs are of different versions; restart all of kai together");
                wait(words, now, SILENCE)
            }
            Refusal::SecondFactor
            | Refusal::NotEnrolled
            | Refusal::EnrolmentChanged
            | Refusal::LaunchFailed
            | Refusal::NotPermitted
            | Refusal::Stopping => Next::Never(words),
        }
    }

    /// When the user is to be told, if they are and have not been.
    #[must_use]
    pub fn reminder(&self) -> Option<Instant> {
        self.words.filter(|_| !self.told).map(|(_, from)| from)
    }

    /// What to tell the user now, once.
    pub fn words(&mut self, now: Instant) -> Option<&'static str> {
        let (words, from) = self.words.filter(|_| !self.told)?;
        (from <= now).then(|| {
            self.told = true;
            words
        })
    }

    fn pause(&self, now: Instant) -> Duration {
        if self.since.is_some_and(|since| now >= since + RESTART) {
            return SLOW;
        }
        (QUICK.0 * (1 << self.tries.saturating_sub(1).min(8))).min(QUICK.1)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn user() -> TelegramId {
        TelegramId::try_from(7).unwrap()
    }

    fn unreachable() -> AttachError {
        AttachError::Unreachable(io::ErrorKind::NotFound.into())
    }

    fn early() -> AttachError {
        AttachError::EndedEarly(io::ErrorKind::UnexpectedEof.into())
    }

    #[test]
    fn a_broker_that_is_away_is_tried_for_ever_and_told_of_once_after_a_while() {
        let start = Instant::now();
        let mut trouble = Trouble::default();
        let mut now = start;
        let mut told = Vec::new();
        while now < start + Duration::from_secs(60) {
            let Next::Again(pause) = trouble.failed(user(), &unreachable(), now) else {
                panic!("gave up");
            };
            assert!(pause <= SLOW);
            told.extend(trouble.words(now).map(|_| now - start));
            now += pause;
        }
        assert_eq!(told.len(), 1);
        assert!(told[0] >= SILENCE && told[0] < SILENCE + Duration::from_secs(1));
    }

    #[test]
    fn a_dying_worker_is_waited_for_in_small_steps_but_not_for_ever() {
        let start = Instant::now();
        let mut trouble = Trouble::default();
        assert_eq!(
            trouble.failed(user(), &early(), start),
            Next::Again(QUICK.0)
        );
        assert_eq!(
            trouble.failed(user(), &early(), start),
            Next::Again(QUICK.0 * 2)
        );
        let late = start + RESTART;
        assert_eq!(
            trouble.failed(user(), &early(), late),
            Next::Never(wording::NO_WORKER)
        );
    }

    #[test]
    fn a_worker_that_ended_is_replaced_at_once_but_not_in_a_hot_loop() {
        let now = Instant::now();
        let mut trouble = Trouble::default();
        assert_eq!(trouble.ended(now), Duration::ZERO);
        assert!(trouble.ended(now) > Duration::ZERO);
        trouble.is_over();
        assert_eq!(trouble.ended(now), Duration::ZERO);
    }

    #[test]
    fn each_refusal_either_waits_with_words_or_ends_with_them() {
        let now = Instant::now();
        for (refusal, waits) in [
            (Refusal::Version, true),
            (Refusal::NotPermitted, false),
            (Refusal::UnknownUser, true),
            (Refusal::SecondFactor, false),
            (Refusal::AuthdUnavailable, true),
            (Refusal::TooManyWorkers, true),
            (Refusal::TooManyConnections, true),
            (Refusal::LaunchFailed, false),
            (Refusal::Stopping, true),
        ] {
            let mut trouble = Trouble::default();
            let next = trouble.failed(user(), &AttachError::Refused(refusal), now);
            assert_eq!(matches!(next, Next::Again(_)), waits, "{refusal:?}");
            assert_eq!(trouble.reminder().is_some(), waits, "{refusal:?}");
        }
    }
}
