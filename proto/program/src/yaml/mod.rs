//! A reader for configuration that can say where every mistake is, and never repeats a value.
//!
//! [`Document::parse`] turns a file into [`Node`]s that know their line. [`Map`] hands its keys out one
//! by one and [`Map::finish`] refuses what nobody asked for, so a misspelt key is an error and not a
//! default. Aliases, tags and documents after the first are refused: configuration has no use for them.

use std::{
    fmt,
    ops::RangeInclusive,
    path::{Component, PathBuf},
    str::FromStr,
    time::Duration,
};

pub use parse::Document;

use crate::json::printable;

mod parse;

/// How much of a key's path a message shows.
const SHOWN: usize = 80;

/// A mistake in a configuration file: where, and what is wrong, without the value.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub struct Mistake {
    file: String,
    line: usize,
    key: String,
    what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file, self.line)?;
        if !self.key.is_empty() {
            // A key is whatever somebody typed, or pasted: it must not steer a terminal or fill a log.
            let shown: String = self.key.chars().take(SHOWN).map(printable).collect();
            write!(f, "`{shown}` ")?;
        }
        f.write_str(&self.what)
    }
}

/// One value of a file, with its place.
#[derive(Debug)]
pub struct Node {
    file: String,
    line: usize,
    /// The path of keys to it, as `agent.base_url` or `users[1].name`.
    key: String,
    value: Value,
}

#[derive(Debug)]
enum Value {
    /// A scalar; `plain` if it stood without quotes, and may thus be null, a number or a boolean.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Node {
    /// A mistake at this place.
    #[must_use]
    pub fn mistake(&self, what: impl Into<String>) -> Mistake {
        Mistake {
            file: self.file.clone(),
            line: self.line,
            key: self.key.clone(),
            what: what.into(),
        }
    }

