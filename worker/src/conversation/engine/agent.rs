//! What the agent's lines, its start and its end do to the running turn.

use std::time::Instant;

use kai_proto::{
    codec::shorten,
    conversation::{Failure, Outcome, TurnEvent},
    limits,
};

use super::{Agent, Engine};
use crate::{
    agent::{
        protocol::{self, Line, Request, TurnResult},
        questions, requests,
    },
    conversation::{
        effects::Effects,
        order::Whose,
        outcome,
        turn::{TooMuch, Turn},
    },
};

/// What an agent may write from one prompt to the next, in bytes. A busy turn of hours writes some tens
/// of megabytes; one that writes this much is a flood, whatever is in it.
pub const OUTPUT: u64 = 512 * 1024 * 1024;

/// What a line counts at least, for a flood of short ones costs time all the same.
const LEAST: u64 = 64;

/// Longest version of an agent, in bytes, as its description is defined.
const VERSION: usize = 64;

impl Engine {
    /// The agent could not be started.
    pub fn not_started(&mut self, missing: bool, now: Instant, out: &mut Effects) {
        self.agent = Agent::Absent;
        // What keeps an existing program from starting is the host: memory, processes, files. It is
        // told with the status that sysexits(3) has for that, EX_OSERR.
        let failure = if missing {
            Failure::AgentMissing
        } else {
            Failure::AgentEnded { status: 71 }
        };
        self.finish(Outcome::Failed(failure), now, out);
        self.next(now, out);
    }

    /// One line of the agent.
    pub fn line(&mut self, line: &[u8], now: Instant, out: &mut Effects) {
        if !matches!(self.agent, Agent::Present { .. }) {
            return;
        }
        self.output = self.output.saturating_add(LEAST.max(line.len() as u64));
        if self.output > OUTPUT {
            return self.give_up(Failure::TooMuchOutput, now, out);
        }
        if line.is_empty() {
            return;
        }
        let Ok(said) = protocol::read(line) else {
            return self.give_up(Failure::Garbage, now, out);
        };
        let Ok(whose) = self.order.judge(&said) else {
            return self.give_up(Failure::Garbage, now, out);
        };
        let within = match said.line {
            Line::Begins(begins) => {
                self.heard(None, now);
                self.session = begins.session().or(self.session);
                self.version = shorten(begins.version().to_owned(), VERSION);
                self.model_in_use = shorten(begins.model, limits::MODEL);
                Ok(())
            }
            Line::Retrying { attempt } => {
                self.heard(None, now);
                if let Some(turn) = self.running.as_mut().filter(|_| whose == Whose::Prompt) {
                    turn.flush(out);
                    out.event(turn.prompt, TurnEvent::Retrying { attempt });
                }
                Ok(())
            }
            Line::Stream { parent, event } => {
                self.heard(parent.as_deref(), now);
                match &mut self.running {
                    Some(turn) if parent.is_none() && whose == Whose::Prompt => {
                        turn.event(event, now, out)
                    }
                    _ => Ok(()),
                }
            }
            Line::Message {
                parent,
                message,
                error,
            } => {
                self.heard(parent.as_deref(), now);
                self.keep_session();
                match &mut self.running {
                    Some(turn) if parent.is_none() && whose == Whose::Prompt => {
                        turn.failure = error.or(turn.failure.take());
                        turn.message(&message, now, out)
                    }
                    _ => Ok(()),
                }
            }
            Line::Results { parent, tools } => {
                self.heard(parent.as_deref(), now);
                if let Some(turn) = &mut self.running {
                    turn.tools_done(&tools);
                }
                Ok(())
            }
            Line::Request { id, request } => {
                self.heard(None, now);
                self.answer(&id, &request, out)
            }
            Line::Result(result) => {
                self.result(&result, whose, now, out);
                Ok(())
            }
            Line::Response { .. } | Line::Other => {
                self.heard(None, now);
                Ok(())
            }
        };
        if within == Err(TooMuch) {
            self.give_up(Failure::TooMuchOutput, now, out);
        }
    }

    fn heard(&mut self, parent: Option<&str>, now: Instant) {
        if let Some(turn) = &mut self.running {
            turn.heard(parent, now);
        }
    }

