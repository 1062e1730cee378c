//! One decision, before it has its place in a log.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kai_program::json::FlatObject;

use crate::chain::{Hash, Place};

/// The longest text of one field, in bytes: a longer one is cut.
const TEXT: usize = 512;

/// The end of the year 9999.
const LATEST: Duration = Duration::from_secs(253_402_300_799);

/// The most fields of one record: more are left out.
const FIELDS: usize = 16;

/// No line is longer, in bytes: sixteen texts of which each byte is escaped by six.
pub const LINE: usize = 64 << 10;

/// What happened, to whom, and why: flat, and never a code, a secret or what somebody wrote.
#[derive(Debug)]
pub struct Record {
    event: &'static str,
    fields: Vec<(&'static str, Value)>,
}

#[derive(Debug)]
enum Value {
    Text(String),
    Number(i128),
    Boolean(bool),
}

impl Record {
    /// A record of `event`, a word with a dot such as `code.refused`.
    #[must_use]
    pub fn new(event: &'static str) -> Self {
        Self {
            event,
            fields: Vec::new(),
        }
    }

    /// Adds a text.
    #[must_use]
    pub fn text(self, key: &'static str, value: impl Into<String>) -> Self {
        let mut text = value.into();
        if text.len() > TEXT {
            let mut end = TEXT - '…'.len_utf8();
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
            text.push('…');
        }
        self.field(key, Value::Text(text))
    }

    /// Adds a whole number.
    #[must_use]
    pub fn number(self, key: &'static str, value: impl Into<i128>) -> Self {
        self.field(key, Value::Number(value.into()))
    }

    /// Adds a boolean.
    #[must_use]
    pub fn boolean(self, key: &'static str, value: bool) -> Self {
        self.field(key, Value::Boolean(value))
    }

    fn field(mut self, key: &'static str, value: Value) -> Self {
        if self.fields.len() < FIELDS {
            self.fields.push((key, value));
        }
        self
    }

    /// The line that follows the one at `before`, with its end, and where the log stands after it.
    #[must_use]
    pub fn line(&self, before: &Place, at: SystemTime) -> (String, Place) {
        let seq = before.seq + 1;
        // What has a date of four digits; a clock that is further off is wrong in any case.
        let at = at.clamp(UNIX_EPOCH, UNIX_EPOCH + LATEST);
        let mut object = FlatObject::new();
        object
            .number("seq", seq)
            .text("at", &humantime::format_rfc3339_millis(at).to_string())
            .text("event", self.event);
        for (key, value) in &self.fields {
            match value {
                Value::Text(text) => object.text(key, text),
                Value::Number(number) => object.number(key, *number),
                Value::Boolean(boolean) => object.boolean(key, *boolean),
            };
        }
        object.text("prev", &before.hash.to_string());
        let mut line = object.finish();
        let hash = Hash::of(&line);
        line.push('\n');
        (line, Place { seq, hash })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BEGIN: Place = Place {
        seq: 0,
        hash: Hash::NONE,
    };

    proptest! {
        #[test]
        fn whatever_a_name_holds_a_line_is_one_line_with_the_same_keys(
            name in any::<String>(), seconds in any::<u64>()
        ) {
            let record = Record::new("code.refused").text("user", name).number("n", 7);
            let at = UNIX_EPOCH + Duration::from_secs(seconds % (1 << 40));

            let (line, place) = record.line(&BEGIN, at);

            prop_assert_eq!(line.matches('\n').count(), 1);
            prop_assert!(line.len() <= LINE);
            let read: serde_json::Value = serde_json::from_str(&line).unwrap();
            let keys: Vec<&String> = read.as_object().unwrap().keys().collect();
            prop_assert_eq!(keys, ["at", "event", "n", "prev", "seq", "user"]);
            prop_assert_eq!(Place::of(line.trim_end_matches('\n')), Some(place));
        }
    }

    #[test]
    fn a_record_that_is_too_long_is_cut_and_not_refused() {
        let mut record = Record::new("attach.refused");
        for _ in 0..2 * FIELDS {
            record = record.text("why", "\u{1}".repeat(2 * TEXT));
        }
        let (line, _) = record.line(&BEGIN, UNIX_EPOCH);
        assert!(line.len() <= LINE, "{}", line.len());
    }
}