    /// The line it stands in, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.line
    }

    /// True for an empty value, `~` and `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true }
            if matches!(text.as_str(), "" | "~" | "null"))
    }

    /// A map's keys, to be taken one by one.
    ///
    /// # Errors
    /// If it is not a map; an empty value counts as an empty one.
    pub fn into_map(self) -> Result<Map, Mistake> {
        if self.is_null() {
            return Ok(Map {
                place: self,
                entries: Vec::new(),
            });
        }
        match self.value {
            Value::Map(entries) => {
                let place = Node {
                    value: Value::List(Vec::new()),
                    ..self
                };
                Ok(Map { place, entries })
            }
            _ => Err(self.mistake("must be a map of keys to values")),
        }
    }

    /// A list's items.
    ///
    /// # Errors
    /// If it is not a list; an empty value counts as an empty one.
    pub fn into_list(self) -> Result<Vec<Node>, Mistake> {
        if self.is_null() {
            return Ok(Vec::new());
        }
        match self.value {
            Value::List(items) => Ok(items),
            _ => Err(self.mistake("must be a list")),
        }
    }

    /// A text that is not empty.
    ///
    /// # Errors
    /// If it is a list, a map or empty.
    pub fn text(&self) -> Result<&str, Mistake> {
        match &self.value {
            Value::Scalar { text, .. } if !text.is_empty() && !self.is_null() => Ok(text),
            _ => Err(self.mistake("must be a text")),
        }
    }

    /// A list of texts, or a single one.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn into_texts(self) -> Result<Vec<String>, Mistake> {
        if matches!(self.value, Value::List(_)) {
            self.into_list()?
                .iter()
                .map(|item| item.text().map(str::to_owned))
                .collect()
        } else {
            Ok(vec![self.text()?.to_owned()])
        }
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// If it is anything else, quoted or not.
    pub fn boolean(&self) -> Result<bool, Mistake> {
        match &self.value {
            Value::Scalar { text, plain: true } if text == "true" => Ok(true),
            Value::Scalar { text, plain: true } if text == "false" => Ok(false),
            _ => Err(self.mistake("must be true or false")),
        }
    }

    /// A whole number within `range`.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn number(&self, range: RangeInclusive<i64>) -> Result<i64, Mistake> {
        self.scalar::<i64>()
            .filter(|number| range.contains(number))
            .ok_or_else(|| {
                self.mistake(format!(
                    "must be a whole number from {} to {}",
                    range.start(),
                    range.end()
                ))
            })
    }

    /// A number with or without a fraction, within `range`.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn decimal(&self, range: RangeInclusive<f64>) -> Result<f64, Mistake> {
        self.scalar::<f64>()
            .filter(|number| range.contains(number))
            .ok_or_else(|| {
                self.mistake(format!(
                    "must be a number from {} to {}",
                    range.start(),
                    range.end()
                ))
            })
    }

    /// A time of at least one second: `90s`, `30m`, `12h`, or a plain number of seconds.
    ///
    /// # Errors
    /// If it is anything else, or longer than a year.
    pub fn duration(&self) -> Result<Duration, Mistake> {
        const YEAR: u64 = 365 * 24 * 3600;
        let seconds = match &self.value {
            Value::Scalar { text, .. } => {
                let (digits, unit) = match text.as_bytes().last() {
                    Some(b's') => (&text[..text.len() - 1], 1),
                    Some(b'm') => (&text[..text.len() - 1], 60),
                    Some(b'h') => (&text[..text.len() - 1], 3600),
                    _ => (text.as_str(), 1),
                };
                digits
                    .parse::<u64>()
                    .ok()
                    .and_then(|number| number.checked_mul(unit))
            }
            _ => None,
        };
        seconds
            .filter(|seconds| (1..=YEAR).contains(seconds))
            .map(Duration::from_secs)
            .ok_or_else(|| self.mistake("must be a time like 90s, 30m or 12h"))
    }

    /// An absolute path without `..`.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn path(&self) -> Result<PathBuf, Mistake> {
        let path = PathBuf::from(self.text()?);
        if path.is_absolute() && path.components().all(|part| part != Component::ParentDir) {
            Ok(path)
        } else {
            Err(self.mistake("must be an absolute path"))
        }
    }

    fn scalar<T: FromStr>(&self) -> Option<T> {
        match &self.value {
            Value::Scalar { text, plain: true } => text.parse().ok(),
            _ => None,
        }
    }
}

/// A map whose keys are taken one by one.
#[derive(Debug)]
pub struct Map {
    place: Node,
    entries: Vec<(String, Node)>,
}

impl Map {
    /// Takes a key that may be missing; an empty value counts as missing.
    pub fn optional(&mut self, key: &str) -> Option<Node> {
        let at = self.entries.iter().position(|(name, _)| name == key)?;
        Some(self.entries.remove(at).1).filter(|node| !node.is_null())
    }

    /// Takes a key that must be there.
    ///
    /// # Errors
    /// If it is missing or empty.
    pub fn required(&mut self, key: &str) -> Result<Node, Mistake> {
        let missing = self.place.mistake(format!("lacks the key `{key}`"));
        self.optional(key).ok_or(missing)
    }

    /// Takes a key whose value is a map, an empty one if it is missing.
    ///
    /// # Errors
    /// If it is there and not a map.
    pub fn section(&mut self, key: &str) -> Result<Map, Mistake> {
        match self.optional(key) {
            Some(node) => node.into_map(),
            None => {
                let place = Node {
                    file: self.place.file.clone(),
                    line: self.place.line,
                    key: key.to_owned(),
                    value: Value::List(Vec::new()),
                };
                Ok(Map {
                    place,
                    entries: Vec::new(),
                })
            }
        }
    }

