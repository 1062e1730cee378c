//! What every kai program does before its own work.
//!
//! - [`admin`]: for whom a command of root's runs.
//! - [`arguments`]: the command line of the daemons and the worker's kin.
//! - [`bot_token`]: what a bot's token looks like.
//! - [`config`]: `kai.yaml`, which every program reads and which holds no secret.
//! - [`yaml`]: the reader under it, which can say file, line and key of every mistake.
//! - [`trusted_file`]: opens a file once and judges it by that descriptor.
//! - [`digest`]: what a file was when it was read, for the audit logs.
//! - [`log`]: tracing to a terminal, to the journal, or as JSON lines.
//! - [`notify`]: what a daemon tells the service manager.
//! - [`spare_uids`]: numbers that no account has.
//! - [`json`]: the encoder of flat objects that the log is written with.
#![forbid(unsafe_code)]

pub mod admin;
pub mod arguments;
pub mod bot_token;
pub mod config;
pub mod digest;
pub mod json;
pub mod log;
pub mod notify;
pub mod spare_uids;
pub mod trusted_file;
pub mod yaml;
