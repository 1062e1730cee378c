//! Gateway to worker, on the connection that the broker handed over.
//!
//! The connection is the user: nothing here names a user or a chat. A prompt is known by the id of
//! the Telegram update that brought it, and the worker remembers which it has taken, so the gateway
//! sends every unanswered prompt again whenever a connection begins, and nothing runs twice:
//!
//! - not seen before: it is queued, and runs when those before it are done;
//! - queued or running: [`TurnEvent::Accepted`] again, then the text so far, then the rest;
//! - finished and not acknowledged: `Accepted`, the whole text, [`TurnEvent::Finished`];
//! - acknowledged, as far back as [`limits::UNACKNOWLEDGED`] prompts: `Accepted`, `Finished` with
//!   [`Outcome::Done`] and no text, which the worker has forgotten;
//! - cut off by the end of a worker: `Accepted`, the text so far as known, `Finished` with
//!   [`Failure::WorkerEnded`].
//!
//! The answer to a prompt is the text of all [`TurnEvent::Text`] since its last `Accepted`.

use serde::{Deserialize, Serialize};

use crate::{
    codec::Message,
    gateway_broker::Refusal,
    hello::Hello,
    ids::{ModelName, PromptId, SessionId, UnixSeconds},
    limits,
};

/// What a gateway may say to a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToWorker {
    /// What the user wrote. Prompts run one at a time in the order in which they arrive.
    Prompt(Prompt),
    /// Ends the running turn and drops the queued prompts; each of them finishes as
    /// [`Outcome::Interrupted`].
    Interrupt,
    /// Ends the running turn likewise; the next prompt begins a new session.
    NewSession,
    /// The answer to this prompt was delivered: the worker may forget it.
    Acknowledge(PromptId),
    /// Asks for one [`FromWorker::Description`].
    Describe,
}

/// One prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prompt {
    /// The update that brought it.
    pub id: PromptId,
    /// What the user wrote, at most [`limits::PROMPT`] bytes.
    pub text: String,
    /// The model it is to run with; none means the agent's own choice.
    pub model: Option<ModelName>,
    /// True for one that was let through by a proof which has ended since: it goes on if it has begun,
    /// and otherwise finishes as [`Outcome::NotBegun`].
    pub only_if_begun: bool,
}

/// What a worker says to the gateway. [`Refused`](Self::Refused) alone is written by the broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromWorker {
    /// The broker does not attach; the connection ends here.
    Refused(Refusal),
    /// The worker's first frame: the attach is accepted.
    Hello(Hello),
    /// Something about one prompt.
    Turn {
        /// Which.
        prompt: PromptId,
        /// What.
        event: TurnEvent,
    },
    /// To [`ToWorker::Describe`] and, once done, to [`ToWorker::NewSession`].
    Description(Description),
}

/// What happens to one prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TurnEvent {
    /// The worker has the prompt, and what follows begins at the start. Sent before the agent sees
    /// the prompt: a prompt that was not accepted did not run.
    Accepted,
    /// The agent began to work on it.
    Started,
    /// A piece of the answer, at most [`limits::TEXT_PIECE`] bytes.
    Text(String),
    /// The agent uses a tool; the name as the agent gives it, at most 64 bytes.
    Tool(String),
    /// The agent's API does not answer and the agent tries again.
    Retrying {
        /// Which attempt it is, from 1.
        attempt: u32,
    },
    /// It is over; always the last, and sent only after the answer is on the worker's disk.
    Finished(Finished),
}

/// How a turn ended and what it took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// How it ended.
    pub outcome: Outcome,
    /// Its share of the session's cost, in millionths of a US dollar.
    pub cost_micro_usd: u64,
    /// From the prompt's start to its end, in milliseconds.
    pub duration_ms: u64,
}

/// How a turn ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// With the agent's answer.
    Done,
    /// Because the user asked for it.
    Interrupted,
    /// Otherwise.
    Failed(Failure),
    /// It was to go on, and had not begun.
    NotBegun,
}

/// Why a turn has no complete answer. The gateway says it in the user's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    /// The agent's program is not where the configuration says, or cannot be executed.
    AgentMissing,
    /// The agent has neither a key nor a login.
    NotLoggedIn,
    /// The agent ended by itself.
    AgentEnded {
        /// Its exit status, or the negated number of the signal that ended it.
        status: i32,
    },
    /// The agent ended with status 0 and no result.
    NoResult,
    /// Nothing came from the agent for as long as `limits.silence` allows.
    Silent,
    /// The turn took longer than `limits.turn`.
    TurnTooLong,
    /// One tool ran longer than `limits.tool`.
    ToolTooLong,
    /// The agent wrote something that is not its protocol.
    Garbage,
    /// The agent wrote a line, or an answer, longer than a worker takes.
    TooMuchOutput,
    /// The session's budget is used up.
    Budget,
    /// The agent took as many steps as it may in one turn.
    TooManySteps,
    /// The agent does not know the session that was to be resumed.
    SessionGone,
    /// The model's API refused or failed; what the agent said of it, at most
    /// [`limits::DETAIL`] bytes.
    Api(String),
    /// The worker was ended in the middle of the turn.
    WorkerEnded,
    /// The user's disk or directory cannot be written.
    Disk,
    /// As many prompts as a worker keeps are queued.
    QueueFull,
    /// The file system of the user's home or answers has less free space than `limits.free` of the user's
    /// policy asks for.
    LowSpace,
}

/// A worker about itself, for /status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// When the worker began.
    pub started: UnixSeconds,
    /// The session, if one has begun.
    pub session: Option<SessionId>,
    /// The agent's version, as it says, at most 64 bytes; empty before its first turn.
    pub agent_version: String,
    /// The model, as the agent says, at most [`limits::MODEL`] bytes; empty before its first turn.
    pub model: String,
    /// Turns of this session since the worker began.
    pub turns: u32,
    /// What they cost, in millionths of a US dollar.
    pub cost_micro_usd: u64,
    /// Where the session's cost is cut off, in millionths of a US dollar.
    pub budget_micro_usd: Option<u64>,
    /// The prompt that runs now.
    pub running: Option<PromptId>,
    /// Prompts that wait behind it.
    pub queued: u32,
    /// True if its last turn failed with [`Failure::NotLoggedIn`].
    pub needs_login: bool,
}

impl Message for ToWorker {
    const LIMIT: usize = limits::CONVERSATION_FRAME;
}

impl Message for FromWorker {
    const LIMIT: usize = limits::CONVERSATION_FRAME;
}
