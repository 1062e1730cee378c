//! Who may talk to an agent: one function for every kind of update.
//!
//! The rule: the sender is a person in the broker's table, and the chat is that person's private chat
//! with the bot or a group that the table names for them. Everything else is dropped without a word:
//! channels, anonymous admins, messages in a chat's or another bot's name.

use std::collections::HashMap;

use kai_proto::{
    gateway_broker::UserEntry,
    ids::{ChatId, TelegramId},
};
use teloxide::types::{
    CallbackQuery, Chat, ChatKind, Message, MessageKind, PublicChatKind, Update, UpdateKind, User,
};

/// The users, as the broker gave them.
pub type Roll = HashMap<TelegramId, UserEntry>;

/// What is to become of an update.
#[derive(Debug, PartialEq)]
#[must_use]
pub enum Verdict<'u> {
    /// It is a user's, in a place where they may talk to their agent.
    Allowed {
        /// Whose.
        user: TelegramId,
        /// Where.
        chat: ChatId,
        /// What.
        what: What<'u>,
    },
    /// Somebody who is not in the table: dropped, counted, and shown to the admin by number.
    Stranger(TelegramId),
    /// Dropped.
    Drop,
}

/// The kinds of update that the gateway takes.
#[derive(Debug, PartialEq)]
pub enum What<'u> {
    /// A new message.
    Message(&'u Message),
    /// Another text for an earlier message.
    Edit(&'u Message),
    /// A press of a button under one of the bot's messages.
    Button(&'u CallbackQuery),
}

/// Judges `update` by the table.
pub fn authorise<'u>(roll: &Roll, update: &'u Update) -> Verdict<'u> {
    let (sender, chat, what) = match &update.kind {
        UpdateKind::Message(message) | UpdateKind::EditedMessage(message) => {
            let in_anothers_name = message.sender_chat.is_some()
                || message.via_bot.is_some()
                || message.sender_business_bot.is_some();
            // Who joined and what was pinned is said by Telegram, not by its sender.
            let is_said = matches!(message.kind, MessageKind::Common(_) | MessageKind::Dice(_));
            let (Some(sender), true) = (&message.from, is_said && !in_anothers_name) else {
                return Verdict::Drop;
            };
            let what = match &update.kind {
                UpdateKind::EditedMessage(_) => What::Edit(message),
                _ => What::Message(message),
            };
            (sender, &message.chat, what)
        }
        UpdateKind::CallbackQuery(query) => {
            let Some(message) = &query.message else {
                return Verdict::Drop;
            };
            (&query.from, message.chat(), What::Button(query))
        }
        _ => return Verdict::Drop,
    };
    let (Some(user), Ok(chat_id)) = (person(sender), ChatId::try_from(chat.id.0)) else {
        return Verdict::Drop;
    };
    match roll.get(&user) {
        None => Verdict::Stranger(user),
        Some(entry) if is_in_kind(entry, chat) && may_talk_in(entry, chat_id) => Verdict::Allowed {
            user,
            chat: chat_id,
            what,
        },
        Some(_) => Verdict::Drop,
    }
}

/// Whether a user may talk to their agent in this chat, its kind aside.
#[must_use]
pub fn may_talk_in(entry: &UserEntry, chat: ChatId) -> bool {
    i64::from(chat) == i64::from(entry.id) || entry.chats.contains(&chat)
}

/// Whether the chat is of a kind that its number promises: private for the user's own, a group
/// for one that the table names.
fn is_in_kind(entry: &UserEntry, chat: &Chat) -> bool {
    let is_own = chat.id.0 == i64::from(entry.id);
    match &chat.kind {
        ChatKind::Private(_) => is_own,
        ChatKind::Public(public) => {
            let is_group = matches!(
                public.kind,
                PublicChatKind::Group | PublicChatKind::Supergroup(_)
            );
            is_group && !is_own
        }
    }
}

fn person(user: &User) -> Option<TelegramId> {
    let id = i64::try_from(user.id.0).ok()?;
    if user.is_bot {
        return None;
    }
    TelegramId::try_from(id).ok()
}

#[cfg(test)]
mod tests {
    use kai_proto::ids::{Role, UserName};
    use serde_json::{Value, json};

    use super::*;

    const ALICE: i64 = 11;
    const GROUP: i64 = -1_001_000;

    fn roll() -> Roll {
        let id = TelegramId::try_from(ALICE).unwrap();
        let entry = UserEntry {
            id,
            name: UserName::try_from("Alice".to_owned()).unwrap(),
            role: Role::User,
            second_factor: kai_proto::gateway_broker::SecondFactor::Optional,
            chats: vec![ChatId::try_from(GROUP).unwrap()],
            model: None,
        };
        HashMap::from([(id, entry)])
    }

