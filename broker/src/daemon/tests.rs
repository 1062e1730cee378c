//! Attaches and workers under authd's word, with everybody but the broker played.

mod attaches;
mod authd_away;
mod logins;
mod played;
mod proofs_ended;
mod stage;

const SECOND: std::time::Duration = std::time::Duration::from_secs(1);
