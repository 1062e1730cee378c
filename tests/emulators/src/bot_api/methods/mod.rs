//! The methods of the Bot API: what each takes, checks and does.
//!
//! `getUpdates` is not here, because it waits; see `polling`.

use std::time::Instant;

use serde::Deserialize;
use serde_json::{Value, json};

use editing::{delete_message, edit_markup, edit_text};
use sending::{SendDocument, SendPhoto, place, send_file, send_message};

use super::chat::ChatAction;
use super::files::FileKind;
use super::ids::ChatId;
use super::params::Params;
use super::refusal::Refusal;
use super::state::{BotCommand, CallbackState, State};

mod editing;
mod reactions;
mod sending;

/// Telegram's limit for the words that answer a pressed button.
const CALLBACK_TEXT_LIMIT: usize = 200;

/// Every method there is here, as the documentation writes it.
const METHODS: [&str; 14] = [
    "getUpdates",
    "getMe",
    "sendMessage",
    "sendDocument",
    "sendPhoto",
    "editMessageText",
    "editMessageReplyMarkup",
    "deleteMessage",
    "setMessageReaction",
    "answerCallbackQuery",
    "sendChatAction",
    "setMyCommands",
    "deleteWebhook",
    "getFile",
];

/// A method's proper name. Telegram does not look at the case of what a client writes.
pub(super) fn proper_name(written: &str) -> Option<&'static str> {
    METHODS
        .into_iter()
        .find(|name| name.eq_ignore_ascii_case(written))
}

/// Does what a call asks for, and gives its result.
pub(super) fn execute(state: &mut State, method: &str, params: Params) -> Result<Value, Refusal> {
    match method {
        "getMe" => get_me(state, params.only()?),
        "sendMessage" => send_message(state, params.only()?),
        "sendDocument" => {
            let (request, uploads) = params.typed::<SendDocument>()?;
            send_file(
                state,
                FileKind::Document,
                request.document,
                request.rest,
                uploads,
            )
        }
        "sendPhoto" => {
            let (request, uploads) = params.typed::<SendPhoto>()?;
            send_file(state, FileKind::Photo, request.photo, request.rest, uploads)
        }
        "editMessageText" => edit_text(state, params.only()?),
        "editMessageReplyMarkup" => edit_markup(state, params.only()?),
        "deleteMessage" => delete_message(state, params.only()?),
        "setMessageReaction" => reactions::set_reaction(state, params.only()?),
        "answerCallbackQuery" => answer_callback(state, params.only()?),
        "sendChatAction" => chat_action(state, params.only()?),
        "setMyCommands" => set_commands(state, params.only()?),
        "deleteWebhook" => delete_webhook(state, params.only()?),
        "getFile" => get_file(state, params.only()?),
        _ => Err(Refusal::unknown_method()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

fn get_me(state: &State, _: Nothing) -> Result<Value, Refusal> {
    let mut me = state.bot.json(true);
    for (ability, given) in [
        ("can_join_groups", true),
        ("can_read_all_group_messages", true),
        ("supports_inline_queries", false),
        ("can_connect_to_business", false),
        ("has_main_web_app", false),
    ] {
        me[ability] = json!(given);
    }
    Ok(me)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswerCallbackQuery {
    callback_query_id: String,
    text: Option<String>,
    show_alert: Option<bool>,
    #[serde(rename = "cache_time")]
    _cache_time: Option<u32>,
}

fn answer_callback(state: &mut State, request: AnswerCallbackQuery) -> Result<Value, Refusal> {
    let text_len = request
        .text
        .as_ref()
        .map_or(0, |text| text.encode_utf16().count());
    if text_len > CALLBACK_TEXT_LIMIT {
        return Err(Refusal::bad_request("MESSAGE_TOO_LONG"));
    }
    match state.callbacks.get_mut(&request.callback_query_id) {
        Some(callback @ CallbackState::Waiting) => {
            let alert = request.show_alert.unwrap_or_default();
            *callback = CallbackState::Answered {
                text: request.text,
                alert,
            };
            Ok(json!(true))
        }
        _ => Err(Refusal::bad_request(
            "query is too old and response timeout expired or query id is invalid",
        )),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SendChatAction {
    chat_id: Option<Value>,
    action: String,
    message_thread_id: Option<i32>,
}

const CHAT_ACTIONS: [&str; 11] = [
    "typing",
    "upload_photo",
    "record_video",
    "upload_video",
    "record_voice",
    "upload_voice",
    "upload_document",
    "choose_sticker",
    "find_location",
    "record_video_note",
    "upload_video_note",
];

fn chat_action(state: &mut State, request: SendChatAction) -> Result<Value, Refusal> {
    let chat = chat_id(request.chat_id)?;
    place(state, chat, request.message_thread_id, None)?;
    if !CHAT_ACTIONS.contains(&request.action.as_str()) {
        return Err(Refusal::bad_request("wrong parameter action in request"));
    }
    let action = ChatAction {
        action: request.action,
        at: Instant::now(),
    };
    state.open_chat(chat)?.actions.push(action);
    Ok(json!(true))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetMyCommands {
    commands: Vec<BotCommand>,
    #[serde(rename = "scope")]
    _scope: Option<Value>,
    #[serde(rename = "language_code")]
    _language_code: Option<String>,
}

fn set_commands(state: &mut State, request: SetMyCommands) -> Result<Value, Refusal> {
    let name_is_right = |name: &str| {
        (1..=32).contains(&name.len())
            && name
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
    };
    if request.commands.len() > 100 {
        return Err(Refusal::bad_request("BOT_COMMANDS_TOO_MUCH"));
    }
    for command in &request.commands {
        if !name_is_right(&command.command) {
            return Err(Refusal::bad_request("BOT_COMMAND_INVALID"));
        }
        if !(1..=256).contains(&command.description.chars().count()) {
            return Err(Refusal::bad_request("BOT_COMMAND_DESCRIPTION_INVALID"));
        }
    }
    state.commands = request.commands;
    Ok(json!(true))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeleteWebhook {
    drop_pending_updates: Option<bool>,
}

fn delete_webhook(state: &mut State, request: DeleteWebhook) -> Result<Value, Refusal> {
    if request.drop_pending_updates == Some(true) {
        state.queue.drop_pending();
    }
    Ok(json!(true))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GetFile {
    file_id: String,
}

fn get_file(state: &State, request: GetFile) -> Result<Value, Refusal> {
    state.files.describe(&request.file_id)
}

fn chat_id(given: Option<Value>) -> Result<ChatId, Refusal> {
    match given {
        Some(Value::Number(number)) if number.is_i64() => {
            Ok(ChatId(number.as_i64().unwrap_or_default()))
        }
        // A name such as @channel would be looked up, and nobody here has one.
        Some(Value::String(name)) if !name.is_empty() => {
            Err(Refusal::bad_request("chat not found"))
        }
        _ => Err(Refusal::bad_request("chat_id is empty")),
    }
}
