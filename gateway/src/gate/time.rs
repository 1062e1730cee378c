//! What happens at the gate because time passes.

use std::time::{Duration, Instant};

use kai_proto::ids::ChatId;

use super::{AGAIN, Effect, Gate, Now, PATIENCE, Proof, Waiting, say};
use crate::wording::{self, second_factor as words};

/// The shortest and the longest time between two questions while something of the user runs.
const RENEWALS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

impl Gate {
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
        let renewal = is_due(self.renewal(running));
        if renewal || is_due(self.ask_at) || is_due(self.end()) {
            self.renew |= renewal;
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
    pub(super) fn renewal(&self, running: bool) -> Option<Instant> {
        let wanted = running && matches!(self.proof, Proof::Given(_)) && self.asked.is_none();
        let every = (self.times.idle / 4).clamp(RENEWALS.0, RENEWALS.1);
        self.renewed_at.filter(|_| wanted).map(|at| at + every)
    }

    /// When to hear that the grant is at its end, the absolute or the idle one. authd measures these, so
    /// it may be asked too early, and then again.
    pub(super) fn end(&self) -> Option<Instant> {
        let given = matches!(self.proof, Proof::Given(_)) && self.asked.is_none();
        let idle = self.renewed_at.map(|at| at + self.times.idle);
        let ends = [self.ends, idle].into_iter().flatten().min();
        Some(ends.filter(|_| given)?.max(self.asked_at? + AGAIN))
    }

    /// Where somebody has to be told that authd does not answer, and from when on.
    pub(super) fn kept_waiting(&self) -> Option<(ChatId, Instant)> {
        let told = |waiting: &Waiting| Some((waiting.what.chat()?, waiting.since + PATIENCE));
        let first = self.waiting.iter().find_map(told);
        // What a code lets run is not authd's to answer.
        first.filter(|_| !self.told_away && self.releasing.is_empty())
    }
}
