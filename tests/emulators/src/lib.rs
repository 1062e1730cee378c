//! The Bot API and the Messages API, as strict as the originals, for tests and the playground.
//!
//! Each emulator is a real HTTP server on loopback with a thread and a runtime of its own. What a
//! test holds is a handle whose methods are all synchronous and may be called from any thread,
//! with or without an async runtime around it; dropping the handle stops the server. Where the
//! original repairs or ignores a caller's mistake, the emulator refuses it, so that a program
//! which passes here does not depend on being corrected.
#![forbid(unsafe_code)]

pub mod agent;
pub mod bot_api;
pub mod messages_api;
pub mod prerequisite;

mod server;
mod watched;
