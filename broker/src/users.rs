//! `users.yaml`: who may talk to an agent, and under which account.
//!
//! Only the broker reads it: root's, 0600, one link, opened once and judged by that descriptor. It is
//! taken whole or not at all. The keys are those of the Python kai, `chats`, `api_key_file`, those of
//! [`policy`](crate::policy), and `second_factor`, which may stand above the list too: for everybody whose
//! entry has none.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

use kai_program::{
    config::Config,
    digest::Digest,
    trusted_file::{Distrust, Trust, TrustedFile},
    yaml::{Document, Map, Mistake, Node},
};
use kai_proto::{
    gateway_broker::{SecondFactor, UserEntry},
    ids::{AccountName, ChatId, ModelName, Role, TelegramId, UserName},
    limits,
};
use tracing::warn;

use crate::{
    accounts::{self, Account},
    policy::{Kernel, Policy},
    sys,
};

/// Keys of the Python kai that have no meaning here yet: read, and named in the log.
const WITHOUT_EFFECT: [&str; 3] = ["github", "home_workspace", "context_window"];

/// Why there is no new table of users.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// The file cannot be trusted or read.
    #[error(transparent)]
    Distrust(#[from] Distrust),
    /// The file says something that has no meaning, or names an unfit account.
    #[error(transparent)]
    Mistake(#[from] Mistake),
}

/// One user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// What the gateway is told.
    pub entry: UserEntry,
    /// The account of the worker.
    pub account: Account,
    /// The file with this user's key for the agent.
    pub key_file: Option<PathBuf>,
    /// Where one session's cost is cut off, in millionths of a US dollar.
    pub budget_micro_usd: Option<u64>,
    /// The longest turn, if it is not the general one.
    pub turn: Option<Duration>,
    /// What its walls are like.
    pub policy: Policy,
}

/// The table of users.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Users {
    users: Vec<User>,
    digest: Digest,
}

impl Users {
    /// Reads and judges the file that `config` names.
    ///
    /// # Errors
    /// One sentence that names the file and, where there is one, the line and key.
    pub fn load(config: &Config) -> Result<Self, UsersError> {
        let text = TrustedFile::open(&config.paths.users, Trust::Private)?.read()?;
        let gateway = config.accounts.gateway.as_str();
        let kernel = Kernel {
            landlock_abi: sys::landlock_abi(),
        };
        let users = Self::parse(&config.paths.users, &text, kernel, |name| {
            accounts::resolve(name, gateway)
        })?;
        for key in users
            .users
            .iter()
            .filter_map(|user| user.key_file.as_deref())
        {
            TrustedFile::open(key, Trust::Private)?;
        }
        if let Some(key) = &config.agent.shared_key_file {
            TrustedFile::open(key, Trust::Private)?;
        }
        Ok(users)
    }

    /// Reads `text` as if it stood in `file` on a host with this `kernel`, with `resolve` to look
    /// accounts up.
    ///
    /// # Errors
    /// The first mistake in it.
    pub fn parse(
        file: &Path,
        text: &str,
        kernel: Kernel,
        mut resolve: impl FnMut(&AccountName) -> Result<Account, accounts::Unfit>,
    ) -> Result<Self, Mistake> {
        let mut root = Document::parse(file, text)?.into_map()?;
        let list = root.required("users")?.into_list()?;
        let rule = root
            .optional("second_factor")
            .map_or(Ok(SecondFactor::Optional), |node| second_factor(&node))?;
        root.finish()?;
        let mut seen = Seen::default();
        let mut users = Vec::with_capacity(list.len());
        for node in list {
            users.push(user(
                node.into_map()?,
                (rule, kernel),
                &mut resolve,
                &mut seen,
            )?);
        }
        let digest = Digest::of(text.as_bytes());
        Ok(Self { users, digest })
    }

    /// What the file was when it was read, for the audit log.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The user with this id.
    #[must_use]
    pub fn get(&self, id: TelegramId) -> Option<&User> {
        self.users.iter().find(|user| user.entry.id == id)
    }

