//! Asks Telegram whether it knows a token: the Bot API's getMe.

use std::time::Duration;

use reqwest::{StatusCode, blocking::Client, redirect::Policy};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::Token;

/// Telegram's own server.
pub const TELEGRAM: &str = "https://api.telegram.org";

/// How long an admin waits for an answer that is good to have and not needed.
const PATIENCE: Duration = Duration::from_secs(5);

/// What Telegram says of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// It is that of the bot with this name.
    Known(String),
    /// It is nobody's.
    Refused,
    /// Nobody knows: there is no way to the server, or it does not answer as one.
    Unknown(&'static str),
}

#[derive(Deserialize)]
struct Answer {
    result: Option<Bot>,
}

#[derive(Deserialize)]
struct Bot {
    username: Option<String>,
}

/// Asks the server at `api_url` for the bot of `token`.
#[must_use]
pub fn prove(token: &Token, api_url: &str) -> Proof {
    // Not followed anywhere else: the address has the token in it.
    let client = Client::builder()
        .timeout(PATIENCE)
        .redirect(Policy::none())
        .build();
    let Ok(client) = client else {
        return Proof::Unknown("the HTTP client cannot be made");
    };
    let address = Zeroizing::new(format!(
        "{}/bot{}/getMe",
        api_url.trim_end_matches('/'),
        token.reveal()
    ));
    // No error of the client's is shown: it may quote the address.
    let Ok(answer) = client.get(address.as_str()).send() else {
        return Proof::Unknown("there is no way to the Bot API server from here");
    };
    match answer.status() {
        // 404 is for a token that is not one in the server's eyes.
        StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND => return Proof::Refused,
        StatusCode::OK => {}
        _ => return Proof::Unknown("the Bot API server answers with an error"),
    }
    let bot = answer
        .text()
        .ok()
        .and_then(|text| serde_json::from_str::<Answer>(&text).ok())
        .and_then(|answer| answer.result);
    match bot {
        Some(bot) => Proof::Known(
            bot.username
                .unwrap_or_default()
                .chars()
                .map(kai_program::json::printable)
                .take(64)
                .collect(),
        ),
        None => Proof::Unknown("the server does not answer as a Bot API server does"),
    }
}
