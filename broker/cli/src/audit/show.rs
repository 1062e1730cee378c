//! Both logs by time.

use std::{
    fmt::Write as _,
    io::{self, Write},
    path::PathBuf,
    thread,
    time::{Duration, SystemTime},
};

use kai_program::json::printable;
use nix::unistd::{Uid, User};
use serde_json::Value;

use super::{
    AuditError,
    lines::{self, Line},
};

/// Between two looks for new lines.
const LOOK_AGAIN: Duration = Duration::from_millis(300);

/// Keys with a column of their own, or that only the chain needs.
const NOT_DETAILS: [&str; 5] = ["seq", "at", "event", "prev", "user"];

/// Which lines are wanted.
#[derive(Debug, Default)]
pub struct Filter {
    /// Of whom: a name, or a Telegram id.
    pub user: Option<String>,
    /// From when on.
    pub since: Option<SystemTime>,
    /// Until when.
    pub until: Option<SystemTime>,
}

impl Filter {
    /// True for a line that is wanted. One that cannot be read is, unless somebody's are asked for.
    #[must_use]
    pub fn wants(&self, line: &Line) -> bool {
        let at = line
            .text_of("at")
            .and_then(|at| humantime::parse_rfc3339(at).ok());
        let in_time = at.is_none_or(|at| {
            self.since.is_none_or(|since| at >= since) && self.until.is_none_or(|until| at <= until)
        });
        in_time
            && self.user.as_ref().is_none_or(|user| {
                let id = line.fields.as_ref().and_then(|f| f.get("telegram_id"));
                line.text_of("user") == Some(user)
                    || user
                        .parse()
                        .is_ok_and(|user: i64| id.and_then(Value::as_i64) == Some(user))
            })
    }
}

/// Prints what is wanted of the logs, each with its name, and goes on with what comes if `follow`.
///
/// # Errors
/// [`AuditError`]; a closed pipe among them.
pub fn run(
    logs: &[(&'static str, PathBuf)],
    filter: &Filter,
    json: bool,
    follow: bool,
) -> Result<(), AuditError> {
    let mut seen = vec![0; logs.len()];
    if !json {
        print(&format!(
            "{:<24}  {:<6}  {:<20}  {:<16}  DETAILS",
            "TIME (UTC)", "LOG", "EVENT", "USER"
        ))?;
    }
    loop {
        for (name, line) in news(logs, &mut seen)? {
            if filter.wants(&line) {
                print(&if json {
                    as_json(name, &line)
                } else {
                    as_text(name, &line)
                })?;
            }
        }
        if !follow {
            return Ok(());
        }
        thread::sleep(LOOK_AGAIN);
    }
}

/// The lines after those that were seen, of all logs, by time.
fn news(
    logs: &[(&'static str, PathBuf)],
    seen: &mut [u64],
) -> Result<Vec<(&'static str, Line)>, AuditError> {
    let mut all = Vec::new();
    for ((name, directory), seen) in logs.iter().zip(seen) {
        for line in lines::after(directory, *seen)? {
            *seen = line.seq().unwrap_or(*seen).max(*seen);
            all.push((*name, line));
        }
    }
    // Stable: lines of one log stay in their order, whatever a clock that was set back says.
    all.sort_by(|(_, a), (_, b)| a.text_of("at").cmp(&b.text_of("at")));
    Ok(all)
}

fn as_json(log: &str, line: &Line) -> String {
    match line.text.strip_prefix('{') {
        Some(rest) if line.fields.is_some() => format!("{{\"log\":\"{log}\",{rest}"),
        _ => serde_json::json!({"log": log, "unreadable": line.text}).to_string(),
    }
}

fn as_text(log: &str, line: &Line) -> String {
    let Some(fields) = &line.fields else {
        return format!("{:<24}  {log:<6}  UNREADABLE: {}", "", clean(&line.text));
    };
    let field = |key| clean(line.text_of(key).unwrap_or_default());
    let event = field("event").replace(['.', '_'], " ");
    let mut text = format!(
        "{:<24}  {log:<6}  {event:<20}  {:<16}  ",
        field("at").replace('T', " ").replace('Z', ""),
        field("user"),
    );
    for (key, value) in fields {
        if NOT_DETAILS.contains(&key.as_str()) {
            continue;
        }
        let value = match value {
            Value::String(text) => clean(text),
            Value::Number(number) if key == "admin" => admin(number.as_u64()),
            Value::Number(number) if key == "until" => moment(number.as_u64()),
            other => clean(&other.to_string()),
        };
        let _ = write!(text, "{}={value} ", clean(key));
    }
    text.trim_end().to_owned()
}

fn admin(uid: Option<u64>) -> String {
    let Some(uid) = uid.and_then(|uid| u32::try_from(uid).ok()) else {
        return "?".to_owned();
    };
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => clean(&user.name),
        _ => uid.to_string(),
    }
}

fn moment(seconds: Option<u64>) -> String {
    let at = seconds.and_then(|s| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(s)));
    let latest = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    match at {
        Some(at) if at <= latest => humantime::format_rfc3339_seconds(at).to_string(),
        _ => "?".to_owned(),
    }
}

fn clean(text: &str) -> String {
    text.chars().map(printable).collect()
}

/// Prints one line at once.
///
/// # Errors
/// [`AuditError::Print`]: not a panic, as println would make of a closed pipe.
pub fn print(text: &str) -> Result<(), AuditError> {
    writeln!(io::stdout(), "{text}").map_err(AuditError::Print)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line {
        Line {
            file: PathBuf::from("audit.jsonl"),
            number: 1,
            text: text.to_owned(),
            fields: serde_json::from_str(text).ok(),
        }
    }

    const REFUSED: &str = r#"{"seq":1,"at":"2026-11-21T08:00:00.000Z","event":"code.refused","user":"alice","telegram_id":7,"prev":"00"}"#;

    #[test]
    fn a_user_is_found_by_name_and_by_id_and_by_no_part_of_either() {
        for (user, wanted) in [("alice", true), ("7", true), ("ali", false), ("71", false)] {
            let filter = Filter {
                user: Some(user.to_owned()),
                ..Filter::default()
            };
            assert_eq!(filter.wants(&line(REFUSED)), wanted, "{user}");
        }
    }

    #[test]
    fn what_is_shown_to_people_cannot_steer_their_terminal() {
        let evil = r#"{"seq":1,"at":"x","event":"a.b","user":"\u001b[2J","why":"a\nb\u202e"}"#;
        let shown = as_text("authd", &line(evil));
        assert!(!shown.contains(['\u{1b}', '\n', '\u{202e}']), "{shown}");
    }

    #[test]
    fn a_line_keeps_its_words_and_gets_the_name_of_its_log() {
        let shown = as_json("authd", &line(REFUSED));
        let read: Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(read["log"], "authd");
        assert_eq!(read["event"], "code.refused");
        let shown: Value = serde_json::from_str(&as_json("authd", &line("garbage"))).unwrap();
        assert_eq!(shown["unreadable"], "garbage");
    }
}
