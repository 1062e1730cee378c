//! Codes that wait for authd's word: one is asked about at a time, each at most once, except that
//! authd itself may put one off.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use kai_proto::{
    code::Code,
    ids::{ChatId, PromptId},
};

/// Codes that wait; of more than these the user hears nothing, but they are deleted like all.
const WAITING: usize = 5;
/// How often authd may put one code off, and for how long: a code is good for little longer.
const PUT_OFF: (u32, Duration) = (8, Duration::from_secs(30));
/// The shortest and the longest time for which a code is put off at once.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(10));

/// A code that authd has not judged.
#[derive(Debug)]
pub struct Pending {
    /// The update that brought it.
    pub id: PromptId,
    /// The chat in which it stood.
    pub chat: ChatId,
    /// The parked messages that its sender could see quoted: what it lets run.
    pub covers: Vec<PromptId>,
    /// When it came.
    pub since: Instant,
    code: Code,
    tries: u32,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// To be asked about, once this moment is there.
    From(Instant),
    Asked,
}

/// The codes of one user.
#[derive(Debug, Default)]
pub struct Codes {
    queue: VecDeque<Pending>,
}

impl Codes {
    /// Adds a code; false if too many wait.
    pub fn add(
        &mut self,
        id: PromptId,
        chat: ChatId,
        code: Code,
        covers: Vec<PromptId>,
        now: Instant,
    ) -> bool {
        if self.queue.len() >= WAITING {
            return false;
        }
        self.queue.push_back(Pending {
            id,
            chat,
            covers,
            code,
            since: now,
            tries: 0,
            state: State::From(now),
        });
        true
    }

    /// The code to ask about now, which then counts as asked about.
    pub fn next(&mut self, now: Instant) -> Option<(PromptId, Code)> {
        let first = self.queue.front_mut()?;
        if !matches!(first.state, State::From(due) if due <= now) {
            return None;
        }
        first.state = State::Asked;
        first.tries += 1;
        Some((first.id, first.code.clone()))
    }

    /// When there is a code to ask about.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        match self.queue.front()?.state {
            State::From(due) => Some(due),
            State::Asked => None,
        }
    }

    /// Takes out the code of which authd has spoken; none if it was forgotten meanwhile.
    pub fn judged(&mut self, id: PromptId) -> Option<Pending> {
        let is_it = self.queue.front().is_some_and(|first| first.id == id);
        is_it.then(|| self.queue.pop_front()).flatten()
    }

    /// Puts a code back that authd wants to be asked about later.
    ///
    /// # Errors
    /// The code, if it was put off often enough and there is no use in asking again.
    pub fn put_off(
        &mut self,
        mut pending: Pending,
        by: Duration,
        now: Instant,
    ) -> Result<(), Pending> {
        let due = now + by.clamp(PAUSE.0, PAUSE.1);
        if pending.tries >= PUT_OFF.0 || due > pending.since + PUT_OFF.1 {
            return Err(pending);
        }
        pending.state = State::From(due);
        self.queue.push_front(pending);
        Ok(())
    }

    /// True if none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.queue.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: i64) -> PromptId {
        PromptId::try_from(number).unwrap()
    }

    fn codes(numbers: std::ops::Range<i64>, now: Instant) -> Codes {
        let mut codes = Codes::default();
        for number in numbers {
            let chat = ChatId::try_from(7).unwrap();
            let code = Code::parse("123456").unwrap();
            codes.add(id(number), chat, code, Vec::new(), now);
        }
        codes
    }

    #[test]
    fn a_code_is_asked_about_once_and_the_next_only_after_its_verdict() {
        let now = Instant::now();
        let mut codes = codes(1..3, now);
        assert_eq!(codes.next(now).map(|(id, _)| id), Some(id(1)));
        assert_eq!(codes.next(now), None);
        assert!(codes.judged(id(2)).is_none());
        assert!(codes.judged(id(1)).is_some());
        assert_eq!(codes.next(now).map(|(id, _)| id), Some(id(2)));
    }

    #[test]
    fn no_more_than_the_bound_wait() {
        let now = Instant::now();
        assert_eq!(codes(0..100, now).queue.len(), WAITING);
    }

    #[test]
    fn a_code_is_put_off_a_bounded_number_of_times() {
        let start = Instant::now();
        for by in [Duration::ZERO, Duration::from_secs(4), Duration::MAX] {
            let mut codes = codes(1..2, start);
            let mut now = start;
            let mut tries = 0;
            while let Some((number, _)) = codes.next(now) {
                tries += 1;
                let pending = codes.judged(number).unwrap();
                if codes.put_off(pending, by, now).is_err() {
                    break;
                }
                assert_eq!(codes.next(now), None, "before its time");
                now = codes.due().unwrap();
            }
            assert!((1..=PUT_OFF.0).contains(&tries), "{tries} for {by:?}");
            assert!(now <= start + PUT_OFF.1);
        }
    }
}
