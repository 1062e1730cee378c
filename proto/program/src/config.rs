//! `kai.yaml`: what every program needs to know, without a secret in it.
//!
//! All programs read the same file and each takes its part. Root must own it or the account that runs
//! the program, and nobody else may write it.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    digest::Digest,
    trusted_file::{Distrust, Trust, TrustedFile},
    yaml::{Document, Map, Mistake, Node},
};

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be trusted or read.
    #[error(transparent)]
    Distrust(#[from] Distrust),
    /// The file says something that has no meaning.
    #[error(transparent)]
    Mistake(#[from] Mistake),
}

/// The whole of `kai.yaml`, with its defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Which file it came from.
    pub file: PathBuf,
    /// What that file was when it was read, for the audit logs.
    pub digest: Digest,
    /// The Bot API.
    pub telegram: Telegram,
    /// The agent that workers host.
    pub agent: Agent,
    /// Accounts of kai's own.
    pub accounts: Accounts,
    /// Where things are.
    pub paths: Paths,
    /// How much of what.
    pub limits: Limits,
    /// The second factor.
    pub second_factor: SecondFactor,
    /// What is logged.
    pub log: LogLevel,
}

/// The Bot API and the bot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telegram {
    /// A Bot API server, without a path below it.
    pub api_url: String,
    /// The file with the bot's token, which only the gateway reads.
    pub token_file: PathBuf,
}

/// The agent's program and what it may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// The program's absolute path and its leading arguments.
    pub command: Vec<String>,
    /// The Messages API, if not the agent's default.
    pub base_url: Option<String>,
    /// A key of the agent for everybody, which every user can read.
    pub shared_key_file: Option<PathBuf>,
    /// TCP ports that a worker may connect to; none leaves them all open.
    pub connect_ports: Option<Vec<u16>>,
    /// Directories beside the system's that workers may read and execute in.
    pub read_paths: Vec<PathBuf>,
}

/// Accounts of kai's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accounts {
    /// The account that the gateway runs as, and nobody else.
    pub gateway: String,
}

/// Where things are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// Sockets.
    pub run: PathBuf,
    /// What must outlive a restart.
    pub state: PathBuf,
    /// Audit logs.
    pub log: PathBuf,
    /// The table of users, which only the broker reads.
    pub users: PathBuf,
    /// The directory of kai-worker; none means beside the broker's own program.
    pub programs: Option<PathBuf>,
}

/// How much of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Workers that live at once.
    pub workers: usize,
    /// Connections that a daemon holds on one socket at once.
    pub connections: usize,
    /// A worker that had no turn for this long is ended.
    pub idle: Duration,
    /// The longest silence of an agent without a running tool.
    pub silence: Duration,
    /// The longest turn.
    pub turn: Duration,
    /// The longest run of one tool.
    pub tool: Duration,
    /// How long a gateway that stops lets what runs go on.
    pub stop: Duration,
}

/// How long a proof of the second factor holds, and what wrong codes cost. Who must have one stands in
/// users.yaml.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecondFactor {
    /// Without a message for this long, the user is asked again.
    pub idle: Duration,
    /// After this long they are asked again in any case.
    pub absolute: Duration,
    /// How long they have to enter a code before what they sent lapses.
    pub question: Duration,
    /// How long a question must have stood in the chat before a code runs what it quotes.
    pub reading: Duration,
    /// Wrong codes that lock.
    pub failures: u32,
    /// For how long, the first time; each further lockout doubles it.
    pub lockout: Duration,
    /// The longest lockout.
    pub lockout_limit: Duration,
}

/// The least severe events that are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// What failed.
    Error,
    /// And what may need a look.
    Warn,
    /// And what happened.
    Info,
    /// And how.
    Debug,
}

/// Seconds of a day.
const DAY: u64 = 24 * 3600;

/// TCP ports that agents may connect to by default: name service, the web, git and OpenSSH.
const CONNECT_PORTS: [u16; 5] = [22, 53, 80, 443, 9418];

