//! users.yaml as a text: entries are put in and taken out by their places, and all else stays as it was
//! written, comments above all.

use saphyr_parser::Event;

use crate::spans::{Parts, Unusual, byte};

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// Its first character.
    start: usize,
    /// Behind its last.
    end: usize,
    /// The lines it stands on, from 0, the one of its dash first.
    lines: (usize, usize),
}

/// The list of users in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
struct List {
    /// Behind the colon of its key.
    after_key: usize,
    /// The brackets, if it has any: the first, and behind the last.
    brackets: Option<(usize, usize)>,
    entries: Vec<Entry>,
}

/// The text with an entry of these keys and values at the end of the list.
///
/// # Errors
/// [`Unusual`].
pub fn add(text: &str, entry: &[(&str, String)]) -> Result<String, Unusual> {
    let list = find(text)?;
    let pairs: Vec<String> = entry
        .iter()
        .map(|(key, value)| format!("{key}: {value}"))
        .collect();
    if let (Some((_, end)), Some(last)) = (list.brackets, list.entries.last()) {
        let has_comma = slice(text, last.end, end).trim_start().starts_with(',');
        let comma = if has_comma { " " } else { ", " };
        let at = if has_comma { end - 1 } else { last.end };
        return Ok(insert(
            text,
            at,
            &format!("{comma}{{{}}}", pairs.join(", ")),
        ));
    }
    let lines: Vec<&str> = text.lines().collect();
    let Some(last) = list.entries.last() else {
        let (text, line) = match list.brackets {
            Some((start, end)) => (remove(text, start, end), line_of(text, start)),
            None => (text.to_owned(), line_of(text, list.after_key)),
        };
        let lines: Vec<&str> = text.lines().collect();
        return Ok(with_lines(&lines, line + 1, &block("  ", &pairs)));
    };
    let dash = lines.get(last.lines.0).ok_or(Unusual)?;
    let indent: String = dash.chars().take_while(|c| *c == ' ').collect();
    Ok(with_lines(
        &lines,
        last.lines.1 + 1,
        &block(&indent, &pairs),
    ))
}

/// The text without the entry at this place of the list.
///
/// # Errors
/// [`Unusual`].
pub fn take_out(text: &str, at: usize) -> Result<String, Unusual> {
    let list = find(text)?;
    let entry = list.entries.get(at).ok_or(Unusual)?;
    if list.brackets.is_some() {
        let next = list.entries.get(at + 1);
        let before = at.checked_sub(1).and_then(|at| list.entries.get(at));
        return Ok(match (next, before) {
            (Some(next), _) => remove(text, entry.start, next.start),
            (None, Some(before)) => remove(text, before.end, entry.end),
            (None, None) => remove(text, entry.start, entry.end),
        });
    }
    let (first, last) = entry.lines;
    let rest: Vec<&str> = text
        .lines()
        .enumerate()
        .filter(|(line, _)| !(first..=last).contains(line))
        .map(|(_, line)| line)
        .collect();
    let rest = with_lines(&rest, rest.len(), "");
    if list.entries.len() == 1 {
        // A key without a value would not be a list.
        return Ok(insert(&rest, list.after_key, " []"));
    }
    Ok(rest)
}

fn block(indent: &str, pairs: &[String]) -> String {
    let mut text = String::new();
    for (at, pair) in pairs.iter().enumerate() {
        let mark = if at == 0 { "- " } else { "  " };
        text.push_str(&format!("{indent}{mark}{pair}\n"));
    }
    text
}

fn with_lines(lines: &[&str], at: usize, new: &str) -> String {
    let mut text = String::new();
    for (line, content) in lines.iter().enumerate() {
        if line == at {
            text.push_str(new);
        }
        text.push_str(content);
        text.push('\n');
    }
    if at >= lines.len() {
        text.push_str(new);
    }
    text
}

fn slice(text: &str, start: usize, end: usize) -> &str {
    &text[byte(text, start)..byte(text, end)]
}

fn insert(text: &str, at: usize, new: &str) -> String {
    let at = byte(text, at);
    [&text[..at], new, &text[at..]].concat()
}

fn remove(text: &str, start: usize, end: usize) -> String {
    [&text[..byte(text, start)], &text[byte(text, end)..]].concat()
}

fn line_of(text: &str, character: usize) -> usize {
    text[..byte(text, character)].matches('\n').count()
}

