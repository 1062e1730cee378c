//! One user's second factor: what of theirs passes, what waits for a code, and what is refused.
//!
//! The one place that owns this. Everything that a user sends (message, command, file, edit, button)
//! comes here before anything happens to it, and only what leaves as [`Effect::Admit`] does anything.
//! Pure: the time is a parameter, [`Effect`]s say what is to be done, and [`crate::user`] does it.
//!
//! - **Asking.** authd is asked how the user stands for each message, and one question is open at a
//!   time: its answer holds for all that waits then. An answer to a question that was asked with
//!   another grant than the one held now says nothing, and the question is asked again.
//! - **Parked** messages came without a proof. The question for a code quotes them whole; a right code
//!   lets those run that its sender could see quoted, if neither they nor the question were deleted and
//!   none was edited. They lapse with the question.
//! - **Held** is what came with a proof and is not answered yet: it waits for the next proof however
//!   long that takes. [`Gate::hold`] names what of it this run of the gateway has begun.
//! - **Codes** come here with their update already written down by its number, see [`Presented`].
//!
//! `passing` decides what becomes of a message, `asking` keeps the questions, `parked` and `codes` what
//! waits, `lock` takes everything back, `time` does what is due.

mod asking;
mod codes;
mod effect;
mod lock;
mod parked;
mod passing;
mod rule;
#[cfg(test)]
mod tests;
mod time;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use kai_proto::{
    gateway_authd::{Standing, Verdict},
    gateway_broker::{Refusal, SecondFactor},
    grant::Grant,
    ids::{ChatId, PromptId},
};
use teloxide::types::CallbackQueryId;

use crate::{authd::NoVerdict, pass::Pass, wording::second_factor as words};

use codes::Codes;
pub use effect::{Arrival, Effect, Now, Presence, Presented, Reading, Sought};
use parked::{Item, Parked};
pub use parked::{KEPT, QUOTED};
use rule::{Bar, Way, way};

/// Until the user is told that authd does not answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two questions while authd cannot tell.
const AGAIN: Duration = Duration::from_secs(1);
/// Messages that wait for authd; further ones are not kept.
const WAITING: usize = 500;

/// What kai.yaml says.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// For how long a proof holds without a message.
    pub idle: Duration,
    /// How long there is to enter a code.
    pub question: Duration,
    /// How long a question must have stood before a code runs what it quotes.
    pub reading: Duration,
}

/// What is known of the user.
#[derive(Debug)]
enum Proof {
    /// Nothing yet.
    Unknown,
    /// There is no second factor, and there needs to be none.
    NotNeeded,
    /// authd gave this.
    Given(Grant),
    /// Nothing passes.
    Missing(Bar),
}

/// Something that waits for authd's word.
#[derive(Debug)]
struct Waiting {
    since: Instant,
    what: Thing,
}

#[derive(Debug)]
enum Thing {
    Message { arrival: Arrival, edited: bool },
    Button(CallbackQueryId),
    Lock(PromptId, ChatId),
}

/// The gate of one user.
#[derive(Debug)]
pub struct Gate {
    times: Times,
    rule: SecondFactor,
    proof: Proof,
    /// Counts what makes older answers of authd meaningless.
    epoch: u64,
    /// The epoch of the question that is open, and whether it renews the grant.
    asked: Option<(u64, bool)>,
    asked_at: Option<Instant>,
    /// When a renewal of the grant was last asked for.
    renewed_at: Option<Instant>,
    /// The next question is to renew the grant.
    renew: bool,
    /// Ask once more after the answer.
    again: bool,
    /// When to ask because authd could not tell.
    ask_at: Option<Instant>,
    /// The absolute end of the grant.
    ends: Option<Instant>,
    waiting: VecDeque<Waiting>,
    told_away: bool,
    parked: Parked,
    /// Parked messages that a code lets run, while it is seen whether they are still there.
    releasing: Vec<Item>,
    /// Messages that passed with a proof in an earlier run of the gateway.
    held: Vec<Arrival>,
    /// What this run has begun and cannot show: where, and its quote.
    at_work: Vec<(ChatId, String)>,
    /// Chats that were told why what is held there cannot go on.
    barred_told: BTreeSet<ChatId>,
    codes: Codes,
    locking: Option<lock::Locking>,
    /// Chats in which a question stands.
    questions: BTreeSet<ChatId>,
    dirty: BTreeMap<ChatId, asking::Dirty>,
    version: u64,
}

