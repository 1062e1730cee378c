//! What the Bot API's errors mean for kai. Only their kind is ever logged, never their text.

use std::time::Duration;

use teloxide::{ApiError, RequestError};
use tracing::{info, warn};

/// How long a chat rests while Telegram does not know the token.
const TOKEN_WAIT: Duration = Duration::from_secs(30);

/// How a call to show something ended, if not well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Not now: the chat is paused until it may be tried again.
    Later,
    /// Never: the message or the chat is gone, or Telegram does not take it.
    Never,
}

/// Whether a message of a user's stands in its chat, as far as Telegram says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// It does.
    There,
    /// It does not.
    Gone,
    /// The call failed on the way: it may be made again.
    Unclear,
}

impl Sight {
    /// What a refused mark says of the message: one that is there may not be markable.
    #[must_use]
    pub fn of(error: &RequestError) -> Self {
        match error {
            RequestError::Api(error) if is_gone(error) => Self::Gone,
            error => match judge(error).0 {
                Trouble::Later => Self::Unclear,
                Trouble::Never => Self::There,
            },
        }
    }
}

/// How a poll ended, if not well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PollError {
    /// Somebody else polls with this token, or a webhook is set.
    #[error("another program receives this bot's messages; stop it, or give kai a bot of its own")]
    Conflict,
    /// Telegram does not know the token.
    #[error("Telegram does not know the bot's token; put the one from @BotFather into its file")]
    Token,
    /// Telegram asks to wait.
    #[error("Telegram asks to wait {} s", .0.as_secs())]
    Wait(Duration),
    /// It cannot be reached, or answers with something else.
    #[error("Telegram cannot be reached")]
    Network,
}

/// What a failed call means, and how long to wait if somebody says so.
#[must_use]
pub fn judge(error: &RequestError) -> (Trouble, Option<Duration>) {
    match error {
        RequestError::RetryAfter(seconds) => {
            let wait = Duration::from_secs(u64::from(seconds.seconds()));
            info!(
                seconds = wait.as_secs(),
                "Telegram asks to wait in one chat"
            );
            (Trouble::Later, Some(wait))
        }
        // A token that was just replaced, or a server that stumbles: it will mend.
        RequestError::Api(ApiError::InvalidToken) => (Trouble::Later, Some(TOKEN_WAIT)),
        RequestError::Api(ApiError::Unknown(said)) if !is_final(said) => (Trouble::Later, None),
        RequestError::Api(_) | RequestError::MigrateToChatId(_) => {
            warn!("Telegram does not take a message: its chat or the message is gone or closed");
            (Trouble::Never, None)
        }
        RequestError::Network(_) | RequestError::InvalidJson { .. } | RequestError::Io(_) => {
            (Trouble::Later, None)
        }
    }
}

/// Whether an answer that teloxide has no name for is about the call itself.
fn is_final(said: &str) -> bool {
    said.starts_with("Bad Request") || said.starts_with("Forbidden")
}

/// Whether Telegram says that the message that a call is about is not there.
#[must_use]
pub fn is_gone(error: &ApiError) -> bool {
    match error {
        ApiError::MessageIdInvalid | ApiError::MessageToDeleteNotFound => true,
        ApiError::Unknown(said) => {
            let said = said.to_ascii_lowercase();
            said.starts_with("bad request: message ") && said.ends_with(" not found")
        }
        _ => false,
    }
}

/// Whether Telegram complains about the styles of a text.
#[must_use]
pub fn is_about_entities(error: &ApiError) -> bool {
    match error {
        ApiError::CantParseEntities(_) => true,
        ApiError::Unknown(said) => is_final(said) && said.to_ascii_lowercase().contains("entit"),
        _ => false,
    }
}

/// What a failed poll means.
#[must_use]
pub fn poll_error(error: &RequestError) -> PollError {
    match error {
        RequestError::Api(ApiError::TerminatedByOtherGetUpdates | ApiError::CantGetUpdates) => {
            PollError::Conflict
        }
        RequestError::Api(ApiError::Unknown(said)) if said.starts_with("Conflict") => {
            PollError::Conflict
        }
        RequestError::Api(ApiError::InvalidToken) => PollError::Token,
        RequestError::RetryAfter(seconds) => {
            PollError::Wait(Duration::from_secs(u64::from(seconds.seconds())))
        }
        _ => PollError::Network,
    }
}

#[cfg(test)]
mod tests {
    use teloxide::types::Seconds;

    use super::*;

    fn unknown(said: &str) -> RequestError {
        RequestError::Api(ApiError::Unknown(said.to_owned()))
    }

    #[test]
    fn what_can_mend_itself_is_tried_again_and_nothing_else() {
        let minute = RequestError::RetryAfter(Seconds::from_seconds(60));
        assert_eq!(
            judge(&minute),
            (Trouble::Later, Some(Duration::from_secs(60)))
        );
        for (error, trouble) in [
            (unknown("Bad Gateway"), Trouble::Later),
            (unknown("Internal Server Error"), Trouble::Later),
            (unknown("Bad Request: something new"), Trouble::Never),
            (
                unknown("Forbidden: bot was kicked from the group chat"),
                Trouble::Never,
            ),
            (RequestError::Api(ApiError::BotBlocked), Trouble::Never),
            (
                RequestError::Api(ApiError::MessageToEditNotFound),
                Trouble::Never,
            ),
            (RequestError::Api(ApiError::InvalidToken), Trouble::Later),
        ] {
            assert_eq!(judge(&error).0, trouble, "{error:?}");
        }
    }

    #[test]
    fn only_a_message_that_telegram_does_not_find_counts_as_deleted() {
        let wait = RequestError::RetryAfter(Seconds::from_seconds(3));
        for (error, sight) in [
            (
                unknown("Bad Request: message to react not found"),
                Sight::Gone,
            ),
            (unknown("Bad Request: message not found"), Sight::Gone),
            (RequestError::Api(ApiError::MessageIdInvalid), Sight::Gone),
            (unknown("Bad Request: REACTION_INVALID"), Sight::There),
            (unknown("Bad Request: chat not found"), Sight::There),
            (unknown("Bad Gateway"), Sight::Unclear),
            (wait, Sight::Unclear),
        ] {
            assert_eq!(Sight::of(&error), sight, "{error:?}");
        }
    }

    #[test]
    fn another_poller_a_webhook_and_a_bad_token_are_told_apart() {
        for (error, meaning) in [
            (ApiError::TerminatedByOtherGetUpdates, PollError::Conflict),
            (ApiError::CantGetUpdates, PollError::Conflict),
            (ApiError::InvalidToken, PollError::Token),
            (ApiError::ChatNotFound, PollError::Network),
        ] {
            assert_eq!(poll_error(&RequestError::Api(error)), meaning);
        }
        assert_eq!(
            poll_error(&unknown(
                "Conflict: can't use getUpdates method while webhook is active"
            )),
            PollError::Conflict
        );
    }
}
