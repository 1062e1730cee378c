//! From text to [`Node`]s: what of YAML is taken, and within which bounds.

use std::path::Path;

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::{Mistake, Node, Value};

/// How deep collections may stand in each other.
const DEPTH: usize = 16;
/// How many keys a map may have; each is compared with those before it.
const KEYS: usize = 1000;

/// A whole file.
#[derive(Debug)]
pub struct Document;

impl Document {
    /// Reads the one document in `text`; an empty one is an empty map. `file` is for messages.
    ///
    /// # Errors
    /// A [`Mistake`] at the first line that is not YAML of the plain kind that configuration needs.
    pub fn parse(file: &Path, text: &str) -> Result<Node, Mistake> {
        let mut builder = Builder {
            file: file.display().to_string(),
            parser: Parser::new_from_str(text),
        };
        let mut root = None;
        loop {
            let (event, line) = builder.next(1, "")?;
            match event {
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd => {}
                Event::StreamEnd => break,
                _ if root.is_some() => {
                    return Err(builder.mistake(
                        line,
                        "",
                        "a second document begins here: use one",
                    ));
                }
                other => root = Some(builder.node(other, line, String::new(), 0)?),
            }
        }
        Ok(root.unwrap_or_else(|| Node {
            file: builder.file,
            line: 1,
            key: String::new(),
            value: Value::Map(Vec::new()),
        }))
    }
}

struct Builder<'input> {
    file: String,
    parser: Parser<'input, saphyr_parser::StrInput<'input>>,
}

impl<'input> Builder<'input> {
    fn mistake(&self, line: usize, key: &str, what: &str) -> Mistake {
        Mistake {
            file: self.file.clone(),
            line,
            key: key.to_owned(),
            what: what.to_owned(),
        }
    }

    fn next(&mut self, line: usize, key: &str) -> Result<(Event<'input>, usize), Mistake> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, span.start.line())),
            // The parser's own words are dropped: they may quote what stands there.
            Some(Err(error)) => Err(self.mistake(
                error.marker().line(),
                "",
                "the YAML cannot be read here: look at indentation, quotes and colons",
            )),
            None => Err(self.mistake(line, key, "ends in the middle")),
        }
    }

    fn node(
        &mut self,
        event: Event<'input>,
        line: usize,
        key: String,
        depth: usize,
    ) -> Result<Node, Mistake> {
        if depth > DEPTH {
            return Err(self.mistake(line, &key, "is nested too deeply"));
        }
        let value = match event {
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => {
                return Err(self.mistake(line, &key, "carries a tag: write the plain value"));
            }
            Event::Alias(_) => {
                return Err(self.mistake(line, &key, "is an alias: write the value itself"));
            }
            Event::Scalar(text, style, _, None) => Value::Scalar {
                text: text.into_owned(),
                plain: style == ScalarStyle::Plain,
            },
            Event::SequenceStart(_, None) => {
                let mut items = Vec::new();
                loop {
                    let (event, line) = self.next(line, &key)?;
                    if event == Event::SequenceEnd {
                        break Value::List(items);
                    }
                    let item = format!("{key}[{}]", items.len());
                    items.push(self.node(event, line, item, depth + 1)?);
                }
            }
            Event::MappingStart(_, None) => self.map(line, &key, depth)?,
            _ => return Err(self.mistake(line, &key, "is not a value")),
        };
        Ok(Node {
            file: self.file.clone(),
            line,
            key,
            value,
        })
    }

    fn map(&mut self, line: usize, key: &str, depth: usize) -> Result<Value, Mistake> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        loop {
            let (event, at) = self.next(line, key)?;
            let name = match event {
                Event::MappingEnd => return Ok(Value::Map(entries)),
                Event::Scalar(text, _, _, None) => text.into_owned(),
                _ => return Err(self.mistake(at, key, "has a key that is not a plain word")),
            };
            let inner = if key.is_empty() {
                name.clone()
            } else {
                format!("{key}.{name}")
            };
            if entries.len() == KEYS {
                return Err(self.mistake(at, key, "has more than 1000 keys"));
            }
            if entries.iter().any(|(known, _)| *known == name) {
                return Err(self.mistake(at, &inner, "is given twice"));
            }
            let (event, value_line) = self.next(at, &inner)?;
            let mut node = self.node(event, value_line, inner, depth + 1)?;
            // An editor is sent to the key, also where a block value begins a line later.
            node.line = at;
            entries.push((name, node));
        }
    }
}
