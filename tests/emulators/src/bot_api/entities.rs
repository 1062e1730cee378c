//! Entities: which ones there are, and which of them fit a text and each other.
//!
//! Offsets and lengths count UTF-16 code units. Telegram repairs much of what a client gets wrong
//! (it drops empty entities, splits overlapping ones, forgets ranges outside of the text), and the
//! message then looks different from what was meant. Here each of these is an error.

use serde::Deserialize;
use serde_json::{Value, json};

use super::refusal::Refusal;

/// What an entity does to its part of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntityKind {
    /// `<b>`
    Bold,
    /// `<i>`
    Italic,
    /// `<u>`
    Underline,
    /// `<s>`
    Strikethrough,
    /// Hidden until touched.
    Spoiler,
    /// A quotation.
    Blockquote,
    /// A quotation that is folded at first.
    ExpandableBlockquote,
    /// Code within a line.
    Code,
    /// A block of code.
    Pre {
        /// What to highlight it as.
        language: Option<String>,
    },
    /// Words that lead somewhere.
    TextLink {
        /// Where to.
        url: String,
    },
    /// What Telegram finds by itself in a person's text, by the name of its type.
    Detected(String),
}

/// A formatted part of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entity {
    /// How it is formatted.
    pub kind: EntityKind,
    /// Its first UTF-16 code unit.
    pub offset: usize,
    /// Its length in UTF-16 code units.
    pub length: usize,
}

impl Entity {
    /// The first code unit after it.
    pub fn end(&self) -> usize {
        self.offset + self.length
    }

    /// As it stands in a message that the Bot API hands out.
    pub(super) fn json(&self) -> Value {
        let mut json = json!({
            "type": self.kind.name(), "offset": self.offset, "length": self.length,
        });
        match &self.kind {
            EntityKind::Pre {
                language: Some(language),
            } => json["language"] = json!(language),
            EntityKind::TextLink { url } => json["url"] = json!(url),
            _ => {}
        }
        json
    }
}

impl EntityKind {
    /// The Bot API's name for it.
    pub fn name(&self) -> &str {
        match self {
            Self::Bold => "bold",
            Self::Italic => "italic",
            Self::Underline => "underline",
            Self::Strikethrough => "strikethrough",
            Self::Spoiler => "spoiler",
            Self::Blockquote => "blockquote",
            Self::ExpandableBlockquote => "expandable_blockquote",
            Self::Code => "code",
            Self::Pre { .. } => "pre",
            Self::TextLink { .. } => "text_link",
            Self::Detected(name) => name,
        }
    }

    /// Whether an entity of this kind may contain one of that kind.
    ///
    /// The documentation's rule: the five styles go in and around everything but code; quotations
    /// hold no quotations; nothing else contains anything of its own sort. A kind within itself
    /// says nothing, so it is a mistake.
    fn may_contain(&self, inner: &Self) -> bool {
        let code = |kind: &Self| matches!(kind, Self::Code | Self::Pre { .. });
        let quote = |kind: &Self| matches!(kind, Self::Blockquote | Self::ExpandableBlockquote);
        let style = |kind: &Self| {
            matches!(
                kind,
                Self::Bold | Self::Italic | Self::Underline | Self::Strikethrough | Self::Spoiler
            )
        };
        if code(self) || code(inner) || self.name() == inner.name() {
            return false;
        }
        match (quote(self), quote(inner)) {
            (true, true) => false,
            (true, false) | (false, true) => true,
            (false, false) => style(self) || style(inner),
        }
    }

