//! What the root daemons decided, one JSON object a line, each with the hash of the line before.
#![forbid(unsafe_code)]

pub mod record;
pub mod writer;

pub use record::Record;
pub use writer::{Limits, Log, OpenError};
