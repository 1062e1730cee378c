//! One user's task: takes what the user sends, keeps the connection to their worker while something is
//! to be done, and starts a delivery for each answer. Users never wait for each other.

mod asks;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use kai_proto::{
    conversation::{Description, Failure, FromWorker, Outcome, ToWorker, TurnEvent},
    gateway_authd::Standing,
    gateway_broker::UserEntry,
    ids::{ChatId, ModelName, PromptId},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::AbortHandle,
    time::sleep_until,
};
use tracing::{debug, info};

use crate::{
    agenda::{Agenda, What},
    authorise::may_talk_in,
    inbox::Unanswered,
    link::{Event, Link},
    reply::Means,
    trouble::{Next, Trouble},
    wording,
};

/// How long authd may take before the user is told that it takes long.
const AUTHD_PATIENCE: Duration = Duration::from_secs(2);
/// A connection that lasted this long was a good one, whatever ended it.
const LIVED: Duration = Duration::from_secs(3);
/// How long a worker may take to describe itself.
const DESCRIPTION_PATIENCE: Duration = Duration::from_secs(3);

/// What a user's task is sent.
#[derive(Debug)]
pub enum Mail {
    /// A message; `replayed` if an earlier run of the gateway took it.
    Arrived {
        /// The message, and where its answer has begun.
        message: Unanswered,
        /// True if a worker may know of it.
        replayed: bool,
    },
    /// Another text for an earlier message.
    Edited(ChatId, i32),
    /// The user's place in a new table.
    Entry(UserEntry),
    /// authd's answer about one message.
    Standing(PromptId, Standing),
    /// An answer is delivered and written down.
    Delivered(PromptId),
    /// The user is not in the table any more.
    Removed,
}

/// Starts the task of a user who chose `model`.
pub fn start(
    means: Arc<Means>,
    entry: UserEntry,
    model: Option<ModelName>,
) -> mpsc::UnboundedSender<Mail> {
    let (mail, mailbox) = mpsc::unbounded_channel();
    let user = User {
        link: Link::new(means.broker.clone(), entry.id),
        means,
        entry,
        model,
        own_mail: mail.downgrade(),
        agenda: Agenda::default(),
        trouble: Trouble::default(),
        unacknowledged: Vec::new(),
        describing: VecDeque::new(),
        authd_told: false,
        last_delivery: None,
        deliveries: HashMap::new(),
        attached_at: None,
    };
    tokio::spawn(user.run(mailbox));
    mail
}

struct User {
    means: Arc<Means>,
    entry: UserEntry,
    /// The model that the user chose.
    model: Option<ModelName>,
    own_mail: mpsc::WeakUnboundedSender<Mail>,
    agenda: Agenda,
    link: Link,
    trouble: Trouble,
    /// Delivered prompts that the worker was not told of yet.
    unacknowledged: Vec<PromptId>,
    /// Each /status that waits for the worker, and until when.
    describing: VecDeque<(PromptId, ChatId, Instant)>,
    authd_told: bool,
    /// Resolves when the newest delivery posts nothing more.
    last_delivery: Option<oneshot::Receiver<()>>,
    deliveries: HashMap<PromptId, AbortHandle>,
    /// When the worker said Hello.
    attached_at: Option<Instant>,
}

impl User {
    async fn run(mut self, mut mailbox: mpsc::UnboundedReceiver<Mail>) {
        loop {
            self.advance().await;
            let reminder = self.reminder();
            tokio::select! {
                biased;
                mail = mailbox.recv() => match mail {
                    Some(Mail::Removed) | None => break,
                    Some(mail) => self.take(mail).await,
                },
                event = self.link.event() => self.happened(event).await,
                () = sleep_until(reminder.unwrap_or_else(Instant::now).into()),
                    if reminder.is_some() => self.remind(),
            }
        }
        self.forget(|_| false);
        info!(
            user = i64::from(self.entry.id),
            "no longer a user, connection ended"
        );
    }

    /// Tells the worker what it may be told, and wants one if there is something.
    async fn advance(&mut self) {
        if self.link.is_attached() {
            let model = self.model.as_ref().or(self.entry.model.as_ref());
            while let Some((id, request)) = self.agenda.next(model) {
                let is_stop = request == ToWorker::Interrupt;
                self.link.tell(request).await;
                if is_stop {
                    // What was stopped says so itself.
                    self.means.settle(id);
                }
            }
            for id in std::mem::take(&mut self.unacknowledged) {
                self.link.tell(ToWorker::Acknowledge(id)).await;
            }
        } else if self.agenda.needs_worker() {
            self.link.want();
        }
    }

    async fn take(&mut self, mail: Mail) {
        match mail {
            Mail::Arrived { message, replayed } => self.arrived(message, replayed).await,
            Mail::Edited(chat, message) => {
                if let Some(chat) = self.agenda.edited(chat, message) {
                    self.means.reply(chat, None, wording::EDIT_UNSEEN);
                }
            }
            Mail::Entry(entry) => {
                self.forget(|chat| may_talk_in(&entry, chat));
                self.entry = entry;
            }
            Mail::Standing(_, standing) if standing != Standing::NotEnrolled => {}
            Mail::Standing(id, _) => {
                self.authd_told = false;
                self.agenda.clear(id);
            }
            Mail::Delivered(id) => {
                if self.agenda.delivered(id) {
                    self.unacknowledged.push(id);
                }
                self.deliveries.remove(&id);
            }
            Mail::Removed => {}
        }
    }

