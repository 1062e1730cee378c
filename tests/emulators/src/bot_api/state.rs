//! Everything that the emulated Telegram knows, behind one lock.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::calls::CallLog;
use super::chat::{Author, Chat, ChatKind, GroupKind, Message, Person};
use super::faults::Faults;
use super::files::FileStore;
use super::formatted::Formatted;
use super::ids::{ChatId, MessageId, UserId};
use super::refusal::Refusal;
use super::updates::UpdateQueue;

/// What became of a pressed button.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallbackState {
    /// The person's client still shows that it waits.
    Waiting,
    /// It was answered, perhaps with words to show.
    Answered {
        /// The words.
        text: Option<String>,
        /// Whether they are in a box that has to be closed.
        alert: bool,
    },
    /// Nobody answered in time.
    Expired,
}

/// A command that the bot offers in the menu.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BotCommand {
    /// Without the slash.
    pub command: String,
    /// What it does.
    pub description: String,
}

/// The emulated Telegram.
#[derive(Debug)]
pub(super) struct State {
    pub(super) bot: Person,
    pub(super) people: BTreeMap<UserId, Person>,
    pub(super) chats: BTreeMap<ChatId, Chat>,
    pub(super) queue: UpdateQueue,
    pub(super) files: FileStore,
    pub(super) callbacks: BTreeMap<String, CallbackState>,
    pub(super) commands: Vec<BotCommand>,
    pub(super) calls: CallLog,
    pub(super) faults: Faults,
    last_message: i32,
}

impl State {
    pub(super) fn new(bot: Person, queue: UpdateQueue) -> Self {
        Self {
            bot,
            people: BTreeMap::new(),
            chats: BTreeMap::new(),
            queue,
            files: FileStore::default(),
            callbacks: BTreeMap::new(),
            commands: Vec::new(),
            calls: CallLog::default(),
            faults: Faults::default(),
            last_message: 0,
        }
    }

    /// A message that is not yet in its chat.
    pub(super) fn compose(&mut self, chat: ChatId, author: Author, content: Formatted) -> Message {
        self.last_message += 1;
        Message::new(MessageId(self.last_message), chat, author, content)
    }

    /// The chat, if the bot may write to it.
    pub(super) fn open_chat(&mut self, chat: ChatId) -> Result<&mut Chat, Refusal> {
        let found = self.chats.get_mut(&chat);
        let chat = found.ok_or_else(|| Refusal::bad_request("chat not found"))?;
        match chat.kind {
            ChatKind::Private { blocked: true } => Err(Refusal::blocked()),
            _ => Ok(chat),
        }
    }

    /// Puts a message into its chat and shows it as the Bot API does.
    pub(super) fn post(&mut self, message: Message) -> Value {
        let json = self.message_json(&message);
        if let Some(chat) = self.chats.get_mut(&message.chat) {
            chat.messages.push(message);
        }
        json
    }

    /// A message as it stands in answers and updates.
    pub(super) fn message_json(&self, message: &Message) -> Value {
        let mut json = self.bare_message_json(message);
        let replied = message.reply_to.and_then(|id| {
            self.chats
                .get(&message.chat)?
                .messages
                .iter()
                .find(|m| m.id == id)
        });
        if let Some(replied) = replied {
            // A reply shows what it answers, but not what that answered in its turn.
            let replied = Value::Object(self.bare_message_json(replied));
            json.insert("reply_to_message".to_owned(), replied);
        }
        Value::Object(json)
    }

    fn bare_message_json(&self, message: &Message) -> Map<String, Value> {
        let mut json = message.extra.clone();
        json.insert("message_id".to_owned(), json!(message.id));
        json.insert("date".to_owned(), json!(message.date));
        json.insert("from".to_owned(), self.author_json(message.author));
        json.insert("chat".to_owned(), self.chat_json(message.chat));
        if let Some(date) = message.edit_date {
            json.insert("edit_date".to_owned(), json!(date));
        }
        let content = &message.now().content;
        match &message.attachment {
            Some(attachment) => {
                attachment.put_into(&mut json);
                if !content.text.is_empty() {
                    content.put_into(&mut json, "caption", "caption_entities");
                }
            }
            None if !content.text.is_empty() => content.put_into(&mut json, "text", "entities"),
            None => {}
        }
        if !message.keyboard().is_empty() {
            json.insert("reply_markup".to_owned(), message.keyboard().json());
        }
        json
    }

    fn author_json(&self, author: Author) -> Value {
        match author {
            Author::Bot => self.bot.json(true),
            Author::Person(id) => self
                .people
                .get(&id)
                .map_or(Value::Null, |one| one.json(false)),
        }
    }

    fn chat_json(&self, id: ChatId) -> Value {
        match self.chats.get(&id).map(|chat| &chat.kind) {
            Some(ChatKind::Group {
                kind: GroupKind::Basic,
                title,
                ..
            }) => {
                json!({"id": id, "type": "group", "title": title})
            }
            Some(ChatKind::Group {
                kind: GroupKind::Supergroup,
                title,
                ..
            }) => {
                json!({"id": id, "type": "supergroup", "title": title})
            }
            _ => {
                let mut json = json!({"id": id, "type": "private"});
                if let Some(person) = self.people.get(&UserId(id.0)) {
                    json["first_name"] = json!(person.first_name);
                    if let Some(username) = &person.username {
                        json["username"] = json!(username);
                    }
                }
                json
            }
        }
    }
}
