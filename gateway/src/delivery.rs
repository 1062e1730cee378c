//! One answer's way into its chat.
//!
//! The first words are posted at once; from then on the message is edited once a second, and a last
//! time when the answer is whole. What does not fit one message goes on in the next. The delivery ends
//! when Telegram shows all of it and the inbox knows. While its user's gate is shut it rests.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kai_proto::ids::{ChatId, PromptId};
use tokio::{sync::oneshot, time::sleep_until};

use crate::{
    answer::{Answer, Glance},
    inbox::Inbox,
    limiter::Call,
    markdown,
    pass::PassView,
    rendered::Rendered,
    reply,
    split::{self, split},
    telegram::{Telegram, Trouble},
    wording,
};

/// Between two edits while the answer grows.
const STEP: Duration = Duration::from_secs(1);
/// Until the chat is told that something is being written: what answers sooner needs no such sign.
const TYPING_AFTER: Duration = Duration::from_millis(150);
/// How often it is told again; Telegram shows it for five seconds.
const TYPING_EVERY: Duration = Duration::from_millis(4500);

/// Where an answer goes.
#[derive(Debug, Clone)]
pub struct Address {
    /// The prompt that it answers.
    pub prompt: PromptId,
    /// The chat.
    pub chat: ChatId,
    /// The message that it replies to, where that is not obvious.
    pub reply_to: Option<i32>,
}

/// The delivery of one answer.
pub struct Delivery {
    telegram: Arc<Telegram>,
    inbox: Inbox,
    address: Address,
    pass: PassView,
    answer: Arc<Answer>,
    shown: Vec<Shown>,
    /// The version of the answer that was shown last, and how long its text was.
    seen: (u64, usize),
    last: Instant,
    /// Never to be shown: the chat is gone.
    hopeless: bool,
}

/// A message that shows a part of the answer.
struct Shown {
    message: i32,
    /// What it says; none if an earlier run of the gateway wrote it.
    content: Option<Rendered>,
}

impl Delivery {
    /// A delivery that goes on in the messages `parts`, which an earlier run may have begun.
    pub fn new(
        telegram: Arc<Telegram>,
        inbox: Inbox,
        address: Address,
        pass: PassView,
        answer: Arc<Answer>,
        parts: &[i32],
    ) -> Self {
        let shown = parts.iter().map(|message| Shown {
            message: *message,
            content: None,
        });
        Self {
            telegram,
            inbox,
            address,
            pass,
            answer,
            shown: shown.collect(),
            seen: (0, 0),
            last: Instant::now(),
            hopeless: false,
        }
    }

    /// Delivers until all is shown and the inbox knows it. Waits for `before`, the delivery of the
    /// answer before this one, and drops `after` as soon as it posts nothing more.
    pub async fn run(mut self, before: oneshot::Receiver<()>, after: oneshot::Sender<()>) {
        // The other side sends nothing: it is dropped.
        let _ = before.await;
        let mut after = Some(after);
        let mut typing_at = Instant::now() + TYPING_AFTER;
        // The whole answer as messages, once it is whole.
        let mut whole = None;
        loop {
            let glance = self.answer.glance();
            if glance.is_finished {
                let wanted = whole.get_or_insert_with(|| self.wanted());
                if self.hopeless || self.is_shown(wanted) {
                    break;
                }
                if self.shown.len() >= wanted.len() {
                    after = None;
                }
            }
            if !self.pass.borrow_and_update().is_open() {
                tokio::select! {
                    () = self.answer.changed() => continue,
                    changed = self.pass.changed() => match changed {
                        Ok(()) => continue,
                        // Nobody is there any more who could open it.
                        Err(_) => return,
                    }
                }
            }
            let due = self.due(glance);
            tokio::select! {
                () = self.answer.changed() => continue,
                Ok(()) = self.pass.changed() => continue,
                () = at(due) => {}
                () = sleep_until(typing_at.into()), if !glance.is_finished => {
                    typing_at = Instant::now() + TYPING_EVERY;
                    let telegram = Arc::clone(&self.telegram);
                    let chat = self.address.chat;
                    tokio::spawn(async move { telegram.typing(chat).await });
                    continue;
                }
            }
            match &whole {
                Some(wanted) => self.show_next(wanted).await,
                None => {
                    self.seen = (glance.version, glance.length);
                    self.show_next(&self.wanted()).await;
                }
            }
        }
        drop(after);
        reply::answered(&self.inbox, self.address.prompt).await;
    }

