//! `install.yaml`: what an admin decided about kai on this host. Root's, 0600: the bot's token is given there.
//!
//! - [`command`]: `kai-install config`, which makes it;
//! - [`interview`]: its questions, where there is a terminal;
//! - [`prove`]: asks Telegram whether it knows a token;
//! - [`text`]: takes the token out once it is kept encrypted.

pub mod command;
pub mod interview;
pub mod prove;
pub mod text;

use std::path::Path;

use kai_program::{
    bot_token::is_bot_token,
    trusted_file::{Trust, TrustedFile},
    yaml::{Document, Map, Mistake, Node},
};
use kai_proto::ids::{AccountName, Invalid, Role, TelegramId, UserName};
use zeroize::Zeroizing;

use crate::failure::Failure;

/// Where the settings are unless a flag says otherwise.
pub const DEFAULT: &str = "/etc/kai/install.yaml";

/// A bot's token of the right form: wiped when dropped, never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Zeroizing<String>);

impl Token {
    /// The token in `text`, without the space around it.
    ///
    /// # Errors
    /// [`Failure::TokenForm`].
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let text = text.trim();
        if !is_bot_token(text) {
            return Err(Failure::TokenForm);
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// The token itself, for the file it is kept in and the one call that proves it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// One user to begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Who they are on Telegram.
    pub telegram_id: TelegramId,
    /// What people call them.
    pub name: UserName,
    /// Their account on this host.
    pub os_user: AccountName,
    /// What they are in kai.
    pub role: Role,
    /// Whether the account is made, closed to people, if it does not exist.
    pub create: bool,
    /// The number of the account that is made, if it shall have a certain one.
    pub uid: Option<u32>,
}

impl User {
    /// The entry's lines in a list of users, as install.yaml and users.yaml have them alike.
    #[must_use]
    pub fn entry(&self) -> String {
        let role = match self.role {
            Role::Admin => "    role: admin\n",
            Role::User => "",
        };
        format!(
            "  - telegram_id: {}\n    name: {}\n    os_user: {}\n{role}",
            i64::from(self.telegram_id),
            quoted(self.name.as_str()),
            self.os_user
        )
    }
}

/// All that is decided.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// The bot's token; none keeps the one that is installed.
    pub token: Option<Token>,
    /// A Bot API server other than Telegram's own.
    pub api_url: Option<String>,
    /// The agent's program; none for the one that `kai-install agent` installs.
    pub agent_command: Option<Vec<String>>,
    /// A Messages API other than the agent's own.
    pub base_url: Option<String>,
    /// Users to begin with.
    pub users: Vec<User>,
    /// Accounts that may look at kai with sudo: members of kai-admin.
    pub admins: Vec<AccountName>,
}

impl Settings {
    /// Reads and judges the file at `path`.
    ///
    /// # Errors
    /// One sentence that names the file and, where there is one, the line and key.
    pub fn load(path: &Path) -> Result<Self, Failure> {
        let text = TrustedFile::open(path, Trust::Private)?.read()?;
        Ok(Self::parse(path, &text)?)
    }

    /// Reads `text` as if it stood in `file`.
    ///
    /// # Errors
    /// The first mistake in it.
    pub fn parse(file: &Path, text: &str) -> Result<Self, Mistake> {
        let mut root = Document::parse(file, text)?.into_map()?;
        let mut telegram = root.section("telegram")?;
        let mut agent = root.section("agent")?;
        let settings = Self {
            token: telegram
                .optional("token")
                .map(|node| {
                    Token::parse(node.text()?).map_err(|_| {
                        node.mistake("must be a bot's token of the form NUMBER:LETTERS, as @BotFather gives it")
                    })
                })
                .transpose()?,
            api_url: telegram
                .optional("api_url")
                .map(|node| address(&node))
                .transpose()?,
            agent_command: agent
                .optional("command")
                .map(|node| {
                    let place = node.mistake("must begin with the agent's absolute path");
                    let words = node.into_texts()?;
                    match words.first() {
                        Some(program) if program.starts_with('/') => Ok(words),
                        _ => Err(place),
                    }
                })
                .transpose()?,
            base_url: agent
                .optional("base_url")
                .map(|node| address(&node))
                .transpose()?,
            users: match root.optional("users") {
                Some(node) => users(node)?,
                None => Vec::new(),
            },
            admins: Vec::new(),
        };
        let admins = match root.optional("admins") {
            Some(node) => admins(node, &settings.users)?,
            None => Vec::new(),
        };
        telegram.finish()?;
        agent.finish()?;
        root.finish()?;
        Ok(Self { admins, ..settings })
    }

    /// The text that [`parse`](Self::parse) reads back to the same settings.
    #[must_use]
    pub fn render(&self) -> Zeroizing<String> {
        // Room for all of it at once: a buffer that grows leaves copies of the token behind.
        let mut text = Zeroizing::new(String::with_capacity(1024 + 256 * self.users.len()));
        text.push_str(
            "# What kai-install applies. Root's alone: the bot's token is given here.\n\
             # After a change: kai-install apply. Users are added with: kai-install user add\n",
        );
        text.push_str("telegram:\n");
        if let Some(token) = &self.token {
            text.push_str("  token: \"");
            text.push_str(token.reveal());
            text.push_str("\"\n");
        } else {
            text.push_str(
                "  # No token here keeps the one that is installed; to give another: kai-install config --token-file FILE\n",
            );
        }
        if let Some(url) = &self.api_url {
            text.push_str(&format!("  api_url: {}\n", quoted(url)));
        }
        text.push_str("agent:\n");
        if let Some(command) = &self.agent_command {
            let words: Vec<String> = command.iter().map(|word| quoted(word)).collect();
            text.push_str(&format!("  command: [{}]\n", words.join(", ")));
        }
        if let Some(url) = &self.base_url {
            text.push_str(&format!("  base_url: {}\n", quoted(url)));
        }
        text.push_str("users:\n");
        for user in &self.users {
            text.push_str(&user.entry());
            if user.create {
                text.push_str("    create: true\n");
            }
            if let Some(uid) = user.uid {
                text.push_str(&format!("    uid: {uid}\n"));
            }
        }
        let admins: Vec<&str> = self.admins.iter().map(AccountName::as_str).collect();
        text.push_str(&format!("admins: [{}]\n", admins.join(", ")));
        text
    }
}

