//! What a user's task does for its gate.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_util::future::join_all;
use kai_proto::{
    conversation::ToWorker,
    gateway_authd,
    ids::{ChatId, PromptId},
};
use tokio::{
    sync::oneshot,
    time::{sleep, timeout_at},
};

use super::{Mail, User};
use crate::{
    agenda::What,
    gate::{Effect, Now, Presence},
    question::Board,
    quote,
    telegram::{Sight, Telegram},
    wording::second_factor as words,
};

/// How long it may take to see whether messages are still there; what is not seen by then does not run.
const LOOK: Duration = Duration::from_secs(10);
/// Between two looks at one message.
const LOOK_AGAIN: Duration = Duration::from_millis(700);

impl User {
    pub(super) fn now() -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        Now {
            at: Instant::now(),
            unix: unix.map_or(0, |since| since.as_secs()),
        }
    }

    /// Does what the gate wants, which everybody who follows it has heard of before.
    pub(super) async fn carry_out(&mut self, effects: Vec<Effect>) {
        let pass = self.gate.pass();
        self.pass.send_if_modified(|published| {
            let is_news = *published != pass;
            *published = pass;
            is_news
        });
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::AskStanding(grant) => {
                    let then = self.mailing(Mail::Standing);
                    self.means.authd.standing(self.known_as(), grant, then);
                }
                Effect::Verify(id, code) => {
                    let then = self.mailing(move |verdict| Mail::Verdict(id, verdict));
                    self.means.authd.verify(self.known_as(), code, then);
                }
                Effect::Lock => {
                    let then = self.mailing(Mail::Locked);
                    self.means.authd.lock(self.known_as(), then);
                }
                Effect::Admit { arrival, mark } => {
                    if mark {
                        self.means.inbox.cleared(arrival.id());
                    }
                    self.admitted(arrival.message, arrival.replayed).await;
                }
                Effect::Settle(id) => self.means.settle(id),
                Effect::Say {
                    chat,
                    answers,
                    words,
                } => self.means.reply(chat, answers, &words),
                Effect::AnswerButton { query, words } => {
                    let telegram = Arc::clone(&self.means.telegram);
                    tokio::spawn(async move { telegram.answer_button(query, words).await });
                }
                Effect::DeleteCode { chat, message } => self.delete_code(chat, message),
                Effect::Ask {
                    chat,
                    version,
                    text,
                    anew,
                } => self.board(chat).show(version, text, anew),
                Effect::Close { chat, text } => drop(self.board(chat).close(text)),
                Effect::Look {
                    messages,
                    questions,
                } => {
                    let questions = questions
                        .into_iter()
                        .map(|(chat, text)| (chat, self.board(chat).close(text)))
                        .collect();
                    let telegram = Arc::clone(&self.means.telegram);
                    let then = self.mailing(Mail::Looked);
                    tokio::spawn(async move { then(look(&telegram, messages, questions).await) });
                }
                Effect::Interrupt => self.interrupt_all().await,
                Effect::Shut => {
                    self.link.rest();
                    let at_work = self.agenda.all().map(|item| {
                        let text = match &item.what {
                            What::Prompt { text, .. } => text.as_str(),
                            What::NewSession => "/new",
                            What::Interrupt => "/stop",
                        };
                        (item.chat, quote::beginning(text, words::BEGINNING))
                    });
                    let mut more = Vec::new();
                    self.gate.hold(at_work.collect(), &mut more);
                    effects.extend(more);
                }
            }
        }
    }

    /// The user as authd knows them.
    fn known_as(&self) -> gateway_authd::User {
        gateway_authd::User {
            name: self.entry.name.clone(),
            id: self.entry.id,
        }
    }

    /// Sends this task what comes, if it still lives then.
    fn mailing<T, M>(&self, mail: M) -> impl FnOnce(T) + Send + use<T, M>
    where
        M: FnOnce(T) -> Mail + Send,
    {
        let mailbox = self.own_mail.clone();
        move |content| {
            if let Some(mailbox) = mailbox.upgrade() {
                let _ = mailbox.send(mail(content));
            }
        }
    }

    fn board(&mut self, chat: ChatId) -> &Board {
        let (telegram, mailbox) = (&self.means.telegram, &self.own_mail);
        self.boards.entry(chat).or_insert_with(|| {
            let mailbox = mailbox.clone();
            Board::start(Arc::clone(telegram), chat, move |version, message| {
                if let Some(mailbox) = mailbox.upgrade() {
                    let _ = mailbox.send(Mail::Shown(chat, version, message));
                }
            })
        })
    }

    fn delete_code(&self, chat: ChatId, message: i32) {
        let means = Arc::clone(&self.means);
        tokio::spawn(async move {
            if !means.telegram.erase(chat, message).await {
                means.reply(chat, None, words::DELETE_YOURSELF);
            }
        });
    }

    /// Ends what runs and forgets what waits for a worker. The broker does the same to the worker as
    /// soon as authd has locked, whatever the worker makes of this.
    async fn interrupt_all(&mut self) {
        self.link.tell(ToWorker::Interrupt).await;
        self.link.break_off();
        for (id, _, _) in self.describing.drain(..) {
            self.means.settle(id);
        }
        for item in self.agenda.remove_from(|_| false) {
            if let Some(delivery) = self.deliveries.remove(&item.id) {
                delivery.abort();
            }
            self.means.settle(item.id);
            if item.is_known() && matches!(item.what, What::Prompt { .. }) {
                self.unacknowledged.push(item.id);
            }
        }
    }
}

/// Sees whether messages, and the questions that quoted them, still stand.
async fn look(
    telegram: &Telegram,
    messages: Vec<(PromptId, ChatId, i32)>,
    questions: Vec<(ChatId, oneshot::Receiver<bool>)>,
) -> Vec<(PromptId, Presence)> {
    let until = tokio::time::Instant::now() + LOOK;
    let stood = join_all(questions.into_iter().map(async |(chat, stood)| {
        let stood = timeout_at(until, stood).await;
        (chat, stood.ok().and_then(Result::ok))
    }));
    let seen = join_all(messages.iter().map(async |(_, chat, message)| {
        let seen = timeout_at(until, sight(telegram, *chat, *message)).await;
        seen.unwrap_or(Presence::Unknown)
    }));
    let (stood, seen) = tokio::join!(stood, seen);
    let stood: HashMap<ChatId, Option<bool>> = stood.into_iter().collect();
    messages
        .iter()
        .zip(seen)
        .map(|((id, chat, _), seen)| {
            let presence = match stood.get(chat).copied().flatten() {
                Some(true) => seen,
                Some(false) => Presence::Unquoted,
                None => Presence::Unknown,
            };
            (*id, presence)
        })
        .collect()
}

async fn sight(telegram: &Telegram, chat: ChatId, message: i32) -> Presence {
    loop {
        match telegram.mark(chat, message).await {
            Sight::There => return Presence::There,
            Sight::Gone => return Presence::Deleted,
            Sight::Unclear => sleep(LOOK_AGAIN).await,
        }
    }
}
