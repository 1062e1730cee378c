//! Cuts a text into messages.
//!
//! Telegram takes 4096 UTF-16 units and shows 100 entities. A cut falls, in this order, between
//! paragraphs, between lines, between words, between the lines of a code block, and only when
//! nothing else is near, inside a word; never inside a character. An entity that is cut goes on in
//! the next part. What was cut once stays where it is when the text grows at its end.

use crate::rendered::{Entity, Rendered};

/// Longest message, in UTF-16 units.
pub const LONGEST: usize = 4096;

/// Most entities that Telegram shows in a message.
const ENTITIES: usize = 100;

/// Cuts `whole` into parts of at most `limit` units, none of them empty.
///
/// Takes time in proportion to the text: entities are gone through once, those that are open at a cut
/// are carried over.
#[must_use]
pub fn split(whole: &Rendered, limit: usize) -> Vec<Rendered> {
    let mut parts = Vec::new();
    let mut from = Place { byte: 0, unit: 0 };
    let mut ahead = whole.entities.as_slice();
    let mut covering: Vec<Entity> = Vec::new();
    while from.byte < whole.text.len() {
        let to = next_cut(&whole.text, &covering, ahead, from, limit.max(2));
        let begun = ahead.partition_point(|e| e.range.start < to.unit);
        covering.extend_from_slice(&ahead[..begun]);
        ahead = &ahead[begun..];
        let part = Rendered::cut(&whole.text[from.byte..to.byte], from.unit, &covering);
        if !part.is_empty() {
            parts.push(part);
        }
        covering.retain(|e| e.range.end > to.unit);
        from = to;
    }
    parts
}

/// A place between two characters.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    byte: usize,
    unit: usize,
}

/// How good a cut is, the best last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cut {
    InWord,
    InEntity,
    LineOfCode,
    Word,
    Line,
    Paragraph,
}

/// Where the part that begins at `from` ends, with these entities open there and those ahead.
fn next_cut(text: &str, open: &[Entity], ahead: &[Entity], from: Place, limit: usize) -> Place {
    let room = ENTITIES.saturating_sub(open.len());
    let crowded = ahead.get(room).map(|e| e.range.start);
    let end = match crowded {
        Some(crowded) if crowded > from.unit => crowded.min(from.unit + limit),
        _ => from.unit + limit,
    };
    let mut around: Vec<&Entity> = open.iter().collect();
    let mut ahead = ahead.iter().peekable();
    let mut at = from;
    let mut best: Option<(Cut, Place)> = None;
    let mut previous = '\n';
    for c in text[from.byte..].chars() {
        if at.unit + c.len_utf16() > end {
            // Without a border in reach the cut is before this character.
            return best.map_or(at, |(_, place)| place);
        }
        at.byte += c.len_utf8();
        at.unit += c.len_utf16();
        while let Some(begun) = ahead.next_if(|e| e.range.start < at.unit) {
            around.push(begun);
        }
        around.retain(|e| e.range.end > at.unit);
        // The lower half is left alone: parts should be full.
        if (at.unit - from.unit) * 2 >= end - from.unit {
            let cut = quality(&around, previous, c);
            if best.is_none_or(|(found, _)| cut >= found) {
                best = Some((cut, at));
            }
        }
        previous = c;
    }
    at
}

/// What a cut behind `c` would be, inside these entities.
fn quality(around: &[&Entity], previous: char, c: char) -> Cut {
    if !around.is_empty() {
        let in_code = around.iter().any(|e| e.style.is_code());
        return match c {
            '\n' if in_code => Cut::LineOfCode,
            c if c.is_whitespace() => Cut::InEntity,
            _ => Cut::InWord,
        };
    }
    match c {
        '\n' if previous == '\n' => Cut::Paragraph,
        '\n' => Cut::Line,
        c if c.is_whitespace() => Cut::Word,
        _ => Cut::InWord,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        markdown,
        rendered::{Style, tests::assert_well_formed},
    };

    fn texts(parts: &[Rendered]) -> Vec<&str> {
        parts.iter().map(|part| part.text.as_str()).collect()
    }

    #[test]
    fn a_short_text_stays_whole() {
        let whole = Rendered::plain("short");
        assert_eq!(split(&whole, 100), [whole]);
    }

    #[test]
    fn paragraphs_are_preferred_to_lines_and_lines_to_words() {
        let whole = Rendered::plain("aaaaaa\n\nbb bb\nb b");
        assert_eq!(texts(&split(&whole, 14)), ["aaaaaa", "bb bb\nb b"]);
        let whole = Rendered::plain("aaaaaa\nbb bb b b");
        assert_eq!(texts(&split(&whole, 12)), ["aaaaaa", "bb bb b b"]);
        let whole = Rendered::plain("aaaaaa bb bb b b");
        assert_eq!(texts(&split(&whole, 12)), ["aaaaaa bb", "bb b b"]);
    }

    #[test]
    fn a_word_without_end_is_cut_between_characters() {
        let whole = Rendered::plain(&"😀".repeat(7));
        let parts = split(&whole, 5);
        assert_eq!(texts(&parts), ["😀😀", "😀😀", "😀😀", "😀"]);
    }

    #[test]
    fn a_code_block_that_fits_the_next_part_moves_there_whole() {
        let whole = markdown::render("some words here\n\n```\nlet a;\nlet b;\n```");
        let parts = split(&whole, 24);
        assert_eq!(texts(&parts), ["some words here", "let a;\nlet b;"]);
    }

    #[test]
    fn a_long_code_block_is_cut_between_lines_and_opened_again() {
        let code: String = (0..20).map(|n| format!("line {n}\n")).collect();
        let whole = markdown::render(&format!("```rust\n{code}```"));
        let parts = split(&whole, 50);
        assert!(parts.len() > 2);
        for part in &parts {
            assert!(part.text.starts_with("line"), "{part:?}");
            assert_eq!(part.entities.len(), 1);
            assert_eq!(part.entities[0].range, 0..part.length());
            assert_eq!(part.entities[0].style, Style::Pre(Some("rust".to_owned())));
        }
    }

    #[test]
    fn a_part_has_no_more_entities_than_are_shown() {
        let whole = markdown::render(&"`a` ".repeat(250));
        let parts = split(&whole, LONGEST);
        assert_eq!(parts.len(), 3);
        assert!(parts.iter().all(|part| part.entities.len() <= ENTITIES));
    }

    #[test]
    fn earlier_parts_stay_as_the_text_grows() {
        let words: String = (0..400).map(|n| format!("word{n} ")).collect();
        let whole = split(&Rendered::plain(&words), 300);
        for end in (600..words.len()).step_by(37) {
            let grown = split(&Rendered::plain(&words[..end]), 300);
            assert_eq!(grown[0], whole[0]);
        }
    }

    proptest! {
        #[test]
        fn parts_fit_are_well_formed_and_lose_only_white_space(
            text in "([a-c😀é]{1,12}|[ \\n*`>]|```\\n|\\n\\n){0,60}",
            limit in 4_usize..60,
        ) {
            let whole = markdown::render(&text);
            let parts = split(&whole, limit);
            let solid = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            let joined: String = parts.iter().map(|part| solid(&part.text)).collect();
            prop_assert_eq!(joined, solid(&whole.text));
            for part in &parts {
                prop_assert!(part.length() <= limit);
                assert_well_formed(part);
            }
        }
    }
}
