//! An encoder of flat JSON objects: one line, keys in the order in which they were added.
//!
//! The root daemons write their logs with it and link no JSON parser. No value can break the line or
//! steer a terminal: control characters are escaped, and so are the Unicode line and direction
//! marks that make a text look like another one.

use std::fmt::Write;

/// One object that is being written.
#[derive(Debug, Default)]
pub struct FlatObject {
    text: String,
}

impl FlatObject {
    /// An object without keys.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a text.
    pub fn text(&mut self, key: &str, value: &str) -> &mut Self {
        self.key(key);
        string(&mut self.text, value);
        self
    }

    /// Adds a whole number.
    pub fn number(&mut self, key: &str, value: impl Into<i128>) -> &mut Self {
        self.key(key);
        let _ = write!(self.text, "{}", value.into());
        self
    }

    /// Adds a boolean.
    pub fn boolean(&mut self, key: &str, value: bool) -> &mut Self {
        self.key(key);
        self.text.push_str(if value { "true" } else { "false" });
        self
    }

    /// The object, without a line end.
    #[must_use]
    pub fn finish(mut self) -> String {
        if self.text.is_empty() {
            self.text.push('{');
        }
        self.text.push('}');
        self.text
    }

    fn key(&mut self, key: &str) {
        self.text.push(if self.text.is_empty() { '{' } else { ',' });
        string(&mut self.text, key);
        self.text.push(':');
    }
}

fn string(out: &mut String, value: &str) {
    out.push('"');
    for character in value.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() || steers(c) => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// True for the characters beyond the control characters that end a line or turn its direction.
#[must_use]
pub fn steers(character: char) -> bool {
    matches!(character,
        '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The character itself, or a mark in place of one that could begin a line or steer a terminal.
#[must_use]
pub fn printable(character: char) -> char {
    if character.is_control() || steers(character) {
        '\u{fffd}'
    } else {
        character
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_what_a_parser_reads(
            entries in prop::collection::btree_map(".*", (".*", any::<i64>(), any::<bool>()), 0..5)
        ) {
            let mut object = FlatObject::new();
            let mut expected = serde_json::Map::new();
            for (key, (text, number, boolean)) in &entries {
                object.text(&format!("t{key}"), text);
                object.number(&format!("n{key}"), *number);
                object.boolean(&format!("b{key}"), *boolean);
                expected.insert(format!("t{key}"), text.as_str().into());
                expected.insert(format!("n{key}"), (*number).into());
                expected.insert(format!("b{key}"), (*boolean).into());
            }

            let line = object.finish();

            prop_assert!(!line.chars().any(|c| c.is_control() || steers(c)));
            let read: serde_json::Value = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(read, serde_json::Value::Object(expected));
        }
    }
}