    /// All of them, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &User> {
        self.users.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// True if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// The ids of users that are not in `new`, or not the same there.
    #[must_use]
    pub fn gone_or_changed(&self, new: &Users) -> Vec<TelegramId> {
        let same = |user: &&User| new.get(user.entry.id) == Some(*user);
        self.users
            .iter()
            .filter(|user| !same(user))
            .map(|user| user.entry.id)
            .collect()
    }
}

/// Ids, names and uids that earlier entries have, with their lines.
#[derive(Default)]
struct Seen {
    ids: HashMap<TelegramId, usize>,
    names: HashMap<UserName, usize>,
    uids: HashMap<u32, usize>,
}

fn user(
    mut map: Map,
    (rule, kernel): (SecondFactor, Kernel),
    resolve: &mut impl FnMut(&AccountName) -> Result<Account, accounts::Unfit>,
    seen: &mut Seen,
) -> Result<User, Mistake> {
    let id_node = map.required("telegram_id")?;
    let id = TelegramId::try_from(id_node.number(1..=(1 << 52) - 1)?)
        .map_err(|invalid| id_node.mistake(format!("is not valid: {invalid}")))?;
    once(&mut seen.ids, id, &id_node)?;
    let name_node = map.required("name")?;
    let name: UserName = checked(&name_node)?;
    once(&mut seen.names, name.clone(), &name_node)?;
    let account_node = map.required("os_user")?;
    let account = resolve(&checked(&account_node)?)
        .map_err(|unfit| account_node.mistake(unfit.to_string()))?;
    once(&mut seen.uids, account.uid.as_raw(), &account_node)?;
    let role = match map.optional("role") {
        None => Role::User,
        Some(node) => match node.text()? {
            "user" => Role::User,
            "admin" => Role::Admin,
            _ => return Err(node.mistake("must be user or admin")),
        },
    };
    let policy = Policy::parse(&mut map, kernel, &account.home)?;
    let user = User {
        entry: UserEntry {
            id,
            name,
            role,
            second_factor: map
                .optional("second_factor")
                .map_or(Ok(rule), |node| second_factor(&node))?,
            chats: map.optional("chats").map_or(Ok(Vec::new()), chats)?,
            model: map
                .optional("model")
                .map(|node| checked::<ModelName>(&node))
                .transpose()?,
        },
        account,
        key_file: map
            .optional("api_key_file")
            .map(|node| node.path())
            .transpose()?,
        budget_micro_usd: map
            .optional("max_budget")
            .map(|node| micro_usd(&node))
            .transpose()?,
        turn: map
            .optional("timeout")
            .map(|node| {
                node.number(1..=600)
                    .map(|n| Duration::from_secs(n.unsigned_abs()))
            })
            .transpose()?,
        policy,
    };
    for key in WITHOUT_EFFECT {
        if let Some(node) = map.optional(key) {
            warn!("{}", node.mistake("has no effect yet"));
        }
    }
    map.finish()?;
    Ok(user)
}

/// The value of a key `second_factor`.
///
/// # Errors
/// If it is another word than the two.
pub fn second_factor(node: &Node) -> Result<SecondFactor, Mistake> {
    match node.text()? {
        "required" => Ok(SecondFactor::Required),
        "optional" => Ok(SecondFactor::Optional),
        _ => Err(node.mistake("must be required or optional")),
    }
}

fn once<K: std::hash::Hash + Eq>(
    seen: &mut HashMap<K, usize>,
    key: K,
    node: &Node,
) -> Result<(), Mistake> {
    match seen.insert(key, node.line()) {
        None => Ok(()),
        Some(line) => Err(node.mistake(format!("is the same as in line {line}"))),
    }
}

fn checked<T: TryFrom<String, Error = kai_proto::ids::Invalid>>(node: &Node) -> Result<T, Mistake> {
    T::try_from(node.text()?.to_owned())
        .map_err(|invalid| node.mistake(format!("is not valid: {invalid}")))
}

