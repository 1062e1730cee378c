//! What waits and what becomes of it once authd has spoken: it passes, it is parked or held, or it is
//! refused. And what a right code lets run.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use kai_proto::{
    grant::Grant,
    ids::{ChatId, PromptId},
};

use super::{
    Arrival, Effect, Gate, Now, Presence, Proof, Sought, Thing, Waiting,
    codes::Pending,
    in_here,
    lock::has_nothing_to_lock,
    parked::{Item, NotKept},
    rule::{Bar, Way},
    say,
};
use crate::{
    rendered::Rendered,
    wording::{self, second_factor as words},
};

impl Gate {
    /// Deals with everything that waited for authd's word, now that the way is known.
    pub(super) fn drain(&mut self, way: Way, now: Now, out: &mut Vec<Effect>) {
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

    pub(super) fn pass_or_park(
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
            out.push(Effect::DeleteCode { id, chat, message });
            say(out, chat, None, words::SEND_AGAIN);
        } else if edited {
            say(out, chat, Some(id), words::EDITED);
        } else if arrival.in_topic {
            say(out, chat, Some(id), words::NOT_IN_A_TOPIC);
        } else if let Some(until) = locked
            && in_here(until, now) > now.at + self.times.question
        {
            let words = words::not_kept_until(until, now.unix);
            say(out, chat, Some(id), &words);
        } else {
            self.park(arrival, now, out);
        }
    }

    pub(super) fn park(&mut self, arrival: Arrival, now: Now, out: &mut Vec<Effect>) {
        let (id, chat) = (arrival.id(), arrival.chat());
        match self.parked.add(arrival, self.times.question, now.at) {
            Ok(()) => self.note(chat, true, None),
            Err((_, NotKept::Full)) => say(out, chat, Some(id), words::NOT_KEPT),
            Err((_, NotKept::TooLong)) => say(out, chat, Some(id), words::TOO_LONG),
        }
    }

    pub(super) fn admit(&self, arrival: Arrival, out: &mut Vec<Effect>) {
        let is_proven = matches!(self.proof, Proof::Given(_));
        let (mark, resume) = match arrival.message.cleared {
            false => (is_proven, false),
            true => (false, is_proven),
        };
        out.push(Effect::Admit {
            arrival,
            mark,
            resume,
        });
    }

    pub(super) fn admit_held(&mut self, out: &mut Vec<Effect>) {
        for arrival in std::mem::take(&mut self.held) {
            self.admit(arrival, out);
        }
    }

    /// A right code: what is held goes on at once, and what waited as soon as it is seen that it was
    /// not taken back.
    pub(super) fn granted(
        &mut self,
        grant: Grant,
        code: &Pending,
        thanks: &str,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        self.set(Proof::Given(grant), out);
        self.asked_at = Some(now.at);
        self.renewed_at = Some(now.at);
        self.codes.clear();
        self.dirty.clear();
        self.admit_held(out);
        let chat = code.chat;
        let covered = |item: &Item| code.covers.contains(&item.arrival.id());
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
        for arrival in self.take_waiting(|since| since <= code.since) {
            let (id, chat) = (arrival.id(), arrival.chat());
            let received = arrival.message.received;
            out.push(match arrival.like_a_code {
                true => Effect::DeleteCode {
                    id,
                    chat,
                    message: received.message,
                },
                false => Effect::Settle(id),
            });
            let quotes = unseen.entry(chat).or_default();
            quotes.push(received.text.unwrap_or_default());
        }
        for (chat, quotes) in unseen {
            say(out, chat, None, &words::not_run(words::TOO_LATE, &quotes));
        }
        if run.is_empty() {
            self.ask_for_waiting(now, out);
        } else {
            let sought = |item: &Item| {
                let received = &item.arrival.message.received;
                Sought {
                    id: received.id,
                    chat: received.chat,
                    message: received.message,
                    quote: item.quote.clone(),
                }
            };
            out.push(Effect::Look {
                messages: run.iter().map(sought).collect(),
                questions: look,
            });
            self.releasing.extend(run);
        }
    }

    /// Takes out what waits for authd's word since a time that `fits` and was not let through before.
    pub(super) fn take_waiting(&mut self, fits: impl Fn(Instant) -> bool) -> Vec<Arrival> {
        let mut taken = Vec::new();
        for waiting in std::mem::take(&mut self.waiting) {
            match waiting.what {
                Thing::Message { arrival, .. }
                    if fits(waiting.since) && !arrival.message.cleared =>
                {
                    taken.push(arrival);
                }
                what => self.waiting.push_back(Waiting { what, ..waiting }),
            }
        }
        taken
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
}
