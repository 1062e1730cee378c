//! Which prompt runs, which wait, and what becomes of the agent. The only I/O is the journal's.
//!
//! Here is the gateway's side: prompts, the queue, clocks and answers. [`agent`] is the other one: what
//! the agent's lines, its start and its end do to the running turn.

mod agent;

use std::{
    collections::VecDeque,
    path::PathBuf,
    time::{Duration, Instant},
};

use kai_proto::{
    conversation::{
        Description, Failure, Finished, FromWorker, Outcome, Prompt, ToWorker, TurnEvent,
    },
    ids::{ModelName, PromptId, SessionId, UnixSeconds},
    limits,
    worker_broker::{Assignment, Clocks},
};

use super::{
    effects::Effects,
    order::Order,
    turn::{Due, Turn},
};
use crate::{
    agent::{
        command::Start,
        requests::{self, Control},
    },
    durable::{self, Answer, Journal},
};

/// Prompts that wait behind the running one.
const QUEUE: usize = 64;

/// What the gateway said cannot be: its connection is to be ended.
#[derive(Debug, PartialEq, Eq)]
pub struct NotPermitted;

/// Where the agent is.
#[derive(Debug)]
enum Agent {
    Absent,
    Present {
        /// What it was last told to use.
        model: Option<ModelName>,
        /// What it has cost so far, in millionths of a US dollar.
        cost: u64,
    },
    /// It, or what it started, is being ended.
    Leaving,
}

/// The state of one user's conversation.
#[derive(Debug)]
pub struct Engine {
    journal: Journal,
    clocks: Clocks,
    model: Option<ModelName>,
    budget: Option<u64>,
    /// Where the agent and the worker write.
    homes: [PathBuf; 2],
    /// Bytes that must be free there before a turn begins.
    free: u64,
    started: UnixSeconds,
    agent: Agent,
    /// What the agent may say next.
    order: Order,
    /// Bytes that the agent wrote since the last prompt began.
    output: u64,
    session: Option<SessionId>,
    running: Option<Turn>,
    queue: VecDeque<Prompt>,
    /// A new session is wanted as soon as nothing runs.
    anew: bool,
    /// Answers that the disk did not take: told again as long as the worker lives.
    unkept: VecDeque<(PromptId, Finished)>,
    /// The last turn failed for want of a login.
    needs_login: bool,
    version: String,
    model_in_use: String,
    turns: u32,
    turns_of_session: u32,
    cost_of_session: u64,
    /// Control requests to the agent so far; its host sent number 0 at the start.
    requests: u32,
}

impl Engine {
    /// A conversation that goes on where `journal` says.
    #[must_use]
    pub fn new(assignment: &Assignment, journal: Journal, started: UnixSeconds) -> Self {
        Self {
            session: journal.session(),
            journal,
            clocks: assignment.clocks,
            model: assignment.model.clone(),
            budget: assignment.budget_micro_usd,
            homes: [&assignment.home, &assignment.state].map(PathBuf::from),
            free: assignment.walls.free,
            started,
            agent: Agent::Absent,
            order: Order::default(),
            output: 0,
            running: None,
            queue: VecDeque::new(),
            anew: false,
            unkept: VecDeque::new(),
            needs_login: false,
            version: String::new(),
            model_in_use: String::new(),
            turns: 0,
            turns_of_session: 0,
            cost_of_session: 0,
            requests: 0,
        }
    }

    /// True while a turn runs.
    #[must_use]
    pub fn in_turn(&self) -> bool {
        self.running.is_some()
    }

