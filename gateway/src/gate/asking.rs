//! The question for a code in each chat where something waits for one.

use std::collections::BTreeSet;

use kai_proto::{gateway_broker::Refusal, ids::ChatId};

use super::{Effect, Gate, Proof, rule::Bar, say};
use crate::{
    quote,
    rendered::Rendered,
    telegram::Posted,
    wording::{self, second_factor as words},
};

/// A question that has to be shown differently.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    pub(super) anew: bool,
    pub(super) note: Option<&'static str>,
}

impl Gate {
    /// The chat shows the question of this version, as it was posted.
    pub fn shown(&mut self, chat: ChatId, version: u64, question: Posted) {
        self.parked.shown(chat, version, question);
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

    /// What to say to somebody for whom no code is wanted, because none could help.
    pub(super) fn barred(&self) -> Option<&'static str> {
        match self.proof {
            Proof::Missing(Bar::NotEnrolled) => Some(wording::refusal(Refusal::NotEnrolled)),
            Proof::Missing(Bar::Changed) => Some(wording::refusal(Refusal::EnrolmentChanged)),
            _ => None,
        }
    }

    /// Something is held in a chat: asks for a code there, or says once why none helps.
    pub(super) fn tell_held(&mut self, chat: ChatId, out: &mut Vec<Effect>) {
        match self.barred() {
            None => self.note(chat, true, None),
            Some(words) if self.barred_told.insert(chat) => say(out, chat, None, words),
            Some(_) => {}
        }
    }

    pub(super) fn note(&mut self, chat: ChatId, anew: bool, note: Option<&'static str>) {
        let dirty = self.dirty.entry(chat).or_default();
        dirty.anew |= anew;
        dirty.note = note.or(dirty.note);
    }

    /// Has each question shown as it is now.
    pub(super) fn flush(&mut self, out: &mut Vec<Effect>) {
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
