//! Which of the agent's lines fit where they come. Pure state and tables, without I/O.
//!
//! An agent answers each prompt between an `init` and a `result`, all in the session that the `init`
//! names. It also works by itself, when something that it left running has ended, and does so between an
//! `init` and a `result` as well: that answer is nobody's. What comes outside of such a pair, names
//! another session, asks again what was answered, or answers what was not asked, is not the agent's
//! protocol, and an agent that writes it is not believed any further.
//!
//! An `init` does not say whose it is: work that the agent begins by itself in the moment between a prompt
//! and its reading of it is taken for the answer.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, RandomState},
};

use crate::agent::protocol::{Line, Said};

/// Requests of the agent that are remembered as answered.
const ANSWERED: usize = 4096;

/// Requests to the agent that may wait for their answers.
const PENDING: usize = 64;

/// Whose a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The running prompt's.
    Prompt,
    /// Nobody's: the agent speaks of itself, or works by itself.
    Nobody,
}

/// A line that cannot come here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Misfit;

/// What one agent has said so far, as far as it decides what it may say next.
#[derive(Debug, Default)]
pub struct Order {
    /// A prompt was given, and no `init` has come since.
    waiting: bool,
    /// Between an `init` and its `result`: whose they are.
    open: Option<Whose>,
    /// The session of the last `init`.
    session: String,
    /// Numbers of our requests that wait for an answer.
    pending: VecDeque<u32>,
    /// The agent's requests that were answered, as hashes: the ids are as long as it likes.
    answered: VecDeque<u64>,
    hasher: RandomState,
}

impl Order {
    /// An agent that was just started, with request 0 on its way to it.
    #[must_use]
    pub fn begin() -> Self {
        Self {
            pending: VecDeque::from([0]),
            ..Self::default()
        }
    }

    /// A prompt is given to the agent.
    pub fn prompted(&mut self) {
        self.waiting = true;
    }

    /// A request with this number is sent to the agent.
    pub fn asked(&mut self, number: u32) {
        if self.pending.len() == PENDING {
            self.pending.pop_front();
        }
        self.pending.push_back(number);
    }

    /// Judges the agent's next line.
    ///
    /// # Errors
    /// [`Misfit`]: neither this line nor any after it counts.
    pub fn judge(&mut self, said: &Said<'_>) -> Result<Whose, Misfit> {
        let named = said.session.unwrap_or_default();
        match &said.line {
            Line::Begins(begins) => self.begins(named, begins.session().is_some()),
            Line::Stream { parent, .. } | Line::Message { parent, .. } => {
                self.same_session(named)?;
                match self.open {
                    Some(whose) => Ok(whose),
                    // Subagents may go on after the turn that started them.
                    None if parent.is_some() => Ok(Whose::Nobody),
                    None => Err(Misfit),
                }
            }
            Line::Results { .. } | Line::Retrying { .. } => {
                self.same_session(named)?;
                Ok(self.open.unwrap_or(Whose::Nobody))
            }
            Line::Result(result) => match self.open.take() {
                Some(whose) => {
                    self.same_session(named)?;
                    Ok(whose)
                }
                // It could not even begin: the session to resume is not there, for one.
                None if self.waiting && result.subtype != "success" => {
                    self.waiting = false;
                    Ok(Whose::Prompt)
                }
                None => Err(Misfit),
            },
            Line::Request { id, .. } => self.first_time(id),
            Line::Response { id } => self.answers(id),
            Line::Other => Ok(Whose::Nobody),
        }
    }

    fn begins(&mut self, named: &str, is_session: bool) -> Result<Whose, Misfit> {
        if !is_session || self.open.is_some() && self.session != named {
            return Err(Misfit);
        }
        self.session = named.to_owned();
        let whose = match self.open {
            Some(whose) => whose,
            None if std::mem::take(&mut self.waiting) => Whose::Prompt,
            None => Whose::Nobody,
        };
        self.open = Some(whose);
        Ok(whose)
    }

    /// A line without a session is let pass: agents differ in which lines name it.
    fn same_session(&self, named: &str) -> Result<(), Misfit> {
        if named.is_empty() || self.session.is_empty() || named == self.session {
            Ok(())
        } else {
            Err(Misfit)
        }
    }

    fn first_time(&mut self, id: &str) -> Result<Whose, Misfit> {
        let hash = self.hasher.hash_one(id);
        if self.answered.contains(&hash) {
            return Err(Misfit);
        }
        if self.answered.len() == ANSWERED {
            self.answered.pop_front();
        }
        self.answered.push_back(hash);
        Ok(self.open.unwrap_or(Whose::Nobody))
    }