fn chats(node: Node) -> Result<Vec<ChatId>, Mistake> {
    let too_many = node.mistake(format!("lists more than {} chats", limits::CHATS));
    let items = node.into_list()?;
    if items.len() > limits::CHATS {
        return Err(too_many);
    }
    items
        .iter()
        .map(|item| {
            ChatId::try_from(item.number(-(1 << 52) + 1..=(1 << 52) - 1)?)
                .map_err(|invalid| item.mistake(format!("is not valid: {invalid}")))
        })
        .collect()
}

/// US dollars as people write them, in millionths.
fn micro_usd(node: &Node) -> Result<u64, Mistake> {
    let dollars = node.decimal(0.01..=100_000.0)?;
    // In range, so neither negative nor near 2^64.
    Ok((dollars * 1e6).round() as u64)
}

#[cfg(test)]
mod tests {
    use nix::unistd::{Gid, Uid};

    use super::*;

    fn parse(text: &str) -> Result<Users, String> {
        let mut next = 1000;
        let kernel = Kernel { landlock_abi: 2 };
        Users::parse(Path::new("/etc/kai/users.yaml"), text, kernel, |name| {
            if name.as_str() == "root" {
                return Err(accounts::Unfit::Root);
            }
            next += 1;
            Ok(Account {
                name: name.clone(),
                uid: Uid::from_raw(if name.as_str() == "twin" { 1001 } else { next }),
                gid: Gid::from_raw(next),
                groups: vec![],
                home: format!("/home/{name}").into(),
                shell: "/bin/sh".into(),
                login: true,
            })
        })
        .map_err(|mistake| mistake.to_string())
    }

    #[test]
    fn a_table_of_the_python_kai_is_read() {
        let users = parse(
            "users:\n\
             - telegram_id: 11\n  name: alice\n  role: admin\n  github: alice-gh\n  \
               os_user: alice\n  home_workspace: /home/alice/w\n  max_budget: 2.5\n  \
               model: opus\n  timeout: 300\n  context_window: 200000\n\
             - telegram_id: 12\n  name: Bob B.\n  os_user: bob\n  chats: [-1001234567890]\n",
        )
        .unwrap();

        let alice = users.get(TelegramId::try_from(11).unwrap()).unwrap();
        assert_eq!(alice.entry.role, Role::Admin);
        assert_eq!(alice.budget_micro_usd, Some(2_500_000));
        assert_eq!(alice.turn, Some(Duration::from_secs(300)));
        let bob = users.get(TelegramId::try_from(12).unwrap()).unwrap();
        assert_eq!(bob.entry.chats.len(), 1);
        assert_eq!(users.len(), 2);
    }

    #[test]
    fn mistakes_name_the_line() {
        let alice = "users:\n- {telegram_id: 11, name: alice, os_user: alice}\n";
        for (more, said) in [
            (
                "- {telegram_id: 11, name: b, os_user: b}",
                ":3: `users[1].telegram_id` is the same",
            ),
            (
                "- {telegram_id: 12, name: alice, os_user: b}",
                ":3: `users[1].name` is the same",
            ),
            (
                "- {telegram_id: 12, name: b, os_user: twin}",
                "`users[1].os_user` is the same as in",
            ),
            (
                "- {telegram_id: 12, name: b, os_user: root}",
                "names an account with uid 0",
            ),
            (
                "- {telegram_id: 12, name: b}",
                "`users[1]` lacks the key `os_user`",
            ),
            (
                "- {telegram_id: 0, name: b, os_user: b}",
                "must be a whole number from 1",
            ),
            (
                "- {telegram_id: 12, name: b, os_user: ../b}",
                "`users[1].os_user` is not valid",
            ),
            (
                "- {telegram_id: 12, name: b, os_user: b, admin: true}",
                "is not a key",
            ),
            (
                "- {telegram_id: 12, name: b, os_user: b, ports: [443]}",
                ":3: `users[1].ports` cannot be held by this kernel",
            ),
            (
                "- {telegram_id: 12, name: b, os_user: b, limits: {memory: much}}",
                ":3: `users[1].limits.memory` must be a size",
            ),
            (
                "- {telegram_id: 12, name: b, os_user: b, max_budget: -1}",
                "must be a number from",
            ),
            (
                "- {telegram_id: 12, name: b, os_user: b, timeout: 601}",
                "from 1 to 600",
            ),
            (
                "- {telegram_id: 12, name: b, os_user: b, model: --x}",
                "`users[1].model` is not",
            ),
        ] {
            let error = parse(&format!("{alice}{more}\n")).unwrap_err();
            assert!(error.contains(said), "{more}: {error}");
        }
    }

