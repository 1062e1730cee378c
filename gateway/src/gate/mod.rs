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

mod codes;
mod effect;
mod parked;
mod rule;
#[cfg(test)]
mod tests;

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

use crate::{
    authd::NoVerdict,
    pass::Pass,
    quote,
    rendered::Rendered,
    wording::{self, second_factor as words},
};

use codes::Codes;
pub use effect::{Arrival, Effect, Now, Presence, Presented, Reading};
use parked::{Item, NotKept, Parked};
pub use parked::{KEPT, QUOTED};
use rule::{Bar, Way, way};

/// Until the user is told that authd does not answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two questions while authd cannot tell.
const AGAIN: Duration = Duration::from_secs(1);
/// Messages that wait for authd; further ones are not kept.
const WAITING: usize = 500;
/// The shortest and the longest time between two questions while something of the user runs.
const RENEWALS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What kai.yaml says.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// For how long a proof holds without a message.
    pub idle: Duration,
    /// How long there is to enter a code.
    pub question: Duration,
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

/// A /lock that authd has not confirmed.
#[derive(Debug)]
struct Locking {
    answers: Vec<(PromptId, ChatId)>,
    since: Instant,
    /// When authd is to be told again, if it could not be.
    again: Option<Instant>,
    told: bool,
}

/// A question that has to be shown differently.
#[derive(Debug, Default)]
struct Dirty {
    anew: bool,
    note: Option<&'static str>,
}

