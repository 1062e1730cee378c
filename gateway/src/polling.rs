//! Receiving: polls Telegram, hands each update on at once, and has Telegram forget a batch only when
//! the inbox has it.
//!
//! What reads like a code is the exception: authd says first whether its user is asked for one. Then only
//! its number is written down, and only when that is on disk is it handed on, so that a code is asked
//! about at most once whatever happens and whoever repeats the update.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use kai_proto::{
    code::Code,
    gateway_authd::{self, Standing},
    grant::Grant,
    ids::{ChatId, ModelName, PromptId, TelegramId, UnixSeconds},
};
use teloxide::types::{MediaKind, Message, MessageKind, Update, UpdateKind};
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};
use zeroize::Zeroize;

use crate::{
    authorise::{Roll, Verdict, What, authorise, may_talk_in},
    gate::{Arrival, Presented, Reading},
    inbox::{CodePlace, Received, Saved, Unanswered},
    limiter::Bucket,
    reply::Means,
    roll::Stranger,
    telegram::{self, PollError},
    user::{self, Mail, Task},
    wording::{self, second_factor as words},
};

/// How many of the newest updates are recognised when they come again.
const RECALLED: usize = 10_000;
/// The shortest and the longest wait after a poll that failed.
const WAITS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// Between two tries to write a batch down.
const WRITE_AGAIN: Duration = Duration::from_secs(1);

type Batch = Pin<Box<dyn Future<Output = Vec<Update>> + Send>>;

/// Polls for ever: from the moment when the first table of users is there, because before it everybody
/// would be a stranger.
pub async fn run(
    means: Arc<Means>,
    saved: Saved,
    mut rolls: watch::Receiver<Option<Arc<Roll>>>,
    strangers: mpsc::Sender<Stranger>,
) {
    let mut desk = Desk {
        means: Arc::clone(&means),
        roll: Arc::default(),
        users: HashMap::new(),
        models: saved.models,
        recent: Recent::new(saved.taken),
        strangers,
        stranger_pace: Bucket::new(20, Duration::from_millis(50)),
    };
    let mut replay = Some((saved.unanswered, saved.codes));
    let mut batch: Option<Batch> = None;
    loop {
        tokio::select! {
            changed = rolls.changed() => {
                if changed.is_err() {
                    return;
                }
                let Some(roll) = rolls.borrow_and_update().clone() else {
                    continue;
                };
                desk.apply(roll);
                if let Some((unanswered, codes)) = replay.take() {
                    desk.replay(unanswered);
                    desk.remove(codes);
                    let nothing = Taken::default();
                    batch = Some(Box::pin(next_batch(Arc::clone(&means), nothing, None)));
                }
            }
            updates = received(&mut batch) => {
                let newest = updates.iter().map(|update| update.id).max();
                let mut taken = Taken::default();
                for mut update in updates {
                    desk.take(&update, &mut taken).await;
                    wipe_code(&mut update);
                }
                let offset = newest.map(|id| id.as_offset());
                batch = Some(Box::pin(next_batch(Arc::clone(&means), taken, offset)));
            }
        }
    }
}

async fn received(batch: &mut Option<Batch>) -> Vec<Update> {
    match batch {
        Some(batch) => batch.await,
        None => std::future::pending().await,
    }
}

/// What is to be written down of a batch.
#[derive(Default)]
struct Taken {
    rows: Vec<Received>,
    /// What reads like a code.
    places: Vec<CodePlace>,
    /// Codes among these, and whose task gets them.
    codes: Vec<(mpsc::UnboundedSender<Mail>, Presented)>,
}

/// Writes the last batch down, and then waits for the next.
async fn next_batch(means: Arc<Means>, taken: Taken, offset: Option<i32>) -> Vec<Update> {
    let Taken {
        rows,
        places,
        codes,
    } = taken;
    if !rows.is_empty() || !places.is_empty() {
        let mut told: HashSet<ChatId> = HashSet::new();
        while means
            .inbox
            .taken(rows.clone(), places.clone())
            .await
            .is_err()
        {
            let places = places.iter().map(|place| place.chat);
            for chat in rows.iter().map(|row| row.chat).chain(places) {
                if told.insert(chat) {
                    means.reply(chat, None, wording::NOT_STORED);
                }
            }
            tokio::time::sleep(WRITE_AGAIN).await;
        }
    }
    for (task, code) in codes {
        let (id, chat, message) = (code.id, code.chat, code.message);
        if task.send(Mail::Code(code)).is_err() {
            // Its user is gone from the table.
            user::delete_code(&means, id, chat, message);
        }
    }
    let mut wait = WAITS.0;
    let mut said = None;
    loop {
        let error = match means.telegram.updates(offset).await {
            Ok(updates) => {
                if said.is_some() {
                    info!("Telegram answers again");
                }
                return updates;
            }
            Err(error) => error,
        };
        if said != Some(error) {
            said = Some(error);
            match error {
                PollError::Conflict | PollError::Token => error!("no messages arrive: {error}"),
                PollError::Wait(_) | PollError::Network => {
                    warn!("no messages arrive, trying again: {error}");
                }
            }
        }
        tokio::time::sleep(match error {
            PollError::Wait(asked) => asked,
            PollError::Conflict | PollError::Token => wait.max(Duration::from_secs(3)),
            PollError::Network => wait,
        })
        .await;
        wait = (wait * 2).min(WAITS.1);
    }
}

