//! The lines of a script.
//!
//! | line | what it does |
//! |---|---|
//! | `alice: text` | sends |
//! | `alice press LABEL` | presses the newest button that is labelled so |
//! | `alice file PATH` | sends a file; a relative path begins at the script's directory |
//! | `expect alice /regex/` | waits for an answer that matches |
//! | `sleep SECONDS` | waits |
//! | `kill gateway`, `broker`, `authd`, `worker NAME`, `agent NAME` | `kill -9` |
//! | `# text` | nothing |

use std::{path::PathBuf, time::Duration};

use regex::Regex;

use crate::{cast::Member, ground::Daemon};

/// The longest `sleep`.
const LONGEST_SLEEP: f64 = 3600.0;

/// A line that does something.
#[derive(Debug, Clone)]
pub struct Step {
    /// Where it stands, from 1.
    pub line: usize,
    /// What it does.
    pub action: Action,
}

/// What a line does.
#[derive(Debug, Clone)]
pub enum Action {
    /// Sends a text.
    Say(Member, String),
    /// Presses a button.
    Press(Member, String),
    /// Sends a file.
    File(Member, PathBuf),
    /// Waits for an answer.
    Expect(Member, Regex),
    /// Waits.
    Sleep(Duration),
    /// Kills.
    Kill(Target),
}

/// What can be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// One of the daemons.
    Daemon(Daemon),
    /// Somebody's worker.
    Worker(Member),
    /// Somebody's agent.
    Agent(Member),
}

impl Target {
    /// Reads `gateway`, `worker alice` and the like.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let target = match (words.next()?, words.next()) {
            ("gateway", None) => Self::Daemon(Daemon::Gateway),
            ("broker", None) => Self::Daemon(Daemon::Broker),
            ("authd", None) => Self::Daemon(Daemon::Authd),
            ("worker", Some(name)) => Self::Worker(Member::with_account(name)?),
            ("agent", Some(name)) => Self::Agent(Member::with_account(name)?),
            _ => return None,
        };
        words.next().is_none().then_some(target)
    }
}

/// Why a script is not played.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("line {line}: {what}")]
pub struct Mistake {
    /// Where.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

/// Reads a whole script.
///
/// # Errors
/// The first line that is none of the above.
pub fn parse(text: &str) -> Result<Vec<Step>, Mistake> {
    let mut steps = Vec::new();
    for (index, raw) in text.lines().enumerate() {
        let trimmed = raw.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let line = index + 1;
        let action = action(trimmed).map_err(|what| Mistake { line, what })?;
        steps.push(Step { line, action });
    }
    Ok(steps)
}

fn action(line: &str) -> Result<Action, String> {
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    match word {
        "expect" => return expect(rest),
        "sleep" => return sleep(rest),
        "kill" => {
            return Target::parse(rest).map(Action::Kill).ok_or_else(|| {
                "kill takes gateway, broker, authd, worker NAME or agent NAME".to_owned()
            });
        }
        _ => {}
    }
    // Before the verbs: whatever follows the colon is what is said, also "press" and "file".
    if let Some((name, text)) = line.split_once(':')
        && let Some(member) = Member::named(name.trim_end())
    {
        return match text.trim() {
            "" => Err(format!("{name} says nothing")),
            text => Ok(Action::Say(member, text.to_owned())),
        };
    }
    let Some(member) = Member::named(word) else {
        return Err(format!(
            "begins with none of {}, expect, sleep, kill and #",
            Member::ALL.map(Member::name).join(", ")
        ));
    };
    let (verb, object) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    match (verb, object.trim()) {
        ("press" | "file", "") => Err(format!("{word} {verb} lacks what")),
        ("press", label) => Ok(Action::Press(member, label.to_owned())),
        ("file", path) => Ok(Action::File(member, path.into())),
        _ => Err(format!(
            "what {word} does is none of: {word}: text; {word} press LABEL; {word} file PATH"
        )),
    }
}

fn expect(rest: &str) -> Result<Action, String> {
    let form = || "expect takes a name and a /regex/".to_owned();
    let (name, pattern) = rest.split_once(char::is_whitespace).ok_or_else(form)?;
    let member = Member::named(name).ok_or_else(form)?;
    let pattern = pattern
        .trim()
        .strip_prefix('/')
        .and_then(|pattern| pattern.strip_suffix('/'))
        .filter(|pattern| !pattern.is_empty())
        .ok_or_else(form)?;
    let regex = Regex::new(pattern).map_err(|error| format!("the regex is none: {error}"))?;
    Ok(Action::Expect(member, regex))
}

fn sleep(rest: &str) -> Result<Action, String> {
    rest.parse::<f64>()
        .ok()
        .filter(|seconds| (0.0..=LONGEST_SLEEP).contains(seconds))
        .map(|seconds| Action::Sleep(Duration::from_secs_f64(seconds)))
        .ok_or_else(|| "sleep takes a number of seconds, at most an hour".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_line_is_read() {
        let steps = parse(
            "# a comment\n\n\
             alice: ls -l: now\n\
               bob press Yes, do it\n\
             stranger file notes/a b.txt\n\
             expect alice /a\\/b|c d/\n\
             sleep 0.5\n\
             kill broker\nkill worker alice\nkill agent bob\n",
        )
        .unwrap();

        assert_eq!(
            steps.iter().map(|step| step.line).collect::<Vec<_>>(),
            [3, 4, 5, 6, 7, 8, 9, 10]
        );
        let actions: Vec<String> = steps
            .iter()
            .map(|step| match &step.action {
                Action::Say(who, text) => format!("{} says {text}", who.name()),
                Action::Press(who, label) => format!("{} presses {label}", who.name()),
                Action::File(who, path) => format!("{} sends {}", who.name(), path.display()),
                Action::Expect(who, regex) => format!("{} gets {regex}", who.name()),
                Action::Sleep(time) => format!("{} ms", time.as_millis()),
                Action::Kill(target) => format!("{target:?}"),
            })
            .collect();
        assert_eq!(
            actions,
            [
                "alice says ls -l: now",
                "bob presses Yes, do it",
                "stranger sends notes/a b.txt",
                "alice gets a\\/b|c d",
                "500 ms",
                "Daemon(Broker)",
                "Worker(Alice)",
                "Agent(Bob)",
            ]
        );
    }

    #[test]
    fn what_is_none_of_them_is_named_with_its_line() {
        for (text, said) in [
            ("alice: hi\ncarol: hi", "line 2: begins with none of"),
            ("alice:", "line 1: alice says nothing"),
            ("alice dances", "what alice does"),
            ("alice press", "alice press lacks what"),
            ("expect alice hello", "a name and a /regex/"),
            ("expect /hello/", "a name and a /regex/"),
            ("expect alice //", "a name and a /regex/"),
            ("expect alice /(/", "the regex is none"),
            ("sleep long", "a number of seconds"),
            ("sleep -1", "a number of seconds"),
            ("sleep inf", "a number of seconds"),
            ("kill everything", "kill takes"),
            ("kill worker", "kill takes"),
            ("kill worker stranger", "kill takes"),
            ("kill broker now", "kill takes"),
        ] {
            let mistake = parse(text).unwrap_err().to_string();
            assert!(mistake.contains(said), "{text:?}: {mistake}");
        }
    }

    #[test]
    fn what_is_said_may_look_like_a_verb() {
        let steps = parse("alice: press the button\nalice : file /etc/passwd").unwrap();
        for (step, said) in steps.iter().zip(["press the button", "file /etc/passwd"]) {
            assert!(matches!(&step.action, Action::Say(_, text) if text == said));
        }
    }
}