    fn answers(&mut self, id: &str) -> Result<Whose, Misfit> {
        let number = id
            .strip_prefix("kai-")
            .and_then(|number| number.parse().ok());
        let place = self
            .pending
            .iter()
            .position(|pending| Some(*pending) == number);
        match place {
            Some(place) => {
                self.pending.remove(place);
                Ok(Whose::Nobody)
            }
            None => Err(Misfit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::protocol::read;

    const HERE: &str = "2c797a4c-d557-4c2e-a63c-9f6b29bafb1b";
    const ELSEWHERE: &str = "aaaaaaaa-d557-4c2e-a63c-9f6b29bafb1b";

    fn line(kind: &str, session: &str) -> String {
        match kind {
            "init" => format!(r#"{{"type":"system","subtype":"init","session_id":"{session}"}}"#),
            "text" => format!(
                r#"{{"type":"stream_event","parent_tool_use_id":null,"event":{{}},"session_id":"{session}"}}"#
            ),
            "whole" => format!(
                r#"{{"type":"assistant","parent_tool_use_id":null,"message":{{}},"session_id":"{session}"}}"#
            ),
            "sub" => format!(
                r#"{{"type":"stream_event","parent_tool_use_id":"t","event":{{}},"session_id":"{session}"}}"#
            ),
            "done" => {
                format!(r#"{{"type":"result","subtype":"success","session_id":"{session}"}}"#)
            }
            "failed" => format!(
                r#"{{"type":"result","subtype":"error_during_execution","session_id":"{session}"}}"#
            ),
            id if id.starts_with("kai-") => format!(
                r#"{{"type":"control_response","response":{{"subtype":"success","request_id":"{id}"}}}}"#
            ),
            id => format!(
                r#"{{"type":"control_request","request_id":"{id}","request":{{"subtype":"x"}}}}"#
            ),
        }
    }

    /// Gives each word's verdict: `P` the prompt's, `-` nobody's, `!` a misfit. A word `>` is a
    /// prompt; a session after `@` is another one.
    fn verdicts(words: &str) -> String {
        let mut order = Order::begin();
        let judge = |word: &str, order: &mut Order| {
            if word == ">" {
                order.prompted();
                return '>';
            }
            let (kind, session) = match word.split_once('@') {
                Some((kind, _)) => (kind, ELSEWHERE),
                None => (word, HERE),
            };
            match order.judge(&read(line(kind, session).as_bytes()).unwrap()) {
                Ok(Whose::Prompt) => 'P',
                Ok(Whose::Nobody) => '-',
                Err(Misfit) => '!',
            }
        };
        words
            .split_whitespace()
            .map(|word| judge(word, &mut order))
            .collect()
    }

    #[test]
    fn only_what_comes_between_init_and_result_in_the_same_session_is_the_prompts() {
        let table = [
            ("> init text whole sub done", ">PPPPP"),
            ("> init text done > init text done", ">PPP>PPP"),
            // Text after the result, before the init, or when nobody asked.
            ("> init done text", ">PP!"),
            ("> init done > text", ">PP>!"),
            ("text", "!"),
            ("> whole", ">!"),
            // A second result, one without a beginning, one of another session.
            ("> init done done", ">PP!"),
            ("> done", ">!"),
            ("done", "!"),
            ("> init done@x", ">P!"),
            ("> init text@x", ">P!"),
            ("> init whole@x", ">P!"),
            ("> init init@x", ">P!"),
            // A command of the agent begins a new session between turns.
            ("> init done > init@x text@x done@x", ">PP>PPP"),
            // Work that it began by itself answers no prompt.
            ("init text done", "---"),
            ("init > text done init text done", "->--PPP"),
            // Subagents outlive their turn.
            ("> init done sub", ">PP-"),
            // The agent could not begin.
            ("> failed", ">P"),
            ("failed", "!"),
        ];
        for (words, expected) in table {
            assert_eq!(verdicts(words), expected, "{words}");
        }
    }

    #[test]
    fn an_init_without_a_session_is_a_misfit() {
        let mut order = Order::begin();
        let said = read(br#"{"type":"system","subtype":"init"}"#).unwrap();
        assert_eq!(order.judge(&said), Err(Misfit));
    }

    #[test]
    fn requests_are_answered_once_and_answers_need_a_request() {
        let table = [
            ("r1 r2", "--"),
            ("r1 r1", "-!"),
            ("> init r1 done > init r1", ">PPP>P!"),
            ("kai-0", "-"),
            ("kai-0 kai-0", "-!"),
            ("kai-1", "!"),
            ("kai-x", "!"),
        ];
        for (words, expected) in table {
            assert_eq!(verdicts(words), expected, "{words}");
        }
        let mut order = Order::begin();
        order.asked(7);
        let said = line("kai-7", HERE);
        assert_eq!(
            order.judge(&read(said.as_bytes()).unwrap()),
            Ok(Whose::Nobody)
        );
        let made_up = read(br#"{"type":"control_response","response":7}"#).unwrap();
        assert_eq!(order.judge(&made_up), Err(Misfit));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut order = Order::begin();
        for number in 0..10_000 {
            order.asked(number);
            let said = line(&format!("r{number}"), HERE);
            assert!(order.judge(&read(said.as_bytes()).unwrap()).is_ok());
        }
        assert_eq!(
            (order.pending.len(), order.answered.len()),
            (PENDING, ANSWERED)
        );
    }
}
