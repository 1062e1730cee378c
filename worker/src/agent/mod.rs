//! The agent: a program of the user's account that speaks the stream-json protocol of Claude Code.
//!
//! - [`command`]: its arguments and environment.
//! - [`enclosure`]: what its worker reaches and it does not, and how its tools are kept from it.
//! - [`planted`]: what its tools could have written for its next start.
//! - [`process`]: starting it over socketpairs, and its three streams.
//! - [`lines`]: what it writes, cut into lines of bounded length.
//! - [`protocol`]: what a line means.
//! - [`requests`]: the lines that it reads.
//! - [`questions`]: its questions to the user, as text.
//! - [`tree`]: ending it with all that it started.
//!
//! What it writes is not trusted: it is as often the output of a program that the user's agent runs.
//! It can only ever end, or fill, the turn of its own user.

pub mod command;
pub mod enclosure;
pub mod lines;
pub mod planted;
pub mod process;
pub mod protocol;
pub mod questions;
pub mod requests;
pub mod tree;