    /// When there is something to show, if there is.
    fn due(&self, glance: Glance) -> Option<Instant> {
        let now = Instant::now();
        let chat = self.address.chat;
        // A worker that was attached again repeats the text from its start.
        let is_news = glance.version != self.seen.0 && glance.length > self.seen.1;
        if !glance.is_finished && (glance.is_blank || !is_news || self.hopeless) {
            return None;
        }
        if self.shown.is_empty() {
            return Some(self.telegram.ready_at(chat, Call::Post, now));
        }
        let edit = self.telegram.ready_at(chat, Call::Edit, now);
        Some(if glance.is_finished {
            edit
        } else {
            edit.max(self.last + STEP)
        })
    }

    /// The messages that the answer so far makes.
    fn wanted(&self) -> Vec<Rendered> {
        let (text, end) = self.answer.read();
        let mut whole = markdown::render(&text);
        if let Some(end) = end {
            match end.remark {
                Some(remark) => whole.append(Rendered::plain(&remark)),
                None if whole.is_empty() => whole = Rendered::plain(wording::NO_WORDS),
                None => {}
            }
        }
        split(&whole, split::LONGEST)
    }

    /// True if the chat shows `wanted` and nothing else.
    fn is_shown(&self, wanted: &[Rendered]) -> bool {
        self.shown.len() == wanted.len() && self.first_difference(wanted).is_none()
    }

    fn first_difference(&self, wanted: &[Rendered]) -> Option<usize> {
        let differs = |(shown, wanted): (&Shown, &Rendered)| shown.content.as_ref() != Some(wanted);
        self.shown.iter().zip(wanted).position(differs)
    }

    /// Brings the chat nearer to `wanted`: one edit, and then what is still to be posted.
    async fn show_next(&mut self, wanted: &[Rendered]) {
        let chat = self.address.chat;
        if let Some(index) = self.first_difference(wanted) {
            let message = self.shown[index].message;
            let text = &wanted[index];
            let edited = self.telegram.edit_own(chat, message, text, &self.pass);
            let edited = edited.await;
            if edited == Err(Trouble::Later) {
                return;
            }
            // Who deleted a message does not want to read it: it counts as shown.
            self.shown[index].content = Some(wanted[index].clone());
            self.last = Instant::now();
        }
        while self.shown.len() < wanted.len() && self.first_difference(wanted).is_none() {
            let next = &wanted[self.shown.len()];
            let reply_to = self.address.reply_to.filter(|_| self.shown.is_empty());
            let posted = self.telegram.post_own(chat, next, reply_to, &self.pass);
            match posted.await {
                Ok(message) => self.shown.push(Shown {
                    message,
                    content: Some(next.clone()),
                }),
                Err(Trouble::Later) => return,
                Err(Trouble::Never) => {
                    self.hopeless = true;
                    return;
                }
            }
            self.last = Instant::now();
            let messages = self.shown.iter().map(|shown| shown.message).collect();
            self.inbox.parts(self.address.prompt, messages);
        }
        if self.shown.len() > wanted.len() && self.answer.is_finished() {
            for surplus in self.shown.drain(wanted.len()..) {
                // What cannot be removed stays: the answer is complete without it.
                let _ = self.telegram.delete(chat, surplus.message).await;
            }
        }
    }
}

/// Sleeps until `due`, for ever if it is none.
async fn at(due: Option<Instant>) {
    match due {
        // A timer has a grain of a millisecond; what is due now does not wait for it.
        Some(due) if due <= Instant::now() => {}
        Some(due) => sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
