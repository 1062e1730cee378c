//! What `kai-broker status --json` says, as far as the playground and the tests need it by name.

use serde::Deserialize;
use serde_json::Value;

/// The whole answer.
#[derive(Debug, Clone, Deserialize)]
pub struct Status {
    /// The daemon about itself.
    pub broker: Value,
    /// Everybody in users.yaml.
    #[serde(default)]
    pub users: Vec<User>,
    /// What is not as it should be, one sentence each.
    #[serde(default)]
    pub findings: Vec<String>,
}

impl Status {
    /// The user called `name`.
    #[must_use]
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| user.name == name)
    }

    /// The worker of the user called `name`, if there is one.
    #[must_use]
    pub fn worker(&self, name: &str) -> Option<&Worker> {
        self.user(name)?.worker.as_ref()
    }
}

/// One user.
#[derive(Debug, Clone, Deserialize)]
pub struct User {
    /// Their name in users.yaml.
    pub name: String,
    /// Their account.
    pub account: String,
    /// That account's number.
    pub uid: u32,
    /// Their worker.
    pub worker: Option<Worker>,
    /// Whatever else is said of them.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, Value>,
}

/// One worker.
#[derive(Debug, Clone, Deserialize)]
pub struct Worker {
    /// Its process on this machine.
    pub pid: u32,
    /// Its agent's process on this machine, while there is one.
    pub agent_pid: Option<u32>,
    /// `starting`, `idle`, `turn` or `ending`.
    #[serde(default)]
    pub state: String,
    /// Whatever else is said of it.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, Value>,
}
