//! What the root daemons decided: one JSON object a line, each with its number and the hash of the
//! line before, on disk before the decision takes effect.
//!
//! Each daemon has a log of its own and is its only writer. Nothing that somebody wrote is in it, no
//! code, no secret and no grant; and no name, however it is made, can end a line or steer a terminal.
//!
//! - [`record`]: one decision and its line;
//! - [`chain`]: how lines hold on to each other;
//! - [`writer`]: the files, their rotation and their reserve.
#![forbid(unsafe_code)]

pub mod chain;
pub mod record;
pub mod writer;

pub use record::Record;
pub use writer::{Limits, Log, OpenError};
