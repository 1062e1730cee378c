//! Whoever drives the agent: its lines on standard input, and waiting for them beside something else.
//! One thread does it all, so that an answer at once is written at once.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd},
    time::Instant,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::read,
};
use serde_json::Value;

/// A line that the host wrote.
#[derive(Debug, PartialEq)]
pub enum Said {
    /// `user`: a prompt.
    Prompt(String),
    /// `control_request`.
    Request {
        /// Its id.
        id: String,
        /// What it asks.
        request: Value,
    },
    /// `control_response`.
    Response(Value),
}

/// What came first.
#[derive(Debug)]
pub enum First {
    /// A line.
    Said(Said),
    /// The other descriptor can be read.
    Other,
    /// The time.
    Time,
    /// Standard input has ended, and there is nothing else to wait for.
    End,
}

/// Standard input.
#[derive(Debug, Default)]
pub struct Host {
    buffer: Vec<u8>,
    lines: VecDeque<Said>,
    ended: bool,
}

impl Host {
    /// Waits for a line, for `other` to be readable, or until `until`.
    ///
    /// # Errors
    /// A line that is not of the protocol, or what poll(2) or read(2) answer.
    pub fn wait(
        &mut self,
        other: Option<BorrowedFd<'_>>,
        until: Option<Instant>,
    ) -> io::Result<First> {
        loop {
            if let Some(said) = self.lines.pop_front() {
                return Ok(First::Said(said));
            }
            if self.ended && other.is_none() && until.is_none() {
                return Ok(First::End);
            }
            let stdin = io::stdin();
            let input = PollFd::new(stdin.as_fd(), PollFlags::POLLIN);
            let mut polled = Vec::with_capacity(2);
            polled.extend(other.map(|other| PollFd::new(other, PollFlags::POLLIN)));
            if !self.ended {
                polled.push(input);
            }
            let count = match poll(&mut polled, timeout(until)) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            if count == 0 {
                return Ok(First::Time);
            }
            let readable = |polled: &PollFd<'_>| polled.any().unwrap_or(false);
            // The host first: an interrupt is not to wait behind a command's output.
            if !self.ended && polled.last().is_some_and(readable) {
                self.read()?;
            } else if other.is_some() && polled.first().is_some_and(readable) {
                return Ok(First::Other);
            }
        }
    }

    fn read(&mut self) -> io::Result<()> {
        let mut chunk = [0; 16 * 1024];
        let count = read(io::stdin().as_fd(), &mut chunk)?;
        self.ended = count == 0;
        self.buffer.extend_from_slice(&chunk[..count]);
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            if line.len() > 1 {
                self.lines.push_back(understand(&line)?);
            }
        }
        if self.ended && !self.buffer.is_empty() {
            let line = std::mem::take(&mut self.buffer);
            self.lines.push_back(understand(&line)?);
        }
        Ok(())
    }
}

fn timeout(until: Option<Instant>) -> PollTimeout {
    let Some(until) = until else {
        return PollTimeout::NONE;
    };
    let left = until.saturating_duration_since(Instant::now());
    // Rounded up: a little too early would be a busy loop.
    PollTimeout::try_from(left.as_millis() + u128::from(!left.is_zero()))
        .unwrap_or(PollTimeout::MAX)
}

/// Reads one line; unlike a host, an agent takes nothing that it does not know.
fn understand(line: &[u8]) -> io::Result<Said> {
    let unknown =
        |what: &str| io::Error::other(format!("Error parsing streaming input line: {what}"));
    let line: Value = serde_json::from_slice(line).map_err(|error| unknown(&error.to_string()))?;
    let field = |name: &str| line.get(name).cloned().unwrap_or_default();
    match line.get("type").and_then(Value::as_str) {
        Some("user") => {
            let message = field("message");
            if message.get("role").and_then(Value::as_str) != Some("user") {
                return Err(unknown("a user line has the role user"));
            }
            text(&message)
                .map(Said::Prompt)
                .ok_or_else(|| unknown("a user line has content"))
        }
        Some("control_request") => match field("request_id") {
            Value::String(id) => Ok(Said::Request {
                id,
                request: field("request"),
            }),
            _ => Err(unknown("a control_request has a request_id")),
        },
        Some("control_response") => Ok(Said::Response(field("response"))),
        Some(other) => Err(unknown(&format!("unknown type {other:?}"))),
        None => Err(unknown("no type")),
    }
}

/// Content is a text, or blocks of which those of text count.
fn text(message: &Value) -> Option<String> {
    match message.get("content")? {
        Value::String(text) => Some(text.clone()),
        Value::Array(blocks) => Some(
            blocks
                .iter()
                .filter_map(|block| block.get("text")?.as_str())
                .collect::<Vec<_>>()
                .join("\n"),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood_or_refused() {
        let prompt = br#"{"type":"user","message":{"role":"user","content":[{"type":"text","text":"a"},{"type":"image"},{"type":"text","text":"b"}]}}"#;
        assert_eq!(understand(prompt).unwrap(), Said::Prompt("a\nb".into()));
        for bad in [
            "x",
            "{}",
            r#"{"type":"user"}"#,
            r#"{"type":"user","message":{"role":"assistant","content":"x"}}"#,
            r#"{"type":"control_request"}"#,
            r#"{"type":"keep_alive_of_tomorrow"}"#,
        ] {
            assert!(understand(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
