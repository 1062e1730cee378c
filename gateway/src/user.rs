//! One user's task: takes what the user sends, keeps the connection to their worker while something is
//! to be done, and starts a delivery for each answer. Users never wait for each other.

mod asks;
mod closing;
mod second_factor;

pub use second_factor::delete_code;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use kai_proto::{
    conversation::{Description, Failure, FromWorker, Outcome, ToWorker, TurnEvent},
    gateway_authd::{Standing, Verdict},
    gateway_broker::UserEntry,
    ids::{ChatId, ModelName, PromptId},
};
use teloxide::types::CallbackQueryId;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::AbortHandle,
    time::sleep_until,
};
use tracing::{debug, info};

use crate::{
    agenda::{Agenda, What},
    authd::NoVerdict,
    authorise::may_talk_in,
    broker::AttachError,
    closing::Phase,
    gate::{Arrival, Gate, Presence, Presented},
    link::{Event, Link},
    pass::{Pass, PassView},
    question::Board,
    reply::Means,
    telegram::Posted,
    trouble::{Next, Trouble},
    wording::{self, second_factor as words},
};

/// A connection that lasted this long was a good one, whatever ended it.
const LIVED: Duration = Duration::from_secs(3);
/// How long a worker may take to describe itself.
const DESCRIPTION_PATIENCE: Duration = Duration::from_secs(3);

/// What a user's task is sent.
#[derive(Debug)]
pub enum Mail {
    /// A message.
    Arrived(Arrival),
    /// Something that reads like a code from somebody who is asked for one, written down by its number.
    Code(Presented),
    /// A press of a button.
    Pressed(CallbackQueryId),
    /// Another text for an earlier message.
    Edited(ChatId, i32),
    /// The user's place in a new table.
    Entry(UserEntry),
    /// authd says how the user stands.
    Standing(Standing),
    /// authd judged a code, or nobody knows.
    Verdict(PromptId, Result<Verdict, NoVerdict>),
    /// authd has locked, or could not be told.
    Locked(bool),
    /// A chat shows this version of its question for a code, as it was posted.
    Shown(ChatId, u64, Posted),
    /// Whether parked messages are still there.
    Looked(Vec<(PromptId, Presence)>),
    /// An answer is delivered and written down.
    Delivered(PromptId),
    /// The user is not in the table any more.
    Removed,
}

/// The way to a user's task.
#[derive(Debug)]
pub struct Task {
    /// What it is sent.
    pub mail: mpsc::UnboundedSender<Mail>,
    /// What its gate lets through.
    pub pass: PassView,
}

/// Starts the task of a user who chose `model`.
pub fn start(means: Arc<Means>, entry: UserEntry, model: Option<ModelName>) -> Task {
    let (mail, mailbox) = mpsc::unbounded_channel();
    let (pass, view) = watch::channel(Pass::Shut);
    let user = User {
        link: Link::new(means.broker.clone(), entry.id, view.clone()),
        gate: Gate::new(means.times, entry.second_factor),
        pass,
        boards: HashMap::new(),
        means,
        entry,
        model,
        own_mail: mail.downgrade(),
        agenda: Agenda::default(),
        trouble: Trouble::default(),
        unacknowledged: Vec::new(),
        describing: VecDeque::new(),
        last_delivery: None,
        deliveries: HashMap::new(),
        attached_at: None,
        phase: Phase::Open,
        busy: false,
        told_closing: HashSet::new(),
    };
    tokio::spawn(user.run(mailbox));
    Task { mail, pass: view }
}

struct User {
    means: Arc<Means>,
    entry: UserEntry,
    gate: Gate,
    /// What the gate lets through, for the deliveries, the attaches and the poller.
    pass: watch::Sender<Pass>,
    /// The question for a code in each chat that ever had one.
    boards: HashMap<ChatId, Board>,
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
    /// Resolves when the newest delivery posts nothing more.
    last_delivery: Option<oneshot::Receiver<()>>,
    deliveries: HashMap<PromptId, AbortHandle>,
    /// When the worker said Hello.
    attached_at: Option<Instant>,
    /// How far the gateway's end has come.
    phase: Phase,
    /// True if something is under way that the end waits for.
    busy: bool,
    /// Chats that were told that their messages wait for the gateway's next start.
    told_closing: HashSet<ChatId>,
}

impl User {
    async fn run(mut self, mut mailbox: mpsc::UnboundedReceiver<Mail>) {
        let mut phases = self.means.closing.follow();
        loop {
            self.advance().await;
            self.note_busy();
            let reminder = self.reminder();
            tokio::select! {
                biased;
                mail = mailbox.recv() => match mail {
                    Some(Mail::Removed) | None => break,
                    Some(mail) => self.take(mail).await,
                },
                event = self.link.event() => self.happened(event).await,
                Ok(()) = phases.changed() => {
                    let phase = *phases.borrow_and_update();
                    self.closes(phase).await;
                }
                () = sleep_until(reminder.unwrap_or_else(Instant::now).into()),
                    if reminder.is_some() => self.remind().await,
            }
        }
        self.forget(|_| false).await;
        self.means.closing.set_busy(self.entry.id, false);
        info!(
            user = i64::from(self.entry.id),
            "no longer a user, connection ended"
        );
    }

