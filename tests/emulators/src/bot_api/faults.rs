//! What goes wrong on demand, and Telegram's limit on how often a chat may be written to.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::ids::ChatId;
use super::refusal::Refusal;

/// Which calls a fault or a delay is for. The default is all of them, `getUpdates` included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallFilter {
    method: Option<String>,
    chat: Option<ChatId>,
}

impl CallFilter {
    /// Every call.
    pub fn any() -> Self {
        Self::default()
    }

    /// Calls of one method, in whatever case.
    pub fn method(name: &str) -> Self {
        Self {
            method: Some(name.to_owned()),
            chat: None,
        }
    }

    /// Calls about one chat.
    pub fn chat(chat: ChatId) -> Self {
        Self {
            method: None,
            chat: Some(chat),
        }
    }

    /// Of these calls, only those about one chat.
    pub fn in_chat(self, chat: ChatId) -> Self {
        Self {
            chat: Some(chat),
            ..self
        }
    }

    fn matches(&self, method: &str, chat: Option<ChatId>) -> bool {
        self.method
            .as_ref()
            .is_none_or(|wanted| wanted.eq_ignore_ascii_case(method))
            && self.chat.is_none_or(|wanted| chat == Some(wanted))
    }
}

/// What happens to a call instead of what should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 429 with so many seconds to wait; nothing is done.
    RetryAfter(u32),
    /// Any other error of the Bot API; nothing is done.
    Refuse(Refusal),
    /// A status such as 500 or 502 with a page instead of JSON, as a proxy in between makes it;
    /// nothing is done.
    ServerError(u16),
    /// The connection ends without an answer; nothing is done.
    DropConnection,
    /// The call is done, and then the connection ends without an answer.
    LoseAnswer,
}

impl Fault {
    /// What Telegram says when a message may not be deleted.
    pub fn refuse_deletion() -> Self {
        Self::Refuse(Refusal::bad_request("message can't be deleted"))
    }
}

/// At most so many messages and edits of one chat in a period; each more is a 429 that lasts until
/// the period is over, and while it lasts every call for that chat is one too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloodGuard {
    /// How many.
    pub calls: usize,
    /// In how long.
    pub per: Duration,
}

#[derive(Debug)]
struct Planned {
    filter: CallFilter,
    left: usize,
    fault: Fault,
}

/// Everything that is to go wrong.
#[derive(Debug, Default)]
pub(super) struct Faults {
    planned: Vec<Planned>,
    delays: Vec<(CallFilter, Duration)>,
    guard: Option<FloodGuard>,
    recent: BTreeMap<ChatId, VecDeque<Instant>>,
    silenced: BTreeMap<ChatId, Instant>,
}

impl Faults {
    pub(super) fn plan(&mut self, filter: CallFilter, times: usize, fault: Fault) {
        self.planned.push(Planned {
            filter,
            left: times,
            fault,
        });
    }

    pub(super) fn delay(&mut self, filter: CallFilter, by: Duration) {
        self.delays.push((filter, by));
    }

    pub(super) fn guard(&mut self, guard: Option<FloodGuard>) {
        self.guard = guard;
        self.recent.clear();
        self.silenced.clear();
    }

    /// Everything is well again, but for the flood guard.
    pub(super) fn clear(&mut self) {
        self.planned.clear();
        self.delays.clear();
    }

    /// What goes wrong with this call; the oldest plan that fits is used up first.
    pub(super) fn take(&mut self, method: &str, chat: Option<ChatId>) -> Option<Fault> {
        let planned = self
            .planned
            .iter_mut()
            .find(|planned| planned.left > 0 && planned.filter.matches(method, chat))?;
        planned.left -= 1;
        Some(planned.fault.clone())
    }

    /// How long this call's answer is held back.
    pub(super) fn delay_of(&self, method: &str, chat: Option<ChatId>) -> Duration {
        self.delays
            .iter()
            .filter(|(filter, _)| filter.matches(method, chat))
            .map(|(_, by)| *by)
            .sum()
    }

    /// Counts a message or an edit, and refuses one too many.
    pub(super) fn admit(&mut self, chat: ChatId, now: Instant) -> Result<(), Refusal> {
        let Some(guard) = self.guard else {
            return Ok(());
        };
        if let Some(until) = self.silenced.get(&chat).filter(|until| **until > now) {
            return Err(Refusal::retry_after(whole_seconds(*until - now)));
        }
        let recent = self.recent.entry(chat).or_default();
        while recent
            .front()
            .is_some_and(|at| now.duration_since(*at) >= guard.per)
        {
            recent.pop_front();
        }
        if recent.len() < guard.calls {
            recent.push_back(now);
            return Ok(());
        }
        let over = recent.front().map_or(now, |at| *at) + guard.per;
        let seconds = whole_seconds(over.saturating_duration_since(now));
        self.silenced
            .insert(chat, now + Duration::from_secs(u64::from(seconds)));
        Err(Refusal::retry_after(seconds))
    }
}

/// Telegram tells whole seconds only, and never zero.
fn whole_seconds(duration: Duration) -> u32 {
    let rounded_up = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    u32::try_from(rounded_up).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAT: ChatId = ChatId(7);

    #[test]
    fn a_fault_hits_what_it_is_for_and_as_often_as_asked() {
        let mut faults = Faults::default();
        let filter = CallFilter::method("sendMessage").in_chat(CHAT);
        faults.plan(filter, 2, Fault::RetryAfter(3));
        assert_eq!(faults.take("sendMessage", Some(ChatId(8))), None);
        assert_eq!(faults.take("editMessageText", Some(CHAT)), None);
        assert_eq!(
            faults.take("SendMessage", Some(CHAT)),
            Some(Fault::RetryAfter(3))
        );
        assert_eq!(
            faults.take("sendMessage", Some(CHAT)),
            Some(Fault::RetryAfter(3))
        );
        assert_eq!(faults.take("sendMessage", Some(CHAT)), None);
    }

    #[test]
    fn the_flood_guard_silences_one_chat_until_its_time_is_over() {
        let mut faults = Faults::default();
        faults.guard(Some(FloodGuard {
            calls: 2,
            per: Duration::from_millis(2500),
        }));
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        assert!(faults.admit(CHAT, at(0)).is_ok());
        assert!(faults.admit(CHAT, at(100)).is_ok());
        assert_eq!(faults.admit(CHAT, at(200)), Err(Refusal::retry_after(3)));
        assert!(faults.admit(ChatId(8), at(200)).is_ok());
        // The oldest call is out of the period by now, but what was told to wait must wait.
        assert_eq!(faults.admit(CHAT, at(2600)), Err(Refusal::retry_after(1)));
        assert!(faults.admit(CHAT, at(3200)).is_ok());
    }
}
