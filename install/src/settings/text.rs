//! install.yaml as a text: the token is taken out by its place, and all else stays as it was written.

use std::path::Path;

use saphyr_parser::Event;

use super::{DEFAULT, Settings};
use crate::spans::{Parts, Unusual, byte};

/// What stands in the token's place.
const COMMENT: &str = "# The bot's token is in /etc/kai/credentials/telegram-token.cred, encrypted; to give another: \
                       kai-install config --token-file FILE";

/// A key and its value, as bytes of the text.
struct Pair {
    name: String,
    start: usize,
    end: usize,
}

/// The map below `telegram`.
struct Section {
    /// Where its key begins.
    start: usize,
    /// Whether it has braces.
    is_flow: bool,
    pairs: Vec<Pair>,
}

/// The text without `telegram.token`, and with a comment that says where the token is.
///
/// # Errors
/// [`Unusual`], also if the token would still be somewhere in it.
pub fn without_token(text: &str) -> Result<String, Unusual> {
    let settings = parse(text)?;
    let section = find(text)?;
    let at = section
        .pairs
        .iter()
        .position(|pair| pair.name == "token")
        .ok_or(Unusual)?;
    let without = if section.is_flow {
        out_of_braces(text, &section, at)?
    } else {
        out_of_lines(text, &section.pairs[at])?
    };
    let token = settings.token.clone().ok_or(Unusual)?;
    let expected = Settings {
        token: None,
        ..settings
    };
    if parse(&without)? != expected || without.contains(token.reveal()) {
        return Err(Unusual);
    }
    Ok(without)
}

fn parse(text: &str) -> Result<Settings, Unusual> {
    Settings::parse(Path::new(DEFAULT), text).map_err(|_| Unusual)
}

fn out_of_lines(text: &str, pair: &Pair) -> Result<String, Unusual> {
    let start = line_start(text, pair.start);
    let end = text[pair.end..]
        .find('\n')
        .map_or(text.len(), |length| pair.end + length);
    let indent = &text[start..pair.start];
    let behind = text[pair.end..end].trim();
    let is_one_line = !text[pair.start..pair.end].contains('\n');
    if !is_one_line || !indent.trim().is_empty() || !(behind.is_empty() || behind.starts_with('#'))
    {
        return Err(Unusual);
    }
    let mut lines = format!("{indent}{COMMENT}");
    if !behind.is_empty() {
        lines.push_str(&format!("\n{indent}{behind}"));
    }
    Ok([&text[..start], &lines, &text[end..]].concat())
}

fn out_of_braces(text: &str, section: &Section, at: usize) -> Result<String, Unusual> {
    let pair = &section.pairs[at];
    let before = at.checked_sub(1).and_then(|at| section.pairs.get(at));
    let (start, end) = match (section.pairs.get(at + 1), before) {
        (Some(next), _) => (pair.start, next.start),
        (None, Some(before)) => (before.end, pair.end),
        (None, None) => (pair.start, pair.end),
    };
    // A comment would be on its own line.
    if text[start..end].contains('\n') {
        return Err(Unusual);
    }
    let line = line_start(text, section.start);
    let indent: String = text[line..].chars().take_while(|c| *c == ' ').collect();
    let comment = format!("{indent}{COMMENT}\n");
    Ok([&text[..line], &comment, &text[line..start], &text[end..]].concat())
}

fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |newline| newline + 1)
}

/// Finds the map that is the value of the key `telegram` at the top.
fn find(text: &str) -> Result<Section, Unusual> {
    let (mut parts, key) = Parts::of(text, "telegram")?;
    let (Event::MappingStart(..), value) = parts.read()? else {
        return Err(Unusual);
    };
    let mut section = Section {
        start: byte(text, key.start.index()),
        is_flow: text[byte(text, value.start.index())..].starts_with('{'),
        pairs: Vec::new(),
    };
    loop {
        let (event, place) = parts.read()?;
        let name = match event {
            Event::MappingEnd => return Ok(section),
            Event::Scalar(name, ..) => name.into_owned(),
            _ => return Err(Unusual),
        };
        let value = parts.read()?;
        let end = parts.end_of(value)?.end.index();
        section.pairs.push(Pair {
            name,
            start: byte(text, place.start.index()),
            end: byte(text, end),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "123456:AAbbCCddEEffGGhhIIjjKK";

    #[test]
    fn the_token_goes_and_all_else_stays_as_it_was_written() {
        for (text, expected) in [
            (
                "# ü\ntelegram:\n  # of @a_bot\n  token: \"T\"\n  api_url: \"http://x\" # ours\nusers: []\n",
                "# ü\ntelegram:\n  # of @a_bot\n  C\n  api_url: \"http://x\" # ours\nusers: []\n",
            ),
            (
                "telegram:\n  token: T # from @BotFather\n\nadmins: [carol] # her\n",
                "telegram:\n  C\n  # from @BotFather\n\nadmins: [carol] # her\n",
            ),
            ("telegram:\n    token: 'T'", "telegram:\n    C"),
            (
                "users:\n- {telegram_id: 1, name: a, os_user: a}\ntelegram: {token: \"T\"}\n",
                "users:\n- {telegram_id: 1, name: a, os_user: a}\nC\ntelegram: {}\n",
            ),
            (
                "telegram: {token: \"T\", api_url: \"http://x\"} # all\n",
                "C\ntelegram: {api_url: \"http://x\"} # all\n",
            ),
            (
                "telegram: {\n  api_url: \"http://x\", \"token\": \"T\"\n}\n",
                "C\ntelegram: {\n  api_url: \"http://x\"\n}\n",
            ),
            (
                "{\"telegram\": {\"token\": \"T\"}, \"users\": []}",
                "C\n{\"telegram\": {}, \"users\": []}",
            ),
            (
                "telegram:\r\n  token: T\r\nusers: []\r\n",
                "telegram:\r\n  C\nusers: []\r\n",
            ),
        ] {
            let text = text.replace('T', TOKEN);
            let expected = expected.replace('C', COMMENT);
            assert_eq!(without_token(&text), Ok(expected), "{text}");
        }
        let settings = Settings {
            token: Some(super::super::Token::parse(TOKEN).unwrap()),
            ..Settings::default()
        };
        let rendered = settings.render();
        assert!(without_token(&rendered).is_ok(), "{}", *rendered);
    }

    #[test]
    fn what_is_unusual_is_left_alone() {
        for text in [
            "telegram:\n  token:\n    T\n",
            "telegram:\n  token: >-\n    T\n",
            "telegram:\n  ? token\n  : T\n",
            "telegram: {\n  token: T, # mine\n  api_url: \"http://x\"\n}\n",
            "telegram: {token: T,}\n",
            "# T before\ntelegram:\n  token: T\n",
            "telegram: {}\n",
            "telegram:\n",
            "users: []\n",
            "",
            "telegram: {token: T\n",
        ] {
            let text = text.replace('T', TOKEN);
            assert_eq!(without_token(&text), Err(Unusual), "{text}");
        }
    }
}