/// Hands updates to the tasks of their users.
struct Desk {
    means: Arc<Means>,
    roll: Arc<Roll>,
    users: HashMap<TelegramId, Task>,
    models: HashMap<TelegramId, ModelName>,
    recent: Recent,
    strangers: mpsc::Sender<Stranger>,
    stranger_pace: Bucket,
}

impl Desk {
    /// Takes a new table: who is gone is gone at once, with all that was waiting.
    fn apply(&mut self, roll: Arc<Roll>) {
        self.users.retain(|id, task| match roll.get(id) {
            None => {
                let _ = task.mail.send(Mail::Removed);
                false
            }
            Some(entry) => {
                if self.roll.get(id) != Some(entry) {
                    let _ = task.mail.send(Mail::Entry(entry.clone()));
                }
                true
            }
        });
        self.roll = roll;
    }

    /// Hands on what an earlier run of the gateway took and did not answer.
    fn replay(&mut self, unanswered: Vec<Unanswered>) {
        if !unanswered.is_empty() {
            info!(
                messages = unanswered.len(),
                "going on with what was not answered"
            );
        }
        for message in unanswered {
            let (user, chat) = (message.received.user, message.received.chat);
            if !self
                .roll
                .get(&user)
                .is_some_and(|entry| may_talk_in(entry, chat))
            {
                self.means.settle(message.received.id);
                continue;
            }
            let text = message.received.text.as_deref();
            let arrival = Arrival {
                like_a_code: text.is_some_and(|text| Code::parse(text).is_some()),
                message,
                replayed: true,
                // Whatever stood in one is asked about in the chat itself.
                in_topic: false,
            };
            self.send(user, Mail::Arrived(arrival));
        }
    }

    /// Removes from their chats what an earlier run had written down of codes, and says that it may not
    /// have got as far as to their answers.
    fn remove(&self, codes: Vec<CodePlace>) {
        let mut told: HashSet<ChatId> = HashSet::new();
        for place in codes {
            let entry = self.roll.get(&place.user);
            let may_read = entry.is_some_and(|entry| may_talk_in(entry, place.chat));
            if may_read && told.insert(place.chat) {
                self.means.reply(place.chat, None, words::RESTARTED);
            }
            user::delete_code(&self.means, place.id, place.chat, place.message);
        }
    }

    /// Hands one update on, and notes what has to be written down of it.
    async fn take(&mut self, update: &Update, taken: &mut Taken) {
        let roll = Arc::clone(&self.roll);
        match authorise(&roll, update) {
            Verdict::Allowed { user, chat, what } => match what {
                What::Message(message) => {
                    let Ok(id) = PromptId::try_from(i64::from(update.id.0)) else {
                        return;
                    };
                    if !self.recent.is_new(id) {
                        return;
                    }
                    self.take_message(id, (user, chat), message, taken).await;
                }
                What::Edit(message) => self.send(user, Mail::Edited(chat, message.id.0)),
                What::Button(query) => self.send(user, Mail::Pressed(query.id.clone())),
            },
            Verdict::Stranger(id) => {
                let now_here = Instant::now();
                if self.stranger_pace.ready_at(now_here) <= now_here {
                    self.stranger_pace.take(now_here);
                    let _ = self.strangers.try_send((id, now()));
                }
            }
            Verdict::Drop => {}
        }
    }

