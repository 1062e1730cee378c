//! The people's side: they write, edit, delete, press buttons, send files, and block the bot.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::BotApi;
use super::chat::{Author, Chat, ChatKind, GroupKind, Message, Person};
use super::entities::{Entity, EntityKind};
use super::files::FileKind;
use super::formatted::Formatted;
use super::ids::{ChatId, MessageId, UpdateId, UserId};
use super::keyboard::ButtonAction;
use super::state::{CallbackState, State};

/// Something that a person's client would not have let happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mistake {
    /// Nobody has this id.
    #[error("there is no user {0}")]
    NoSuchUser(UserId),
    /// The person is not in this chat, or there is none.
    #[error("user {user} is not in chat {chat}")]
    NotInChat {
        /// Who.
        user: UserId,
        /// Where.
        chat: ChatId,
    },
    /// The message was never there, or is deleted.
    #[error("there is no message {message} in chat {chat}")]
    NoSuchMessage {
        /// Where.
        chat: ChatId,
        /// Which.
        message: MessageId,
    },
    /// Somebody else wrote it.
    #[error("message {0} is somebody else's")]
    NotTheirs(MessageId),
    /// No button reads so.
    #[error("message {message} has no button {label:?}, only {found:?}")]
    NoSuchButton {
        /// Which.
        message: MessageId,
        /// What was looked for.
        label: String,
        /// What is there.
        found: Vec<String>,
    },
}

/// What came of a person's act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The message in the chat.
    pub message: MessageId,
    /// The update that tells the bot of it. There is none if the bot asked not to be told.
    pub update: Option<UpdateId>,
}

impl BotApi {
    /// Gives somebody an account. Their private chat with the bot begins when they write.
    pub fn add_user(&self, id: UserId, first_name: &str, username: Option<&str>) -> UserId {
        let person = Person {
            id,
            first_name: first_name.to_owned(),
            username: username.map(str::to_owned),
        };
        self.shared
            .state
            .change(|state| state.people.insert(id, person));
        id
    }

    /// Everybody with an account.
    pub fn users(&self) -> Vec<Person> {
        self.shared.state.lock().people.values().cloned().collect()
    }

    /// Makes a group with the bot in it, which sees every message there.
    pub fn add_group(&self, kind: GroupKind, title: &str, members: &[UserId]) -> ChatId {
        self.shared.state.change(|state| {
            let number = state.chats.keys().filter(|chat| chat.0 < 0).count() + 1;
            let number = i64::try_from(number).unwrap_or(i64::MAX);
            let id = match kind {
                GroupKind::Basic => ChatId(-4_000_000 - number),
                GroupKind::Supergroup => ChatId(-1_001_000_000_000 - number),
            };
            let members: BTreeSet<_> = members.iter().copied().collect();
            let kind = ChatKind::Group {
                kind,
                title: title.to_owned(),
                members,
            };
            state.chats.insert(id, Chat::new(kind));
            id
        })
    }

    /// Somebody writes something.
    pub fn send_text(&self, user: UserId, chat: ChatId, text: &str) -> Result<Sent, Mistake> {
        self.send(user, chat, |_, message| message.first.content = typed(text))
    }

    /// Somebody answers a message.
    pub fn send_reply(
        &self,
        user: UserId,
        chat: ChatId,
        reply_to: MessageId,
        text: &str,
    ) -> Result<Sent, Mistake> {
        self.send(user, chat, |_, message| {
            message.first.content = typed(text);
            message.reply_to = Some(reply_to);
        })
    }

    /// Somebody sends a file, as a document or as a photo.
    pub fn send_file(
        &self,
        user: UserId,
        chat: ChatId,
        kind: FileKind,
        name: &str,
        bytes: &[u8],
        caption: Option<&str>,
    ) -> Result<Sent, Mistake> {
        self.send(user, chat, |state, message| {
            message.attachment = Some(state.files.keep(kind, name, bytes.to_vec()));
            message.first.content = caption.map(typed).unwrap_or_default();
        })
    }

    /// Somebody sends a message of any other kind (a sticker, a voice, a forward): its own fields
    /// are given, and those that every message has are added.
    pub fn send_fields(
        &self,
        user: UserId,
        chat: ChatId,
        fields: Map<String, Value>,
    ) -> Result<Sent, Mistake> {
        self.send(user, chat, |_, message| message.extra = fields)
    }

    /// Somebody changes a message of theirs.
    pub fn edit_text(
        &self,
        user: UserId,
        chat: ChatId,
        message: MessageId,
        text: &str,
    ) -> Result<Sent, Mistake> {
        self.act(|state| {
            let found = their_message(state, user, chat, message)?;
            found.change(typed(text), found.keyboard().clone());
            let found = found.clone();
            let json = state.message_json(&found);
            Ok(Sent {
                message,
                update: state.queue.push("edited_message", json),
            })
        })
    }

    /// Somebody deletes a message of theirs. The Bot API does not tell the bot.
    pub fn delete(&self, user: UserId, chat: ChatId, message: MessageId) -> Result<(), Mistake> {
        self.act(|state| {
            their_message(state, user, chat, message)?.deleted = Some(std::time::Instant::now());
            Ok(())
        })
    }

