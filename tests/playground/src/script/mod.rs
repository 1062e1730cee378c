//! Conversations from a file, played without a browser.

pub mod parse;
pub mod play;