    /// Keeps the session once the agent has written something in it: one without a message cannot be
    /// resumed.
    fn keep_session(&mut self) {
        if self.session.is_some() {
            self.journal.set_session(self.session);
        }
    }

    /// The host's answer. Every tool may run: the walls are the kernel's.
    fn answer(
        &mut self,
        id: &str,
        request: &Request<'_>,
        out: &mut Effects,
    ) -> Result<(), TooMuch> {
        match request {
            Request::CanUseTool { name, input } => match questions::asked(name, input.get()) {
                Some(question) => {
                    requests::deny(&mut out.lines, id, questions::LATER);
                    self.running
                        .as_mut()
                        .map_or(Ok(()), |turn| turn.block(&question))
                }
                None => {
                    requests::allow(&mut out.lines, id, input);
                    Ok(())
                }
            },
            Request::Other { subtype } => {
                tracing::debug!(subtype = shorten(subtype.clone(), 64), "an unknown request");
                requests::fail(&mut out.lines, id, "this host does not know the request");
                Ok(())
            }
        }
    }

    fn result(&mut self, result: &TurnResult, whose: Whose, now: Instant, out: &mut Effects) {
        if let Agent::Present { cost, .. } = &mut self.agent {
            let total = result.total_micro_usd();
            let share = total.saturating_sub(*cost);
            *cost = (*cost).max(total);
            self.cost_of_session = self.cost_of_session.saturating_add(share);
            let Some(turn) = self.running.as_mut().filter(|_| whose == Whose::Prompt) else {
                return;
            };
            let outcome = outcome::of_result(result, turn.failure.as_deref(), turn.stopping());
            if outcome == Outcome::Done && turn.text.is_empty() {
                // Commands of the agent answer with a result alone.
                let said = result.result.as_ref().map_or("", |text| text.0.as_str());
                if turn.block(said) == Err(TooMuch) {
                    return self.give_up(Failure::TooMuchOutput, now, out);
                }
            }
            let stale = matches!(
                outcome,
                Outcome::Failed(Failure::SessionGone | Failure::NotLoggedIn)
            );
            self.finish_with_cost(outcome, share, now, out);
            if stale {
                // Without its session it ends by itself, and a login is read at the start alone.
                self.end_agent(out);
            }
        }
        self.next(now, out);
    }

    /// The agent complained, in so many bytes. They count as all that it writes.
    pub fn complained(&mut self, bytes: usize, now: Instant, out: &mut Effects) {
        self.output = self.output.saturating_add(bytes as u64);
        if self.output > OUTPUT && matches!(self.agent, Agent::Present { .. }) {
            self.give_up(Failure::TooMuchOutput, now, out);
        }
    }

    /// The agent wrote a line that is longer than a worker takes.
    pub fn line_too_long(&mut self, now: Instant, out: &mut Effects) {
        self.give_up(Failure::TooMuchOutput, now, out);
    }

    /// Ends the turn, and the agent, whose stream is of no more use.
    pub(super) fn give_up(&mut self, failure: Failure, now: Instant, out: &mut Effects) {
        let why = self.running.as_ref().and_then(Turn::stopping).cloned();
        self.finish(why.unwrap_or(Outcome::Failed(failure)), now, out);
        self.end_agent(out);
    }

    /// The agent has ended by itself, with this status and these last words.
    pub fn agent_ended(&mut self, status: i32, complaints: &[u8], now: Instant, out: &mut Effects) {
        if !matches!(self.agent, Agent::Present { .. }) {
            return;
        }
        let stopping = self.running.as_ref().and_then(Turn::stopping);
        self.finish(outcome::of_end(status, complaints, stopping), now, out);
        // What it started may be left.
        self.end_agent(out);
    }

    pub(super) fn end_agent(&mut self, out: &mut Effects) {
        self.agent = Agent::Leaving;
        out.end_agent = true;
        out.start_agent = None;
        out.lines.clear();
    }

    /// The agent and all that it started have ended.
    pub fn tree_ended(&mut self, now: Instant, out: &mut Effects) {
        self.agent = Agent::Absent;
        self.next(now, out);
    }
}
