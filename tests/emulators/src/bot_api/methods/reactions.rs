//! What a bot thinks of a message, in one emoji.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{chat_id, editing::message_id};
use crate::bot_api::refusal::Refusal;
use crate::bot_api::state::State;

/// The emoji that everybody may react with; the documentation of ReactionTypeEmoji lists them.
const EMOJI: &str = "❤ 👍 👎 🔥 🥰 👏 😁 🤔 🤯 😱 🤬 😢 🎉 🤩 🤮 💩 🙏 👌 🕊 🤡 🥱 🥴 😍 🐳 ❤‍🔥 🌚 🌭 💯 \
                     🤣 ⚡ 🍌 🏆 💔 🤨 😐 🍓 🍾 💋 🖕 😈 😴 😭 🤓 👻 👨‍💻 👀 🎃 🙈 😇 😨 🤝 ✍ 🤗 🫡 🎅 🎄 \
                     ☃ 💅 🤪 🗿 🆒 💘 🙉 🦄 😘 💊 🙊 😎 👾 🤷‍♂ 🤷 🤷‍♀ 😡";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetMessageReaction {
    chat_id: Option<Value>,
    message_id: Option<i32>,
    #[serde(default)]
    reaction: Vec<Reaction>,
    #[serde(rename = "is_big")]
    _is_big: Option<bool>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum Reaction {
    Emoji {
        emoji: String,
    },
    CustomEmoji {
        #[serde(rename = "custom_emoji_id")]
        _custom_emoji_id: String,
    },
    Paid {},
}

/// Sets the bot's one reaction to a message, or takes it away.
pub(super) fn set_reaction(
    state: &mut State,
    request: SetMessageReaction,
) -> Result<Value, Refusal> {
    let chat = state.open_chat(chat_id(request.chat_id)?)?;
    let message = chat.message_mut(message_id(request.message_id)?);
    let message = message.ok_or_else(|| Refusal::bad_request("message to react not found"))?;
    let mut reactions = request.reaction.into_iter();
    let reaction = match (reactions.next(), reactions.next()) {
        (None, _) => None,
        (Some(_), Some(_)) => return Err(Refusal::bad_request("REACTIONS_TOO_MANY")),
        (Some(Reaction::Emoji { emoji }), None) => Some(emoji),
        // Custom ones must be allowed in the chat, and no bot can pay.
        (Some(Reaction::CustomEmoji { .. } | Reaction::Paid {}), None) => {
            return Err(Refusal::bad_request("REACTION_INVALID"));
        }
    };
    let is_known = |emoji: &String| EMOJI.split_whitespace().any(|known| known == emoji);
    if reaction.as_ref().is_some_and(|emoji| !is_known(emoji)) {
        return Err(Refusal::bad_request("REACTION_INVALID"));
    }
    message.reaction = reaction;
    Ok(json!(true))
}
