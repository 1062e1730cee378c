//! Looking at the chats and at what the bot did, and waiting for it.

use std::time::{Duration, Instant};

use super::BotApi;
use super::calls::Call;
use super::chat::{ChatAction, Message};
use super::ids::{ChatId, MessageId, UpdateId};
use super::state::BotCommand;

/// What was waited for did not happen. It shows what did.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nothing fitting in chat {chat} after {waited:?}; it reads:\n{transcript}")]
pub struct TimedOut {
    /// Where it was waited for.
    pub chat: ChatId,
    /// How long.
    pub waited: Duration,
    /// The chat as it is now.
    pub transcript: String,
}

impl BotApi {
    /// All messages of a chat, deleted ones included, the oldest first.
    pub fn messages(&self, chat: ChatId) -> Vec<Message> {
        let state = self.shared.state.lock();
        state
            .chats
            .get(&chat)
            .map(|chat| chat.messages.clone())
            .unwrap_or_default()
    }

    /// One message, deleted or not.
    pub fn message(&self, chat: ChatId, message: MessageId) -> Option<Message> {
        let state = self.shared.state.lock();
        state
            .chats
            .get(&chat)?
            .messages
            .iter()
            .find(|found| found.id == message)
            .cloned()
    }

    /// Chats that have begun.
    pub fn chats(&self) -> Vec<ChatId> {
        self.shared.state.lock().chats.keys().copied().collect()
    }

    /// "typing" and the like that the bot showed in a chat.
    pub fn chat_actions(&self, chat: ChatId) -> Vec<ChatAction> {
        let state = self.shared.state.lock();
        state
            .chats
            .get(&chat)
            .map(|chat| chat.actions.clone())
            .unwrap_or_default()
    }

    /// The commands that the bot offers in its menu.
    pub fn commands(&self) -> Vec<BotCommand> {
        self.shared.state.lock().commands.clone()
    }

    /// A file's content, whoever sent it.
    pub fn file(&self, file_id: &str) -> Option<Vec<u8>> {
        self.shared
            .state
            .lock()
            .files
            .bytes(file_id)
            .map(<[u8]>::to_vec)
    }

    /// Every call the bot made, the oldest first, those in flight included.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.state.lock().calls.all().to_vec()
    }

    /// Forgets the calls so far, so that a long measurement does not fill the memory.
    pub fn forget_calls(&self) {
        self.shared.state.change(|state| state.calls.forget());
    }

    /// Pairs of edits of a chat that were in flight at once.
    pub fn overlapping_edits(&self, chat: ChatId) -> Vec<(Call, Call)> {
        self.shared.state.lock().calls.overlapping_edits(chat)
    }

    /// The times from one edit of a chat that was done to the next.
    pub fn edit_spacing(&self, chat: ChatId) -> Vec<Duration> {
        let state = self.shared.state.lock();
        let starts: Vec<Instant> = state
            .calls
            .all()
            .iter()
            .filter(|call| call.chat == Some(chat) && call.is_edit() && call.was_done())
            .map(|call| call.started)
            .collect();
        starts
            .windows(2)
            .map(|pair| pair[1].duration_since(pair[0]))
            .collect()
    }

    /// A chat as text: one line a message, deleted ones marked.
    pub fn transcript(&self, chat: ChatId) -> String {
        let state = self.shared.state.lock();
        let Some(found) = state.chats.get(&chat) else {
            return String::new();
        };
        let mut transcript = String::new();
        for message in &found.messages {
            let author = match message.author {
                super::Author::Bot => "bot",
                super::Author::Person(id) => state
                    .people
                    .get(&id)
                    .map_or("?", |person| person.first_name.as_str()),
            };
            let deleted = if message.deleted.is_some() {
                " (deleted)"
            } else {
                ""
            };
            transcript += &format!("{author}{deleted}: {}\n", message.plain());
        }
        transcript
    }

    /// Waits until `look` finds something among a chat's messages, deleted ones included. It is
    /// called under the emulator's lock: it may look, but not call the emulator.
    pub fn wait_for<R>(
        &self,
        chat: ChatId,
        timeout: Duration,
        mut look: impl FnMut(&[Message]) -> Option<R>,
    ) -> Result<R, TimedOut> {
        let found = self.shared.state.wait(timeout, |state| {
            look(
                state
                    .chats
                    .get(&chat)
                    .map_or(&[], |chat| chat.messages.as_slice()),
            )
        });
        found.ok_or_else(|| TimedOut {
            chat,
            waited: timeout,
            transcript: self.transcript(chat),
        })
    }

    /// Waits for a message of the bot that comes after another one and fits.
    pub fn wait_for_answer(
        &self,
        chat: ChatId,
        after: MessageId,
        timeout: Duration,
        mut fits: impl FnMut(&Message) -> bool,
    ) -> Result<Message, TimedOut> {
        self.wait_for(chat, timeout, |messages| {
            // From the newest back, because chats of a long measurement are long.
            let newer = messages
                .iter()
                .rev()
                .take_while(|message| message.id > after);
            newer
                .filter(|message| message.is_from_bot())
                .find(|message| fits(message))
                .cloned()
        })
    }

    /// Waits until `look` finds something among the calls. Like [`BotApi::wait_for`] it may not
    /// call the emulator.
    pub fn wait_for_calls<R>(
        &self,
        timeout: Duration,
        mut look: impl FnMut(&[Call]) -> Option<R>,
    ) -> Option<R> {
        self.shared
            .state
            .wait(timeout, |state| look(state.calls.all()))
    }

    /// Waits until the bot has confirmed an update. False if it did not in time.
    pub fn wait_confirmed(&self, update: UpdateId, timeout: Duration) -> bool {
        let confirmed = |state: &super::state::State| state.queue.is_forgotten(update);
        self.shared
            .state
            .wait(timeout, |state| confirmed(state).then_some(()))
            .is_some()
    }
}