impl Config {
    /// Reads and judges the file at `path`.
    ///
    /// # Errors
    /// One sentence that names the file and, where there is one, the line and key.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = TrustedFile::open(path, Trust::Configuration)?.read()?;
        Ok(Self::parse(path, &text)?)
    }

    /// Reads `text` as if it stood in `file`.
    ///
    /// # Errors
    /// The first mistake in it.
    pub fn parse(file: &Path, text: &str) -> Result<Self, Mistake> {
        let mut root = Document::parse(file, text)?.into_map()?;
        let config = Self {
            file: file.to_owned(),
            digest: Digest::of(text.as_bytes()),
            telegram: Telegram::parse(root.section("telegram")?)?,
            agent: Agent::parse(root.section("agent")?)?,
            accounts: Accounts::parse(root.section("accounts")?)?,
            paths: Paths::parse(root.section("paths")?, file)?,
            limits: Limits::parse(root.section("limits")?)?,
            second_factor: SecondFactor::parse(root.section("second_factor")?)?,
            log: root
                .optional("log")
                .map_or(Ok(LogLevel::Info), |node| LogLevel::parse(&node))?,
        };
        root.finish()?;
        Ok(config)
    }

    /// The directory of the state of the user with this account.
    #[must_use]
    pub fn user_state(&self, account: &str) -> PathBuf {
        self.paths.state.join("users").join(account)
    }

    /// The directory of authd's database.
    #[must_use]
    pub fn authd_state(&self) -> PathBuf {
        self.paths.state.join("authd")
    }

    /// The directory of the audit log of `daemon`, `authd` or `broker`.
    #[must_use]
    pub fn audit_log(&self, daemon: &str) -> PathBuf {
        self.paths.log.join(daemon)
    }

    /// The directory of the gateway's database.
    #[must_use]
    pub fn gateway_state(&self) -> PathBuf {
        self.paths.state.join("gateway")
    }
}

impl Telegram {
    fn parse(mut map: Map) -> Result<Self, Mistake> {
        let telegram = Self {
            api_url: match map.optional("api_url") {
                Some(node) => url(&node)?,
                None => "https://api.telegram.org".to_owned(),
            },
            token_file: match map.optional("token_file") {
                Some(node) => node.path()?,
                None => "/etc/kai/credentials/telegram-token".into(),
            },
        };
        map.finish()?;
        Ok(telegram)
    }
}

impl Agent {
    fn parse(mut map: Map) -> Result<Self, Mistake> {
        let command = map.required("command")?;
        let command_place = command.mistake("must begin with the agent's absolute path");
        let command = command.into_texts()?;
        if !command
            .first()
            .is_some_and(|program| program.starts_with('/'))
        {
            return Err(command_place);
        }
        let base_url = map
            .optional("base_url")
            .map(|node| url(&node))
            .transpose()?;
        let shared = map
            .optional("shared_key_readable_by_every_user")
            .map_or(Ok(false), |node| node.boolean())?;
        let shared_key_file = match map.optional("api_key_file") {
            Some(node) if !shared => {
                return Err(node.mistake(
                    "is one key that every user's agent can read: give each user an `api_key_file` \
                     in users.yaml, or accept it with `shared_key_readable_by_every_user: true`",
                ));
            }
            Some(node) => Some(node.path()?),
            None => None,
        };
        let connect_ports = match map.optional("connect_ports") {
            Some(node) if node.text().is_ok_and(|text| text == "any") => None,
            Some(node) => {
                let mut ports = Vec::new();
                for item in node.into_list()? {
                    ports.extend(u16::try_from(item.number(1..=65535)?).ok());
                }
                Some(ports)
            }
            None => Some(CONNECT_PORTS.to_vec()),
        };
        let read_paths = match map.optional("read_paths") {
            Some(node) => node
                .into_list()?
                .iter()
                .map(Node::path)
                .collect::<Result<_, _>>()?,
            None => Vec::new(),
        };
        map.finish()?;
        Ok(Self {
            command,
            base_url,
            shared_key_file,
            connect_ports,
            read_paths,
        })
    }