/// A text between double quotes, as YAML and JSON have it alike.
#[must_use]
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn users(node: Node) -> Result<Vec<User>, Mistake> {
    let mut users: Vec<User> = Vec::new();
    for node in node.into_list()? {
        let mut map = node.into_map()?;
        let id_node = map.required("telegram_id")?;
        let name_node = map.required("name")?;
        let account_node = map.required("os_user")?;
        let user = User {
            telegram_id: TelegramId::try_from(id_node.number(1..=(1 << 52) - 1)?)
                .map_err(|invalid| id_node.mistake(format!("is not valid: {invalid}")))?,
            name: checked(&name_node)?,
            os_user: checked(&account_node)?,
            role: role(&mut map)?,
            create: map
                .optional("create")
                .map_or(Ok(false), |node| node.boolean())?,
            uid: map
                .optional("uid")
                .map(|node| node.number(1000..=60000))
                .transpose()?
                .and_then(|uid| u32::try_from(uid).ok()),
        };
        for other in &users {
            let twice = if other.telegram_id == user.telegram_id {
                &id_node
            } else if other.name == user.name {
                &name_node
            } else if other.os_user == user.os_user {
                &account_node
            } else {
                continue;
            };
            return Err(twice.mistake("is that of a user above"));
        }
        map.finish()?;
        users.push(user);
    }
    Ok(users)
}

fn admins(node: Node, users: &[User]) -> Result<Vec<AccountName>, Mistake> {
    let mut admins = Vec::new();
    for item in node.into_list()? {
        let account: AccountName = checked(&item)?;
        // The broker refuses an account in that group, and its agent would be such an admin.
        if users.iter().any(|user| user.os_user == account) {
            return Err(item.mistake("is the account of a user's agent: name another one"));
        }
        admins.push(account);
    }
    Ok(admins)
}

fn role(map: &mut Map) -> Result<Role, Mistake> {
    match map.optional("role") {
        None => Ok(Role::User),
        Some(node) => match node.text()? {
            "user" => Ok(Role::User),
            "admin" => Ok(Role::Admin),
            _ => Err(node.mistake("must be user or admin")),
        },
    }
}

fn checked<T: TryFrom<String, Error = Invalid>>(node: &Node) -> Result<T, Mistake> {
    T::try_from(node.text()?.to_owned())
        .map_err(|invalid| node.mistake(format!("is not valid: {invalid}")))
}

fn address(node: &Node) -> Result<String, Mistake> {
    let text = node.text()?;
    if is_address(text) {
        Ok(text.to_owned())
    } else {
        Err(node.mistake("must be an http:// or https:// address without credentials"))
    }
}

/// True for what may stand for a server in kai.yaml.
#[must_use]
pub fn is_address(text: &str) -> bool {
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    rest.is_some_and(|rest| {
        !rest.is_empty()
            && !rest.contains(['@', '?', '#'])
            && rest.chars().all(|c| c.is_ascii_graphic())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "123456:AAbbCCddEEffGGhhIIjjKK";

    fn parse(text: &str) -> Result<Settings, String> {
        Settings::parse(Path::new("/etc/kai/install.yaml"), text)
            .map_err(|mistake| mistake.to_string())
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let settings = parse(&format!(
            "telegram: {{token: \"{TOKEN}\", api_url: \"http://127.0.0.1:8081\"}}\n\
             agent: {{command: [/opt/a, --x], base_url: \"https://x\"}}\n\
             users:\n\
             - {{telegram_id: 1, name: 'A \"b\" c', os_user: alice, create: true, uid: 1234}}\n\
             - {{telegram_id: 2, name: bob, os_user: bob, role: admin}}\n\
             admins: [carol]\n"
        ))
        .unwrap();

        assert_eq!(parse(&settings.render()).unwrap(), settings);
        assert_eq!(
            parse(&Settings::default().render()).unwrap(),
            Settings::default()
        );
    }

    #[test]
    fn mistakes_name_line_and_key_and_no_token() {
        for (text, said) in [
            ("telegram: {token: hunter2}", ":1: `telegram.token` must be"),
            ("telegram:\n  tokn: hunter2", ":2: `telegram.tokn` is not"),
            ("users:\n- {telegram_id: 1", ":3: the YAML"),
            ("agent: {command: claude}", "`agent.command` must begin"),
            ("user: []", ":1: `user` is not a key"),
            (
                "users:\n- {telegram_id: 1, name: a, os_user: a}\n- {telegram_id: 1, name: b, os_user: b}",
                ":3: `users[1].telegram_id` is that of a user above",
            ),
            (
                "users:\n- {telegram_id: 1, name: a, os_user: a}\nadmins: [a]",
                ":3: `admins[0]` is the account of a user's agent",
            ),
            (
                "users:\n- {telegram_id: 1, name: a, os_user: a, uid: 0}",
                "`users[0].uid` must be a whole number from 1000",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_token_is_never_shown() {
        let token = Token::parse(TOKEN).unwrap();
        assert!(!format!("{token:?}").contains("AAbb"));
    }
}
