//! Changes to messages that stand in a chat.

use std::time::Instant;

use serde::Deserialize;
use serde_json::{Value, json};

use super::chat_id;
use super::sending::{LinkPreview, refuse_parse_mode, text_of};
use crate::bot_api::chat::{Author, ChatKind, Message};
use crate::bot_api::formatted::Formatted;
use crate::bot_api::ids::{ChatId, MessageId};
use crate::bot_api::keyboard::Keyboard;
use crate::bot_api::refusal::Refusal;
use crate::bot_api::state::State;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EditMessageText {
    chat_id: Option<Value>,
    message_id: Option<i32>,
    text: Option<String>,
    parse_mode: Option<String>,
    entities: Option<Vec<Value>>,
    link_preview_options: Option<LinkPreview>,
    reply_markup: Option<Value>,
}

pub(super) fn edit_text(state: &mut State, request: EditMessageText) -> Result<Value, Refusal> {
    let _ = request.link_preview_options;
    let chat = chat_id(request.chat_id)?;
    let id = message_id(request.message_id)?;
    refuse_parse_mode(request.parse_mode)?;
    let content = text_of(request.text, request.entities, "MESSAGE_TOO_LONG")?;
    // An edit without a keyboard takes the keyboard away.
    let keyboard = Keyboard::read(request.reply_markup)?;
    let message = own_message(state, chat, id)?;
    if message.attachment.is_some() {
        return Err(Refusal::bad_request(
            "there is no text in the message to edit",
        ));
    }
    change(state, chat, id, content, keyboard)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EditMessageReplyMarkup {
    chat_id: Option<Value>,
    message_id: Option<i32>,
    reply_markup: Option<Value>,
}

pub(super) fn edit_markup(
    state: &mut State,
    request: EditMessageReplyMarkup,
) -> Result<Value, Refusal> {
    let chat = chat_id(request.chat_id)?;
    let id = message_id(request.message_id)?;
    let keyboard = Keyboard::read(request.reply_markup)?;
    let content = own_message(state, chat, id)?.now().content.clone();
    change(state, chat, id, content, keyboard)
}

fn own_message(state: &mut State, chat: ChatId, id: MessageId) -> Result<&mut Message, Refusal> {
    let message = state.open_chat(chat)?.message_mut(id);
    let message = message.ok_or_else(|| Refusal::bad_request("message to edit not found"))?;
    match message.author {
        Author::Bot => Ok(message),
        Author::Person(_) => Err(Refusal::bad_request("message can't be edited")),
    }
}

fn change(
    state: &mut State,
    chat: ChatId,
    id: MessageId,
    content: Formatted,
    keyboard: Keyboard,
) -> Result<Value, Refusal> {
    let now = own_message(state, chat, id)?.now();
    if now.content == content && now.keyboard == keyboard {
        return Err(Refusal::not_modified());
    }
    state.faults.admit(chat, Instant::now())?;
    let message = own_message(state, chat, id)?;
    message.change(content, keyboard);
    let message = message.clone();
    Ok(state.message_json(&message))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeleteMessage {
    chat_id: Option<Value>,
    message_id: Option<i32>,
}

pub(super) fn delete_message(state: &mut State, request: DeleteMessage) -> Result<Value, Refusal> {
    let chat = state.open_chat(chat_id(request.chat_id)?)?;
    let in_group = matches!(chat.kind, ChatKind::Group { .. });
    let message = chat.message_mut(message_id(request.message_id)?);
    let message = message.ok_or_else(|| Refusal::bad_request("message to delete not found"))?;
    // In a group it would have to be an administrator.
    if in_group && message.author != Author::Bot {
        return Err(Refusal::bad_request("message can't be deleted"));
    }
    message.deleted = Some(Instant::now());
    Ok(json!(true))
}

pub(super) fn message_id(given: Option<i32>) -> Result<MessageId, Refusal> {
    given
        .map(MessageId)
        .ok_or_else(|| Refusal::bad_request("message identifier is not specified"))
}
