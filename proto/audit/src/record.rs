//! One decision, before it has its place in a log.

use kai_program::json::FlatObject;

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
    pub fn text(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((key, Value::Text(value.into())));
        self
    }

    /// Adds a whole number.
    #[must_use]
    pub fn number(mut self, key: &'static str, value: impl Into<i128>) -> Self {
        self.fields.push((key, Value::Number(value.into())));
        self
    }

    /// Adds a boolean.
    #[must_use]
    pub fn boolean(mut self, key: &'static str, value: bool) -> Self {
        self.fields.push((key, Value::Boolean(value)));
        self
    }

    /// Writes event and fields into `object`.
    pub(crate) fn write(&self, object: &mut FlatObject) {
        object.text("event", self.event);
        for (key, value) in &self.fields {
            match value {
                Value::Text(text) => object.text(key, text),
                Value::Number(number) => object.number(key, *number),
                Value::Boolean(boolean) => object.boolean(key, *boolean),
            };
        }
    }
}
