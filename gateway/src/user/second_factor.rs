//! What a user's task does for its gate.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
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
    agenda::{Past, What},
    gate::{Effect, Now, Presence, Sought},
    question::Board,
    quote,
    reply::{self, Means},
    telegram::{Sight, Telegram, Trouble},
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
                Effect::AskStanding { grant, renew } => {
                    let then = self.mailing(Mail::Standing);
                    let user = self.known_as();
                    self.means.authd.standing(user, grant, renew, then);
                }
                Effect::Verify(id, code) => {
                    let then = self.mailing(move |verdict| Mail::Verdict(id, verdict));
                    self.means.authd.verify(self.known_as(), code, then);
                }
                Effect::Lock => {
                    let then = self.mailing(Mail::Locked);
                    self.means.authd.lock(self.known_as(), then);
                }
                Effect::Admit {
                    arrival,
                    mark,
                    resume,
                } => {
                    if mark {
                        self.means.inbox.cleared(arrival.id());
                    }
                    let past = match arrival.replayed {
                        _ if resume => Past::Proven,
                        true => Past::Replayed,
                        false => Past::None,
                    };
                    self.admitted(arrival.message, past).await;
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
                Effect::DeleteCode { id, chat, message } => {
                    delete_code(&self.means, id, chat, message);
                }
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
                    for item in self.agenda.proof_ended() {
                        let words = words::not_begun(item.text());
                        self.means.reply(item.chat, Some(item.id), &words);
                    }
                    let at_work = self
                        .agenda
                        .all()
                        .map(|item| (item.chat, quote::beginning(item.text(), words::BEGINNING)));
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
            Board::start(Arc::clone(telegram), chat, move |version, posted| {
                if let Some(mailbox) = mailbox.upgrade() {
                    let _ = mailbox.send(Mail::Shown(chat, version, posted));
                }
            })
        })
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

/// Removes a code from its chat, or tells its sender to. Until then the inbox knows where it stands.
pub fn delete_code(means: &Arc<Means>, id: PromptId, chat: ChatId, message: i32) {
    let means = Arc::clone(means);
    tokio::spawn(async move {
        if means.telegram.erase(chat, message).await {
            reply::answered(&means.inbox, id).await;
        } else {
            means.reply(chat, Some(id), words::DELETE_YOURSELF);
        }
    });
}

/// Sees whether messages, and the questions that quoted them, still stand, and says in their chats of
/// those that do that they run now: below the code, where somebody who took the question away from its
/// reader's eyes alone, which no bot is told, cannot have been yet.
async fn look(
    telegram: &Telegram,
    messages: Vec<Sought>,
    questions: Vec<(ChatId, oneshot::Receiver<bool>)>,
) -> Vec<(PromptId, Presence)> {
    let until = tokio::time::Instant::now() + LOOK;
    let stood = join_all(questions.into_iter().map(async |(chat, stood)| {
        let stood = timeout_at(until, stood).await;
        (chat, stood.ok().and_then(Result::ok))
    }));
    let seen = join_all(messages.iter().map(async |sought| {
        let seen = timeout_at(until, sight(telegram, sought.chat, sought.message)).await;
        seen.unwrap_or(Presence::Unknown)
    }));
    let (stood, seen) = tokio::join!(stood, seen);
    let stood: HashMap<ChatId, Option<bool>> = stood.into_iter().collect();
    let seen = messages.into_iter().zip(seen).map(|(sought, seen)| {
        let presence = match stood.get(&sought.chat).copied().flatten() {
            Some(true) => seen,
            Some(false) => Presence::Unquoted,
            None => Presence::Unknown,
        };
        (sought, presence)
    });
    announced(telegram, seen.collect()).await
}

/// Says what runs now; what could not be said of does not.
async fn announced(
    telegram: &Telegram,
    seen: Vec<(Sought, Presence)>,
) -> Vec<(PromptId, Presence)> {
    let until = tokio::time::Instant::now() + LOOK;
    let mut run: BTreeMap<ChatId, Vec<&str>> = BTreeMap::new();
    for (sought, presence) in &seen {
        if *presence == Presence::There {
            run.entry(sought.chat).or_default().push(&sought.quote);
        }
    }
    let said = join_all(run.into_iter().map(async |(chat, quotes)| {
        let text = words::runs_now(&quotes);
        let post = async {
            loop {
                match telegram.post(chat, &text, None).await {
                    Err(Trouble::Later) => {}
                    said => return said.is_ok(),
                }
            }
        };
        let said = timeout_at(until, post).await;
        said.unwrap_or(false).then_some(chat)
    }));
    let said: Vec<ChatId> = said.await.into_iter().flatten().collect();
    let judge = |(sought, presence): (Sought, Presence)| match presence {
        Presence::There if !said.contains(&sought.chat) => (sought.id, Presence::Unknown),
        presence => (sought.id, presence),
    };
    seen.into_iter().map(judge).collect()
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