    /// The port of [`base_url`](Self::base_url), which a worker must be able to reach.
    #[must_use]
    pub fn base_port(&self) -> Option<u16> {
        let (scheme, rest) = self.base_url.as_deref()?.split_once("://")?;
        let authority = rest.split('/').next()?;
        // An IPv6 address stands in brackets, and its own colons are not the port's.
        let after_address = authority
            .rsplit_once(']')
            .map_or(authority, |(_, rest)| rest);
        match after_address.rsplit_once(':') {
            Some((_, port)) => port.parse().ok(),
            None => Some(if scheme == "https" { 443 } else { 80 }),
        }
    }
}

impl Accounts {
    fn parse(mut map: Map) -> Result<Self, Mistake> {
        let gateway = match map.optional("gateway") {
            Some(node) => node.text()?.to_owned(),
            None => "kai-gateway".to_owned(),
        };
        map.finish()?;
        Ok(Self { gateway })
    }
}

impl Paths {
    fn parse(mut map: Map, file: &Path) -> Result<Self, Mistake> {
        let beside = file.parent().unwrap_or(Path::new("/")).join("users.yaml");
        let mut path = |key: &str, default: PathBuf| match map.optional(key) {
            Some(node) => node.path(),
            None => Ok(default),
        };
        let paths = Self {
            run: path("run", "/run/kai".into())?,
            state: path("state", "/var/lib/kai".into())?,
            log: path("log", "/var/log/kai".into())?,
            users: path("users", beside)?,
            programs: map
                .optional("programs")
                .map(|node| node.path())
                .transpose()?,
        };
        map.finish()?;
        Ok(paths)
    }
}

impl Limits {
    fn parse(mut map: Map) -> Result<Self, Mistake> {
        let count = |node: Option<Node>, default: usize| match node {
            Some(node) => node
                .number(1..=4096)
                .map(|n| usize::try_from(n).unwrap_or(default)),
            None => Ok(default),
        };
        let time = |node: Option<Node>, minutes: u64| match node {
            Some(node) => node.duration(),
            None => Ok(Duration::from_secs(minutes * 60)),
        };
        let limits = Self {
            workers: count(map.optional("workers"), 64)?,
            connections: count(map.optional("connections"), 256)?,
            idle: time(map.optional("idle"), 30)?,
            silence: time(map.optional("silence"), 5)?,
            turn: time(map.optional("turn"), 60)?,
            tool: time(map.optional("tool"), 30)?,
            stop: time(map.optional("stop"), 1)?,
        };
        map.finish()?;
        Ok(limits)
    }
}

impl SecondFactor {
    fn parse(mut map: Map) -> Result<Self, Mistake> {
        let mut time = |key: &str, default: u64, longest: u64| match map.optional(key) {
            Some(node) => {
                let given = node.duration()?;
                if given > Duration::from_secs(longest) {
                    let hours = longest / 3600;
                    return Err(node.mistake(format!("must be at most {hours}h")));
                }
                Ok(given)
            }
            None => Ok(Duration::from_secs(default)),
        };
        let second_factor = Self {
            idle: time("idle", 30 * 60, 7 * DAY)?,
            absolute: time("absolute", DAY / 2, 7 * DAY)?,
            question: time("question", 120, DAY / 24)?,
            lockout: time("lockout", 15 * 60, 7 * DAY)?,
            lockout_limit: time("lockout_limit", DAY, 7 * DAY)?,
            reading: match map.optional("reading") {
                // In seconds, because none at all is no time elsewhere.
                Some(node) => Duration::from_secs(u64::try_from(node.number(0..=60)?).unwrap_or(3)),
                None => Duration::from_secs(3),
            },
            failures: match map.optional("failures") {
                Some(node) => u32::try_from(node.number(1..=10)?).unwrap_or(3),
                None => 3,
            },
        };
        map.finish()?;
        Ok(second_factor)
    }
}