/// Finds the value of the key `users` at the top.
fn find(text: &str) -> Result<List, Unusual> {
    let (mut parts, key) = Parts::of(text, "users")?;
    let behind = slice(text, key.end.index(), text.len());
    let colon = behind.chars().position(|c| c == ':').ok_or(Unusual)?;
    let mut list = List {
        after_key: key.end.index() + colon + 1,
        brackets: None,
        entries: Vec::new(),
    };
    let start = match parts.read()? {
        (Event::SequenceStart(..), place) => place.start.index(),
        // No value is as good as an empty list.
        (Event::Scalar(word, ..), _) if word.is_empty() => return Ok(list),
        _ => return Err(Unusual),
    };
    let is_flow = slice(text, start, start + 1) == "[";
    loop {
        let (event, place) = parts.read()?;
        match event {
            Event::SequenceEnd => {
                list.brackets = is_flow.then(|| (start, place.end.index()));
                return Ok(list);
            }
            Event::MappingStart(..) => {}
            _ => return Err(Unusual),
        }
        let end = parts.end_of((event, place))?.end.index();
        let line = place.start.line() - 1;
        list.entries.push(Entry {
            start: place.start.index(),
            end,
            lines: (line, line_of(text, end.max(1) - 1)),
        });
        let dash = text.lines().nth(line).unwrap_or_default().trim_start();
        if !is_flow && !dash.starts_with('-') {
            return Err(Unusual);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carol() -> Vec<(&'static str, String)> {
        vec![
            ("telegram_id", "13".to_owned()),
            ("name", "\"Carol\"".to_owned()),
            ("os_user", "carol".to_owned()),
        ]
    }

    #[test]
    fn an_entry_goes_behind_the_last_and_all_else_stays() {
        let new = "telegram_id: 13\n    name: \"Carol\"\n    os_user: carol\n";
        for (text, expected) in [
            (
                "# top ü\nusers:\n  # alice\n  - telegram_id: 11\n    paths: {read: [/x]} # hers\n\n# end\nsecond_factor: optional\n",
                format!("# top ü\nusers:\n  # alice\n  - telegram_id: 11\n    paths: {{read: [/x]}} # hers\n  - {new}\n# end\nsecond_factor: optional\n"),
            ),
            ("users: []\n", format!("users: \n  - {new}")),
            ("users: # nobody\nlog: x", format!("users: # nobody\n  - {new}log: x\n")),
            (
                "users:\n- {telegram_id: 11, name: a}",
                "users:\n- {telegram_id: 11, name: a}\n- telegram_id: 13\n  name: \"Carol\"\n  os_user: carol\n".to_owned(),
            ),
            (
                "users: [{telegram_id: 11}] # all\n",
                "users: [{telegram_id: 11}, {telegram_id: 13, name: \"Carol\", os_user: carol}] # all\n".to_owned(),
            ),
            (
                "users: [{telegram_id: 11},]\n",
                "users: [{telegram_id: 11}, {telegram_id: 13, name: \"Carol\", os_user: carol}]\n".to_owned(),
            ),
        ] {
            assert_eq!(add(text, &carol()).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn an_entry_is_taken_out_with_its_lines_alone() {
        let text = "users:\n  # first\n  - telegram_id: 11\n    name: a\n  # second\n  - telegram_id: 12\n    limits:\n      cpu: 2 # few\n  # last\n";
        assert_eq!(
            take_out(text, 0).unwrap(),
            "users:\n  # first\n  # second\n  - telegram_id: 12\n    limits:\n      cpu: 2 # few\n  # last\n"
        );
        let one = take_out(text, 1).unwrap();
        assert_eq!(
            one,
            "users:\n  # first\n  - telegram_id: 11\n    name: a\n  # second\n  # last\n"
        );
        assert_eq!(
            take_out(&one, 0).unwrap(),
            "users: []\n  # first\n  # second\n  # last\n"
        );
        let flow = "users: [{a: 1}, {a: 2}, {a: 3}]\n";
        assert_eq!(take_out(flow, 0).unwrap(), "users: [{a: 2}, {a: 3}]\n");
        assert_eq!(take_out(flow, 2).unwrap(), "users: [{a: 1}, {a: 2}]\n");
        assert_eq!(take_out("users: [{a: 1}]", 0).unwrap(), "users: []");
    }

    #[test]
    fn what_is_unusual_is_left_alone() {
        for text in ["- a\n", "users: x\n", "users: [a]\n", "users:\n-\n  a: 1\n"] {
            assert!(add(text, &carol()).is_err(), "{text}");
        }
        assert!(take_out("users: []", 0).is_err());
    }
}