    /// The session, if one has begun.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        self.session
    }

    /// Turns since the worker began.
    #[must_use]
    pub fn turns(&self) -> u32 {
        self.turns
    }

    /// What the gateway says.
    ///
    /// # Errors
    /// [`NotPermitted`].
    pub fn gateway(
        &mut self,
        message: ToWorker,
        now: Instant,
        out: &mut Effects,
    ) -> Result<(), NotPermitted> {
        match message {
            ToWorker::Prompt(prompt) if prompt.text.len() > limits::PROMPT => {
                return Err(NotPermitted);
            }
            ToWorker::Prompt(prompt) => self.prompt(prompt, now, out),
            ToWorker::Interrupt => self.interrupt(now, out),
            ToWorker::NewSession => {
                self.anew = true;
                self.interrupt(now, out);
                self.next(now, out);
            }
            ToWorker::Acknowledge(prompt) => {
                self.unkept.retain(|(known, _)| *known != prompt);
                self.journal.acknowledge(prompt);
            }
            ToWorker::Describe => self.describe(out),
        }
        Ok(())
    }

    /// The gateway's connection ended: what waits behind the running prompt does not begin before it is
    /// asked for again. What let it through may not hold any more.
    pub fn connection_ended(&mut self) {
        self.queue.clear();
    }

    fn prompt(&mut self, prompt: Prompt, now: Instant, out: &mut Effects) {
        let id = prompt.id;
        if let Some(turn) = self.running.as_mut().filter(|turn| turn.prompt == id) {
            turn.send_again(out);
            return;
        }
        out.event(id, TurnEvent::Accepted);
        let queued = self.queue.iter().position(|queued| queued.id == id);
        if queued.is_some() && !prompt.only_if_begun {
        } else if self.journal.is_finished(id) {
            self.answer_again(id, out);
        } else if let Some((_, finished)) = self.unkept.iter().find(|(known, _)| *known == id) {
            out.event(id, TurnEvent::Finished(finished.clone()));
        } else if self.journal.is_acknowledged(id) {
            out.event(id, TurnEvent::Finished(without_cost(Outcome::Done)));
        } else if prompt.only_if_begun {
            queued.and_then(|at| self.queue.remove(at));
            // Not kept: whoever sends it again without this condition has it run.
            out.event(id, TurnEvent::Finished(without_cost(Outcome::NotBegun)));
        } else if self.queue.len() >= QUEUE {
            self.finish_unrun(id, Outcome::Failed(Failure::QueueFull), out);
        } else {
            self.queue.push_back(prompt);
            self.next(now, out);
        }
    }

    fn answer_again(&mut self, id: PromptId, out: &mut Effects) {
        // It ran, so it does not run again, even if somebody has spoilt its answer.
        let lost = || Answer {
            finished: without_cost(Outcome::Failed(Failure::Disk)),
            text: String::new(),
        };
        let answer = self.journal.answer(id).unwrap_or_else(lost);
        out.text(id, &answer.text);
        out.event(id, TurnEvent::Finished(answer.finished));
    }

    fn interrupt(&mut self, now: Instant, out: &mut Effects) {
        for prompt in std::mem::take(&mut self.queue) {
            self.finish_unrun(prompt.id, Outcome::Interrupted, out);
        }
        self.stop(Outcome::Interrupted, now, out);
    }

    /// Asks the agent to end the turn.
    fn stop(&mut self, why: Outcome, now: Instant, out: &mut Effects) {
        if self
            .running
            .as_mut()
            .is_some_and(|turn| turn.stop(why, now))
        {
            self.control(Control::Interrupt, out);
        }
    }

    fn control(&mut self, request: Control<'_>, out: &mut Effects) {
        self.requests = self.requests.wrapping_add(1);
        self.order.asked(self.requests);
        requests::control(&mut out.lines, self.requests, request);
    }

    /// Lets the next prompt run if nothing is in its way.
    fn next(&mut self, now: Instant, out: &mut Effects) {
        loop {
            if self.running.is_some() || matches!(self.agent, Agent::Leaving) {
                return;
            }
            if self.anew {
                if matches!(self.agent, Agent::Present { .. }) {
                    self.end_agent(out);
                    return;
                }
                self.anew = false;
                self.forget_session();
                self.describe(out);
            }
            let Some(prompt) = self.queue.pop_front() else {
                return;
            };
            self.begin(&prompt, now, out);
        }
    }

    fn begin(&mut self, prompt: &Prompt, now: Instant, out: &mut Effects) {
        let left = self
            .budget
            .map(|budget| budget.saturating_sub(self.cost_of_session));
        if left == Some(0) {
            return self.finish_unrun(prompt.id, Outcome::Failed(Failure::Budget), out);
        }
        if !durable::has_space(&self.homes.each_ref().map(PathBuf::as_path), self.free) {
            return self.finish_unrun(prompt.id, Outcome::Failed(Failure::LowSpace), out);
        }
        if let Err(error) = self.journal.begin(prompt.id) {
            tracing::warn!(%error, "a prompt cannot be recorded");
            return self.finish_unrun(prompt.id, Outcome::Failed(Failure::Disk), out);
        }
        out.event(prompt.id, TurnEvent::Started);
        self.running = Some(Turn::new(prompt.id, now));
        let wanted = prompt.model.as_ref().or(self.model.as_ref()).cloned();
        match &mut self.agent {
            Agent::Present { model, .. } if *model == wanted => {}
            Agent::Present { model, .. } => {
                *model = wanted.clone();
                let name = wanted.as_ref().map_or("default", ModelName::as_str);
                self.control(Control::SetModel { model: name }, out);
            }
            Agent::Absent | Agent::Leaving => {
                self.order = Order::begin();
                self.agent = Agent::Present {
                    model: wanted.clone(),
                    cost: 0,
                };
                out.start_agent = Some(Start {
                    session: self.session,
                    model: wanted,
                    budget_micro_usd: left,
                });
            }
        }
        self.output = 0;
        self.order.prompted();
        requests::user(&mut out.lines, &prompt.text);
    }

    /// Sends what the agent wrote since the last time: once for all that was read together.
    pub fn flush(&mut self, out: &mut Effects) {
        if let Some(turn) = &mut self.running {
            turn.flush(out);
        }
    }

    /// When [`tick`](Self::tick) is due.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.running.as_ref().map(|turn| turn.due(&self.clocks).0)
    }

    /// Looks at the clocks.
    pub fn tick(&mut self, now: Instant, out: &mut Effects) {
        let Some((at, due)) = self.running.as_ref().map(|turn| turn.due(&self.clocks)) else {
            return;
        };
        if now < at {
            return;
        }
        match due {
            Due::Stop(failure) => self.stop(Outcome::Failed(failure), now, out),
            Due::EndAgent => self.give_up(Failure::Silent, now, out),
        }
    }

    fn finish(&mut self, outcome: Outcome, now: Instant, out: &mut Effects) {
        self.finish_with_cost(outcome, 0, now, out);
    }

    fn finish_with_cost(
        &mut self,
        outcome: Outcome,
        cost_micro_usd: u64,
        now: Instant,
        out: &mut Effects,
    ) {
        let Some(mut turn) = self.running.take() else {
            return;
        };
        turn.flush(out);
        self.turns = self.turns.saturating_add(1);
        self.turns_of_session = self.turns_of_session.saturating_add(1);
        match outcome {
            Outcome::Failed(Failure::SessionGone) => self.forget_session(),
            Outcome::Failed(Failure::NotLoggedIn) => self.needs_login = true,
            Outcome::Done => self.needs_login = false,
            _ => {}
        }
        let duration_ms = millis(turn.duration(now));
        let finished = Finished {
            outcome,
            cost_micro_usd,
            duration_ms,
        };
        self.keep(
            turn.prompt,
            Answer {
                finished,
                text: turn.text,
            },
            out,
        );
    }

    /// Finishes a prompt that the agent was not given.
    fn finish_unrun(&mut self, prompt: PromptId, outcome: Outcome, out: &mut Effects) {
        let answer = Answer {
            finished: without_cost(outcome),
            text: String::new(),
        };
        self.keep(prompt, answer, out);
    }

    /// Keeps an answer, and only then says that it is finished.
    fn keep(&mut self, prompt: PromptId, mut answer: Answer, out: &mut Effects) {
        if let Err(error) = self.journal.finish(prompt, &answer) {
            tracing::warn!(%error, "an answer cannot be kept");
            answer.finished.outcome = Outcome::Failed(Failure::Disk);
            if self.unkept.len() >= limits::UNACKNOWLEDGED {
                self.unkept.pop_front();
            }
            self.unkept.push_back((prompt, answer.finished.clone()));
        }
        out.event(prompt, TurnEvent::Finished(answer.finished));
    }

    fn forget_session(&mut self) {
        self.session = None;
        self.journal.set_session(None);
        self.turns_of_session = 0;
        self.cost_of_session = 0;
    }

    fn describe(&self, out: &mut Effects) {
        out.send(&FromWorker::Description(Description {
            started: self.started,
            session: self.session,
            agent_version: self.version.clone(),
            model: self.model_in_use.clone(),
            turns: self.turns_of_session,
            cost_micro_usd: self.cost_of_session,
            budget_micro_usd: self.budget,
            running: self.running.as_ref().map(|turn| turn.prompt),
            queued: u32::try_from(self.queue.len()).unwrap_or(u32::MAX),
            needs_login: self.needs_login,
        }));
    }
}

fn without_cost(outcome: Outcome) -> Finished {
    Finished {
        outcome,
        cost_micro_usd: 0,
        duration_ms: 0,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
