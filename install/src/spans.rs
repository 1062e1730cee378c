//! Where the values of a YAML text stand: what changes one of them by its place leaves all else as it was written.

use saphyr_parser::{Event, Parser, Span, StrInput};

/// Why a text is not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not written in a way that can be changed here")]
pub struct Unusual;

/// A part of a text, with its place.
pub type Part<'a> = (Event<'a>, Span);

/// The parts of a text that is a map, one after the other.
pub struct Parts<'a>(Parser<'a, StrInput<'a>>);

impl<'a> Parts<'a> {
    /// Those of the value of the key `wanted` at the top, and the key's own place.
    ///
    /// # Errors
    /// [`Unusual`], also if there is no such key.
    pub fn of(text: &'a str, wanted: &str) -> Result<(Self, Span), Unusual> {
        let mut parts = Self(Parser::new_from_str(text));
        loop {
            match parts.read()? {
                (Event::MappingStart(..), _) => break,
                (Event::StreamStart | Event::DocumentStart(_), _) => {}
                _ => return Err(Unusual),
            }
        }
        loop {
            match parts.read()? {
                (Event::Scalar(key, ..), place) if key == wanted => return Ok((parts, place)),
                (Event::Scalar(..), _) => {
                    let value = parts.read()?;
                    parts.end_of(value)?;
                }
                _ => return Err(Unusual),
            }
        }
    }

    /// The next one.
    ///
    /// # Errors
    /// [`Unusual`] where the text is no YAML, or has ended.
    pub fn read(&mut self) -> Result<Part<'a>, Unusual> {
        match self.0.next_event() {
            Some(Ok(part)) => Ok(part),
            _ => Err(Unusual),
        }
    }

    /// Goes to the end of a value that has begun; the place of the last of it that has something in it.
    ///
    /// # Errors
    /// [`Unusual`].
    pub fn end_of(&mut self, first: Part<'a>) -> Result<Span, Unusual> {
        let (mut event, mut last) = first;
        let mut depth = 0;
        loop {
            match event {
                Event::MappingStart(..) | Event::SequenceStart(..) => depth += 1,
                Event::MappingEnd | Event::SequenceEnd => depth -= 1,
                Event::Scalar(..) => {}
                _ => return Err(Unusual),
            }
            if depth == 0 {
                return Ok(last);
            }
            let place;
            (event, place) = self.read()?;
            // What ends by indentation alone ends where something else begins.
            if !place.is_empty() {
                last = place;
            }
        }
    }
}

/// Where this character of the text is, in bytes: places count characters.
#[must_use]
pub fn byte(text: &str, character: usize) -> usize {
    text.char_indices()
        .nth(character)
        .map_or(text.len(), |(byte, _)| byte)
}
