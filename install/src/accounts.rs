//! Which accounts and groups there are: by name service on the host, by the files of passwd(5), group(5)
//! and shadow(5) in a tree that is prepared.

use std::path::{Path, PathBuf};

use kai_brokerd::accounts::{self as broker, Unfit};
use kai_proto::ids::AccountName;
use nix::unistd::{Gid, Uid};

use crate::{failure::Failure, root::Root};

/// The account of the gateway, as its unit names it.
pub const GATEWAY: &str = "kai-gateway";
/// The comment of the accounts that kai makes for agents alone, by which it knows them again.
pub const MADE: &str = "kai agent";
/// The group whose members may look at kai with sudo, as the sudoers file names it.
pub const ADMINS: &str = "kai-admin";

/// The first number that groupadd(8) gives to what is not the system's (login.defs(5), GID_MIN).
const FIRST_OF_PEOPLE: u32 = 1000;
const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";
const SHADOW: &str = "/etc/shadow";

/// An account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Its name.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
    /// Its home.
    pub home: PathBuf,
    /// Its login shell.
    pub shell: PathBuf,
    /// Its comment.
    pub comment: String,
}

impl Person {
    /// True if kai made it for an agent alone, and may thus close it.
    #[must_use]
    pub fn is_made_by_kai(&self) -> bool {
        self.comment == MADE
    }
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its number.
    pub gid: u32,
    /// Who is in it beside those whose primary group it is.
    pub members: Vec<String>,
}

/// What shadow(5) says of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lock {
    /// True if no password is right.
    pub locked: bool,
    /// The day since 1970 from which nobody gets in by any way.
    pub expires: Option<u64>,
}

/// The accounts of a tree.
#[derive(Debug, Clone, Copy)]
pub struct Accounts<'a> {
    root: &'a Root,
}

impl<'a> Accounts<'a> {
    /// Those of this tree.
    #[must_use]
    pub fn of(root: &'a Root) -> Self {
        Self { root }
    }

    /// The account `name`.
    ///
    /// # Errors
    /// If name service does not answer, or the file cannot be read.
    pub fn person(&self, name: &str) -> Result<Option<Person>, Failure> {
        if self.root.is_host() {
            let found = nix::unistd::User::from_name(name).map_err(lookup)?;
            return Ok(found.map(of_host));
        }
        Ok(self.people()?.into_iter().find(|found| found.name == name))
    }

    /// The account with the number `uid`.
    ///
    /// # Errors
    /// As [`person`](Self::person).
    pub fn person_of(&self, uid: u32) -> Result<Option<Person>, Failure> {
        if self.root.is_host() {
            let found = nix::unistd::User::from_uid(Uid::from_raw(uid)).map_err(lookup)?;
            return Ok(found.map(of_host));
        }
        Ok(self.people()?.into_iter().find(|found| found.uid == uid))
    }

    /// The group `name`.
    ///
    /// # Errors
    /// As [`person`](Self::person).
    pub fn group(&self, name: &str) -> Result<Option<Group>, Failure> {
        if self.root.is_host() {
            let found = nix::unistd::Group::from_name(name).map_err(lookup)?;
            return Ok(found.map(|group| Group {
                name: group.name,
                gid: group.gid.as_raw(),
                members: group.mem,
            }));
        }
        Ok(self.groups()?.into_iter().find(|found| found.name == name))
    }

    /// True if an account of this name could have the group of its name: there is none, or one that is nobody's
    /// yet, as groupadd(8) makes it for an account.
    ///
    /// # Errors
    /// As [`person`](Self::person).
    pub fn is_group_free(&self, name: &str) -> Result<bool, Failure> {
        let Some(group) = self.group(name)? else {
            return Ok(true);
        };
        let is_primary = self.people()?.iter().any(|other| other.gid == group.gid);
        Ok(group.gid >= FIRST_OF_PEOPLE && group.members.is_empty() && !is_primary)
    }