    /// The keys that were not taken yet, in the order of the file.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|(key, _)| key.as_str())
    }

    /// A mistake of the map as a whole.
    #[must_use]
    pub fn mistake(&self, what: impl Into<String>) -> Mistake {
        self.place.mistake(what)
    }

    /// The line that the map begins in.
    #[must_use]
    pub fn line(&self) -> usize {
        self.place.line
    }

    /// Refuses what was not taken.
    ///
    /// # Errors
    /// The first key that nobody asked for.
    pub fn finish(self) -> Result<(), Mistake> {
        match self.entries.first() {
            None => Ok(()),
            Some((_, node)) => Err(node.mistake("is not a key that is known here")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parse(text: &str) -> Result<Node, Mistake> {
        Document::parse(Path::new("/etc/kai/kai.yaml"), text)
    }

    #[test]
    fn a_mistake_names_file_line_and_key_and_never_the_value() {
        let mut map = parse("agent:\n  base_url: x\n  turns: hunter2\n")
            .unwrap()
            .into_map()
            .unwrap();
        let mut agent = map.section("agent").unwrap();
        let turns = agent.required("turns").unwrap();

        let mistake = turns.number(1..=9).unwrap_err().to_string();

        assert_eq!(
            mistake,
            "/etc/kai/kai.yaml:3: `agent.turns` must be a whole number from 1 to 9"
        );
    }

    #[test]
    fn a_key_that_nobody_asked_for_is_refused() {
        let mut map = parse("a: 1\nb: 2\n").unwrap().into_map().unwrap();
        map.required("a").unwrap();

        let mistake = map.finish().unwrap_err().to_string();

        assert_eq!(
            mistake,
            "/etc/kai/kai.yaml:2: `b` is not a key that is known here"
        );
    }

    #[test]
    fn twice_given_keys_aliases_tags_and_second_documents_are_refused() {
        for (text, line) in [
            ("a: 1\na: 2\n", 2),
            ("a: &x 1\nb: *x\n", 2),
            ("a: !!str 1\n", 1),
            ("a: 1\n---\nb: 1\n", 3),
            ("a: [1\n", 2),
            ("a: 1\n  b: 2\n", 2),
        ] {
            let mistake = parse(text).unwrap_err();
            assert_eq!(mistake.line, line, "{text:?}: {mistake}");
        }
    }

    #[test]
    fn nesting_and_keys_are_bounded() {
        let deep = format!("{}{}", "[".repeat(30), "]".repeat(30));
        assert!(
            parse(&deep)
                .unwrap_err()
                .to_string()
                .contains("nested too deeply")
        );
        assert!(parse(&"[".repeat(100_000)).is_err());
        let many: String = (0..100_000).map(|key| format!("k{key}:\n")).collect();
        assert!(parse(&many).unwrap_err().to_string().contains("1000 keys"));
    }

    #[test]
    fn a_key_cannot_forge_a_line_or_steer_a_terminal() {
        let map = parse("\"a\\nall is well\\e[31m\": 1")
            .unwrap()
            .into_map()
            .unwrap();

        let said = map.finish().unwrap_err().to_string();

        assert!(!said.chars().any(char::is_control), "{said:?}");
    }

    #[test]
    fn quoted_numbers_are_texts() {
        let mut map = parse("a: '5'\nb: \"true\"\n").unwrap().into_map().unwrap();
        let (a, b) = (map.required("a").unwrap(), map.required("b").unwrap());

        assert!(a.number(0..=9).is_err());
        assert_eq!(a.text().unwrap(), "5");
        assert!(b.boolean().is_err());
    }

    #[test]
    fn times_have_units_and_bounds() {
        for (text, seconds) in [
            ("a: 90", Some(90)),
            ("a: 90s", Some(90)),
            ("a: 30m", Some(1800)),
            ("a: 12h", Some(43200)),
            ("a: 0", None),
            ("a: -1", None),
            ("a: 5d", None),
            ("a: m", None),
            ("a: 18446744073709551615h", None),
        ] {
            let mut map = parse(text).unwrap().into_map().unwrap();
            let time = map.required("a").unwrap().duration().ok();
            assert_eq!(time, seconds.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn an_empty_file_is_an_empty_map() {
        for text in ["", "# only a comment\n", "---\n"] {
            parse(text).unwrap().into_map().unwrap().finish().unwrap();
        }
    }
}