    /// Tells the worker what it may be told, and wants one if there is something.
    async fn advance(&mut self) {
        if !self.gate.is_open() {
            return;
        }
        if self.link.is_attached() {
            let model = self.model.as_ref().or(self.entry.model.as_ref());
            while self.phase == Phase::Open
                && let Some((id, request)) = self.agenda.next(model)
            {
                let is_stop = request == ToWorker::Interrupt;
                self.link.tell(request).await;
                if is_stop {
                    // What was stopped says so itself.
                    self.means.settle(id);
                }
            }
            if self.phase == Phase::Finishing {
                self.stop_what_finishes().await;
            }
            for id in std::mem::take(&mut self.unacknowledged) {
                self.link.tell(ToWorker::Acknowledge(id)).await;
            }
        } else if self.wants_worker() {
            self.link.want();
        }
    }

    /// True if something may be told to a worker, and is to be.
    fn wants_worker(&self) -> bool {
        self.gate.is_open() && self.phase == Phase::Open && self.agenda.needs_worker()
    }

    async fn take(&mut self, mail: Mail) {
        let now = Self::now();
        let mut effects = Vec::new();
        let out = &mut effects;
        match mail {
            Mail::Arrived(arrival) => self.arrived(arrival, now, out),
            Mail::Code(presented) => self.gate.code(presented, now, out),
            Mail::Pressed(query) => self.gate.pressed(query, now, out),
            Mail::Edited(chat, message) => {
                let went_on = !self.gate.edited(chat, message, out) && self.gate.is_open();
                if went_on && let Some(chat) = self.agenda.edited(chat, message) {
                    self.means.reply(chat, None, wording::EDIT_UNSEEN);
                }
            }
            Mail::Entry(entry) => {
                self.forget(|chat| may_talk_in(&entry, chat)).await;
                let rule = entry.second_factor;
                self.entry = entry;
                self.gate.entry(rule, now, out);
            }
            Mail::Standing(standing) => self.gate.standing(standing, now, out),
            Mail::Verdict(id, verdict) => self.gate.verdict(id, verdict, now, out),
            Mail::Locked(done) => self.gate.locked(done, now, out),
            Mail::Shown(chat, version, posted) => self.gate.shown(chat, version, posted),
            Mail::Looked(seen) => self.gate.looked(&seen, now, out),
            Mail::Delivered(id) => {
                if self.agenda.delivered(id) {
                    self.unacknowledged.push(id);
                }
                self.deliveries.remove(&id);
            }
            Mail::Removed => {}
        }
        self.carry_out(effects).await;
    }

    /// Answers with nothing what came from a chat in which the user may not talk any more.
    async fn forget(&mut self, stays: impl Fn(ChatId) -> bool) {
        let mut effects = Vec::new();
        self.gate.forget(&stays, &mut effects);
        for item in self.agenda.remove_from(stays) {
            if let Some(delivery) = self.deliveries.remove(&item.id) {
                delivery.abort();
            }
            self.means.settle(item.id);
        }
        self.carry_out(effects).await;
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
                if self.wants_worker() {
                    let pause = self.trouble.ended(Instant::now());
                    self.link.want_after(pause);
                }
                // The proof may be what ended; where nothing is under way that can wait.
                if self.agenda.all().next().is_some() {
                    let mut effects = Vec::new();
                    self.gate.recheck(Self::now(), &mut effects);
                    self.carry_out(effects).await;
                }
            }
            Event::Failed(AttachError::Refused(refusal)) if Gate::deals_with(refusal) => {
                if self.link.presented_what_is_held() {
                    info!(user = i64::from(self.entry.id), "not attached: {refusal}");
                    self.trouble.is_over();
                    let mut effects = Vec::new();
                    self.gate.refused(refusal, &mut effects);
                    self.carry_out(effects).await;
                }
                // Otherwise there is another proof by now, or none: not what was refused.
            }
            Event::Failed(error) => {
                match self.trouble.failed(self.entry.id, &error, Instant::now()) {
                    Next::Again(pause) => self.link.want_after(pause),
                    Next::Never(words) => self.give_up(words),
                }
                self.remind().await;
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
                        let words = match (&finished.outcome, self.agenda.text(prompt)) {
                            (Outcome::NotBegun, Some(text)) => Some(words::not_begun(text)),
                            (Outcome::Failed(Failure::NotLoggedIn), _) => {
                                Some(wording::not_logged_in(&self.entry.name))
                            }
                            (outcome, _) => wording::outcome(outcome),
                        };
                        answer.finish(words);
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
            if !self.gate.is_open() {
                return self.means.reply(chat, Some(id), words::SHUT_MEANWHILE);
            }
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let now = now.map_or(0, |since| since.as_secs());
            self.means.reply(
                chat,
                Some(id),
                &wording::status(description, &self.entry.name, now),
            );
        } else if let Some(item) = self.agenda.session_began() {
            self.means
                .reply(item.chat, Some(item.id), wording::NEW_SESSION);
        }
    }

    /// When something has to be done, or somebody told that something takes long.
    fn reminder(&self) -> Option<Instant> {
        let description = self.describing.front().map(|(_, _, until)| *until);
        let gate = self.gate.due(self.is_running());
        [gate, description, self.trouble.reminder()]
            .into_iter()
            .flatten()
            .min()
    }

    /// True while something of the user runs or waits for a worker.
    fn is_running(&self) -> bool {
        self.agenda.open().next().is_some()
    }

    async fn remind(&mut self) {
        let mut effects = Vec::new();
        let running = self.is_running();
        self.gate.tick(running, Self::now(), &mut effects);
        self.carry_out(effects).await;
        let now = Instant::now();
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
