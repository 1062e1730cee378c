//! Groups, accounts, and what closes an account to people.

use std::fmt;

use kai_proto::ids::AccountName;

use super::{Goes, Item, Standing};
use crate::{
    accounts::{Accounts, Lock, MADE, Person},
    failure::Failure,
    root::{Access, Kind, Root},
    tools,
};

/// The shell that is none.
const NOLOGIN: &str = "/usr/sbin/nologin";
/// The first day on which nobody gets in, as usermod(8) takes it and shadow(5) keeps it.
const EXPIRED: u64 = 1;

/// Runs one of the tools of shadow-utils on this tree.
fn shadow(root: &Root, program: &str, arguments: &[&str]) -> Result<(), Failure> {
    let tree = root.path().to_string_lossy().into_owned();
    let mut words: Vec<&str> = Vec::new();
    if !root.is_host() {
        words.extend(["--prefix", tree.as_str()]);
    }
    words.extend(arguments);
    tools::run(program, &words, None).map(drop)
}

/// A group of kai's own.
pub struct Group(pub &'static str);

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group {}", self.0)
    }
}

impl Item for Group {
    fn look(&self, root: &Root) -> Result<Standing, Failure> {
        Ok(match Accounts::of(root).group(self.0)? {
            Some(_) => Standing::Right,
            None => Standing::Missing,
        })
    }

    fn bring_about(&self, root: &Root) -> Result<(), Failure> {
        shadow(root, "groupadd", &["--system", self.0])
    }

    fn take_away(&self, root: &Root) -> Result<bool, Failure> {
        if Accounts::of(root).group(self.0)?.is_none() {
            return Ok(false);
        }
        shadow(root, "groupdel", &[self.0])?;
        Ok(true)
    }

    fn goes_last(&self) -> bool {
        true
    }

    fn goes(&self) -> Goes {
        Goes::WithData
    }
}

/// An account of kai's own, which nobody logs in to and which owns no home.
pub struct Service(pub &'static str);

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "account {}", self.0)
    }
}

impl Item for Service {
    fn look(&self, root: &Root) -> Result<Standing, Failure> {
        let accounts = Accounts::of(root);
        let Some(person) = accounts.person(self.0)? else {
            return Ok(Standing::Missing);
        };
        if person.uid == 0 || person.gid == 0 {
            return Err(Failure::Host {
                name: self.0.to_owned(),
                found: "is an account with root's user or group".to_owned(),
                mend: format!("userdel {0}, and run this again", self.0),
            });
        }
        closed(&accounts, &person, false)
    }

    fn bring_about(&self, root: &Root) -> Result<(), Failure> {
        let accounts = Accounts::of(root);
        match accounts.person(self.0)? {
            Some(_) => close(root, self.0, false),
            None => {
                own_group(root, self.0, &["--system"])?;
                let mut words = vec!["--system", "--no-create-home", "--home-dir", "/"];
                words.extend(["--shell", NOLOGIN, "--comment", "kai"]);
                words.extend(["--gid", self.0, self.0]);
                shadow(root, "useradd", &words)
            }
        }
    }

    fn take_away(&self, root: &Root) -> Result<bool, Failure> {
        let accounts = Accounts::of(root);
        let there = accounts.person(self.0)?.is_some();
        if there {
            shadow(root, "userdel", &[self.0])?;
        }
        // userdel(8) leaves a group that others are in.
        if Accounts::of(root).group(self.0)?.is_some() {
            shadow(root, "groupdel", &[self.0])?;
        }
        Ok(there)
    }

    fn goes_last(&self) -> bool {
        true
    }

    fn goes(&self) -> Goes {
        Goes::WithData
    }
}

/// A user's account, made for an agent alone: it has expired, so nobody gets in by any way.
pub struct Closed {
    /// Its name.
    pub name: AccountName,
    /// Its number, if it shall have a certain one.
    pub uid: Option<u32>,
}

impl Closed {
    fn home(&self) -> String {
        format!("/home/{}", self.name)
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "account {}, closed to people", self.name)
    }
}

