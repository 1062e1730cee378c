//! What a message asks for: one of the commands, or a prompt for the agent.

use kai_proto::ids::ModelName;

/// The commands and what the chat's menu says of them.
pub const MENU: [(&str, &str); 7] = [
    ("new", "begin a new conversation"),
    ("stop", "stop what is running"),
    ("status", "what your agent is doing"),
    ("model", "show or choose the model"),
    ("lock", "lock until the next code"),
    ("help", "what I can do"),
    ("start", "who I am"),
];

/// What a text asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Everything that is no command.
    Prompt,
    /// /start
    Start,
    /// /help
    Help,
    /// /new
    New,
    /// /stop
    Stop,
    /// /status
    Status,
    /// /model
    Model(ModelAsk),
    /// /lock
    Lock,
    /// A command that does not exist.
    Unknown,
    /// A command for another bot in the same group.
    ForAnother,
}

impl Ask {
    /// True unless it may be answered to whoever holds the Telegram account. /lock only takes away.
    #[must_use]
    pub fn needs_proof(&self) -> bool {
        !matches!(self, Self::Start | Self::Help | Self::Lock)
    }
}

/// What /model asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelAsk {
    /// Which it is.
    Show,
    /// The one that users.yaml or the agent chooses.
    Default,
    /// This one.
    Use(ModelName),
    /// Something that cannot be a model's name.
    Invalid,
}

/// Reads `text`, sent to the bot whose name is `me`.
///
/// A command begins with `/`, a word of letters, digits and `_`, and perhaps `@` and a bot's name:
/// `/etc/passwd is odd` is a prompt.
#[must_use]
pub fn read(text: &str, me: Option<&str>) -> Ask {
    let Some(rest) = text.strip_prefix('/') else {
        return Ask::Prompt;
    };
    let (word, argument) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let (name, bot) = match word.split_once('@') {
        Some((name, bot)) => (name, Some(bot)),
        None => (word, None),
    };
    let letters = |word: &str| word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if name.is_empty() || name.len() > 32 || !letters(name) || !bot.is_none_or(letters) {
        return Ask::Prompt;
    }
    if let (Some(bot), Some(me)) = (bot, me)
        && !bot.eq_ignore_ascii_case(me)
    {
        return Ask::ForAnother;
    }
    match name.to_ascii_lowercase().as_str() {
        "start" => Ask::Start,
        "help" => Ask::Help,
        "new" => Ask::New,
        "stop" => Ask::Stop,
        "status" => Ask::Status,
        "lock" => Ask::Lock,
        "model" => Ask::Model(match argument.trim() {
            "" => ModelAsk::Show,
            "default" => ModelAsk::Default,
            name => ModelName::try_from(name.to_owned()).map_or(ModelAsk::Invalid, ModelAsk::Use),
        }),
        _ => Ask::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(text: &str) -> Ask {
        read(text, Some("kai_bot"))
    }

    #[test]
    fn each_command_of_the_menu_is_read() {
        for (name, _) in MENU {
            assert!(!matches!(
                ask(&format!("/{name}")),
                Ask::Prompt | Ask::Unknown
            ));
        }
        assert_eq!(ask("/STOP"), Ask::Stop);
        assert_eq!(ask("/stop now please"), Ask::Stop);
    }

    #[test]
    fn only_what_says_nothing_private_needs_no_proof() {
        let free = ["/help", "/start", "/lock", "/help@kai_bot", "/START now"];
        for text in free {
            assert!(!ask(text).needs_proof(), "{text}");
        }
        for text in [
            "hello",
            "/new",
            "/stop",
            "/status",
            "/model",
            "/model opus",
            "/frobnicate",
            "/",
            "",
        ] {
            assert!(ask(text).needs_proof(), "{text}");
        }
    }

    #[test]
    fn a_path_is_a_prompt_and_an_unknown_word_is_not() {
        assert_eq!(ask("/etc/passwd is odd"), Ask::Prompt);
        assert_eq!(ask("/"), Ask::Prompt);
        assert_eq!(ask("/ help"), Ask::Prompt);
        assert_eq!(ask("and/or"), Ask::Prompt);
        assert_eq!(ask("/frobnicate"), Ask::Unknown);
    }

    #[test]
    fn a_command_for_another_bot_is_not_ours() {
        assert_eq!(ask("/help@kai_bot"), Ask::Help);
        assert_eq!(ask("/help@Kai_Bot"), Ask::Help);
        assert_eq!(ask("/help@other_bot"), Ask::ForAnother);
    }

    #[test]
    fn a_model_is_shown_chosen_reset_or_refused() {
        assert_eq!(ask("/model"), Ask::Model(ModelAsk::Show));
        assert_eq!(ask("/model default"), Ask::Model(ModelAsk::Default));
        assert_eq!(ask("/model --x"), Ask::Model(ModelAsk::Invalid));
        assert_eq!(ask("/model a b"), Ask::Model(ModelAsk::Invalid));
        let opus = ModelName::try_from("opus".to_owned()).unwrap();
        assert_eq!(ask("/model  opus "), Ask::Model(ModelAsk::Use(opus)));
    }
}
