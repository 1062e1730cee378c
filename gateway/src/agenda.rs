//! What one user asked for and what of it the worker still has to be told.
//!
//! Pure: it decides, and [`crate::user`] acts. What is here has passed the user's
//! [gate](crate::gate). Things are told in the order in which they were asked; after /new everything
//! waits until the worker has begun anew, so that telling it again on another connection can never cut
//! off a prompt of the new session. When a connection begins, all that is not finished is told again.

use std::{collections::VecDeque, sync::Arc};

use kai_proto::{
    conversation::{Prompt, ToWorker},
    ids::{ChatId, ModelName, PromptId},
};

use crate::answer::Answer;

/// Something that the worker has to be told.
#[derive(Debug)]
pub struct Item {
    /// The update that brought it.
    pub id: PromptId,
    /// The chat that it came from.
    pub chat: ChatId,
    /// Its message there.
    pub message: i32,
    /// What it is.
    pub what: What,
    /// True once this connection has carried it.
    told: bool,
    /// True if a worker may know of it.
    known: bool,
    /// True if it may go on, and not begin: the proof that let it through has ended.
    only_if_begun: bool,
}

/// Where an [`Item`] comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Past {
    /// It came in this run of the gateway.
    None,
    /// An earlier run may have told a worker of it.
    Replayed,
    /// The same, and it was let through by a proof that has ended since.
    Proven,
}

/// What an [`Item`] is.
#[derive(Debug)]
pub enum What {
    /// A prompt.
    Prompt {
        /// Its words.
        text: String,
        /// Its answer.
        answer: Arc<Answer>,
        /// True once its user was told that an edit of it is not seen.
        edit_told: bool,
    },
    /// /new
    NewSession,
    /// /stop
    Interrupt,
}

/// The items of one user, in their order.
#[derive(Debug, Default)]
pub struct Agenda {
    items: VecDeque<Item>,
}

impl Agenda {
    /// Adds something.
    pub fn add(&mut self, (id, chat, message): (PromptId, ChatId, i32), what: What, past: Past) {
        self.items.push_back(Item {
            id,
            chat,
            message,
            what,
            told: false,
            known: past != Past::None,
            only_if_begun: past == Past::Proven,
        });
    }

    /// The proof that let all of this through has ended: what has begun may go on with the next one, and
    /// nothing may begin. Gives what only could begin.
    pub fn proof_ended(&mut self) -> Vec<Item> {
        for item in &mut self.items {
            item.only_if_begun = true;
        }
        self.take_orders()
    }

    /// A connection begins: everything unfinished is to be told on it.
    pub fn connection_began(&mut self) {
        for item in &mut self.items {
            item.told = false;
        }
    }

    /// What the worker is to be told next, which then counts as told, and which update brought it.
    pub fn next(&mut self, model: Option<&ModelName>) -> Option<(PromptId, ToWorker)> {
        let index = self.next_index()?;
        let item = &mut self.items[index];
        item.told = true;
        item.known = true;
        let id = item.id;
        let request = match &item.what {
            What::Prompt { text, .. } => ToWorker::Prompt(Prompt {
                id,
                text: text.clone(),
                model: model.cloned(),
                only_if_begun: item.only_if_begun,
            }),
            What::NewSession => ToWorker::NewSession,
            What::Interrupt => {
                self.items.remove(index);
                ToWorker::Interrupt
            }
        };
        Some((id, request))
    }

    fn next_index(&self) -> Option<usize> {
        for (index, item) in self.items.iter().enumerate() {
            if item.is_finished() {
                continue;
            }
            if !item.told {
                return Some(index);
            }
            if matches!(item.what, What::NewSession) {
                return None;
            }
        }
        None
    }

    /// True if there is something that needs a worker.
    #[must_use]
    pub fn needs_worker(&self) -> bool {
        self.open().next().is_some()
    }