    /// Reads an entity's type and what belongs to it. A client may not send what Telegram detects.
    fn read(raw: RawEntity) -> Result<(Self, usize, usize), Refusal> {
        let RawEntity {
            kind,
            offset,
            length,
            url,
            language,
        } = raw;
        let only_for = |field: &str, given: bool, here: bool| match given && !here {
            true => Err(Refusal::entities(format_args!(
                "a {kind} entity has no {field}"
            ))),
            false => Ok(()),
        };
        only_for("url", url.is_some(), kind == "text_link")?;
        only_for("language", language.is_some(), kind == "pre")?;
        let kind = match kind.as_str() {
            "bold" => Self::Bold,
            "italic" => Self::Italic,
            "underline" => Self::Underline,
            "strikethrough" => Self::Strikethrough,
            "spoiler" => Self::Spoiler,
            "blockquote" => Self::Blockquote,
            "expandable_blockquote" => Self::ExpandableBlockquote,
            "code" => Self::Code,
            "pre" => Self::Pre { language },
            "text_link" => Self::TextLink {
                url: url
                    .filter(|url| is_link(url))
                    .ok_or_else(|| Refusal::entities("a text_link entity needs a valid url"))?,
            },
            other => {
                return Err(Refusal::entities(format_args!(
                    "unknown type of entity {other:?}"
                )));
            }
        };
        Ok((kind, offset, length))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEntity {
    #[serde(rename = "type")]
    kind: String,
    offset: usize,
    length: usize,
    url: Option<String>,
    language: Option<String>,
}

/// A link that Telegram would keep.
pub(super) fn is_link(url: &str) -> bool {
    let rest = ["http://", "https://", "tg://", "mailto:"]
        .iter()
        .find_map(|scheme| url.strip_prefix(scheme));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(char::is_whitespace))
}

/// Checks a text's entities. They come back sorted, the containing one first.
pub(super) fn checked(text: &str, entities: Option<Vec<Value>>) -> Result<Vec<Entity>, Refusal> {
    let mut checked = Vec::new();
    for entity in entities.unwrap_or_default() {
        checked.push(in_range(text, entity)?);
    }
    // The containing entity first, so that one pass with a stack sees the nesting.
    checked.sort_by(|a, b| a.offset.cmp(&b.offset).then(b.length.cmp(&a.length)));
    check_nesting(&checked)?;
    Ok(checked)
}

fn in_range(text: &str, entity: Value) -> Result<Entity, Refusal> {
    let raw = RawEntity::deserialize(entity).map_err(Refusal::entities)?;
    let (kind, offset, length) = EntityKind::read(raw)?;
    let here = format!("{} entity at UTF-16 offset {offset}", kind.name());
    if length == 0 {
        return Err(Refusal::entities(format_args!("{here} is empty")));
    }
    let end = offset.saturating_add(length);
    let mut boundaries = vec![0];
    boundaries.extend(text.chars().scan(0, |position, character| {
        *position += character.len_utf16();
        Some(*position)
    }));
    if boundaries.last().is_some_and(|last| end > *last) {
        return Err(Refusal::entities(format_args!(
            "{here} ends after the end of the text"
        )));
    }
    for (place, position) in [("begins", offset), ("ends", end)] {
        if boundaries.binary_search(&position).is_err() {
            return Err(Refusal::entities(format_args!(
                "{here} {place} inside a symbol"
            )));
        }
    }
    Ok(Entity {
        kind,
        offset,
        length,
    })
}

fn check_nesting(sorted: &[Entity]) -> Result<(), Refusal> {
    let mut open: Vec<&Entity> = Vec::new();
    for entity in sorted {
        open.retain(|outer| outer.end() > entity.offset);
        for outer in &open {
            let place = entity.offset;
            let (inner, outer_name) = (entity.kind.name(), outer.kind.name());
            if outer.end() < entity.end() {
                return Err(Refusal::entities(format_args!(
                    "{inner} entity at UTF-16 offset {place} overlaps a {outer_name} entity"
                )));
            }
            if !outer.kind.may_contain(&entity.kind) {
                return Err(Refusal::entities(format_args!(
                    "{inner} entity at UTF-16 offset {place} cannot be inside a {outer_name} entity"
                )));
            }
        }
        open.push(entity);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, entities: Value) -> Result<Vec<Entity>, String> {
        let entities = entities.as_array().cloned();
        checked(text, entities).map_err(|refusal| refusal.description)
    }

    fn entity(kind: &str, offset: usize, length: usize) -> Value {
        json!({"type": kind, "offset": offset, "length": length})
    }

    #[test]
    fn offsets_count_utf16_units() {
        let text = "a😀b";
        assert!(read(text, json!([entity("bold", 1, 2)])).is_ok());
        assert!(read(text, json!([entity("bold", 3, 1)])).is_ok());
        let after = read(text, json!([entity("bold", 3, 2)])).unwrap_err();
        assert!(after.contains("ends after the end of the text"), "{after}");
    }

    #[test]
    fn an_entity_may_not_split_a_surrogate_pair() {
        for (offset, length) in [(0, 2), (2, 1)] {
            let error = read("a😀b", json!([entity("bold", offset, length)])).unwrap_err();
            assert!(error.contains("inside a symbol"), "{error}");
        }
    }

    #[test]
    fn empty_and_overflowing_entities_are_refused() {
        assert!(
            read("abc", json!([entity("bold", 1, 0)]))
                .unwrap_err()
                .contains("is empty")
        );
        assert!(read("abc", json!([entity("bold", 1, usize::MAX)])).is_err());
        assert!(read("abc", json!([{"type": "bold", "offset": -1, "length": 1}])).is_err());
    }

    #[test]
    fn types_and_their_fields_are_checked() {
        assert!(read("abc", json!([entity("sparkle", 0, 1)])).is_err());
        assert!(read("abc", json!([entity("text_link", 0, 1)])).is_err());
        let bold_link = json!([{"type": "bold", "offset": 0, "length": 1, "url": "https://a.b"}]);
        assert!(read("abc", bold_link).is_err());
        let script =
            json!([{"type": "text_link", "offset": 0, "length": 1, "url": "javascript:1"}]);
        assert!(read("abc", script).is_err());
        let pre = json!([{"type": "pre", "offset": 0, "length": 3, "language": "rust"}]);
        let kind = EntityKind::Pre {
            language: Some("rust".to_owned()),
        };
        assert_eq!(
            read("abc", pre).unwrap(),
            [Entity {
                kind,
                offset: 0,
                length: 3
            }]
        );
    }

    #[test]
    fn entities_nest_or_are_apart() {
        let two = |a: Value, b: Value| read("0123456789", json!([a, b]));
        assert!(two(entity("bold", 0, 5), entity("italic", 1, 2)).is_ok());
        assert!(two(entity("bold", 0, 5), entity("italic", 0, 5)).is_ok());
        assert!(two(entity("bold", 0, 5), entity("code", 5, 5)).is_ok());
        let error = two(entity("bold", 0, 5), entity("italic", 3, 4)).unwrap_err();
        assert!(
            error.starts_with("Bad Request: can't parse entities: "),
            "{error}"
        );
        assert!(error.contains("overlaps"), "{error}");
    }

    #[test]
    fn code_is_alone_and_quotations_do_not_nest() {
        let two = |a: &str, b: &str| {
            read("0123456789", json!([entity(a, 0, 5), entity(b, 1, 2)])).map(drop)
        };
        for other in ["bold", "italic", "spoiler", "blockquote", "code", "pre"] {
            assert!(two("code", other).is_err(), "code around {other}");
            assert!(two(other, "code").is_err(), "code inside {other}");
            assert!(two("pre", other).is_err(), "pre around {other}");
            assert!(two(other, "pre").is_err(), "pre inside {other}");
        }
        assert!(two("blockquote", "bold").is_ok());
        assert!(two("blockquote", "expandable_blockquote").is_err());
        assert!(two("bold", "bold").is_err());
    }
}
