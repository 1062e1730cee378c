//! How the agent is started: its arguments and an environment built from nothing.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    process::Command,
};

use kai_proto::{
    ids::{ModelName, SessionId},
    worker_broker::Assignment,
};
use nix::{
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    unistd::geteuid,
};

use crate::tools::SYSTEM_PATH;

/// Longest CLAUDE.md that the agent is given, in bytes.
const INSTRUCTIONS: u64 = 100 * 1024;

/// What differs from one start to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The session to go on with.
    pub session: Option<SessionId>,
    /// The model to begin with.
    pub model: Option<ModelName>,
    /// Where this process's cost is cut off, in millionths of a US dollar.
    pub budget_micro_usd: Option<u64>,
}

/// A repository, and the agent itself, could otherwise plant hooks, servers, and another address for the
/// key: headless, nothing asks before it uses them.
const NO_SETTINGS: &str = "--setting-sources=";

/// The terminal that a login is told to be on, whatever the admin's is: its output is written anew from what
/// this kind understands.
const TERMINAL: &str = "xterm-256color";

/// The words that have the agent log in, behind all of its options. It prints an address and asks for the
/// code that is shown there.
pub const LOGIN: [&str; 2] = ["auth", "login"];

/// The agent's command without its streams.
#[must_use]
pub fn command(assignment: &Assignment, key: Option<&str>, start: &Start, tmp: &Path) -> Command {
    let mut command = program(assignment, tmp);
    command.args([
        // Without a terminal it reads prompts from stdin and never asks for trust.
        "--input-format=stream-json",
        "--output-format=stream-json",
        "--verbose",
        "--include-partial-messages",
        "--permission-prompt-tool=stdio",
        NO_SETTINGS,
        "--strict-mcp-config",
    ]);
    if let Some(session) = start.session {
        command.arg(format!("--resume={session}"));
    }
    if let Some(model) = &start.model {
        command.arg(format!("--model={model}"));
    }
    if let Some(budget) = start.budget_micro_usd {
        command.arg(format!(
            "--max-budget-usd={}.{:06}",
            budget / 1_000_000,
            budget % 1_000_000
        ));
    }
    if let Some(url) = &assignment.base_url {
        command.env("ANTHROPIC_BASE_URL", url);
    }
    if let Some(key) = key {
        command.env("ANTHROPIC_API_KEY", key);
    }
    command
}

/// The agent's own login without its streams and without [`LOGIN`], which comes behind all options.
#[must_use]
pub fn login(assignment: &Assignment, tmp: &Path) -> Command {
    let mut command = program(assignment, tmp);
    command.arg(NO_SETTINGS).env("TERM", TERMINAL);
    command
}

/// The agent's program with its leading arguments, in its home, with an environment built from nothing.
fn program(assignment: &Assignment, tmp: &Path) -> Command {
    let mut words = assignment.agent.iter();
    let mut command = Command::new(words.next().map_or("", String::as_str));
    let account = assignment.account.as_str();
    command
        .args(words)
        .current_dir(&assignment.home)
        .env_clear()
        .env("HOME", &assignment.home)
        .env("USER", account)
        .env("LOGNAME", account)
        .env("SHELL", &assignment.shell)
        // The system's programs alone: what somebody put into the home does not stand in for them.
        .env("PATH", SYSTEM_PATH)
        .env("LANG", "C.UTF-8")
        .env("TERM", "dumb")
        .env("TMPDIR", tmp)
        .env("DISABLE_AUTOUPDATER", "1")
        .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1");
    command
}

