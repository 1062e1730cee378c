//! kai.yaml and users.yaml: written once, and the admin's from the moment that they are there.

use std::{fmt, path::PathBuf};

use kai_brokerd::{
    accounts::{Account, Unfit},
    policy::Kernel,
    sys,
    users::Users,
};
use kai_program::config::Config;
use kai_proto::ids::AccountName;
use nix::unistd::{Gid, Uid};

use super::{
    Goes, Item, Standing,
    secrets::{CONFIG, SECRET, USERS, is_root_s_alone},
};
use crate::{
    accounts::Accounts,
    failure::Failure,
    root::{Access, Root},
    settings::{Settings, quoted},
};

/// kai.yaml, written once; what it says later is the admin's.
pub struct KaiYaml {
    /// What install.yaml says.
    pub settings: Settings,
    /// The agent that is run if install.yaml names none.
    pub agent: &'static str,
}

impl KaiYaml {
    /// What is written where there is none.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::from(
            "# What kai runs with; every key is in its README. Yours to change: kai-install wrote it once.\n",
        );
        if let Some(url) = &self.settings.api_url {
            text.push_str(&format!("telegram:\n  api_url: {}\n", quoted(url)));
        }
        let command = match &self.settings.agent_command {
            Some(words) => {
                let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
                format!("[{}]", words.join(", "))
            }
            None => self.agent.to_owned(),
        };
        text.push_str(&format!("agent:\n  command: {command}\n"));
        if let Some(url) = &self.settings.base_url {
            text.push_str(&format!("  base_url: {}\n", quoted(url)));
        }
        text
    }
}

impl fmt::Display for KaiYaml {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file {CONFIG}")
    }
}

impl Item for KaiYaml {
    fn look(&self, root: &Root) -> Result<Standing, Failure> {
        let (Some(found), Some(text)) = (
            root.look(CONFIG.as_ref())?,
            root.read_text(CONFIG.as_ref())?,
        ) else {
            Config::parse(CONFIG.as_ref(), &self.text())?;
            return Ok(Standing::Missing);
        };
        let config = Config::parse(CONFIG.as_ref(), &text)?;
        let wishes = [
            (
                "telegram.api_url",
                self.settings
                    .api_url
                    .as_deref()
                    .is_none_or(|url| url.trim_end_matches('/') == config.telegram.api_url),
            ),
            (
                "agent.command",
                self.settings
                    .agent_command
                    .as_ref()
                    .is_none_or(|words| *words == config.agent.command),
            ),
            (
                "agent.base_url",
                self.settings.base_url.as_deref().is_none_or(|url| {
                    Some(url.trim_end_matches('/')) == config.agent.base_url.as_deref()
                }),
            ),
        ];
        if let Some((key, _)) = wishes.iter().find(|(_, same)| !same) {
            return Err(Failure::Conflict { key });
        }
        if found.access.uid != 0 || found.access.mode & 0o022 != 0 {
            return Err(Failure::ForeignSecret {
                path: root.shown(CONFIG.as_ref()),
                owner: found.access.uid,
                mode: found.access.mode,
                wanted_owner: "root:root".to_owned(),
                wanted: 0o644,
            });
        }
        // The daemons that are not root's read it too.
        Ok(Standing::of(
            (found.access.mode & 0o444 != 0o444)
                .then(|| format!("has mode {:04o} in place of 0644", found.access.mode))
                .into_iter()
                .collect(),
        ))
    }

    fn bring_about(&self, root: &Root) -> Result<(), Failure> {
        let access = Access::root(0o644);
        if root.look(CONFIG.as_ref())?.is_some() {
            return root.give(CONFIG.as_ref(), access);
        }
        root.write(CONFIG.as_ref(), &mut self.text().as_bytes(), access)
    }

    fn take_away(&self, root: &Root) -> Result<bool, Failure> {
        let there = root.look(CONFIG.as_ref())?.is_some();
        root.remove(CONFIG.as_ref())?;
        Ok(there)
    }

    fn goes(&self) -> Goes {
        Goes::WithData
    }
}

/// users.yaml, written once; later `kai-install user` and the admin change it.
pub struct UsersYaml(pub Settings);

impl UsersYaml {
    fn text(&self) -> String {
        let mut text = String::from(
            "# Who has an agent, and under which account; every key is in kai's README.\n\
             # After a change: kai-broker reload\n\
             users:",
        );
        text.push_str(if self.0.users.is_empty() {
            " []\n"
        } else {
            "\n"
        });
        for user in &self.0.users {
            text.push_str(&user.entry());
        }
        text
    }
}

impl fmt::Display for UsersYaml {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file {USERS}")
    }
}

impl Item for UsersYaml {
    fn look(&self, root: &Root) -> Result<Standing, Failure> {
        let there = is_root_s_alone(root, USERS.as_ref())?;
        let text = if there {
            root.read_text(USERS.as_ref())?.unwrap_or_default()
        } else {
            self.text()
        };
        let made: Vec<&AccountName> = self
            .0
            .users
            .iter()
            .filter(|user| user.create)
            .map(|user| &user.os_user)
            .collect();
        // What would be written is judged too, before anything is.
        judge_users(root, &text, &made)?;
        Ok(if there {
            Standing::Right
        } else {
            Standing::Missing
        })
    }

    fn bring_about(&self, root: &Root) -> Result<(), Failure> {
        let text = self.text();
        root.write(USERS.as_ref(), &mut text.as_bytes(), Access::root(SECRET))
    }

    fn take_away(&self, root: &Root) -> Result<bool, Failure> {
        let there = root.look(USERS.as_ref())?.is_some();
        root.remove(USERS.as_ref())?;
        Ok(there)
    }

    fn goes(&self) -> Goes {
        Goes::WithData
    }
}

/// Judges the text of a users.yaml as the broker does; `made` are accounts that are about to be.
///
/// # Errors
/// The first mistake in it.
pub fn judge_users(root: &Root, text: &str, made: &[&AccountName]) -> Result<Users, Failure> {
    let accounts = Accounts::of(root);
    let kernel = Kernel {
        landlock_abi: sys::landlock_abi(),
    };
    let mut next = u32::MAX / 2;
    let users = Users::parse(USERS.as_ref(), text, kernel, |name| {
        let found = accounts.person(name.as_str()).ok().flatten();
        if found.is_none() && made.contains(&name) {
            next += 1;
            return Ok(account(
                name,
                next,
                next,
                PathBuf::from("/home").join(name.as_str()),
            ));
        }
        let person = found.ok_or(Unfit::Missing)?;
        let groups = accounts.groups_of(&person).unwrap_or_default();
        let uid = Uid::from_raw(person.uid);
        kai_brokerd::accounts::judge(name, uid, &groups, crate::accounts::GATEWAY)?;
        Ok(account(name, person.uid, person.gid, person.home))
    })?;
    Ok(users)
}

fn account(name: &AccountName, uid: u32, gid: u32, home: PathBuf) -> Account {
    Account {
        name: name.clone(),
        uid: Uid::from_raw(uid),
        gid: Gid::from_raw(gid),
        groups: Vec::new(),
        home,
        shell: "/usr/sbin/nologin".into(),
        login: false,
    }
}