    /// The answer to a prompt.
    #[must_use]
    pub fn answer(&self, id: PromptId) -> Option<&Arc<Answer>> {
        self.items.iter().find_map(|item| match &item.what {
            What::Prompt { answer, .. } if item.id == id => Some(answer),
            _ => None,
        })
    }

    /// The words of a prompt.
    #[must_use]
    pub fn text(&self, id: PromptId) -> Option<&str> {
        let item = self.items.iter().find(|item| item.id == id)?;
        matches!(item.what, What::Prompt { .. }).then(|| item.text())
    }

    /// The worker began anew: gives the /new that asked for it.
    pub fn session_began(&mut self) -> Option<Item> {
        let is_told = |item: &Item| item.told && matches!(item.what, What::NewSession);
        let index = self.items.iter().position(is_told)?;
        self.items.remove(index)
    }

    /// Forgets a prompt whose answer is delivered; true if there was one.
    pub fn delivered(&mut self, id: PromptId) -> bool {
        let before = self.items.len();
        self.items.retain(|item| item.id != id);
        self.items.len() < before
    }

    /// The answers to prompts that no worker knows of, which /stop ends on the spot.
    pub fn untold(&self) -> impl Iterator<Item = &Arc<Answer>> {
        self.items.iter().filter_map(|item| match &item.what {
            What::Prompt { answer, .. } if !item.known && !answer.is_finished() => Some(answer),
            _ => None,
        })
    }

    /// The answers to prompts that a worker was told on this connection and has not finished.
    pub fn under_way(&self) -> impl Iterator<Item = &Arc<Answer>> {
        self.items.iter().filter_map(|item| match &item.what {
            What::Prompt { answer, .. } if item.told && !answer.is_finished() => Some(answer),
            _ => None,
        })
    }

    /// True if an answer is whole and not delivered.
    #[must_use]
    pub fn has_undelivered(&self) -> bool {
        self.items.iter().any(Item::is_finished)
    }

    /// What is not finished, in its order.
    pub fn open(&self) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(|item| !item.is_finished())
    }

    /// Everything that is here, in its order.
    pub fn all(&self) -> impl Iterator<Item = &Item> {
        self.items.iter()
    }

    /// Takes each /stop out that the worker was not told of.
    pub fn take_interrupts(&mut self) -> Vec<Item> {
        self.take_out(|item| matches!(item.what, What::Interrupt))
    }

    /// Takes everything out that is no prompt.
    pub fn take_orders(&mut self) -> Vec<Item> {
        self.take_out(|item| !matches!(item.what, What::Prompt { .. }))
    }

    /// Takes everything out that came from a chat which `stays` refuses.
    pub fn remove_from(&mut self, stays: impl Fn(ChatId) -> bool) -> Vec<Item> {
        self.take_out(|item| !stays(item.chat))
    }

    fn take_out(&mut self, goes: impl Fn(&Item) -> bool) -> Vec<Item> {
        let (out, kept): (VecDeque<Item>, _) =
            std::mem::take(&mut self.items).into_iter().partition(goes);
        self.items = kept;
        out.into()
    }

    /// The chat in which to say that the edit of this message is not seen, the first time that it has
    /// to be said.
    pub fn edited(&mut self, chat: ChatId, message: i32) -> Option<ChatId> {
        let is_it =
            |item: &&mut Item| item.chat == chat && item.message == message && !item.is_finished();
        let What::Prompt { edit_told, .. } = &mut self.items.iter_mut().find(is_it)?.what else {
            return None;
        };
        (!std::mem::replace(edit_told, true)).then_some(chat)
    }
}

impl Item {
    /// What its user wrote.
    #[must_use]
    pub fn text(&self) -> &str {
        match &self.what {
            What::Prompt { text, .. } => text,
            What::NewSession => "/new",
            What::Interrupt => "/stop",
        }
    }