    async fn take_message(
        &mut self,
        id: PromptId,
        (user, chat): (TelegramId, ChatId),
        sent: &Message,
        taken: &mut Taken,
    ) {
        let (message, in_topic) = (sent.id.0, sent.is_topic_message);
        let code = sent.text().and_then(Code::parse);
        let read = match &code {
            Some(code) => self.read(user, code).await,
            None => Read::Message,
        };
        let place = CodePlace {
            id,
            user,
            chat,
            message,
        };
        let received = Received {
            id,
            user,
            chat,
            message,
            text: sent.text().map(str::to_owned),
            at: now(),
        };
        match (read, code) {
            (Read::Code(reading, asked_with), Some(code)) => {
                let presented = Presented {
                    id,
                    chat,
                    message,
                    in_topic,
                    sent: telegram::sent(sent),
                    code,
                    reading,
                    asked_with,
                };
                taken.places.push(place);
                let task = self.task(user).map(|task| task.mail.clone());
                taken.codes.extend(task.map(|task| (task, presented)));
            }
            (read, code) => {
                match read {
                    // The proof may end before it can go on, and then it may be a code that counts.
                    Read::Guarded => taken.places.push(place),
                    _ => taken.rows.push(received.clone()),
                }
                let arrival = Arrival {
                    message: Unanswered {
                        received,
                        parts: Vec::new(),
                        cleared: false,
                    },
                    replayed: false,
                    like_a_code: code.is_some(),
                    in_topic,
                };
                self.send(user, Mail::Arrived(arrival));
            }
        }
    }

    /// How to read what looks like a code of this user's. Takes no longer than authd may take for an
    /// answer, and no time while it is away.
    async fn read(&mut self, user: TelegramId, code: &Code) -> Read {
        let (Some(entry), Some(task)) = (self.roll.get(&user).cloned(), self.task(user)) else {
            return Read::Message;
        };
        let grant = task.pass.borrow().grant();
        let is_held = grant.is_some();
        let name = entry.name;
        let asked = gateway_authd::User { name, id: user };
        let standing = self.means.authd.standing_now(asked, grant.clone()).await;
        let reading = match standing {
            Some(Standing::NotEnrolled) => return Read::Message,
            Some(Standing::Proven { .. }) if is_held => match code {
                Code::Totp(_) => return Read::Guarded,
                Code::Recovery(_) => Reading::Proven,
            },
            Some(Standing::Proven { .. } | Standing::CodeNeeded) => Reading::Wanted,
            Some(Standing::Locked { until }) => Reading::Locked(until),
            Some(Standing::Changed) => Reading::Changed,
            Some(Standing::Unavailable) | None => Reading::Unknown,
        };
        Read::Code(reading, grant)
    }

    fn send(&mut self, user: TelegramId, mail: Mail) {
        if let Some(task) = self.task(user) {
            let _ = task.mail.send(mail);
        }
    }

    /// The task of a user, started if there is none.
    fn task(&mut self, user: TelegramId) -> Option<&Task> {
        let entry = self.roll.get(&user)?;
        Some(self.users.entry(user).or_insert_with(|| {
            let model = self.models.remove(&user);
            user::start(Arc::clone(&self.means), entry.clone(), model)
        }))
    }
}

/// How to read what looks like a code.
enum Read {
    /// As one. What authd said, and of which grant.
    Code(Reading, Option<Grant>),
    /// As a message like any other.
    Message,
    /// The same, from somebody who has proved a second factor: it is not written down.
    Guarded,
}

/// Wipes a text that reads like a code from the update that brought it.
fn wipe_code(update: &mut Update) {
    let (UpdateKind::Message(message) | UpdateKind::EditedMessage(message)) = &mut update.kind
    else {
        return;
    };
    if let MessageKind::Common(common) = &mut message.kind
        && let MediaKind::Text(media) = &mut common.media_kind
        && Code::parse(&media.text).is_some()
    {
        media.text.zeroize();
    }
}

/// The newest updates that were taken, so that one that comes again is recognised: Telegram repeats
/// what it was not told to forget, and numbers say nothing about the order.
struct Recent {
    known: HashSet<PromptId>,
    order: VecDeque<PromptId>,
}

impl Recent {
    /// From the newest on.
    fn new(taken: Vec<PromptId>) -> Self {
        let order: VecDeque<_> = taken.into_iter().take(RECALLED).rev().collect();
        Self {
            known: order.iter().copied().collect(),
            order,
        }
    }

    /// True the first time.
    fn is_new(&mut self, id: PromptId) -> bool {
        if !self.known.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > RECALLED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

fn now() -> UnixSeconds {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: i64) -> PromptId {
        PromptId::try_from(number).unwrap()
    }

    #[test]
    fn an_update_is_new_once_whatever_the_order_of_the_numbers() {
        let mut recent = Recent::new(vec![id(5)]);
        assert!(!recent.is_new(id(5)));
        assert!(recent.is_new(id(9)));
        assert!(recent.is_new(id(8)));
        assert!(!recent.is_new(id(9)));
    }

    #[test]
    fn no_more_is_recalled_than_the_bound() {
        let mut recent = Recent::new(Vec::new());
        for number in 0..=RECALLED as i64 {
            recent.is_new(id(number));
        }
        assert_eq!(recent.known.len(), RECALLED);
        assert!(recent.is_new(id(0)));
    }
}