    fn from(id: i64) -> Value {
        json!({"id": id, "is_bot": false, "first_name": "X"})
    }

    fn private(id: i64) -> Value {
        json!({"id": id, "type": "private", "first_name": "X"})
    }

    fn group(id: i64) -> Value {
        json!({"id": id, "type": "supergroup", "title": "G"})
    }

    fn message(from: Value, chat: Value, more: Value) -> Value {
        let mut message =
            json!({"message_id": 5, "date": 1, "from": from, "chat": chat, "text": "hi"});
        for (key, value) in more.as_object().unwrap() {
            message[key] = value.clone();
        }
        message
    }

    fn button(from: Value, message: Value) -> Value {
        json!({"id": "1", "from": from, "chat_instance": "1", "data": "x", "message": message})
    }

    /// The verdict on an update with `content` under `kind`, in a word.
    fn verdict(kind: &str, content: Value) -> &'static str {
        let text = json!({"update_id": 1, kind: content}).to_string();
        let update: Update = serde_json::from_str(&text).unwrap();
        assert!(!matches!(update.kind, UpdateKind::Error(_)), "{update:?}");
        match authorise(&roll(), &update) {
            Verdict::Allowed { user, what, .. } => {
                assert_eq!(i64::from(user), ALICE);
                match what {
                    What::Message(_) => "message",
                    What::Edit(_) => "edit",
                    What::Button(_) => "button",
                }
            }
            Verdict::Stranger(id) => {
                assert_eq!(i64::from(id), 99);
                "stranger"
            }
            Verdict::Drop => "drop",
        }
    }

    #[test]
    fn the_rule_holds_for_every_kind_of_update() {
        let plain = || message(from(ALICE), private(ALICE), json!({}));
        let bot = json!({"id": 99, "is_bot": true, "first_name": "B"});
        let channel = json!({"id": GROUP, "type": "channel", "title": "C"});
        let table = [
            ("message", plain(), "message"),
            ("edited_message", plain(), "edit"),
            ("callback_query", button(from(ALICE), plain()), "button"),
            (
                "message",
                message(from(ALICE), group(GROUP), json!({})),
                "message",
            ),
            // Another group, another's private chat, a channel with a listed number.
            (
                "message",
                message(from(ALICE), group(-7), json!({})),
                "drop",
            ),
            (
                "message",
                message(from(ALICE), private(99), json!({})),
                "drop",
            ),
            (
                "message",
                message(from(ALICE), channel.clone(), json!({})),
                "drop",
            ),
            (
                "channel_post",
                message(from(ALICE), channel, json!({})),
                "drop",
            ),
            // In another's name.
            (
                "message",
                message(
                    from(ALICE),
                    group(GROUP),
                    json!({"sender_chat": group(GROUP)}),
                ),
                "drop",
            ),
            (
                "message",
                message(from(ALICE), private(ALICE), json!({"via_bot": bot})),
                "drop",
            ),
            ("message", message(bot, private(ALICE), json!({})), "drop"),
            // Strangers, wherever they are.
            (
                "message",
                message(from(99), private(99), json!({})),
                "stranger",
            ),
            (
                "message",
                message(from(99), group(GROUP), json!({})),
                "stranger",
            ),
            (
                "edited_message",
                message(from(99), private(99), json!({})),
                "stranger",
            ),
            ("callback_query", button(from(99), plain()), "stranger"),
            // A button in a place where its presser may not talk.
            (
                "callback_query",
                button(from(ALICE), message(from(ALICE), group(-7), json!({}))),
                "drop",
            ),
        ];
        for (kind, content, expected) in table {
            assert_eq!(
                verdict(kind, content.clone()),
                expected,
                "{kind}: {content}"
            );
        }
    }

    #[test]
    fn what_telegram_itself_says_in_a_chat_is_dropped() {
        let mut content = message(from(ALICE), group(GROUP), json!({}));
        content.as_object_mut().unwrap().remove("text");
        content["new_chat_title"] = json!("Another");
        assert_eq!(verdict("message", content), "drop");
    }

    #[test]
    fn an_update_without_a_sender_is_dropped() {
        let mut content = message(from(ALICE), group(GROUP), json!({}));
        content.as_object_mut().unwrap().remove("from");
        assert_eq!(verdict("message", content), "drop");
        let inline = json!({"id": "1", "from": from(ALICE), "chat_instance": "1",
            "inline_message_id": "9", "data": "x"});
        assert_eq!(verdict("callback_query", inline), "drop");
    }
}