impl Item for Closed {
    fn look(&self, root: &Root) -> Result<Standing, Failure> {
        let accounts = Accounts::of(root);
        let Some(person) = accounts.person(self.name.as_str())? else {
            if let Some(uid) = self.uid
                && let Some(other) = accounts.person_of(uid)?
            {
                return Err(Failure::TakenUid {
                    uid,
                    account: self.name.clone(),
                    other: other.name,
                });
            }
            if !accounts.is_group_free(self.name.as_str())? {
                return Err(Failure::TakenGroup(self.name.clone()));
            }
            // Whoever has that number now would be handed the home, or the account somebody's files.
            if let Some(home) = root.look(self.home().as_ref())?
                && home.access.uid != 0
            {
                return Err(Failure::ForeignHome {
                    path: root.shown(self.home().as_ref()),
                    owner: home.access.uid,
                    account: self.name.clone(),
                });
            }
            return Ok(Standing::Missing);
        };
        // A person's account is not kai's to lock.
        if !person.is_made_by_kai() {
            return Err(Failure::NotMadeByKai(self.name.clone()));
        }
        accounts
            .can_host(&self.name)
            .map_err(|why| Failure::UnfitAccount {
                account: self.name.clone(),
                why,
            })?;
        closed(&accounts, &person, true)
    }

    fn bring_about(&self, root: &Root) -> Result<(), Failure> {
        let accounts = Accounts::of(root);
        let name = self.name.as_str();
        if accounts.person(name)?.is_some() {
            return close(root, name, true);
        }
        let (expired, home) = (EXPIRED.to_string(), self.home());
        let uid = self.uid.map(|uid| uid.to_string());
        let mut words = vec![
            "--no-create-home",
            "--no-log-init",
            "--expiredate",
            &expired,
        ];
        words.extend(["--shell", NOLOGIN, "--home-dir", &home, "--comment", MADE]);
        own_group(root, name, &[])?;
        words.extend(["--gid", name]);
        if let Some(uid) = &uid {
            words.extend(["--uid", uid]);
        }
        words.push(name);
        shadow(root, "useradd", &words)
    }

    /// An account is never deleted: its files would be the next one's that gets its number.
    fn take_away(&self, _: &Root) -> Result<bool, Failure> {
        Ok(false)
    }

    fn goes(&self) -> Goes {
        Goes::Never
    }
}

/// Makes the group of an account before the account: useradd(8) writes it last, and if it was killed
/// before, the account would have the number of a group that the next one gets.
fn own_group(root: &Root, name: &str, kind: &[&str]) -> Result<(), Failure> {
    if Accounts::of(root).group(name)?.is_some() {
        return Ok(());
    }
    let words: Vec<&str> = kind.iter().copied().chain([name]).collect();
    shadow(root, "groupadd", &words)
}

fn closed(accounts: &Accounts<'_>, person: &Person, expired: bool) -> Result<Standing, Failure> {
    let mut differs = Vec::new();
    if person.shell.to_str() != Some(NOLOGIN) {
        differs.push(format!("has the shell {}", person.shell.display()));
    }
    match accounts.lock(&person.name)? {
        None => differs.push("has no line in /etc/shadow".to_owned()),
        Some(Lock { locked, expires }) => {
            if !locked {
                differs.push("has a password".to_owned());
            }
            if expired && expires.is_none_or(|day| day > EXPIRED) {
                differs.push("has not expired".to_owned());
            }
        }
    }
    Ok(Standing::of(differs))
}

fn close(root: &Root, name: &str, expired: bool) -> Result<(), Failure> {
    if Accounts::of(root).lock(name)?.is_none() {
        // useradd(8) was killed between its files.
        let tree = root.path().to_string_lossy().into_owned();
        let words: &[&str] = if root.is_host() {
            &[]
        } else {
            &["--root", &tree]
        };
        tools::run("pwconv", words, None)?;
    }
    let day = EXPIRED.to_string();
    let mut words = vec!["--shell", NOLOGIN, "--lock"];
    if expired {
        words.extend(["--expiredate", &day]);
    }
    words.push(name);
    shadow(root, "usermod", &words)
}

