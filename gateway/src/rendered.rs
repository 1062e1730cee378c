//! A text as Telegram shows it: characters, and entities over ranges of UTF-16 units.
//!
//! What Telegram does to a text on arrival is done here first, because it would move the offsets:
//! it trims the ends and drops some characters.

use std::ops::Range;

/// What a range of the text is shown as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Style {
    /// Bold.
    Bold,
    /// Italic.
    Italic,
    /// Struck through.
    Strike,
    /// Code inside a line.
    Code,
    /// A block of code, with its language if it names one.
    Pre(Option<String>),
    /// A link to an address.
    Link(String),
    /// A quotation.
    Quote,
}

impl Style {
    /// True for code, which Telegram shows inside no other entity and no other inside it.
    #[must_use]
    pub fn is_code(&self) -> bool {
        matches!(self, Self::Code | Self::Pre(_))
    }
}

/// A style over a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entity {
    /// Which UTF-16 units of the text.
    pub range: Range<usize>,
    /// How they are shown.
    pub style: Style,
}

/// A text with its entities: in order of their start, the outer before the inner, either nested or
/// apart, none empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rendered {
    /// The characters.
    pub text: String,
    /// The styles.
    pub entities: Vec<Entity>,
}

impl Rendered {
    /// `text` without any style.
    #[must_use]
    pub fn plain(text: &str) -> Self {
        Self {
            text: clean(text),
            entities: Vec::new(),
        }
        .trimmed()
    }

    /// The length of the text in UTF-16 units, as Telegram counts.
    #[must_use]
    pub fn length(&self) -> usize {
        length(&self.text)
    }

    /// True if there is nothing to show.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Puts `other` below, a blank line between.
    pub fn append(&mut self, other: Self) {
        if self.is_empty() {
            *self = other;
        } else if !other.is_empty() {
            self.text.push_str("\n\n");
            let shift = self.length();
            self.text.push_str(&other.text);
            self.entities
                .extend(other.entities.into_iter().map(|e| Entity {
                    range: e.range.start + shift..e.range.end + shift,
                    style: e.style,
                }));
        }
    }

    /// Without white space at either end of the text and of each entity.
    #[must_use]
    pub fn trimmed(&self) -> Self {
        Self::cut(&self.text, 0, &self.entities)
    }

    /// `piece`, trimmed, with what `entities` cover of it. It begins at this unit of the text that the
    /// entities are of.
    #[must_use]
    pub fn cut(piece: &str, unit: usize, entities: &[Entity]) -> Self {
        let text = piece.trim();
        let lead = piece.len() - piece.trim_start().len();
        let start = unit + length(&piece[..lead]);
        let units: Vec<u16> = text.encode_utf16().collect();
        let end = start + units.len();
        let mut entities: Vec<Entity> = entities
            .iter()
            .filter_map(|entity| {
                let from = entity.range.start.clamp(start, end) - start;
                let to = entity.range.end.clamp(start, end) - start;
                let range = shrunk(&units, from..to)?;
                Some(Entity {
                    range,
                    style: entity.style.clone(),
                })
            })
            .collect();
        sort(&mut entities);
        Self {
            text: text.to_owned(),
            entities,
        }
    }
}

/// The length of `text` in UTF-16 units.
#[must_use]
pub fn length(text: &str) -> usize {
    text.chars().map(char::len_utf16).sum()
}

/// Orders entities as [`Rendered`] has them.
pub fn sort(entities: &mut [Entity]) {
    entities.sort_by_key(|e| (e.range.start, std::cmp::Reverse(e.range.end)));
}

/// `range` without white space at its ends, or none if nothing else is in it.
fn shrunk(units: &[u16], range: Range<usize>) -> Option<Range<usize>> {
    let blank = |unit: &u16| char::from_u32(u32::from(*unit)).is_some_and(char::is_whitespace);
    let covered = units.get(range.clone())?;
    let first = covered.iter().position(|unit| !blank(unit))?;
    let last = covered.iter().rposition(|unit| !blank(unit))?;
    Some(range.start + first..range.start + last + 1)
}

/// `text` without the characters that Telegram drops or replaces when a message arrives.
#[must_use]
pub fn clean(text: &str) -> String {
    text.chars()
        .filter(|c| {
            !matches!(
                c,
                '\r' | '\u{2028}'..='\u{202e}' | '\u{333}' | '\u{33f}' | '\u{30a}'
            )
        })
        .map(|c| match c {
            '\n' => '\n',
            c if c < ' ' => ' ',
            c => c,
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Fails unless Telegram would take `rendered` as it is.
    pub(crate) fn assert_well_formed(rendered: &Rendered) {
        let units: Vec<u16> = rendered.text.encode_utf16().collect();
        assert_eq!(rendered.text.trim(), rendered.text);
        for (index, outer) in rendered.entities.iter().enumerate() {
            assert!(outer.range.start < outer.range.end && outer.range.end <= units.len());
            for edge in [outer.range.start, outer.range.end] {
                let splits_a_pair =
                    edge > 0 && edge < units.len() && (0xd800..0xdc00).contains(&units[edge - 1]);
                assert!(!splits_a_pair, "{edge} in {rendered:?}");
            }
            for inner in &rendered.entities[index + 1..] {
                let apart = inner.range.start >= outer.range.end;
                let inside =
                    inner.range.start >= outer.range.start && inner.range.end <= outer.range.end;
                assert!(apart || inside, "{outer:?} and {inner:?} overlap");
                if !apart {
                    assert!(!outer.style.is_code(), "{inner:?} inside {outer:?}");
                    assert_ne!(outer.style, inner.style, "twice in {rendered:?}");
                    assert!(!inner.style.is_code(), "{inner:?} inside {outer:?}");
                }
            }
        }
    }

    #[test]
    fn trimming_moves_the_entities_with_the_text() {
        let rendered = Rendered {
            text: "  a 😀b \n".to_owned(),
            entities: vec![Entity {
                range: 3..8,
                style: Style::Bold,
            }],
        };

        let trimmed = rendered.trimmed();

        assert_eq!(trimmed.text, "a 😀b");
        assert_eq!(trimmed.entities[0].range, 2..5);
    }

    #[test]
    fn what_telegram_drops_is_dropped_before_offsets_are_counted() {
        assert_eq!(clean("a\r\nb\u{202e}c\u{7}d"), "a\nbc d");
    }

    #[test]
    fn appending_shifts_the_entities_of_what_is_appended() {
        let mut text = Rendered::plain("😀");
        text.append(Rendered {
            text: "b".to_owned(),
            entities: vec![Entity {
                range: 0..1,
                style: Style::Bold,
            }],
        });
        assert_eq!(text.text, "😀\n\nb");
        assert_eq!(text.entities[0].range, 4..5);
    }
}
