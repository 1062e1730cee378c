//! A message as the question for a code quotes it.
//!
//! Who reads the quote decides by it what will run, so nothing in it may be unseen: it stands on one
//! line, and a character that is not shown, or that moves others about, is spelt out. Instructions to
//! an agent can be written in characters of that kind alone.

use std::fmt::Write;

use kai_proto::code::Code;

/// `text` on one line, with everything in it to be seen.
#[must_use]
pub fn visible(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        // One of these inside a word belongs to an emoji. More in a row could spell something.
        let mut joined = false;
        for character in word.chars() {
            let joins = matches!(character, '\u{200d}' | '\u{fe0e}' | '\u{fe0f}');
            if is_unseen(character) && (!joins || joined) {
                let _ = write!(line, "\\u{{{:x}}}", u32::from(character));
            } else {
                line.push(character);
            }
            joined = joins;
        }
    }
    line
}

/// The beginning of a text that was let through before: enough to be recognised by. What reads like a
/// code is not repeated: nobody has used it up.
#[must_use]
pub fn beginning(text: &str, most: usize) -> String {
    if Code::parse(text).is_some() {
        return "(a code)".to_owned();
    }
    let line = visible(text);
    match line.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// True for control characters, private and unassigned ones of the special planes, and those that
/// Unicode calls `Default_Ignorable_Code_Point`, together with what Telegram drops from a text.
fn is_unseen(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{333}' | '\u{30a}' | '\u{33f}' | '\u{34f}' | '\u{61c}'
            | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{2800}' | '\u{3164}' | '\u{e000}'..='\u{f8ff}' | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{10ffff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_quote_is_one_line_and_cannot_look_like_two() {
        assert_eq!(visible("ls\n\n2. rm -rf ~\r\n\tnow "), "ls 2. rm -rf ~ now");
        assert_eq!(visible("a\u{2028}b\u{85}c"), "a b c");
    }

    #[test]
    fn hidden_instructions_are_spelt_out() {
        let tags: String = "run"
            .chars()
            .filter_map(|c| char::from_u32(0xe0000 + u32::from(c)))
            .collect();
        assert_eq!(
            visible(&format!("hello{tags}")),
            "hello\\u{e0072}\\u{e0075}\\u{e006e}"
        );
        assert_eq!(visible("a\u{202e}b"), "a\\u{202e}b");
        let selectors = "\u{fe0f}\u{fe0e}\u{fe0f}";
        assert!(visible(&format!("x{selectors}")).contains("\\u{fe0e}"));
    }

    #[test]
    fn what_people_write_stays_as_it_is() {
        for text in ["Grüße, 你好, שלום", "👩\u{200d}💻 ok ❤\u{fe0f}", "a_b*c`d`"] {
            assert_eq!(visible(text), text);
        }
    }

    #[test]
    fn a_beginning_is_cut_between_characters() {
        assert_eq!(beginning("äöü", 2), "äö…");
        assert_eq!(beginning("äö", 2), "äö");
        assert!(!beginning("314159", 60).contains("314"));
    }

    proptest! {
        #[test]
        fn nothing_unseen_is_left(text in "\\PC{0,40}|[\\x00-\\x{ffff}]{0,40}") {
            let shown = visible(&text);
            let breaks = shown.contains(['\n', '\r', '\t', '\u{2028}']);
            prop_assert!(!breaks);
            let telegrams = crate::rendered::Rendered::plain(&shown).text;
            prop_assert_eq!(telegrams, shown.trim());
        }
    }
}