/// The gate of one user.
#[derive(Debug)]
pub struct Gate {
    times: Times,
    rule: SecondFactor,
    proof: Proof,
    /// Counts what makes older answers of authd meaningless.
    epoch: u64,
    /// The epoch of the question that is open.
    asked: Option<u64>,
    asked_at: Option<Instant>,
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
    locking: Option<Locking>,
    /// Chats in which a question stands.
    questions: BTreeSet<ChatId>,
    dirty: BTreeMap<ChatId, Dirty>,
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
            return out.push(Effect::Admit { arrival, mark });
        }
        if self.waiting.len() >= WAITING {
            let (chat, id) = (arrival.chat(), arrival.id());
            return say(out, chat, Some(id), words::TOO_MANY_WAIT);
        }
        let edited = false;
        self.wait_for_authd(Thing::Message { arrival, edited }, now, out);
    }

    /// A button was pressed.
    pub fn pressed(&mut self, query: CallbackQueryId, now: Now, out: &mut Vec<Effect>) {
        if self.waiting.len() < WAITING {
            self.wait_for_authd(Thing::Button(query), now, out);
        }
    }

    /// /lock came.
    pub fn lock(&mut self, id: PromptId, chat: ChatId, now: Now, out: &mut Vec<Effect>) {
        match self.proof {
            Proof::Given(_) | Proof::Missing(Bar::Code) => {
                self.lock_now(id, chat, now, out);
                self.flush(out);
            }
            _ => self.wait_for_authd(Thing::Lock(id, chat), now, out),
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
        let Presented { chat, message, .. } = presented;
        out.push(Effect::DeleteCode { chat, message });
        match presented.reading {
            Reading::Unknown => say(out, chat, None, words::UNCHECKED),
            Reading::Changed => say(out, chat, None, words::CHANGED),
            Reading::Locked(until) => say(out, chat, None, &words::locked_until(until, now.unix)),
            // One that was on its way beside another that was right.
            Reading::Wanted if matches!(self.proof, Proof::Given(_)) => {}
            Reading::Wanted => {
                let covers = self.parked.quoted();
                let Presented { id, code, .. } = presented;
                self.codes.add(id, chat, code, covers, now.at);
                self.ask_about_code(now, out);
            }
        }
    }

    /// authd says how the user stands.
    pub fn standing(&mut self, standing: Standing, now: Now, out: &mut Vec<Effect>) {
        let Some(epoch) = self.asked.take() else {
            return;
        };
        if epoch != self.epoch {
            return self.ask(now, out);
        }
        let way = way(standing, self.rule, matches!(self.proof, Proof::Given(_)));
        match way {
            Way::Unknown => self.ask_at = Some(now.at + AGAIN),
            Way::Free => self.set(Proof::NotNeeded, out),
            Way::Proven { until } => self.ends = Some(in_here(until, now)),
            Way::Barred { bar, .. } => self.set(Proof::Missing(bar), out),
        }
        if std::mem::take(&mut self.again) {
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
                self.granted(grant, chat, &pending.covers, &thanks, now, out);
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

    /// The chat shows the question of this version.
    pub fn shown(&mut self, chat: ChatId, version: u64) {
        self.parked.shown(chat, version);
    }

    /// It was seen whether the messages that a code lets run are still there.
    pub fn looked(&mut self, seen: &[(PromptId, Presence)], now: Now, out: &mut Vec<Effect>) {
        let mut gone: BTreeMap<(ChatId, &'static str), Vec<String>> = BTreeMap::new();
        for item in std::mem::take(&mut self.releasing) {
            let id = item.arrival.id();
            let Some((_, presence)) = seen.iter().find(|(seen, _)| *seen == id) else {
                // It belongs to a later code.
                self.releasing.push(item);
                continue;
            };
            let why = match presence {
                _ if item.voided => {
                    out.push(Effect::Settle(id));
                    continue;
                }
                Presence::There if self.is_open() => {
                    self.admit(item.arrival, out);
                    continue;
                }
                // The proof ended within this moment: it is asked about anew.
                Presence::There => {
                    self.park(item.arrival, now, out);
                    continue;
                }
                Presence::Deleted => words::DELETED,
                Presence::Unquoted => words::UNQUOTED,
                Presence::Unknown => words::UNSEEN,
            };
            out.push(Effect::Settle(id));
            let chat = item.arrival.chat();
            gone.entry((chat, why)).or_default().push(item.quote);
        }
        for ((chat, why), quotes) in gone {
            say(out, chat, None, &words::not_run(why, &quotes));
        }
        self.ask_for_waiting(now, out);
        self.flush(out);
    }

    /// authd was told to lock: it has done it, or could not be told.
    pub fn locked(&mut self, done: bool, now: Now, out: &mut Vec<Effect>) {
        if !done {
            if let Some(locking) = &mut self.locking {
                locking.again = Some(now.at + AGAIN);
            }
            return;
        }
        for (id, chat) in self.locking.take().into_iter().flat_map(|l| l.answers) {
            say(out, chat, Some(id), words::LOCKED);
        }
    }

    /// Names what this run has begun and cannot show any more: to [`Effect::Shut`].
    pub fn hold(&mut self, at_work: Vec<(ChatId, String)>, out: &mut Vec<Effect>) {
        if self.is_open() {
            return;
        }
        let chats: BTreeSet<ChatId> = at_work.iter().map(|(chat, _)| *chat).collect();
        self.at_work = at_work;
        for chat in chats {
            self.tell_held(chat, out);
        }
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

    /// When [`tick`](Self::tick) has something to do; `running` if something of the user runs.
    #[must_use]
    pub fn due(&self, running: bool) -> Option<Instant> {
        let locking = self.locking.as_ref();
        let lock_told = locking.filter(|l| !l.told).map(|l| l.since + PATIENCE);
        [
            self.ask_at.filter(|_| self.asked.is_none()),
            self.renewal(running),
            self.end(),
            self.parked.lapse().filter(|_| self.codes.is_empty()),
            self.codes.due(),
            self.kept_waiting().map(|(_, late)| late),
            locking.and_then(|l| l.again),
            lock_told,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what the time asks for.
    pub fn tick(&mut self, running: bool, now: Now, out: &mut Vec<Effect>) {
        let is_due = |due: Option<Instant>| due.is_some_and(|due| due <= now.at);
        if is_due(self.ask_at) || is_due(self.renewal(running)) || is_due(self.end()) {
            self.ask(now, out);
        }
        self.ask_about_code(now, out);
        if is_due(self.parked.lapse()) && self.codes.is_empty() {
            for chat in self.parked.chats() {
                self.note(chat, false, Some(words::LAPSED));
            }
            let lapsed = self.parked.take().into_iter();
            out.extend(lapsed.map(|item| Effect::Settle(item.arrival.id())));
        }
        if let Some((chat, late)) = self.kept_waiting()
            && late <= now.at
        {
            self.told_away = true;
            say(out, chat, None, wording::AUTHD_AWAY);
        }
        if let Some(locking) = &mut self.locking {
            if is_due(locking.again) {
                locking.again = None;
                out.push(Effect::Lock);
            }
            if locking.since + PATIENCE <= now.at && !std::mem::replace(&mut locking.told, true) {
                for (_, chat) in &locking.answers {
                    say(out, *chat, None, words::LOCKED_SOON);
                }
            }
        }
        self.flush(out);
    }

    /// When the grant has to be renewed because something runs.
    fn renewal(&self, running: bool) -> Option<Instant> {
        let wanted = running && matches!(self.proof, Proof::Given(_)) && self.asked.is_none();
        let every = (self.times.idle / 4).clamp(RENEWALS.0, RENEWALS.1);
        self.asked_at.filter(|_| wanted).map(|at| at + every)
    }

    /// When to hear that the grant is at its end. authd measures that end, so it may be asked too
    /// early, and then again.
    fn end(&self) -> Option<Instant> {
        let given = matches!(self.proof, Proof::Given(_)) && self.asked.is_none();
        let ends = self.ends.filter(|_| given)?;
        Some(ends.max(self.asked_at? + AGAIN))
    }

    /// Where somebody has to be told that authd does not answer, and from when on.
    fn kept_waiting(&self) -> Option<(ChatId, Instant)> {
        let told = |waiting: &Waiting| Some((waiting.what.chat()?, waiting.since + PATIENCE));
        let first = self.waiting.iter().find_map(told);
        first.filter(|_| !self.told_away)
    }

    fn wait_for_authd(&mut self, what: Thing, now: Now, out: &mut Vec<Effect>) {
        let since = now.at;
        self.waiting.push_back(Waiting { since, what });
        self.ask(now, out);
    }

    fn ask(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.asked.is_none() {
            self.asked = Some(self.epoch);
            self.asked_at = Some(now.at);
            self.ask_at = None;
            out.push(Effect::AskStanding(self.pass().grant()));
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

    /// Deals with everything that waited for authd's word, now that the way is known.
    fn drain(&mut self, way: Way, now: Now, out: &mut Vec<Effect>) {
        let open = self.is_open();
        if open {
            self.admit_held(out);
            // What a code lets run goes before what came after it.
            if !self.releasing.is_empty() {
                return;
            }
        }
        while let Some(waiting) = self.waiting.pop_front() {
            match waiting.what {
                Thing::Button(query) => {
                    let words = if open {
                        wording::OLD_BUTTON
                    } else {
                        words::BUTTON
                    };
                    out.push(Effect::AnswerButton { query, words });
                }
                Thing::Lock(id, chat) if has_nothing_to_lock(way) => {
                    say(out, chat, Some(id), words::NOTHING_TO_LOCK);
                }
                Thing::Lock(id, chat) => {
                    self.lock_now(id, chat, now, out);
                    // What comes after it has to hear how the user stands since.
                    return self.ask_for_waiting(now, out);
                }
                Thing::Message { arrival, edited } => {
                    self.pass_or_park(arrival, edited, way, now, out);
                }
            }
        }
    }

    fn pass_or_park(
        &mut self,
        arrival: Arrival,
        edited: bool,
        way: Way,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let (id, chat) = (arrival.id(), arrival.chat());
        let Way::Barred { bar, locked } = way else {
            if edited {
                say(out, chat, None, wording::EDIT_UNSEEN);
            }
            return self.admit(arrival, out);
        };
        if arrival.message.cleared {
            self.held.push(arrival);
            self.tell_held(chat, out);
        } else if bar != Bar::Code {
            say(out, chat, Some(id), self.barred().unwrap_or(words::CHANGED));
        } else if arrival.like_a_code {
            // It came while the proof stood, which ended before it could go on. It may be a code that
            // still counts, and must not be quoted.
            let message = arrival.message.received.message;
            out.push(Effect::DeleteCode { chat, message });
            say(out, chat, Some(id), words::SEND_AGAIN);
        } else if edited {
            say(out, chat, Some(id), words::EDITED);
        } else if let Some(until) = locked
            && in_here(until, now) > now.at + self.times.question
        {
            let words = words::not_kept_until(until, now.unix);
            say(out, chat, Some(id), &words);
        } else {
            self.park(arrival, now, out);
        }
    }

    fn park(&mut self, arrival: Arrival, now: Now, out: &mut Vec<Effect>) {
        let (id, chat) = (arrival.id(), arrival.chat());
        match self.parked.add(arrival, self.times.question, now.at) {
            Ok(()) => self.note(chat, true, None),
            Err((_, NotKept::Full)) => say(out, chat, Some(id), words::NOT_KEPT),
            Err((_, NotKept::TooLong)) => say(out, chat, Some(id), words::TOO_LONG),
        }
    }

    fn admit(&self, arrival: Arrival, out: &mut Vec<Effect>) {
        let mark = matches!(self.proof, Proof::Given(_)) && !arrival.message.cleared;
        out.push(Effect::Admit { arrival, mark });
    }

    fn admit_held(&mut self, out: &mut Vec<Effect>) {
        for arrival in std::mem::take(&mut self.held) {
            self.admit(arrival, out);
        }
    }

    /// A right code: what is held goes on at once, and what waited as soon as it is seen that it was
    /// not taken back.
    fn granted(
        &mut self,
        grant: Grant,
        chat: ChatId,
        covers: &[PromptId],
        thanks: &str,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        self.set(Proof::Given(grant), out);
        self.asked_at = Some(now.at);
        self.codes.clear();
        self.dirty.clear();
        self.admit_held(out);
        let covered = |item: &Item| covers.contains(&item.arrival.id());
        let (run, late): (Vec<_>, Vec<_>) = self.parked.take().into_iter().partition(covered);
        let mut questions = std::mem::take(&mut self.questions);
        if !questions.contains(&chat) {
            say(out, chat, None, thanks);
        }
        let quoting: BTreeSet<ChatId> = run.iter().map(|item| item.arrival.chat()).collect();
        questions.extend(&quoting);
        let (look, close): (Vec<_>, Vec<_>) = questions
            .into_iter()
            .map(|chat| (chat, Rendered::plain(thanks)))
            .partition(|(chat, _)| quoting.contains(chat));
        for (chat, text) in close {
            out.push(Effect::Close { chat, text });
        }
        let mut unseen: BTreeMap<ChatId, Vec<String>> = BTreeMap::new();
        for item in late {
            out.push(Effect::Settle(item.arrival.id()));
            let quotes = unseen.entry(item.arrival.chat()).or_default();
            quotes.push(item.quote);
        }
        for (chat, quotes) in unseen {
            say(out, chat, None, &words::not_run(words::TOO_LATE, &quotes));
        }
        if run.is_empty() {
            self.ask_for_waiting(now, out);
        } else {
            let place = |item: &Item| {
                let received = &item.arrival.message.received;
                (received.id, received.chat, received.message)
            };
            out.push(Effect::Look {
                messages: run.iter().map(place).collect(),
                questions: look,
            });
            self.releasing.extend(run);
        }
    }

    fn ask_for_waiting(&mut self, now: Now, out: &mut Vec<Effect>) {
        if !self.waiting.is_empty() {
            self.ask(now, out);
        }
    }

    /// Ends the proof and everything that runs or waits.
    fn lock_now(&mut self, id: PromptId, chat: ChatId, now: Now, out: &mut Vec<Effect>) {
        out.push(Effect::Interrupt);
        self.set(Proof::Missing(Bar::Code), out);
        // Whoever is asked about now stood otherwise before.
        self.epoch += 1;
        self.codes.clear();
        self.dirty.clear();
        self.at_work.clear();
        let parked = self.parked.take().into_iter();
        let parked = parked.chain(std::mem::take(&mut self.releasing));
        let held = std::mem::take(&mut self.held).into_iter();
        let ids = parked.map(|i| i.arrival.id()).chain(held.map(|a| a.id()));
        out.extend(ids.map(Effect::Settle));
        for chat in std::mem::take(&mut self.questions) {
            let text = Rendered::plain(words::QUESTION_LOCKED);
            out.push(Effect::Close { chat, text });
        }
        out.push(Effect::Lock);
        let locking = self.locking.get_or_insert(Locking {
            answers: Vec::new(),
            since: now.at,
            again: None,
            told: false,
        });
        locking.answers.push((id, chat));
    }

    /// What to say to somebody for whom no code is wanted, because none could help.
    fn barred(&self) -> Option<&'static str> {
        match self.proof {
            Proof::Missing(Bar::NotEnrolled) => Some(wording::refusal(Refusal::NotEnrolled)),
            Proof::Missing(Bar::Changed) => Some(wording::refusal(Refusal::EnrolmentChanged)),
            _ => None,
        }
    }

    /// Something is held in a chat: asks for a code there, or says once why none helps.
    fn tell_held(&mut self, chat: ChatId, out: &mut Vec<Effect>) {
        match self.barred() {
            None => self.note(chat, true, None),
            Some(words) if self.barred_told.insert(chat) => say(out, chat, None, words),
            Some(_) => {}
        }
    }

    fn note(&mut self, chat: ChatId, anew: bool, note: Option<&'static str>) {
        let dirty = self.dirty.entry(chat).or_default();
        dirty.anew |= anew;
        dirty.note = note.or(dirty.note);
    }

    /// Has each question shown as it is now.
    fn flush(&mut self, out: &mut Vec<Effect>) {
        for (chat, Dirty { anew, note }) in std::mem::take(&mut self.dirty) {
            self.version += 1;
            let version = self.version;
            let held = self.held.iter().filter(|arrival| arrival.chat() == chat);
            let held = held.map(|arrival| {
                let text = arrival.message.received.text.as_deref();
                quote::beginning(text.unwrap_or_default(), words::BEGINNING)
            });
            let at_work = self.at_work.iter().filter(|(at, _)| *at == chat);
            let held: Vec<String> = held
                .chain(at_work.map(|(_, quote)| quote.clone()))
                .collect();
            let quotes = self.parked.quotes(chat, version);
            if quotes.is_empty() && held.is_empty() {
                match note.unwrap_or(words::NOTHING_WAITS) {
                    text if self.questions.remove(&chat) => {
                        let text = Rendered::plain(text);
                        out.push(Effect::Close { chat, text });
                    }
                    text => say(out, chat, None, text),
                }
                continue;
            }
            let text = words::question(&words::Question {
                quotes: &quotes,
                held: &held,
                patience: self.times.question,
                is_group: i64::from(chat) < 0,
                note,
            });
            let anew = self.questions.insert(chat) || anew;
            out.push(Effect::Ask {
                chat,
                version,
                text,
                anew,
            });
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

fn has_nothing_to_lock(way: Way) -> bool {
    match way {
        Way::Free => true,
        Way::Barred { bar, .. } => bar == Bar::NotEnrolled,
        Way::Proven { .. } | Way::Unknown => false,
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
