//! What a prompt asks for.

use std::time::Duration;

use super::lies::Lie;

/// A prompt's meaning.
#[derive(Debug, PartialEq)]
pub enum Word {
    /// Answer this.
    Say(String),
    /// Answer this word by word over that time.
    Slow(Duration, String),
    /// Answer with a sample of Markdown.
    Markdown,
    /// Ask the user something.
    Ask,
    /// End by a signal.
    Crash,
    /// Say nothing more.
    Hang,
    /// Write a line that is no JSON.
    Garbage,
    /// End with status 0.
    Exit0,
    /// Write a line of so many megabytes.
    BigLine(usize),
    /// Write text until interrupted.
    Flood,
    /// Name the session.
    WhoamiSession,
    /// Answer at once.
    Bench,
    /// Lie, flood or play dead, in this way.
    Lie(Lie),
    /// Run this.
    Shell(String),
}

/// Longest time that `slow` takes.
const SLOWEST: f64 = 3600.0;

/// Longest line that `bigline` writes, in megabytes.
const BIGGEST: usize = 1024;

/// Reads a prompt. A word with something wrong behind it is a shell command like any other.
#[must_use]
pub fn read(prompt: &str) -> Word {
    let prompt = prompt.trim();
    let (word, rest) = prompt
        .split_once(char::is_whitespace)
        .unwrap_or((prompt, ""));
    let rest = rest.trim_start();
    let shell = || Word::Shell(prompt.to_owned());
    match (word, rest) {
        ("say", text) => Word::Say(text.to_owned()),
        ("slow", rest) => slow(rest).unwrap_or_else(shell),
        ("bigline", count) => match count.parse() {
            Ok(megabytes) if megabytes <= BIGGEST => Word::BigLine(megabytes),
            _ => shell(),
        },
        ("markdown", "") => Word::Markdown,
        ("ask", "") => Word::Ask,
        ("crash", "") => Word::Crash,
        ("hang", "") => Word::Hang,
        ("garbage", "") => Word::Garbage,
        ("exit0", "") => Word::Exit0,
        ("flood", "") => Word::Flood,
        ("whoami-session", "") => Word::WhoamiSession,
        ("bench", _) => Word::Bench,
        ("lie", name) => Lie::named(name).map_or_else(shell, Word::Lie),
        _ => shell(),
    }
}

fn slow(rest: &str) -> Option<Word> {
    let (seconds, text) = rest.split_once(char::is_whitespace)?;
    let seconds: f64 = seconds.parse().ok()?;
    (0.0..=SLOWEST)
        .contains(&seconds)
        .then(|| Word::Slow(Duration::from_secs_f64(seconds), text.trim().to_owned()))
}

/// Every form of Markdown that an agent's answers usually have.
pub const SAMPLE: &str = "\
# A heading

Some *emphasis*, some **strength**, `code` and ~~what is wrong~~.

- a list
- with a [link](https://example.org/)
  - and a list in it

1. first
2. second

> Somebody said so.

```rust
fn main() {
    println!(\"<hello> & goodbye\");
}
```

| a | table |
|---|---|
| 1 | 2 |";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_words_and_all_else_is_for_the_shell() {
        let shell = |prompt: &str| Word::Shell(prompt.to_owned());
        let table = [
            ("say hello  there", Word::Say("hello  there".into())),
            (
                " slow 0.5 a b ",
                Word::Slow(Duration::from_millis(500), "a b".into()),
            ),
            ("slow x y", shell("slow x y")),
            ("slow -1 y", shell("slow -1 y")),
            ("slow nan y", shell("slow nan y")),
            ("bigline 9", Word::BigLine(9)),
            (
                "bigline 99999999999999999999",
                shell("bigline 99999999999999999999"),
            ),
            ("crash now", shell("crash now")),
            ("bench 17", Word::Bench),
            ("lie session", Word::Lie(Lie::Session)),
            ("lie often", shell("lie often")),
            ("id; ls -l", shell("id; ls -l")),
            ("", shell("")),
        ];
        for (prompt, word) in table {
            assert_eq!(read(prompt), word, "{prompt}");
        }
    }
}