    /// True if a worker may know of it.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.known
    }

    /// True for a prompt whose answer is whole.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        matches!(&self.what, What::Prompt { answer, .. } if answer.is_finished())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: i64) -> PromptId {
        PromptId::try_from(number).unwrap()
    }

    fn chat() -> ChatId {
        ChatId::try_from(7).unwrap()
    }

    fn prompt() -> What {
        What::Prompt {
            text: "do it".to_owned(),
            answer: Arc::default(),
            edit_told: false,
        }
    }

    fn add(agenda: &mut Agenda, number: i64, what: What) {
        agenda.add((id(number), chat(), 1), what, Past::None);
    }

    /// An agenda of these.
    fn agenda(items: Vec<What>) -> Agenda {
        let mut agenda = Agenda::default();
        for (number, what) in (1..).zip(items) {
            add(&mut agenda, number, what);
        }
        agenda
    }

    /// What is told until nothing more is: the ids of prompts, or a word.
    fn told(agenda: &mut Agenda) -> Vec<String> {
        std::iter::from_fn(|| agenda.next(None))
            .map(|(_, request)| match request {
                ToWorker::Prompt(prompt) => prompt.id.to_string(),
                ToWorker::NewSession => "new".to_owned(),
                ToWorker::Interrupt => "stop".to_owned(),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn everything_is_told_once_in_its_order() {
        let mut agenda = agenda(vec![prompt(), prompt(), What::Interrupt, prompt()]);
        assert_eq!(told(&mut agenda), ["1", "2", "stop", "4"]);
        assert!(told(&mut agenda).is_empty());
    }

    #[test]
    fn a_new_connection_is_told_all_that_is_not_finished() {
        let mut agenda = agenda(vec![prompt(), prompt(), prompt()]);
        told(&mut agenda);
        agenda.answer(id(1)).unwrap().finish(None);
        agenda.delivered(id(2));
        agenda.connection_began();
        assert_eq!(told(&mut agenda), ["3"]);
    }

    #[test]
    fn nothing_follows_a_new_session_until_it_has_begun() {
        let mut agenda = agenda(vec![prompt(), What::NewSession, prompt()]);
        assert_eq!(told(&mut agenda), ["1", "new"]);
        agenda.connection_began();
        assert_eq!(told(&mut agenda), ["1", "new"]);
        assert_eq!(agenda.session_began().map(|item| item.id), Some(id(2)));
        assert_eq!(told(&mut agenda), ["3"]);
        agenda.connection_began();
        assert_eq!(told(&mut agenda), ["1", "3"]);
    }

    #[test]
    fn only_prompts_that_no_worker_can_know_are_ended_on_the_spot() {
        let mut agenda = agenda(vec![prompt()]);
        told(&mut agenda);
        add(&mut agenda, 2, prompt());
        agenda.add((id(3), chat(), 1), prompt(), Past::Replayed);
        let untold: Vec<_> = agenda.untold().cloned().collect();
        assert_eq!(untold.len(), 1);
        assert!(Arc::ptr_eq(&untold[0], agenda.answer(id(2)).unwrap()));
    }

    #[test]
    fn after_a_proof_has_ended_what_has_begun_may_go_on_and_nothing_may_begin() {
        let mut agenda = agenda(vec![prompt(), What::NewSession]);
        let taken: Vec<_> = agenda.proof_ended().iter().map(|item| item.id).collect();
        assert_eq!(taken, [id(2)]);
        add(&mut agenda, 3, prompt());
        agenda.add((id(4), chat(), 1), prompt(), Past::Proven);
        let mut only_if_begun = Vec::new();
        while let Some((_, ToWorker::Prompt(prompt))) = agenda.next(None) {
            only_if_begun.push(prompt.only_if_begun);
        }
        assert_eq!(only_if_begun, [true, false, true]);
        assert_eq!(agenda.text(id(3)), Some("do it"));
    }

    #[test]
    fn an_edit_is_remarked_on_once_and_only_while_its_prompt_is_open() {
        let mut agenda = agenda(vec![prompt()]);
        assert_eq!(agenda.edited(chat(), 2), None);
        assert_eq!(agenda.edited(chat(), 1), Some(chat()));
        assert_eq!(agenda.edited(chat(), 1), None);
    }
}
