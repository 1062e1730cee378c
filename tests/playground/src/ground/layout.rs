//! The directories and files of a second kai, below one root of its own.

use std::{
    fmt::Write as _,
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use super::{Options, Person, Separation, accounts::Account};
use crate::launcher::HOME_KEY;

/// Where everything of one run is.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Names the places below `root`; makes none of them.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The one directory that everything else is in.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The programs.
    #[must_use]
    pub fn programs(&self) -> PathBuf {
        self.root.join("bin")
    }

    /// `kai.yaml`.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.root.join("etc/kai.yaml")
    }

    /// `users.yaml`.
    #[must_use]
    pub fn users(&self) -> PathBuf {
        self.root.join("etc/users.yaml")
    }

    /// The bot's token.
    #[must_use]
    pub fn token(&self) -> PathBuf {
        self.root.join("etc/telegram-token")
    }

    /// The sockets.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// What outlives a restart.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// The audit logs, and what each daemon wrote.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    /// The agent's own program.
    #[must_use]
    pub fn agent(&self) -> PathBuf {
        self.root.join("agent")
    }

    /// The file with the key of the person `name`.
    #[must_use]
    pub fn key(&self, name: &str) -> PathBuf {
        self.root.join("etc").join(format!("{name}.key"))
    }

    /// Makes all directories; the root must not exist.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn make(&self) -> io::Result<()> {
        let directories = [
            (self.root.clone(), 0o755),
            (self.programs(), 0o755),
            (self.root.join("etc"), 0o755),
            (self.run(), 0o755),
            (self.state(), 0o755),
            (self.state().join("users"), 0o755),
            (self.log(), 0o700),
            (self.agent(), 0o755),
        ];
        for (path, mode) in directories {
            DirBuilder::new().create(&path)?;
            fs::set_permissions(&path, PermissionsExt::from_mode(mode))?;
        }
        Ok(())
    }

    /// Makes the gateway's own directory.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn make_gateway_state(&self, gateway: &Account) -> io::Result<()> {
        let path = self.state().join("gateway");
        DirBuilder::new().mode(0o700).create(&path)?;
        chown(&path, Some(gateway.uid), Some(gateway.gid))
    }

    /// Writes the token for the gateway alone.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn write_token(&self, token: &str, gateway: &Account) -> io::Result<()> {
        write(&self.token(), 0o640, token)?;
        chown(self.token(), None, Some(gateway.gid))
    }

    /// Writes `users.yaml`, and the keys it names.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn write_users(
        &self,
        people: &[Person],
        accounts: &[Account],
        separation: Separation,
    ) -> io::Result<()> {
        let mut text = String::from("users:\n");
        for (person, account) in people.iter().zip(accounts) {
            let _ = writeln!(
                text,
                "- telegram_id: {}\n  name: {}\n  os_user: {}",
                person.telegram_id,
                quoted(&person.name),
                quoted(&account.name)
            );
            if separation == Separation::OneAccount {
                let _ = writeln!(text, "  {HOME_KEY}: {}", path(&account.home));
            }
            if let Some(key) = &person.api_key {
                write(&self.key(&person.name), 0o600, key)?;
                let _ = writeln!(text, "  api_key_file: {}", path(&self.key(&person.name)));
            }
            for line in &person.keys {
                let _ = writeln!(text, "  {line}");
            }
        }
        if people.is_empty() {
            text.push_str("  []\n");
        }
        write(&self.users(), 0o600, &text)
    }

    /// Writes `kai.yaml`.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn write_config(
        &self,
        options: &Options,
        gateway: &str,
        command: &[String],
    ) -> io::Result<()> {
        let command: Vec<String> = command.iter().map(|word| quoted(word)).collect();
        let mut text = format!(
            "telegram:\n  api_url: {}\n  token_file: {}\n\
             accounts:\n  gateway: {}\n\
             paths:\n  run: {}\n  state: {}\n  log: {}\n  users: {}\n  programs: {}\n\
             log: {}\n\
             agent:\n  command: [{}]\n  read_paths: [{}, {}]\n",
            quoted(&options.telegram_url),
            path(&self.token()),
            quoted(gateway),
            path(&self.run()),
            path(&self.state()),
            path(&self.log()),
            path(&self.users()),
            path(&self.programs()),
            options.log,
            command.join(", "),
            path(&self.agent()),
            path(&self.programs()),
        );
        if let Some(address) = &options.base_url {
            let _ = writeln!(text, "  base_url: {}", quoted(address));
        }
        for (key, value) in &options.agent_keys {
            let _ = writeln!(text, "  {key}: {value}");
        }
        let sections = [
            ("limits", &options.limits),
            ("second_factor", &options.second_factor),
        ];
        for (section, keys) in sections {
            if !keys.is_empty() {
                let _ = writeln!(text, "{section}:");
            }
            for (key, value) in keys {
                let _ = writeln!(text, "  {key}: {value}");
            }
        }
        write(&self.config(), 0o644, &text)
    }
}

/// Replaces the file at `path` whole, with `mode` from its first byte on.
///
/// # Errors
/// What the file system answers.
pub fn write(path: &Path, mode: u32, text: &str) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(mode)
        .open(&beside)?;
    file.set_permissions(PermissionsExt::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    fs::rename(&beside, path)
}

/// A text as YAML takes it whatever is in it: JSON's strings are YAML's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}