impl Gate {
    /// A gate that knows nothing of its user yet and lets nothing pass.
    #[must_use]
    pub fn new(times: Times, rule: SecondFactor) -> Self {
        Self {
            times,
            rule,
            proof: Proof::Unknown,
            epoch: 0,
            asked: None,
            asked_at: None,
            renewed_at: None,
            renew: false,
            again: false,
            ask_at: None,
            ends: None,
            waiting: VecDeque::new(),
            told_away: false,
            parked: Parked::default(),
            releasing: Vec::new(),
            held: Vec::new(),
            at_work: Vec::new(),
            barred_told: BTreeSet::new(),
            codes: Codes::default(),
            locking: None,
            questions: BTreeSet::new(),
            dirty: BTreeMap::new(),
            version: 0,
        }
    }

    /// What the rest of the gateway may know.
    #[must_use]
    pub fn pass(&self) -> Pass {
        match &self.proof {
            Proof::NotNeeded => Pass::Free,
            Proof::Given(grant) => Pass::Proven(grant.clone()),
            Proof::Unknown | Proof::Missing(_) => Pass::Shut,
        }
    }

    /// True if what is the user's may be shown, and messages go on.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.proof, Proof::NotNeeded | Proof::Given(_))
    }

    /// A message came; `free` if it asks for something that needs no proof.
    pub fn arrived(&mut self, arrival: Arrival, free: bool, now: Now, out: &mut Vec<Effect>) {
        if free {
            let mark = false;
            let resume = false;
            out.push(Effect::Admit {
                arrival,
                mark,
                resume,
            });
            // A message all the same, to the idle end.
            if matches!(self.proof, Proof::Given(_)) {
                self.renew = true;
                self.ask(now, out);
            }
            return;
        }
        if self.waiting.len() >= WAITING {
            let (chat, id) = (arrival.chat(), arrival.id());
            return say(out, chat, Some(id), words::TOO_MANY_WAIT);
        }
        self.renew = true;
        let edited = false;
        self.wait_for_authd(Thing::Message { arrival, edited }, now, out);
    }

    /// A button was pressed.
    pub fn pressed(&mut self, query: CallbackQueryId, now: Now, out: &mut Vec<Effect>) {
        if self.waiting.len() < WAITING {
            self.wait_for_authd(Thing::Button(query), now, out);
        }
    }

    /// A message of this number in this chat has another text now; true if it has not gone on, so that
    /// the edit is dealt with.
    pub fn edited(&mut self, chat: ChatId, message: i32, out: &mut Vec<Effect>) -> bool {
        if let Some(item) = self.parked.remove(chat, message) {
            out.push(Effect::Settle(item.arrival.id()));
            self.note(chat, false, Some(words::EDITED));
            self.flush(out);
            return true;
        }
        if let Some(item) = self.releasing.iter_mut().find(|i| i.is(chat, message)) {
            if !std::mem::replace(&mut item.voided, true) {
                say(out, chat, None, words::EDITED);
            }
            return true;
        }
        for waiting in &mut self.waiting {
            if let Thing::Message { arrival, edited } = &mut waiting.what
                && arrival.chat() == chat
                && arrival.message.received.message == message
            {
                *edited = true;
                return true;
            }
        }
        false
    }

    /// A code came.
    pub fn code(&mut self, presented: Presented, now: Now, out: &mut Vec<Effect>) {
        let Presented {
            id, chat, message, ..
        } = presented;
        out.push(Effect::DeleteCode { id, chat, message });
        match presented.reading {
            Reading::Proven => say(out, chat, None, words::NOT_NEEDED),
            Reading::Unknown => say(out, chat, None, words::UNCHECKED),
            Reading::Changed => say(out, chat, None, words::CHANGED),
            Reading::Locked(until) => say(out, chat, None, &words::locked_until(until, now.unix)),
            Reading::Wanted => {
                if let Proof::Given(held) = &self.proof {
                    if presented.asked_with.as_ref() != Some(held) {
                        // One that was on its way beside another that was right.
                        return;
                    }
                    // It ended without anybody having been told, as at its idle limit.
                    self.set(Proof::Missing(Bar::Code), out);
                }
                let covers = if presented.in_topic {
                    Vec::new()
                } else {
                    let read = presented.sent.saturating_sub(self.times.reading.as_secs());
                    self.parked.quoted_above(chat, message, read)
                };
                self.codes.add(id, chat, presented.code, covers, now.at);
                self.ask_about_code(now, out);
            }
        }
    }

    /// authd says how the user stands.
    pub fn standing(&mut self, standing: Standing, now: Now, out: &mut Vec<Effect>) {
        let Some((epoch, renewed)) = self.asked.take() else {
            return;
        };
        if epoch != self.epoch {
            self.renew |= renewed;
            return self.ask(now, out);
        }
        let way = way(standing, self.rule, matches!(self.proof, Proof::Given(_)));
        match way {
            Way::Unknown => {
                self.renew |= renewed;
                self.ask_at = Some(now.at + AGAIN);
            }
            Way::Free => self.set(Proof::NotNeeded, out),
            Way::Proven { until } => self.ends = Some(in_here(until, now)),
            Way::Barred { bar, .. } => self.set(Proof::Missing(bar), out),
        }
        // A message came while a question was open that renews nothing.
        let owed = self.renew && matches!(self.proof, Proof::Given(_));
        if std::mem::take(&mut self.again) || owed {
            self.ask(now, out);
        }
        if !matches!(way, Way::Unknown) {
            self.told_away = false;
            self.ask_at = None;
            self.drain(way, now, out);
        }
        self.flush(out);
    }

    /// authd judged a code, or nobody knows.
    pub fn verdict(
        &mut self,
        id: PromptId,
        verdict: Result<Verdict, NoVerdict>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        // None after /lock: whatever authd gave for it has ended there, too.
        let Some(pending) = self.codes.judged(id) else {
            return;
        };
        let chat = pending.chat;
        match verdict {
            Ok(Verdict::Granted {
                grant,
                until,
                recovery_left,
            }) => {
                self.ends = Some(in_here(until, now));
                let hours = Duration::from_secs(until.saturating_sub(now.unix));
                let thanks = words::thanks(hours, self.times.idle, recovery_left);
                self.granted(grant, &pending, &thanks, now, out);
            }
            Ok(Verdict::Refused) => say(out, chat, None, words::REFUSED),
            Ok(Verdict::Locked { until }) => {
                self.codes.clear();
                say(out, chat, None, &words::locked_until(until, now.unix));
            }
            Ok(Verdict::Later { after_ms }) => {
                let by = Duration::from_millis(after_ms.into());
                if self.codes.put_off(pending, by, now.at).is_err() {
                    say(out, chat, None, words::BUSY);
                }
            }
            Ok(Verdict::NotEnrolled) => {
                say(out, chat, None, words::NOTHING_TO_PROVE);
                self.recheck(now, out);
            }
            Ok(Verdict::Unavailable) | Err(NoVerdict::Away) => {
                say(out, chat, None, words::UNCHECKED);
            }
            Err(NoVerdict::Lost) => say(out, chat, None, words::LOST),
        }
        self.ask_about_code(now, out);
        self.flush(out);
    }

    /// True if this refusal of an attach is about the proof.
    #[must_use]
    pub fn deals_with(refusal: Refusal) -> bool {
        bar_of(refusal).is_some()
    }

    /// The broker refused the proof that is held, or wants one.
    pub fn refused(&mut self, refusal: Refusal, out: &mut Vec<Effect>) {
        if let Some(bar) = bar_of(refusal) {
            self.set(Proof::Missing(bar), out);
        }
    }

    /// Something happened after which the proof may not stand any more: a connection ended, or the
    /// table of users is new.
    pub fn recheck(&mut self, now: Now, out: &mut Vec<Effect>) {
        if matches!(self.proof, Proof::Unknown) {
            return;
        }
        if self.asked.is_some() {
            self.again = true;
        } else {
            self.ask(now, out);
        }
    }

    /// The user's place in the table is another one.
    pub fn entry(&mut self, rule: SecondFactor, now: Now, out: &mut Vec<Effect>) {
        self.rule = rule;
        self.epoch += 1;
        self.recheck(now, out);
    }

    /// Settles everything from chats that `stays` refuses.
    pub fn forget(&mut self, stays: impl Fn(ChatId) -> bool, out: &mut Vec<Effect>) {
        let parked = self.parked.remove_from(&stays).into_iter();
        let (stay, go) = std::mem::take(&mut self.releasing)
            .into_iter()
            .partition(|item| stays(item.arrival.chat()));
        self.releasing = stay;
        let go: Vec<Item> = go;
        let settled = parked.chain(go).map(|item| item.arrival.id());
        out.extend(settled.map(Effect::Settle));
        self.held.retain(|arrival| {
            let stays = stays(arrival.chat());
            if !stays {
                out.push(Effect::Settle(arrival.id()));
            }
            stays
        });
        self.waiting.retain(|waiting| {
            let (id, chat) = match &waiting.what {
                Thing::Message { arrival, .. } => (arrival.id(), arrival.chat()),
                Thing::Lock(id, chat) => (*id, *chat),
                Thing::Button(_) => return true,
            };
            if !stays(chat) {
                out.push(Effect::Settle(id));
            }
            stays(chat)
        });
        self.at_work.retain(|(chat, _)| stays(*chat));
        self.questions.retain(|chat| stays(*chat));
    }

    fn wait_for_authd(&mut self, what: Thing, now: Now, out: &mut Vec<Effect>) {
        let since = now.at;
        self.waiting.push_back(Waiting { since, what });
        self.ask(now, out);
    }

    fn ask(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.asked.is_none() {
            let renew = std::mem::take(&mut self.renew);
            self.asked = Some((self.epoch, renew));
            self.asked_at = Some(now.at);
            self.ask_at = None;
            if renew {
                self.renewed_at = Some(now.at);
            }
            let grant = self.pass().grant();
            out.push(Effect::AskStanding { grant, renew });
        }
    }

    fn ask_about_code(&mut self, now: Now, out: &mut Vec<Effect>) {
        if let Some((id, code)) = self.codes.next(now.at) {
            out.push(Effect::Verify(id, code));
        }
    }

    /// Knows something else of the user from now on.
    fn set(&mut self, proof: Proof, out: &mut Vec<Effect>) {
        let was_open = self.is_open();
        if self.pass().grant().is_some() || matches!(proof, Proof::Given(_)) {
            self.epoch += 1;
        }
        self.proof = proof;
        if !matches!(self.proof, Proof::Given(_)) {
            self.ends = None;
        }
        if self.is_open() {
            self.at_work.clear();
            self.barred_told.clear();
        } else if was_open {
            out.push(Effect::Shut);
        }
    }

    fn ask_for_waiting(&mut self, now: Now, out: &mut Vec<Effect>) {
        if !self.waiting.is_empty() {
            self.ask(now, out);
        }
    }
}

impl Thing {
    fn chat(&self) -> Option<ChatId> {
        match self {
            Self::Message { arrival, .. } => Some(arrival.chat()),
            Self::Lock(_, chat) => Some(*chat),
            Self::Button(_) => None,
        }
    }
}

fn bar_of(refusal: Refusal) -> Option<Bar> {
    match refusal {
        Refusal::SecondFactor => Some(Bar::Code),
        Refusal::NotEnrolled => Some(Bar::NotEnrolled),
        Refusal::EnrolmentChanged => Some(Bar::Changed),
        _ => None,
    }
}

fn say(out: &mut Vec<Effect>, chat: ChatId, answers: Option<PromptId>, words: &str) {
    out.push(Effect::Say {
        chat,
        answers,
        words: words.to_owned(),
    });
}

/// The moment on this clock at which `until` is.
fn in_here(until: u64, now: Now) -> Instant {
    let seconds = until.saturating_sub(now.unix).min(YEAR);
    now.at + Duration::from_secs(seconds)
}

/// No end is farther than this, in seconds, whatever anybody says.
const YEAR: u64 = 366 * 24 * 3600;
