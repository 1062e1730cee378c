//! The chats as the page shows them: what is new or changed since it was last told.

use std::{
    collections::HashMap,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use kai_emulators::bot_api::{BotApi, ButtonAction, FileKind, Message, MessageId};
use serde_json::{Value, json};

use crate::{cast::Member, stage};

/// How long Telegram's clients show that somebody types, unless a message comes first.
const TYPING: Duration = Duration::from_secs(5);

/// What one open page has been told.
#[derive(Debug, Default)]
pub struct Told {
    versions: HashMap<(Member, MessageId), (usize, bool)>,
    typing: HashMap<Member, bool>,
}

impl Told {
    /// What the page is to be told now.
    pub fn news(&mut self, telegram: &BotApi, now: Instant) -> Vec<Value> {
        let mut news = Vec::new();
        for member in Member::ALL {
            let messages = telegram.messages(stage::chat(member));
            for message in &messages {
                let version = (message.edit_count(), message.deleted.is_some());
                let told = self.versions.insert((member, message.id), version);
                if told != Some(version) {
                    news.push(show(member, message, now));
                }
            }
            let typing = types(telegram, member, &messages, now);
            if self.typing.insert(member, typing).unwrap_or_default() != typing {
                news.push(json!({"kind": "typing", "who": member.name(), "on": typing}));
            }
        }
        news
    }
}

fn show(member: Member, message: &Message, now: Instant) -> Value {
    let buttons: Vec<Vec<Value>> = message
        .keyboard()
        .rows
        .iter()
        .map(|row| {
            row.iter()
                .map(|button| match &button.action {
                    ButtonAction::Callback(_) => json!({"label": button.label}),
                    ButtonAction::Url(url) => json!({"label": button.label, "url": url}),
                })
                .collect()
        })
        .collect();
    let file = message.attachment.as_ref().map(|file| {
        json!({
            "id": file.file_id, "name": file.name, "size": file.size,
            "photo": file.kind == FileKind::Photo,
        })
    });
    json!({
        "kind": "message",
        "who": member.name(),
        "id": message.id.0,
        "own": !matches!(message.author, kai_emulators::bot_api::Author::Bot),
        "html": message.html(),
        "edits": message.edit_count(),
        "deleted": message.deleted.is_some(),
        "sent": unix_milliseconds(message.first().at, now),
        "buttons": buttons,
        "file": file,
    })
}

/// Whether the bot's last sign of typing is recent, and newer than what it last wrote.
fn types(telegram: &BotApi, member: Member, messages: &[Message], now: Instant) -> bool {
    let actions = telegram.chat_actions(stage::chat(member));
    let Some(last) = actions.last() else {
        return false;
    };
    let mut written = messages
        .iter()
        .rev()
        .filter(|message| message.is_from_bot());
    let written = written.next().map(|message| message.first().at);
    now.saturating_duration_since(last.at) < TYPING && written.is_none_or(|at| at < last.at)
}

fn unix_milliseconds(at: Instant, now: Instant) -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .saturating_sub(now.saturating_duration_since(at));
    u64::try_from(since.as_millis()).unwrap_or_default()
}
