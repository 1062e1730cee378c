//! Inline keyboards: what a bot may send, and the buttons a person finds.

use serde::Deserialize;
use serde_json::{Value, json};

use super::entities::is_link;
use super::refusal::Refusal;

/// Telegram's limit for what a button carries back, in bytes.
const CALLBACK_DATA_LIMIT: usize = 64;
/// Telegram's limit for the buttons under one message.
const BUTTONS_LIMIT: usize = 100;

/// A button under a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Button {
    /// What is written on it.
    pub label: String,
    /// What it does.
    pub action: ButtonAction,
}

/// What pressing a button does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ButtonAction {
    /// Sends this back to the bot.
    Callback(String),
    /// Opens this in a browser.
    Url(String),
}

/// The rows of buttons under a message; no rows is no keyboard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keyboard {
    /// From top to bottom, each from left to right.
    pub rows: Vec<Vec<Button>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKeyboard {
    inline_keyboard: Vec<Vec<RawButton>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawButton {
    text: String,
    callback_data: Option<String>,
    url: Option<String>,
}

impl Keyboard {
    /// Checks a `reply_markup`. Only inline keyboards are known here.
    pub(super) fn read(markup: Option<Value>) -> Result<Self, Refusal> {
        let Some(markup) = markup else {
            return Ok(Self::default());
        };
        let raw = RawKeyboard::deserialize(markup).map_err(|error| {
            Refusal::bad_request(format_args!("can't parse reply keyboard markup: {error}"))
        })?;
        let mut rows = Vec::new();
        for row in raw.inline_keyboard {
            let row: Vec<Button> = row.into_iter().map(read_button).collect::<Result<_, _>>()?;
            if !row.is_empty() {
                rows.push(row);
            }
        }
        if rows.iter().map(Vec::len).sum::<usize>() > BUTTONS_LIMIT {
            return Err(Refusal::bad_request("reply markup is too long"));
        }
        Ok(Self { rows })
    }

    /// Whether there is no button.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// All buttons, row by row.
    pub fn buttons(&self) -> impl Iterator<Item = &Button> {
        self.rows.iter().flatten()
    }

    pub(super) fn json(&self) -> Value {
        let button = |button: &Button| match &button.action {
            ButtonAction::Callback(data) => json!({"text": button.label, "callback_data": data}),
            ButtonAction::Url(url) => json!({"text": button.label, "url": url}),
        };
        let rows: Vec<Vec<Value>> = self
            .rows
            .iter()
            .map(|row| row.iter().map(button).collect())
            .collect();
        json!({"inline_keyboard": rows})
    }
}

fn read_button(raw: RawButton) -> Result<Button, Refusal> {
    let cannot =
        |why: &str| Refusal::bad_request(format_args!("can't parse inline keyboard button: {why}"));
    if raw.text.trim().is_empty() {
        return Err(cannot("Button text must not be empty"));
    }
    let action = match (raw.callback_data, raw.url) {
        (Some(data), None) if (1..=CALLBACK_DATA_LIMIT).contains(&data.len()) => {
            ButtonAction::Callback(data)
        }
        (Some(_), None) => return Err(Refusal::bad_request("BUTTON_DATA_INVALID")),
        (None, Some(url)) if is_link(&url) => ButtonAction::Url(url),
        (None, Some(_)) => return Err(Refusal::bad_request("BUTTON_URL_INVALID")),
        (None, None) => return Err(cannot("Text buttons are unallowed in the inline keyboard")),
        (Some(_), Some(_)) => return Err(cannot("a button does one thing")),
    };
    Ok(Button {
        label: raw.text,
        action,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(button: Value) -> Result<Keyboard, String> {
        Keyboard::read(Some(json!({"inline_keyboard": [[button]]})))
            .map_err(|refusal| refusal.description)
    }

    #[test]
    fn callback_data_has_1_to_64_bytes() {
        let with = |data: String| read(json!({"text": "go", "callback_data": data}));
        assert!(with("x".to_owned()).is_ok());
        assert!(with("ü".repeat(32)).is_ok());
        assert_eq!(
            with(String::new()).unwrap_err(),
            "Bad Request: BUTTON_DATA_INVALID"
        );
        assert_eq!(
            with("ü".repeat(33)).unwrap_err(),
            "Bad Request: BUTTON_DATA_INVALID"
        );
    }

    #[test]
    fn a_button_has_a_label_and_does_one_thing() {
        assert!(read(json!({"text": " ", "callback_data": "x"})).is_err());
        assert!(
            read(json!({"text": "go"}))
                .unwrap_err()
                .contains("Text buttons are unallowed")
        );
        assert!(read(json!({"text": "go", "callback_data": "x", "url": "https://a.b"})).is_err());
        assert!(read(json!({"text": "go", "url": "file:///etc/passwd"})).is_err());
        assert!(Keyboard::read(Some(json!({"force_reply": true}))).is_err());
    }
}