impl LogLevel {
    fn parse(node: &Node) -> Result<Self, Mistake> {
        match node.text()? {
            "error" => Ok(Self::Error),
            "warn" => Ok(Self::Warn),
            "info" => Ok(Self::Info),
            "debug" => Ok(Self::Debug),
            _ => Err(node.mistake("must be error, warn, info or debug")),
        }
    }
}

/// True unless what follows the last colon of the host's part is no port.
fn has_a_good_port(rest: &str) -> bool {
    let authority = rest.split('/').next().unwrap_or(rest);
    let after_address = authority
        .rsplit_once(']')
        .map_or(authority, |(_, rest)| rest);
    after_address
        .rsplit_once(':')
        .is_none_or(|(_, port)| port.parse::<u16>().is_ok_and(|p| p > 0))
}

/// An address without a path, a query or credentials.
fn url(node: &Node) -> Result<String, Mistake> {
    let text = node.text()?;
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    match rest.map(|rest| rest.trim_end_matches('/')) {
        Some(rest)
            if !rest.is_empty()
                && has_a_good_port(rest)
                && !rest.contains(['@', '?', '#', ' '])
                && rest.chars().all(|c| c.is_ascii_graphic()) =>
        {
            Ok(text.trim_end_matches('/').to_owned())
        }
        _ => Err(node.mistake("must be an http:// or https:// address without credentials")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("/etc/kai/kai.yaml"), text).map_err(|mistake| mistake.to_string())
    }

    #[test]
    fn the_shortest_configuration_has_the_installed_paths() {
        let config = parse("agent: {command: /opt/kai/agent/current/claude}").unwrap();

        assert_eq!(config.paths.run, Path::new("/run/kai"));
        assert_eq!(config.paths.users, Path::new("/etc/kai/users.yaml"));
        assert_eq!(config.limits.idle, Duration::from_secs(1800));
        assert_eq!(
            config.user_state("alice"),
            Path::new("/var/lib/kai/users/alice")
        );
    }

    #[test]
    fn mistakes_name_the_line_and_the_key() {
        for (text, said) in [
            ("", "`agent` lacks the key `command`"),
            (
                "agent: {command: /c, base_url: 'http://x:99999'}",
                "`agent.base_url` must be",
            ),
            ("agent: {command: claude}", ":1: `agent.command` must begin"),
            (
                "agent: {command: /c}\nagnet: {}",
                ":2: `agnet` is not a key",
            ),
            (
                "agent:\n  command: /c\n  baseurl: x",
                ":3: `agent.baseurl` is not a key",
            ),
            (
                "agent: {command: /c}\nlimits: {workers: many}",
                ":2: `limits.workers` must be",
            ),
            (
                "agent: {command: /c}\npaths: {run: tmp}",
                ":2: `paths.run` must be an absolute",
            ),
            (
                "agent: {command: /c}\ntelegram: {api_url: 'ftp://x'}",
                ":2: `telegram.api_url` must",
            ),
            (
                "agent: {command: /c, base_url: 'http://me:secret@x'}",
                "without credentials",
            ),
            (
                "agent: {command: /c, api_key_file: /k}",
                "`shared_key_readable_by_every_user: true`",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(said), "{text:?}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn the_port_of_the_base_url_is_found() {
        for (address, port) in [
            ("http://127.0.0.1:8080", Some(8080)),
            ("https://api.example.com", Some(443)),
            ("http://api.example.com/v1", Some(80)),
            ("http://[::1]:99", Some(99)),
            ("http://[::1]", Some(80)),
        ] {
            let config = parse(&format!("agent: {{command: /c, base_url: '{address}'}}")).unwrap();
            assert_eq!(config.agent.base_port(), port, "{address}");
        }
    }
}
