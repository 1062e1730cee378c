//! What a user's task does with a message: to the gate with it first, and if it comes through there, it
//! is a prompt for the agent or one of the commands.

use std::{sync::Arc, time::Instant};

use kai_proto::{
    conversation::{Outcome, ToWorker},
    ids::{ChatId, PromptId},
};
use tokio::sync::oneshot;

use super::{DESCRIPTION_PATIENCE, Mail, User};
use crate::{
    agenda::{Past, What},
    answer::Answer,
    commands::{self, Ask, ModelAsk},
    delivery::{Address, Delivery},
    gate::{Arrival, Effect, Now},
    inbox::Unanswered,
    wording::{self, second_factor as words},
};

impl User {
    /// Takes a message to the gate, unless it asks nothing of this bot.
    pub(super) fn arrived(&mut self, arrival: Arrival, now: Now, out: &mut Vec<Effect>) {
        let (id, chat) = (arrival.id(), arrival.chat());
        let text = arrival.message.received.text.as_deref();
        let me = self.means.me.get().map(String::as_str);
        match text.map(|text| commands::read(text, me)) {
            // In a group people show each other pictures.
            None if i64::from(chat) < 0 => self.means.settle(id),
            Some(Ask::ForAnother) => self.means.settle(id),
            Some(Ask::Lock) => self.gate.lock(id, chat, now, out),
            ask => {
                let free = ask.is_some_and(|ask| !ask.needs_proof());
                self.gate.arrived(arrival, free, now, out);
            }
        }
    }

    /// Does what a message asks for, which the gate let through.
    pub(super) async fn admitted(&mut self, message: Unanswered, past: Past) {
        let Unanswered {
            received, parts, ..
        } = message;
        let (id, chat) = (received.id, received.chat);
        let place = (id, chat, received.message);
        let now = Instant::now();
        let Some(text) = received.text else {
            return self.means.reply(chat, Some(id), wording::TEXT_ONLY);
        };
        let reply = |text: &str| self.means.reply(chat, Some(id), text);
        match commands::read(&text, self.means.me.get().map(String::as_str)) {
            Ask::Prompt => {
                self.tell_closing(chat);
                let answer = Arc::<Answer>::default();
                self.deliver(place, &answer, &parts);
                let what = What::Prompt {
                    text,
                    answer,
                    edit_told: false,
                };
                self.agenda.add(place, what, past);
            }
            // What it would do now was not seen by whoever has proved it since.
            Ask::New | Ask::Stop | Ask::Model(_) if past == Past::Proven => {
                reply(&words::not_begun(&text));
            }
            Ask::New => {
                self.tell_closing(chat);
                self.agenda.add(place, What::NewSession, past);
            }
            Ask::Stop => self.stop(place),
            Ask::Status if self.link.is_attached() => {
                self.describing
                    .push_back((id, chat, now + DESCRIPTION_PATIENCE));
                self.link.tell(ToWorker::Describe).await;
            }
            Ask::Status => reply(&wording::no_agent(self.agenda.open().count())),
            Ask::Start => reply(&wording::start(&self.entry.name)),
            Ask::Help => reply(&wording::help()),
            Ask::Model(ask) => self.choose_model(id, chat, ask),
            Ask::Unknown => reply(&wording::unknown_command()),
            // Neither comes here.
            Ask::Lock | Ask::ForAnother => self.means.settle(id),
        }
    }

    /// Starts the delivery of an answer behind the one before it.
    fn deliver(
        &mut self,
        (prompt, chat, message): (PromptId, ChatId, i32),
        answer: &Arc<Answer>,
        parts: &[i32],
    ) {
        let (done, next) = oneshot::channel();
        let before = self
            .last_delivery
            .replace(next)
            .unwrap_or_else(|| oneshot::channel().1);
        let address = Address {
            prompt,
            chat,
            // In a group it would not be clear which message is answered.
            reply_to: (i64::from(chat) < 0).then_some(message),
        };
        let delivery = Delivery::new(
            Arc::clone(&self.means.telegram),
            self.means.inbox.clone(),
            address,
            self.pass.subscribe(),
            Arc::clone(answer),
            parts,
        );
        let mail = self.own_mail.clone();
        let task = tokio::spawn(async move {
            delivery.run(before, done).await;
            if let Some(mail) = mail.upgrade() {
                let _ = mail.send(Mail::Delivered(prompt));
            }
        });
        self.deliveries.insert(prompt, task.abort_handle());
    }

    fn stop(&mut self, place: (PromptId, ChatId, i32)) {
        if self.agenda.open().next().is_none() {
            return self
                .means
                .reply(place.1, Some(place.0), wording::NOTHING_RUNS);
        }
        for answer in self.agenda.untold() {
            answer.finish(wording::outcome(&Outcome::Interrupted));
        }
        if self.agenda.open().next().is_some() {
            self.agenda.add(place, What::Interrupt, Past::Replayed);
        } else {
            self.means.settle(place.0);
        }
    }

    fn choose_model(&mut self, id: PromptId, chat: ChatId, ask: ModelAsk) {
        let chosen = match ask {
            ModelAsk::Show => None,
            ModelAsk::Default => Some(None),
            ModelAsk::Use(model) => Some(Some(model)),
            ModelAsk::Invalid => return self.means.reply(chat, Some(id), wording::NO_MODEL_NAME),
        };
        if let Some(chosen) = chosen {
            self.means.inbox.model(self.entry.id, chosen.clone());
            self.model = chosen;
        }
        let text = wording::model(self.model.as_ref(), self.entry.model.as_ref());
        self.means.reply(chat, Some(id), &text);
    }
}
