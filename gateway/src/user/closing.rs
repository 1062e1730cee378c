//! What a user's task does at the gateway's end: see [`crate::closing`].

use kai_proto::{conversation::ToWorker, ids::ChatId};

use super::User;
use crate::{closing::Phase, wording};

impl User {
    /// The end has come to this phase.
    pub(super) async fn closes(&mut self, phase: Phase) {
        self.phase = phase;
        if phase != Phase::Stopping || !self.link.is_attached() {
            return;
        }
        let mut stopped = false;
        for answer in self.agenda.under_way() {
            answer.finish(Some(wording::CLOSED.to_owned()));
            stopped = true;
        }
        if stopped {
            self.link.tell(ToWorker::Interrupt).await;
        }
    }

    /// A /stop ends a turn also while the gateway waits for it.
    pub(super) async fn stop_what_finishes(&mut self) {
        for item in self.agenda.take_interrupts() {
            self.link.tell(ToWorker::Interrupt).await;
            self.means.settle(item.id);
        }
    }

    /// A message was let through, and waits for the gateway's next start.
    pub(super) fn tell_closing(&mut self, chat: ChatId) {
        if self.phase != Phase::Open && self.told_closing.insert(chat) {
            self.means.reply(chat, None, wording::CLOSING);
        }
    }

    /// Tells the end whether it has to wait for this user: something runs, or its answer is not shown. What
    /// is held for a code is not waited for.
    pub(super) fn note_busy(&mut self) {
        let runs = self.agenda.under_way().next().is_some() && self.link.is_attached();
        let busy = self.gate.is_open() && (runs || self.agenda.has_undelivered());
        if busy != self.busy {
            self.busy = busy;
            self.means.closing.set_busy(self.entry.id, busy);
        }
    }
}
