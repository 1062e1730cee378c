//! One running prompt: what the agent has answered so far, which of its tools run, and when the
//! worker's patience ends.

use std::time::{Duration, Instant};

use kai_proto::{
    codec::shorten,
    conversation::{Failure, Outcome, TurnEvent},
    ids::PromptId,
    worker_broker::Clocks,
};

use super::effects::{Effects, fitting};
use crate::{
    agent::protocol::{Event, Message},
    durable::ANSWER,
};

/// How long the agent may take over an interrupt before it is ended.
pub const INTERRUPT: Duration = Duration::from_secs(5);

/// Longest name of a tool, in bytes.
const TOOL: usize = 64;

/// More tools than this do not run at once; what an agent claims beyond is not remembered.
const TOOLS: usize = 256;

/// Longest id of a tool's call, in bytes.
const TOOL_ID: usize = 256;

/// The model of messages that the agent makes itself, its failures for one.
const SYNTHETIC: &str = "<synthetic>";

/// A running prompt.
#[derive(Debug)]
pub struct Turn {
    /// Which.
    pub prompt: PromptId,
    /// The answer so far.
    pub text: String,
    /// Bytes of it that the gateway was sent.
    sent: usize,
    /// The kind of failure that the agent told of.
    pub failure: Option<String>,
    /// Why the agent was asked to end it, and when.
    stopping: Option<(Outcome, Instant)>,
    started: Instant,
    heard: Instant,
    /// Tools that run, by the id of the call, and when each gave its last sign of life.
    tools: Vec<(String, Instant)>,
    /// The message that came in pieces; its whole does not count again.
    streamed: String,
    /// The next text begins a block of its own.
    new_block: bool,
}

/// The answer is longer than a worker takes.
#[derive(Debug, PartialEq, Eq)]
pub struct TooMuch;

impl Turn {
    /// A turn that begins now.
    #[must_use]
    pub fn new(prompt: PromptId, now: Instant) -> Self {
        Self {
            prompt,
            text: String::new(),
            sent: 0,
            failure: None,
            stopping: None,
            started: now,
            heard: now,
            tools: Vec::new(),
            streamed: String::new(),
            new_block: false,
        }
    }

    /// Notes a line of the agent; `parent` is the tool call of the subagent that wrote it.
    pub fn heard(&mut self, parent: Option<&str>, now: Instant) {
        self.heard = now;
        if let Some(parent) = parent {
            // A subagent runs as a tool, and as long as it writes, that tool is not stuck.
            if let Some((_, alive)) = self.tools.iter_mut().find(|(id, _)| id == parent) {
                *alive = now;
            }
        }
    }

    /// A piece of the main answer.
    ///
    /// # Errors
    /// [`TooMuch`].
    pub fn event(&mut self, event: Event, now: Instant, out: &mut Effects) -> Result<(), TooMuch> {
        match event {
            Event::Message { id } => self.streamed = id,
            Event::TextBegins(text) => {
                self.new_block = true;
                self.add(&text)?;
            }
            Event::Text(text) => self.add(&text)?,
            Event::Tool { id, name } => self.tool(&id, &name, now, out),
            Event::Other => {}
        }
        Ok(())
    }

    /// A whole message of the main answer.
    ///
    /// # Errors
    /// [`TooMuch`].
    pub fn message(
        &mut self,
        message: &Message,
        now: Instant,
        out: &mut Effects,
    ) -> Result<(), TooMuch> {
        if message.id == self.streamed && !message.id.is_empty() || message.model == SYNTHETIC {
            return Ok(());
        }
        for block in &message.content {
            if let Some(text) = block.text() {
                self.block(text)?;
            } else if let Some((id, name)) = block.tool() {
                self.tool(id, name, now, out);
            }
        }
        Ok(())
    }

    /// Text that is a block of its own.
    ///
    /// # Errors
    /// [`TooMuch`].
    pub fn block(&mut self, text: &str) -> Result<(), TooMuch> {
        self.new_block = true;
        self.add(text)?;
        self.new_block = true;
        Ok(())
    }

    fn add(&mut self, text: &str) -> Result<(), TooMuch> {
        if text.is_empty() {
            return Ok(());
        }
        let mut between = "";
        if std::mem::take(&mut self.new_block) && !self.text.is_empty() {
            let ends = self
                .text
                .bytes()
                .rev()
                .take_while(|byte| *byte == b'\n')
                .count();
            between = &"\n\n"[ends.min(2)..];
        }
        let room = ANSWER.saturating_sub(self.text.len() + between.len());
        if room == 0 {
            return Err(TooMuch);
        }
        self.text.push_str(between);
        self.text.push_str(&text[..fitting(text, room)]);
        if text.len() > room {
            Err(TooMuch)
        } else {
            Ok(())
        }
    }

    fn tool(&mut self, id: &str, name: &str, now: Instant, out: &mut Effects) {
        self.flush(out);
        out.event(self.prompt, TurnEvent::Tool(shorten(name.to_owned(), TOOL)));
        // An id that is longer than any is not remembered either: its tool then has no clock of its own.
        if self.tools.len() < TOOLS && id.len() <= TOOL_ID {
            self.tools.push((id.to_owned(), now));
        }
    }

    /// These tools are done.
    pub fn tools_done(&mut self, done: &[String]) {
        self.tools.retain(|(id, _)| !done.contains(id));
    }

    /// Sends the text that was not sent yet.
    pub fn flush(&mut self, out: &mut Effects) {
        out.text(self.prompt, &self.text[self.sent..]);
        self.sent = self.text.len();
    }