    #[test]
    fn the_rule_of_a_user_is_their_own_or_that_for_all_or_optional() {
        use SecondFactor::{Optional, Required};
        for (for_all, own, rule) in [
            (None, None, Optional),
            (None, Some("optional"), Optional),
            (None, Some("required"), Required),
            (Some("optional"), None, Optional),
            (Some("optional"), Some("optional"), Optional),
            (Some("optional"), Some("required"), Required),
            (Some("required"), None, Required),
            (Some("required"), Some("optional"), Optional),
            (Some("required"), Some("required"), Required),
        ] {
            let for_all = for_all.map(|rule| format!("second_factor: {rule}\n"));
            let own = own.map(|rule| format!(", second_factor: {rule}"));
            let text = format!(
                "{}users:\n- {{telegram_id: 11, name: a, os_user: a{}}}\n",
                for_all.unwrap_or_default(),
                own.unwrap_or_default()
            );
            let users = parse(&text).unwrap();
            let user = users.get(TelegramId::try_from(11).unwrap()).unwrap();
            assert_eq!(user.entry.second_factor, rule, "{text}");
        }
    }

    #[test]
    fn a_mistake_in_a_rule_names_line_and_key() {
        let alice = "telegram_id: 11, name: a, os_user: a";
        for (text, said) in [
            (
                format!("users:\n- {{{alice}}}\nsecond_factor: true\n"),
                "users.yaml:3: `second_factor` must be required or optional",
            ),
            (
                format!("second_factor: Required\nusers: [{{{alice}}}]\n"),
                "users.yaml:1: `second_factor` must be required or optional",
            ),
            (
                format!("users:\n- {{{alice}, second_factor: yes}}\n"),
                "users.yaml:2: `users[0].second_factor` must be required or optional",
            ),
            (
                format!("users:\n- {{{alice}, second_factor: ''}}\n"),
                "users.yaml:2: `users[0].second_factor` must be a text",
            ),
            (
                format!("users:\n- {{{alice}, second_factor: [required]}}\n"),
                "users.yaml:2: `users[0].second_factor`",
            ),
            (
                format!("users:\n- {{{alice}, second-factor: required}}\n"),
                "users.yaml:2: `users[0].second-factor` is not a key",
            ),
            (
                format!("users: [{{{alice}}}]\nsecondfactor: required\n"),
                "users.yaml:2: `secondfactor` is not a key",
            ),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn another_rule_is_another_user() {
        let users = |rule: &str| {
            parse(&format!(
                "second_factor: {rule}\nusers:\n- {{telegram_id: 1, name: a, os_user: a}}"
            ))
            .unwrap()
        };
        assert_eq!(
            users("optional").gone_or_changed(&users("required")).len(),
            1
        );
    }

    #[test]
    fn only_who_is_gone_or_changed_is_named() {
        let old = parse("users:\n- {telegram_id: 1, name: a, os_user: a}\n- {telegram_id: 2, name: b, os_user: b}\n- {telegram_id: 3, name: c, os_user: c}").unwrap();
        let new = parse("users:\n- {telegram_id: 1, name: a, os_user: a}\n- {telegram_id: 2, name: b, os_user: b, model: opus}").unwrap();

        let ids: Vec<i64> = old
            .gone_or_changed(&new)
            .into_iter()
            .map(i64::from)
            .collect();

        assert_eq!(ids, [2, 3]);
    }
}