/// The home of an account that kai makes.
pub struct Home(pub AccountName);

impl Home {
    fn path(&self) -> String {
        format!("/home/{}", self.0)
    }
}

impl fmt::Display for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "directory {}", self.path())
    }
}

impl Item for Home {
    fn look(&self, root: &Root) -> Result<Standing, Failure> {
        let path = self.path();
        let Some(found) = root.look(path.as_ref())? else {
            return Ok(Standing::Missing);
        };
        if found.kind != Kind::Directory {
            return Err(Failure::NotA {
                path: root.shown(path.as_ref()),
                wanted: "directory",
            });
        }
        let person = Accounts::of(root).person(self.0.as_str())?;
        match person {
            Some(person) if person.uid == found.access.uid => Ok(Standing::of(
                (found.access.mode & 0o077 != 0)
                    .then(|| format!("has mode {:04o} in place of 0700", found.access.mode))
                    .into_iter()
                    .collect(),
            )),
            // Nobody's yet: the admin made it.
            _ if found.access.uid == 0 && root.names(path.as_ref())?.is_empty() => {
                Ok(Standing::Differs("is root's and empty".to_owned()))
            }
            _ => Err(Failure::ForeignHome {
                path: root.shown(path.as_ref()),
                owner: found.access.uid,
                account: self.0.clone(),
            }),
        }
    }

    fn bring_about(&self, root: &Root) -> Result<(), Failure> {
        let person = Accounts::of(root).person(self.0.as_str())?;
        let person = person.ok_or_else(|| Failure::NoAccount(self.0.clone()))?;
        let access = Access {
            uid: person.uid,
            gid: person.gid,
            mode: 0o700,
        };
        root.make_directory(self.path().as_ref(), access)
    }

    fn take_away(&self, _: &Root) -> Result<bool, Failure> {
        Ok(false)
    }

    fn goes(&self) -> Goes {
        Goes::Never
    }
}

/// An account that is in a group.
pub struct Member {
    /// The group.
    pub group: &'static str,
    /// The account.
    pub account: AccountName,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in group {}", self.account, self.group)
    }
}

impl Item for Member {
    fn look(&self, root: &Root) -> Result<Standing, Failure> {
        let accounts = Accounts::of(root);
        let Some(person) = accounts.person(self.account.as_str())? else {
            return Err(Failure::NoAccount(self.account.clone()));
        };
        Ok(match accounts.group(self.group)? {
            Some(group) if group.gid == person.gid || group.members.contains(&person.name) => {
                Standing::Right
            }
            _ => Standing::Differs("is not in it".to_owned()),
        })
    }

    fn bring_about(&self, root: &Root) -> Result<(), Failure> {
        let account = self.account.as_str();
        shadow(
            root,
            "usermod",
            &["--append", "--groups", self.group, account],
        )
    }

    /// Goes with the group.
    fn take_away(&self, _: &Root) -> Result<bool, Failure> {
        Ok(false)
    }

    fn goes(&self) -> Goes {
        Goes::WithData
    }
}

/// An account that is not kai's to make, and can host an agent.
pub struct Fit(pub AccountName);

impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "account {}", self.0)
    }
}

impl Item for Fit {
    fn look(&self, root: &Root) -> Result<Standing, Failure> {
        match Accounts::of(root).can_host(&self.0) {
            Ok(true) => Ok(Standing::Right),
            Ok(false) => Err(Failure::NoAccount(self.0.clone())),
            Err(why) => Err(Failure::UnfitAccount {
                account: self.0.clone(),
                why,
            }),
        }
    }

    fn bring_about(&self, _: &Root) -> Result<(), Failure> {
        Ok(())
    }

    fn take_away(&self, _: &Root) -> Result<bool, Failure> {
        Ok(false)
    }

    fn goes(&self) -> Goes {
        Goes::Never
    }
}