/// A directory for the agent's temporary files, this account's and 0700. With one that others can
/// prepare, the agent ends with status 0 and not one byte.
///
/// # Errors
/// What mkdir(2) answers.
pub fn private_tmp() -> io::Result<PathBuf> {
    let me = geteuid().as_raw();
    let usual = PathBuf::from(format!("/tmp/kai-agent-{me}"));
    match DirBuilder::new().mode(0o700).create(&usual) {
        Ok(()) => return Ok(usual),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let found = fs::symlink_metadata(&usual)?;
    if found.is_dir() && found.uid() == me && found.mode() & 0o077 == 0 {
        return Ok(usual);
    }
    Ok(nix::unistd::mkdtemp("/tmp/kai-agent-XXXXXX")?)
}

/// The user's CLAUDE.md, which the agent does not read itself with its settings off. A link may lead
/// elsewhere in the home and not out of it: the worker reaches its own state and memory, which the agent
/// does not.
#[must_use]
pub fn instructions(home: &Path) -> Option<String> {
    let directory = File::open(home).ok()?;
    // O_NONBLOCK: opening a FIFO would wait for somebody to write.
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = File::from(openat2(&directory, "CLAUDE.md", how).ok()?);
    let found = file.metadata().ok()?;
    if !found.is_file() || found.len() > INSTRUCTIONS {
        return None;
    }
    let mut text = String::new();
    file.take(INSTRUCTIONS).read_to_string(&mut text).ok()?;
    (!text.trim().is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kai_proto::worker_broker::Clocks;

    use super::*;

    fn assignment() -> Assignment {
        let hour = Duration::from_secs(3600);
        Assignment {
            account: "alice".to_owned().try_into().unwrap(),
            home: "/home/alice".into(),
            shell: "/bin/bash".into(),
            state: "/s".into(),
            agent: vec!["/opt/agent".into(), "--leading".into()],
            base_url: Some("http://127.0.0.1:1".into()),
            has_key: true,
            login: false,
            model: None,
            budget_micro_usd: None,
            clocks: Clocks {
                silence: hour,
                turn: hour,
                tool: hour,
            },
            connect_ports: None,
            read_paths: Vec::new(),
            walls: kai_proto::worker_broker::Walls::default(),
        }
    }

    #[test]
    fn the_environment_holds_what_is_listed_and_nothing_of_the_workers() {
        let start = Start {
            session: None,
            model: None,
            budget_micro_usd: None,
        };

        let command = command(&assignment(), Some("sk"), &start, Path::new("/tmp/x"));

        let mut names: Vec<_> = command
            .get_envs()
            .map(|(name, _)| name.to_str().unwrap().to_owned())
            .collect();
        names.sort();
        assert_eq!(
            names,
            [
                "ANTHROPIC_API_KEY",
                "ANTHROPIC_BASE_URL",
                "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
                "DISABLE_AUTOUPDATER",
                "HOME",
                "LANG",
                "LOGNAME",
                "PATH",
                "SHELL",
                "TERM",
                "TMPDIR",
                "USER",
            ]
        );
        assert!(command.get_args().all(|word| word != "sk"));
    }

    #[test]
    fn a_login_reads_no_settings_and_has_a_terminal_and_no_key() {
        let login = login(&assignment(), Path::new("/tmp/x"));

        let words: Vec<_> = login
            .get_args()
            .map(|word| word.to_str().unwrap())
            .collect();
        assert_eq!(words, ["--leading", "--setting-sources="]);
        let value = |name: &str| {
            let found = login.get_envs().find(|(found, _)| *found == name);
            found.and_then(|(_, value)| value?.to_str())
        };
        assert_eq!(value("TERM"), Some("xterm-256color"));
        assert_eq!(value("HOME"), Some("/home/alice"));
        assert_eq!(value("ANTHROPIC_API_KEY"), None);
        assert_eq!(value("ANTHROPIC_BASE_URL"), None);
    }

    #[test]
    fn a_session_a_model_and_a_budget_become_one_word_each() {
        let start = Start {
            session: Some("2c797a4c-d557-4c2e-a63c-9f6b29bafb1b".parse().unwrap()),
            model: Some("opus".to_owned().try_into().unwrap()),
            budget_micro_usd: Some(1_500_000),
        };

        let command = command(&assignment(), None, &start, Path::new("/tmp/x"));

        let words: Vec<_> = command
            .get_args()
            .map(|word| word.to_str().unwrap())
            .collect();
        assert_eq!(words[0], "--leading");
        for word in [
            "--resume=2c797a4c-d557-4c2e-a63c-9f6b29bafb1b",
            "--model=opus",
            "--max-budget-usd=1.500000",
            "--setting-sources=",
            "--strict-mcp-config",
        ] {
            assert!(words.contains(&word), "{word}");
        }
    }

    #[test]
    fn instructions_that_are_too_long_or_no_file_are_left_out() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("CLAUDE.md");
        assert_eq!(instructions(home.path()), None);
        fs::write(&file, "be brief").unwrap();
        assert_eq!(instructions(home.path()).as_deref(), Some("be brief"));
        fs::write(&file, vec![b'x'; INSTRUCTIONS as usize + 1]).unwrap();
        assert_eq!(instructions(home.path()), None);
        fs::remove_file(&file).unwrap();
        fs::write(home.path().join("notes.md"), "be kind").unwrap();
        for (target, read) in [
            ("notes.md", Some("be kind")),
            ("/proc/self/maps", None),
            ("../../../../etc/hostname", None),
        ] {
            std::os::unix::fs::symlink(target, &file).unwrap();
            assert_eq!(instructions(home.path()).as_deref(), read, "{target}");
            fs::remove_file(&file).unwrap();
        }
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(instructions(home.path()), None);
    }
}
