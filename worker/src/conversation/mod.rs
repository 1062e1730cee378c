//! The conversation between the gateway and the agent.
//!
//! - [`engine`]: which prompt runs, which wait, and what happens to the agent; no I/O but the journal.
//! - [`turn`]: one running prompt: its text so far and its clocks.
//! - [`order`]: which of the agent's lines fit where they come.
//! - [`outcome`]: what the end of a turn, or of an agent, means to the user.
//! - [`effects`]: what the engine wants done.
//! - [`link`]: the gateway's connection.

pub mod effects;
pub mod engine;
pub mod link;
pub mod order;
pub mod outcome;
pub mod turn;