    /// The names of all groups that `person` is in; a group without a name is left out unless it is
    /// root's.
    ///
    /// # Errors
    /// As [`person`](Self::person).
    pub fn groups_of(&self, person: &Person) -> Result<Vec<String>, Failure> {
        if !self.root.is_host() {
            let is_in =
                |group: &Group| group.gid == person.gid || group.members.contains(&person.name);
            let groups = self.groups()?.into_iter().filter(is_in);
            return Ok(groups.map(|group| group.name).collect());
        }
        let name =
            std::ffi::CString::new(person.name.as_str()).map_err(|_| lookup(nix::Error::EINVAL))?;
        let mut names = Vec::new();
        for gid in nix::unistd::getgrouplist(&name, Gid::from_raw(person.gid)).map_err(lookup)? {
            match nix::unistd::Group::from_gid(gid).map_err(lookup)? {
                Some(group) => names.push(group.name),
                None if gid.as_raw() == 0 => names.push("root".to_owned()),
                None => {}
            }
        }
        Ok(names)
    }

    /// How the account `name` is locked; none if shadow(5) has no line of it.
    ///
    /// # Errors
    /// For everybody but root.
    pub fn lock(&self, name: &str) -> Result<Option<Lock>, Failure> {
        let text = self.root.read_text(Path::new(SHADOW))?.unwrap_or_default();
        Ok(fields(&text)
            .find(|fields| fields.first() == Some(&name))
            .map(|fields| Lock {
                locked: fields
                    .get(1)
                    .is_some_and(|password| password.starts_with(['!', '*'])),
                expires: fields.get(7).and_then(|day| day.parse().ok()),
            }))
    }

    /// Whether apply makes the account `name`, or has made it, for an agent alone.
    ///
    /// # Errors
    /// As [`person`](Self::person).
    pub fn is_kai_s_to_make(&self, name: &AccountName) -> Result<bool, Failure> {
        let person = self.person(name.as_str())?;
        Ok(person.is_none_or(|person| person.is_made_by_kai()))
    }

    /// Whether the account `name` may host an agent, by the broker's own judgement: false if there is
    /// none.
    ///
    /// # Errors
    /// Why it may not; the sentence follows a key's name.
    pub fn can_host(&self, name: &AccountName) -> Result<bool, String> {
        let said = |problem: Failure| format!("cannot be looked up: {problem}");
        let Some(person) = self.person(name.as_str()).map_err(said)? else {
            return Ok(false);
        };
        let groups = self.groups_of(&person).map_err(said)?;
        broker::judge(name, Uid::from_raw(person.uid), &groups, GATEWAY)
            .map(|()| true)
            .map_err(|unfit: Unfit| unfit.to_string())
    }

    fn people(&self) -> Result<Vec<Person>, Failure> {
        let text = self.root.read_text(Path::new(PASSWD))?.unwrap_or_default();
        Ok(fields(&text)
            .filter_map(|fields| match fields[..] {
                [name, _, uid, gid, comment, home, shell] => Some(Person {
                    name: name.to_owned(),
                    uid: uid.parse().ok()?,
                    gid: gid.parse().ok()?,
                    home: home.into(),
                    shell: shell.into(),
                    comment: comment.to_owned(),
                }),
                _ => None,
            })
            .collect())
    }

    fn groups(&self) -> Result<Vec<Group>, Failure> {
        let text = self.root.read_text(Path::new(GROUP))?.unwrap_or_default();
        Ok(fields(&text)
            .filter_map(|fields| match fields[..] {
                [name, _, gid, members] => Some(Group {
                    name: name.to_owned(),
                    gid: gid.parse().ok()?,
                    members: members
                        .split(',')
                        .filter(|member| !member.is_empty())
                        .map(str::to_owned)
                        .collect(),
                }),
                _ => None,
            })
            .collect())
    }
}

fn fields(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.split(':').collect())
}

fn of_host(user: nix::unistd::User) -> Person {
    Person {
        name: user.name,
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        home: user.dir,
        shell: user.shell,
        comment: user.gecos.to_string_lossy().into_owned(),
    }
}

fn lookup(error: nix::Error) -> Failure {
    Failure::Tool {
        program: "name service (nsswitch.conf)".to_owned(),
        said: error.to_string(),
    }
}
