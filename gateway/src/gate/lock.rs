//! /lock: the proof ends at once, here and at authd, and with it everything that runs or waits.

use std::time::Instant;

use kai_proto::ids::{ChatId, PromptId};

use super::{
    AGAIN, Effect, Gate, Now, Proof, Thing,
    rule::{Bar, Way},
    say,
};
use crate::{rendered::Rendered, wording::second_factor as words};

/// A /lock that authd has not confirmed.
#[derive(Debug)]
pub(super) struct Locking {
    pub(super) answers: Vec<(PromptId, ChatId)>,
    pub(super) since: Instant,
    /// When authd is to be told again, if it could not be.
    pub(super) again: Option<Instant>,
    pub(super) told: bool,
}

impl Gate {
    /// /lock came.
    pub fn lock(&mut self, id: PromptId, chat: ChatId, now: Now, out: &mut Vec<Effect>) {
        match self.proof {
            Proof::Given(_) | Proof::Missing(Bar::Code) => {
                let before = self.take_waiting(|_| true).into_iter();
                out.extend(before.map(|arrival| Effect::Settle(arrival.id())));
                self.lock_now(id, chat, now, out);
                self.flush(out);
            }
            _ => self.wait_for_authd(Thing::Lock(id, chat), now, out),
        }
    }

    /// Ends the proof and everything that runs or waits.
    pub(super) fn lock_now(&mut self, id: PromptId, chat: ChatId, now: Now, out: &mut Vec<Effect>) {
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
}

/// True if there is nothing that /lock could end.
pub(super) fn has_nothing_to_lock(way: Way) -> bool {
    match way {
        Way::Free => true,
        Way::Barred { bar, .. } => bar == Bar::NotEnrolled,
        Way::Proven { .. } | Way::Unknown => false,
    }
}
