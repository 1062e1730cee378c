//! Formatted text, and what Telegram makes of a correct one.
//!
//! Carriage returns vanish, other control characters become spaces, white space at the end goes,
//! and white space at the beginning goes up to the first entity. Entities move with the text.

use serde_json::{Map, Value, json};

use super::entities::{Entity, checked};
use super::refusal::Refusal;

/// A text with its entities, as it is kept and shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Formatted {
    /// The words.
    pub text: String,
    /// Sorted by where they begin, the containing one first.
    pub entities: Vec<Entity>,
}

impl Formatted {
    /// Text without any formatting, as a person types it.
    pub(super) fn plain(text: &str) -> Self {
        tidy(text, Vec::new())
    }

    /// Checks what a client sent and tidies it. The text may come out empty.
    pub(super) fn read(text: &str, entities: Option<Vec<Value>>) -> Result<Self, Refusal> {
        Ok(tidy(text, checked(text, entities)?))
    }

    /// The length that Telegram's limits are about.
    pub fn utf16_len(&self) -> usize {
        self.text.encode_utf16().count()
    }

    /// Adds it to a message under the names that texts or captions have.
    pub(super) fn put_into(&self, json: &mut Map<String, Value>, text: &str, entities: &str) {
        json.insert(text.to_owned(), json!(self.text));
        if !self.entities.is_empty() {
            let list = self.entities.iter().map(Entity::json).collect();
            json.insert(entities.to_owned(), Value::Array(list));
        }
    }
}

/// Does to a text what Telegram does, and moves the entities along.
fn tidy(text: &str, entities: Vec<Entity>) -> Formatted {
    let first_entity = entities.first().map_or(usize::MAX, |entity| entity.offset);
    let end = text.trim_end().len();
    let mut tidied = String::with_capacity(text.len());
    // moved[n] is where the code unit n of the given text is now.
    let mut moved = Vec::with_capacity(text.len() + 1);
    let mut now = 0;
    for (at, character) in text.char_indices() {
        let leading = now == 0 && moved.len() < first_entity && character.is_whitespace();
        let kept = match character {
            '\r' => None,
            _ if leading || at >= end => None,
            '\n' => Some('\n'),
            control if control < ' ' => Some(' '),
            other => Some(other),
        };
        moved.extend(std::iter::repeat_n(now, character.len_utf16()));
        if let Some(kept) = kept {
            tidied.push(kept);
            now += kept.len_utf16();
        }
    }
    moved.push(now);
    let entities = entities
        .into_iter()
        .filter_map(|entity| {
            let (from, to) = (*moved.get(entity.offset)?, *moved.get(entity.end())?);
            (to > from).then_some(Entity {
                offset: from,
                length: to - from,
                ..entity
            })
        })
        .collect();
    Formatted {
        text: tidied,
        entities,
    }
}

#[cfg(test)]
mod tests {
    use super::super::entities::EntityKind;
    use super::*;

    fn read(text: &str, entities: Value) -> Result<Formatted, String> {
        let entities = entities.as_array().cloned();
        Formatted::read(text, entities).map_err(|refusal| refusal.description)
    }

    fn entity(kind: &str, offset: usize, length: usize) -> Value {
        json!({"type": kind, "offset": offset, "length": length})
    }

    #[test]
    fn edges_are_trimmed_and_entities_move_along() {
        let tidied = read(" \n ab\r\ncd \n", json!([entity("bold", 5, 6)])).unwrap();
        assert_eq!(tidied.text, "ab\ncd");
        assert_eq!(
            tidied.entities,
            [Entity {
                kind: EntityKind::Bold,
                offset: 2,
                length: 3
            }]
        );
        // White space that belongs to an entity stays at the beginning and goes at the end.
        let tidied = read("  ab  ", json!([entity("code", 0, 6)])).unwrap();
        assert_eq!(tidied.text, "  ab");
        assert_eq!(
            tidied.entities,
            [Entity {
                kind: EntityKind::Code,
                offset: 0,
                length: 4
            }]
        );
        assert_eq!(read(" \t\n", Value::Null).unwrap(), Formatted::default());
    }
}
