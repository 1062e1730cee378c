//! New messages: texts and files.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Deserialize;
use serde_json::Value;

use super::chat_id;
use crate::bot_api::chat::Author;
use crate::bot_api::files::{Attachment, FileKind};
use crate::bot_api::formatted::Formatted;
use crate::bot_api::ids::{ChatId, MessageId};
use crate::bot_api::keyboard::Keyboard;
use crate::bot_api::params::Upload;
use crate::bot_api::refusal::Refusal;
use crate::bot_api::state::State;

/// Telegram's limit for a message, in UTF-16 code units.
const TEXT_LIMIT: usize = 4096;
/// Telegram's limit for what is written under a file.
const CAPTION_LIMIT: usize = 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SendMessage {
    chat_id: Option<Value>,
    text: Option<String>,
    parse_mode: Option<String>,
    entities: Option<Vec<Value>>,
    link_preview_options: Option<LinkPreview>,
    disable_notification: Option<bool>,
    protect_content: Option<bool>,
    message_thread_id: Option<i32>,
    reply_parameters: Option<ReplyParameters>,
    reply_markup: Option<Value>,
}

pub(super) fn send_message(state: &mut State, request: SendMessage) -> Result<Value, Refusal> {
    // How loud a message arrives and whether it can be forwarded leaves no trace here.
    let _ = (
        request.disable_notification,
        request.protect_content,
        request.link_preview_options,
    );
    let chat = chat_id(request.chat_id)?;
    refuse_parse_mode(request.parse_mode)?;
    let content = text_of(request.text, request.entities, "message is too long")?;
    let keyboard = Keyboard::read(request.reply_markup)?;
    let reply_to = place(
        state,
        chat,
        request.message_thread_id,
        request.reply_parameters,
    )?;
    state.faults.admit(chat, Instant::now())?;
    let mut message = state.compose(chat, Author::Bot, content);
    message.first.keyboard = keyboard;
    message.reply_to = reply_to;
    Ok(state.post(message))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LinkPreview {
    #[serde(rename = "is_disabled")]
    _is_disabled: Option<bool>,
    #[serde(rename = "url")]
    _url: Option<String>,
    #[serde(rename = "prefer_small_media")]
    _prefer_small_media: Option<bool>,
    #[serde(rename = "prefer_large_media")]
    _prefer_large_media: Option<bool>,
    #[serde(rename = "show_above_text")]
    _show_above_text: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplyParameters {
    message_id: i32,
    allow_sending_without_reply: Option<bool>,
}

/// Where in a chat a new message goes, if the bot may write there at all.
pub(super) fn place(
    state: &mut State,
    chat: ChatId,
    thread: Option<i32>,
    reply: Option<ReplyParameters>,
) -> Result<Option<MessageId>, Refusal> {
    let chat = state.open_chat(chat)?;
    // No chat here has topics.
    if thread.is_some() {
        return Err(Refusal::bad_request("message thread not found"));
    }
    let Some(reply) = reply else { return Ok(None) };
    let id = MessageId(reply.message_id);
    match chat.message(id) {
        Some(_) => Ok(Some(id)),
        None if reply.allow_sending_without_reply == Some(true) => Ok(None),
        None => Err(Refusal::bad_request("message to be replied not found")),
    }
}

#[derive(Deserialize)]
pub(super) struct SendDocument {
    pub(super) document: Option<String>,
    #[serde(flatten)]
    pub(super) rest: SendFile,
}

#[derive(Deserialize)]
pub(super) struct SendPhoto {
    pub(super) photo: Option<String>,
    #[serde(flatten)]
    pub(super) rest: SendFile,
}

// serde cannot deny unknown fields in what is flattened, so what is left over is caught by name.
#[derive(Deserialize)]
pub(super) struct SendFile {
    chat_id: Option<Value>,
    caption: Option<String>,
    parse_mode: Option<String>,
    caption_entities: Option<Vec<Value>>,
    message_thread_id: Option<i32>,
    reply_parameters: Option<ReplyParameters>,
    reply_markup: Option<Value>,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

pub(super) fn send_file(
    state: &mut State,
    kind: FileKind,
    source: Option<String>,
    request: SendFile,
    mut uploads: BTreeMap<String, Upload>,
) -> Result<Value, Refusal> {
    let harmless = [
        "disable_notification",
        "protect_content",
        "disable_content_type_detection",
    ];
    if let Some(name) = request
        .others
        .keys()
        .find(|name| !harmless.contains(&name.as_str()))
    {
        return Err(Refusal::bad_request(format_args!("unknown field `{name}`")));
    }
    let field = match kind {
        FileKind::Document => "document",
        FileKind::Photo => "photo",
    };
    let chat = chat_id(request.chat_id)?;
    refuse_parse_mode(request.parse_mode)?;
    let caption = Formatted::read(
        request.caption.as_deref().unwrap_or_default(),
        request.caption_entities,
    )?;
    if caption.utf16_len() > CAPTION_LIMIT {
        return Err(Refusal::bad_request("message caption is too long"));
    }
    let keyboard = Keyboard::read(request.reply_markup)?;
    let reply_to = place(
        state,
        chat,
        request.message_thread_id,
        request.reply_parameters,
    )?;
    let attachment = find_file(state, kind, field, source, &mut uploads)?;
    if let Some(name) = uploads.keys().next() {
        return Err(Refusal::bad_request(format_args!(
            "nobody needs the file {name:?}"
        )));
    }
    state.faults.admit(chat, Instant::now())?;
    let mut message = state.compose(chat, Author::Bot, caption);
    message.first.keyboard = keyboard;
    message.reply_to = reply_to;
    message.attachment = Some(attachment);
    Ok(state.post(message))
}

/// A file comes as a part of the form under the field's own name, as a part that the field points
/// to, or as the id of one that Telegram has.
fn find_file(
    state: &mut State,
    kind: FileKind,
    field: &str,
    source: Option<String>,
    uploads: &mut BTreeMap<String, Upload>,
) -> Result<Attachment, Refusal> {
    let there_is_none = || Refusal::bad_request(format_args!("there is no {field} in the request"));
    let upload = match source {
        None => uploads.remove(field).ok_or_else(there_is_none)?,
        Some(source) => match source.strip_prefix("attach://") {
            Some(part) => uploads.remove(part).ok_or_else(there_is_none)?,
            None => return state.files.again(kind, &source),
        },
    };
    if upload.bytes.is_empty() {
        return Err(Refusal::bad_request("file must be non-empty"));
    }
    Ok(state.files.keep(kind, &upload.name, upload.bytes))
}

pub(super) fn refuse_parse_mode(given: Option<String>) -> Result<(), Refusal> {
    match given {
        None => Ok(()),
        Some(_) => Err(Refusal::bad_request(
            "parse_mode is not supported here, send entities",
        )),
    }
}

pub(super) fn text_of(
    text: Option<String>,
    entities: Option<Vec<Value>>,
    too_long: &str,
) -> Result<Formatted, Refusal> {
    let content = Formatted::read(text.as_deref().unwrap_or_default(), entities)?;
    if content.text.is_empty() {
        return Err(Refusal::bad_request("message text is empty"));
    }
    if content.utf16_len() > TEXT_LIMIT {
        return Err(Refusal::bad_request(too_long));
    }
    Ok(content)
}
