//! The history of each chat: that of a private chat goes to its user. A line that is not of that chat stays
//! where it is, for it may be somebody else's.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    child::write::{Parcel, Send},
    foreign::Foreign,
    gifts::{Gift, PLACE, Someone},
    memory::find,
    rows::Row,
};

/// Longest day, in bytes.
const LONGEST: u64 = 64 * 1024 * 1024;
/// How many things that were left out are named.
const NAMED: usize = 3;

/// The first [`NAMED`] of something, and how many more there were: whoever wrote what is read decides how many.
struct First<T> {
    named: Vec<T>,
    more: usize,
}

impl<T> Default for First<T> {
    fn default() -> Self {
        Self {
            named: Vec::new(),
            more: 0,
        }
    }
}

impl<T> First<T> {
    fn add(&mut self, one: T) {
        if self.named.len() < NAMED {
            self.named.push(one);
        } else {
            self.more += 1;
        }
    }
}

#[derive(Deserialize)]
struct Line {
    chat_id: Chat,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Chat {
    Number(i64),
    Text(String),
}

/// What of the history below `data`, which is kept at `kept`, goes to whom.
pub fn gifts<'a>(
    data: &'a Foreign,
    kept: &Path,
    users: &[Someone],
    rows: &mut Vec<Row>,
) -> Vec<Gift<'a>> {
    let place = Path::new("history");
    let from = kept.join(place);
    let (names, more) = match data.names(place) {
        Ok(names) => names,
        Err(refused) => {
            rows.push(Row::look("history", &from, refused.to_string()));
            return Vec::new();
        }
    };
    if more {
        rows.push(Row::look(
            "history",
            &from,
            "has more chats than are looked at",
        ));
    }
    let mut gifts = Vec::new();
    let mut others = 0;
    for name in names {
        let Some(chat) = name
            .parse::<i64>()
            .ok()
            .filter(|chat| chat.to_string() == name)
        else {
            others += 1;
            continue;
        };
        let from = from.join(&name);
        let Some(user) = find(users, chat) else {
            let why = match chat < 0 {
                true => "a group's, and thus of several".to_owned(),
                false => format!(
                    "{chat} is no user here; kai-install user add, and then this again, brings it over"
                ),
            };
            rows.push(Row::kept(
                format!("history of chat {chat}"),
                &from,
                &why,
                &from,
            ));
            continue;
        };
        gifts.push(Gift {
            key: format!("history/{chat}"),
            what: format!("history of {}", user.name),
            from,
            owner: user.id,
            to: format!("{PLACE}/history"),
            otherwise: None,
            feed: Box::new(move |send| days(data, chat, send)),
        });
    }
    if others > 0 {
        let what = format!("{others} things beside the chats");
        rows.push(Row::kept(what, &from, "", &from));
    }
    gifts
}

fn days(data: &Foreign, chat: i64, send: &mut Send<'_>) -> io::Result<Vec<String>> {
    let place = PathBuf::from(format!("history/{chat}"));
    let (names, more) = data.names(&place).map_err(io::Error::other)?;
    let mut left_out = First::default();
    if more {
        left_out.add("further days".to_owned());
    }
    for name in names {
        if !is_day(&name) {
            left_out.add(name);
            continue;
        }
        let bytes = match data.read(&place.join(&name), LONGEST) {
            Ok(Some((bytes, _))) => bytes,
            Ok(None) => continue,
            Err(refused) => {
                left_out.add(format!("{name}, which {refused}"));
                continue;
            }
        };
        let (lines, others) = of_chat(&bytes, chat);
        for line in others.named {
            left_out.add(format!("{name}:{line}"));
        }
        left_out.more += others.more;
        let path = format!("{PLACE}/history/{name}");
        send(&Parcel::new(&path, None, &lines), &lines)?;
    }
    let First { mut named, more } = left_out;
    if more > 0 {
        named.push(format!("{more} more"));
    }
    Ok(named)
}

/// The lines that are of this chat, and the numbers of those that are not.
fn of_chat(bytes: &[u8], chat: i64) -> (Vec<u8>, First<usize>) {
    let mut lines = Vec::with_capacity(bytes.len());
    let mut others = First::default();
    for (at, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let is_of_it = match serde_json::from_slice::<Line>(line) {
            Ok(Line {
                chat_id: Chat::Number(number),
            }) => number == chat,
            Ok(Line {
                chat_id: Chat::Text(text),
            }) => text == chat.to_string(),
            Err(_) => false,
        };
        // A list could be read as one, too.
        let is_of_it = is_of_it && line.trim_ascii_start().starts_with(b"{");
        if is_of_it {
            lines.extend_from_slice(line);
            lines.push(b'\n');
        } else {
            others.add(at + 1);
        }
    }
    (lines, others)
}

/// True for `YYYY-MM-DD.jsonl`.
fn is_day(name: &str) -> bool {
    name.strip_suffix(".jsonl").is_some_and(|day| {
        day.len() == 10
            && day.bytes().enumerate().all(|(at, byte)| match at {
                4 | 7 => byte == b'-',
                _ => byte.is_ascii_digit(),
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_of_the_chat_itself_are_taken() {
        let text = "{\"chat_id\":11,\"text\":\"a\"}\n\n{\"chat_id\":12,\"text\":\"b\"}\n{\"chat_id\":\"11\"}\n\
                    {\"text\":\"c\"}\n[11]\n{\"chat_id\":12,\"chat_id\":11}\n{\"chat_id\":11";
        let (lines, others) = of_chat(text.as_bytes(), 11);

        assert_eq!(
            String::from_utf8(lines).unwrap(),
            "{\"chat_id\":11,\"text\":\"a\"}\n{\"chat_id\":\"11\"}\n"
        );
        assert_eq!((others.named, others.more), (vec![3, 5, 6], 2));
    }

    #[test]
    fn a_day_of_lines_that_are_nobody_s_takes_no_memory_for_each() {
        let (lines, others) = of_chat(&b"x\n".repeat(1 << 20), 11);

        assert!(lines.is_empty());
        assert_eq!((others.named, others.more), (vec![1, 2, 3], (1 << 20) - 3));
    }

    #[test]
    fn a_day_has_a_day_s_name() {
        assert!(is_day("2026-01-31.jsonl"));
        for bad in [
            "2026-01-31.json",
            "2026_01_31.jsonl",
            "x.jsonl",
            "../2026-1-1.jsonl",
        ] {
            assert!(!is_day(bad), "{bad}");
        }
    }
}