    /// Answers with nothing what came from a chat in which the user may not talk any more.
    fn forget(&mut self, stays: impl Fn(ChatId) -> bool) {
        for item in self.agenda.remove_from(stays) {
            if let Some(delivery) = self.deliveries.remove(&item.id) {
                delivery.abort();
            }
            self.means.settle(item.id);
        }
    }

    async fn happened(&mut self, event: Event) {
        match event {
            Event::Attached => {
                debug!(user = i64::from(self.entry.id), "attached");
                self.attached_at = Some(Instant::now());
                self.agenda.connection_began();
            }
            Event::Said(said) => self.said(said),
            Event::Ended => {
                debug!(user = i64::from(self.entry.id), "the connection ended");
                for (id, chat, _) in self.describing.drain(..) {
                    let text = wording::no_agent(self.agenda.open().count());
                    self.means.reply(chat, Some(id), &text);
                }
                let lived = self.attached_at.take().map(|since| since.elapsed());
                if lived.is_some_and(|lived| lived > LIVED) {
                    self.trouble.is_over();
                }
                if self.agenda.needs_worker() {
                    let pause = self.trouble.ended(Instant::now());
                    self.link.want_after(pause);
                }
            }
            Event::Failed(error) => {
                match self.trouble.failed(self.entry.id, &error, Instant::now()) {
                    Next::Again(pause) => self.link.want_after(pause),
                    Next::Never(words) => self.give_up(words),
                }
                self.remind();
            }
        }
    }

    /// Answers everything that waits for a worker with the reason why there is none.
    fn give_up(&mut self, words: &str) {
        self.trouble.is_over();
        for item in self.agenda.take_orders() {
            self.means.reply(item.chat, Some(item.id), words);
        }
        for item in self.agenda.open() {
            if let What::Prompt { answer, .. } = &item.what {
                answer.finish(Some(words.to_owned()));
            }
        }
    }

    fn said(&mut self, said: FromWorker) {
        match said {
            FromWorker::Turn { prompt, event } => {
                let Some(answer) = self.agenda.answer(prompt) else {
                    return;
                };
                match event {
                    TurnEvent::Accepted => answer.restart(),
                    TurnEvent::Text(piece) => answer.push(&piece),
                    TurnEvent::Finished(finished) => {
                        if finished.outcome == Outcome::Failed(Failure::WorkerEnded) {
                            info!(user = i64::from(self.entry.id), "a turn was cut off");
                        }
                        answer.finish(wording::outcome(&finished.outcome));
                        self.trouble.is_over();
                    }
                    TurnEvent::Started | TurnEvent::Tool(_) | TurnEvent::Retrying { .. } => {}
                }
            }
            FromWorker::Description(description) => {
                self.trouble.is_over();
                self.described(&description);
            }
            // Neither has a place here.
            FromWorker::Hello(_) | FromWorker::Refused(_) => self.link.break_off(),
        }
    }

    /// The worker answers in the order in which it was asked, except that a new session may take a
    /// while: then a /status is answered a little early, which does no harm.
    fn described(&mut self, description: &Description) {
        if let Some((id, chat, _)) = self.describing.pop_front() {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let now = now.map_or(0, |since| since.as_secs());
            self.means
                .reply(chat, Some(id), &wording::status(description, now));
        } else if let Some(item) = self.agenda.session_began() {
            self.means
                .reply(item.chat, Some(item.id), wording::NEW_SESSION);
        }
    }

    /// When somebody may have to be told that something takes long.
    fn reminder(&self) -> Option<Instant> {
        let uncleared = self
            .agenda
            .uncleared()
            .map(|item| item.since + AUTHD_PATIENCE);
        let authd = uncleared.min().filter(|_| !self.authd_told);
        let description = self.describing.front().map(|(_, _, until)| *until);
        [authd, description, self.trouble.reminder()]
            .into_iter()
            .flatten()
            .min()
    }

    fn remind(&mut self) {
        let now = Instant::now();
        let late = |since: Instant| since + AUTHD_PATIENCE <= now;
        let waiting = self.agenda.uncleared().find(|item| late(item.since));
        if let Some(item) = waiting.filter(|_| !self.authd_told) {
            self.means.reply(item.chat, None, wording::AUTHD_AWAY);
            self.authd_told = true;
        }
        if let Some(words) = self.trouble.words(now)
            && let Some(item) = self.agenda.open().next()
        {
            self.means.reply(item.chat, None, words);
        }
        while let Some((id, chat, until)) = self.describing.front().copied()
            && until <= now
        {
            self.describing.pop_front();
            self.means.reply(chat, Some(id), wording::NO_DESCRIPTION);
        }
    }
}