    /// Somebody presses the button that reads `label`; gives the callback query's id. A button
    /// that leads to a page tells the bot nothing, so it does not count.
    pub fn press(
        &self,
        user: UserId,
        chat: ChatId,
        message: MessageId,
        label: &str,
    ) -> Result<String, Mistake> {
        self.act(|state| {
            let person = enter(state, user, chat)?;
            let nothing = Mistake::NoSuchMessage { chat, message };
            let found = state
                .chats
                .get(&chat)
                .and_then(|chat| chat.message(message));
            let found = found.ok_or(nothing)?.clone();
            let pressed = found
                .keyboard()
                .buttons()
                .find(|button| button.label == label);
            let Some(ButtonAction::Callback(data)) = pressed.map(|button| &button.action) else {
                let found = found
                    .keyboard()
                    .buttons()
                    .map(|b| b.label.clone())
                    .collect();
                return Err(Mistake::NoSuchButton {
                    message,
                    label: label.to_owned(),
                    found,
                });
            };
            let id = format!("{}{:06}", user.0, state.callbacks.len() + 1);
            state.callbacks.insert(id.clone(), CallbackState::Waiting);
            let query = json!({
                "id": id, "from": person.json(false), "chat_instance": chat.0.to_string(),
                "message": state.message_json(&found), "data": data,
            });
            state.queue.push("callback_query", query);
            Ok(id)
        })
    }

    /// What became of a pressed button.
    pub fn callback(&self, id: &str) -> Option<CallbackState> {
        self.shared.state.lock().callbacks.get(id).cloned()
    }

    /// Lets the time run out in which a pressed button can be answered.
    pub fn expire_callback(&self, id: &str) {
        self.shared.state.change(|state| {
            if let Some(callback) = state.callbacks.get_mut(id) {
                *callback = CallbackState::Expired;
            }
        });
    }

    /// Somebody blocks the bot, or lets it write again. The bot is told, if it asked to be.
    pub fn block_bot(&self, user: UserId, blocked: bool) -> Result<(), Mistake> {
        self.act(|state| {
            let person = enter(state, user, user.private_chat())?;
            let chat = user.private_chat();
            let (old, new) = if blocked {
                ("member", "kicked")
            } else {
                ("kicked", "member")
            };
            let mut left = json!({"user": state.bot.json(true), "status": old});
            let mut now = json!({"user": state.bot.json(true), "status": new});
            for member in [&mut left, &mut now] {
                if member["status"] == "kicked" {
                    member["until_date"] = json!(0);
                }
            }
            let update = json!({
                "chat": {"id": chat, "type": "private", "first_name": person.first_name},
                "from": person.json(false), "date": super::chat::unix_now(),
                "old_chat_member": left, "new_chat_member": now,
            });
            if let Some(chat) = state.chats.get_mut(&chat) {
                chat.kind = ChatKind::Private { blocked };
            }
            state.queue.push("my_chat_member", update);
            Ok(())
        })
    }

    fn send(
        &self,
        user: UserId,
        chat: ChatId,
        fill: impl FnOnce(&mut State, &mut Message),
    ) -> Result<Sent, Mistake> {
        self.act(|state| {
            enter(state, user, chat)?;
            let mut message = state.compose(chat, Author::Person(user), Formatted::default());
            fill(state, &mut message);
            let id = message.id;
            let json = state.post(message);
            Ok(Sent {
                message: id,
                update: state.queue.push("message", json),
            })
        })
    }

    fn act<R>(&self, act: impl FnOnce(&mut State) -> Result<R, Mistake>) -> Result<R, Mistake> {
        let result = self.shared.state.change(act);
        self.shared.pollers.notify_waiters();
        result
    }
}

/// The person, if they may act in this chat. Their private chat begins with their first act.
fn enter(state: &mut State, user: UserId, chat: ChatId) -> Result<Person, Mistake> {
    let person = state
        .people
        .get(&user)
        .cloned()
        .ok_or(Mistake::NoSuchUser(user))?;
    if chat == user.private_chat() {
        let kind = ChatKind::Private { blocked: false };
        state.chats.entry(chat).or_insert_with(|| Chat::new(kind));
        return Ok(person);
    }
    match state.chats.get(&chat).map(|chat| &chat.kind) {
        Some(ChatKind::Group { members, .. }) if members.contains(&user) => Ok(person),
        _ => Err(Mistake::NotInChat { user, chat }),
    }
}

fn their_message(
    state: &mut State,
    user: UserId,
    chat: ChatId,
    message: MessageId,
) -> Result<&mut Message, Mistake> {
    enter(state, user, chat)?;
    let found = state
        .chats
        .get_mut(&chat)
        .and_then(|chat| chat.message_mut(message));
    let found = found.ok_or(Mistake::NoSuchMessage { chat, message })?;
    match found.author == Author::Person(user) {
        true => Ok(found),
        false => Err(Mistake::NotTheirs(message)),
    }
}

/// A person's text, with the command at its beginning found as Telegram finds it.
fn typed(text: &str) -> Formatted {
    let mut formatted = Formatted::plain(text);
    let command = formatted.text.split_whitespace().next().unwrap_or_default();
    let of_a_command = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '@');
    let is_command = command
        .strip_prefix('/')
        .is_some_and(|name| !name.is_empty() && name.chars().all(of_a_command));
    if is_command {
        let length = command.encode_utf16().count();
        let kind = EntityKind::Detected("bot_command".to_owned());
        formatted.entities.push(Entity {
            kind,
            offset: 0,
            length,
        });
    }
    formatted
}
