//! What a ground is to be like.

use std::path::PathBuf;

/// How the accounts of a run are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// `kai-play-alice`, or `kai-play2-alice` if somebody has that already, and so on.
    Playground,
    /// Unique to this ground, so that many run at once.
    Unique,
}

/// Somebody in users.yaml, with an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Their name, also the last part of the account's: a-z and 0-9, at most 12.
    pub name: String,
    /// Who they are on Telegram.
    pub telegram_id: i64,
    /// A key for the agent, for them alone.
    pub api_key: Option<String>,
    /// Further lines of their entry, such as `role: admin`.
    pub keys: Vec<String>,
}

impl Person {
    /// Somebody without anything special.
    #[must_use]
    pub fn new(name: &str, telegram_id: i64) -> Self {
        Self {
            name: name.to_owned(),
            telegram_id,
            api_key: None,
            keys: Vec::new(),
        }
    }
}

/// Which agent the workers host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Agent {
    /// `kai-play-agent`, with these arguments.
    Embedded(Vec<String>),
    /// A program that is put into the ground first, where every worker may read it.
    Program {
        /// Where it is now.
        path: PathBuf,
        /// Its leading arguments.
        arguments: Vec<String>,
    },
    /// Exactly this command, whether it exists or not.
    Command(Vec<String>),
}

/// What a ground is to be like.
#[derive(Debug, Clone)]
pub struct Options {
    /// How accounts are called.
    pub names: Names,
    /// Who is in users.yaml.
    pub people: Vec<Person>,
    /// The Bot API server.
    pub telegram_url: String,
    /// The bot's token.
    pub token: String,
    /// The agent.
    pub agent: Agent,
    /// The Messages API, if not the agent's default.
    pub base_url: Option<String>,
    /// Further keys of `agent:` in kai.yaml, such as `connect_ports: any`.
    pub agent_keys: Vec<(String, String)>,
    /// The keys of `limits:` in kai.yaml.
    pub limits: Vec<(String, String)>,
    /// The keys of `second_factor:` in kai.yaml.
    pub second_factor: Vec<(String, String)>,
    /// `log:` in kai.yaml.
    pub log: String,
    /// Whether a daemon that ends is restarted, once all were ready.
    pub restarts: bool,
    /// The control group of version 2 in which the broker begins, delegated to it as by `Delegate=` of its
    /// unit; none for that of this process.
    pub cgroup: Option<PathBuf>,
}

impl Options {
    /// The embedded agent for `people`, who write to the bot with `token` at `telegram_url`.
    #[must_use]
    pub fn new(names: Names, people: Vec<Person>, telegram_url: &str, token: &str) -> Self {
        Self {
            names,
            people,
            telegram_url: telegram_url.to_owned(),
            token: token.to_owned(),
            agent: Agent::Embedded(Vec::new()),
            base_url: None,
            agent_keys: Vec::new(),
            limits: Vec::new(),
            second_factor: Vec::new(),
            log: "info".to_owned(),
            restarts: true,
            cgroup: None,
        }
    }
}