    /// Sends everything from the beginning, to a gateway that asks for it.
    pub fn send_again(&mut self, out: &mut Effects) {
        out.event(self.prompt, TurnEvent::Accepted);
        out.event(self.prompt, TurnEvent::Started);
        self.sent = 0;
        self.flush(out);
    }

    /// Why the agent was asked to end it.
    #[must_use]
    pub fn stopping(&self) -> Option<&Outcome> {
        self.stopping.as_ref().map(|(why, _)| why)
    }

    /// Notes that the agent is asked to end it; false if it was asked before.
    pub fn stop(&mut self, why: Outcome, now: Instant) -> bool {
        let first = self.stopping.is_none();
        self.stopping.get_or_insert((why, now));
        first
    }

    /// How long it has run.
    #[must_use]
    pub fn duration(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }

    /// When the worker's patience ends, and with what.
    #[must_use]
    pub fn due(&self, clocks: &Clocks) -> (Instant, Due) {
        if let Some((_, since)) = &self.stopping {
            return (*since + INTERRUPT, Due::EndAgent);
        }
        let whole = (self.started + clocks.turn, Due::Stop(Failure::TurnTooLong));
        let oldest = self.tools.iter().map(|(_, alive)| *alive).min();
        let step = match oldest {
            Some(alive) => (alive + clocks.tool, Due::Stop(Failure::ToolTooLong)),
            None => (self.heard + clocks.silence, Due::Stop(Failure::Silent)),
        };
        if step.0 < whole.0 { step } else { whole }
    }
}

/// What happens when patience ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// The agent is asked to end the turn.
    Stop(Failure),
    /// It was asked and has not: it is ended itself.
    EndAgent,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const CLOCKS: Clocks = Clocks {
        silence: Duration::from_secs(10),
        turn: Duration::from_secs(100),
        tool: Duration::from_secs(30),
    };

    fn turn(now: Instant) -> Turn {
        Turn::new(PromptId::try_from(1).unwrap(), now)
    }

    #[test]
    fn a_blank_line_stands_between_blocks_and_nowhere_else() {
        let now = Instant::now();
        let mut out = Effects::default();
        let mut turn = turn(now);
        for (begins, text) in [
            (true, "one"),
            (false, " more"),
            (true, "two\n"),
            (true, ""),
            (true, "three\n\n"),
            (true, "four"),
        ] {
            let event = if begins {
                Event::TextBegins(text.into())
            } else {
                Event::Text(text.into())
            };
            turn.event(event, now, &mut out).unwrap();
        }

        assert_eq!(turn.text, "one more\n\ntwo\n\nthree\n\nfour");
    }

    #[test]
    fn a_message_that_came_in_pieces_does_not_count_again() {
        let now = Instant::now();
        let mut out = Effects::default();
        let whole = |id: &str, model: &str| -> Message {
            serde_json::from_str(&format!(
                r#"{{"id":"{id}","model":"{model}","content":[{{"type":"text","text":"hello"}}]}}"#
            ))
            .unwrap()
        };
        let mut turn = turn(now);
        turn.event(Event::Message { id: "m1".into() }, now, &mut out)
            .unwrap();
        turn.event(Event::Text("hello".into()), now, &mut out)
            .unwrap();

        turn.message(&whole("m1", "opus"), now, &mut out).unwrap();
        turn.message(&whole("m2", SYNTHETIC), now, &mut out)
            .unwrap();
        assert_eq!(turn.text, "hello");
        turn.message(&whole("m3", "opus"), now, &mut out).unwrap();
        assert_eq!(turn.text, "hello\n\nhello");
    }

    #[test]
    fn the_clock_that_ends_first_decides() {
        let begin = Instant::now();
        let mut out = Effects::default();
        let mut turn = turn(begin);
        assert_eq!(
            turn.due(&CLOCKS),
            (begin + 10 * SECOND, Due::Stop(Failure::Silent))
        );

        turn.heard(None, begin + 5 * SECOND);
        assert_eq!(turn.due(&CLOCKS).0, begin + 15 * SECOND);

        let tool = Event::Tool {
            id: "t".into(),
            name: "Bash".into(),
        };
        turn.event(tool, begin + 6 * SECOND, &mut out).unwrap();
        assert_eq!(
            turn.due(&CLOCKS),
            (begin + 36 * SECOND, Due::Stop(Failure::ToolTooLong))
        );

        turn.heard(Some("t"), begin + 90 * SECOND);
        assert_eq!(
            turn.due(&CLOCKS),
            (begin + 100 * SECOND, Due::Stop(Failure::TurnTooLong))
        );

        turn.tools_done(&["t".into()]);
        assert_eq!(
            turn.due(&CLOCKS),
            (begin + 100 * SECOND, Due::Stop(Failure::TurnTooLong))
        );

        assert!(turn.stop(Outcome::Interrupted, begin + 91 * SECOND));
        assert!(!turn.stop(Outcome::Failed(Failure::Silent), begin + 92 * SECOND));
        assert_eq!(turn.due(&CLOCKS), (begin + 96 * SECOND, Due::EndAgent));
        assert_eq!(turn.stopping(), Some(&Outcome::Interrupted));
    }

    #[test]
    fn an_answer_is_cut_at_its_longest() {
        let now = Instant::now();
        let mut turn = turn(now);
        let mut add = |text: &str| {
            let added = turn.event(Event::Text(text.into()), now, &mut Effects::default());
            (added, turn.text.len())
        };

        assert_eq!(add(&"x".repeat(ANSWER - 1)), (Ok(()), ANSWER - 1));
        assert_eq!(add("éé"), (Err(TooMuch), ANSWER - 1));
        assert_eq!(turn.block("x"), Err(TooMuch));
        assert_eq!(turn.text.len(), ANSWER - 1);
    }
}
