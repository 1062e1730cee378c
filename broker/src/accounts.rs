//! Which local accounts may host a worker.
//!
//! An account is resolved once, when the table of users is loaded: name service may be slow or lie
//! later, and the launch uses the numbers found here. [`judge`] is a pure function of what was found.

use std::{fs, path::PathBuf};

use kai_proto::ids::AccountName;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use crate::daemon::unix_now;

/// The lowest uid that useradd(8) gives to people (`UID_MIN` in login.defs(5)).
const FIRST_PERSON: u32 = 1000;
/// The kernel's overflow uid: whoever has no account shares it.
const NOBODY: u32 = 65534;

/// Where expiry stands, for root alone.
const SHADOW: &str = "/etc/shadow";

/// Groups whose members can become root, or read what root alone should.
const ROOT_EQUIVALENT: [&str; 16] = [
    "root",
    "adm",
    "sudo",
    "wheel",
    "shadow",
    "disk",
    "kmem",
    "staff",
    "docker",
    "lxd",
    "incus",
    "incus-admin",
    "libvirt",
    "kvm",
    "input",
    "systemd-journal",
];

/// A local account that may host a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: AccountName,
    /// Its number; never 0.
    pub uid: Uid,
    /// Its primary group.
    pub gid: Gid,
    /// All its groups, the primary one included.
    pub groups: Vec<Gid>,
    /// Its home directory.
    pub home: PathBuf,
    /// Its login shell.
    pub shell: PathBuf,
    /// True if people can log in to it, by [`can_log_in`].
    pub login: bool,
}

/// Why an account may not host a worker. Each is one sentence that follows the key's name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unfit {
    /// There is no such account.
    #[error("names an account that does not exist; make it with: useradd --create-home NAME")]
    Missing,
    /// Name service does not answer.
    #[error("cannot be looked up: {0}")]
    Lookup(nix::Error),
    /// It is root under some name.
    #[error("names an account with uid 0")]
    Root,
    /// It is not a person's.
    #[error("names a system account (uid {0}): give the user an account with a uid from 1000")]
    System(u32),
    /// It is kai's own.
    #[error("names the account that the gateway runs as")]
    Gateway,
    /// It is as good as root.
    #[error("names an account in the group `{0}`, which is as good as root or kai's own")]
    Group(String),
    /// There is no directory for the agent to live in.
    #[error("names an account without a home directory")]
    NoHome,
}

/// Looks `name` up and judges what was found.
///
/// # Errors
/// Why the account may not host a worker.
pub fn resolve(name: &AccountName, gateway: &str) -> Result<Account, Unfit> {
    let today = unix_now() / (24 * 3600);
    let found = User::from_name(name.as_str())
        .map_err(Unfit::Lookup)?
        .ok_or(Unfit::Missing)?;
    let login = std::ffi::CString::new(name.as_str()).map_err(|_| Unfit::Missing)?;
    let groups = getgrouplist(&login, found.gid).map_err(Unfit::Lookup)?;
    let mut group_names = Vec::with_capacity(groups.len());
    for gid in &groups {
        // A group without a name cannot be one of those that are refused by name, but gid 0 is.
        let group = Group::from_gid(*gid).map_err(Unfit::Lookup)?;
        group_names.push(match group {
            Some(group) => group.name,
            None if gid.as_raw() == 0 => "root".to_owned(),
            None => continue,
        });
    }
    judge(name, found.uid, &group_names, gateway)?;
    if !found.dir.is_absolute() || !found.dir.is_dir() || found.dir.parent().is_none() {
        return Err(Unfit::NoHome);
    }
    Ok(Account {
        name: name.clone(),
        uid: found.uid,
        gid: found.gid,
        groups,
        home: found.dir,
        login: can_log_in(&fs::read_to_string(SHADOW).unwrap_or_default(), name, today),
        shell: found.shell,
    })
}

/// Whether somebody can log in to the account `name` on the day `today` since 1970: unless it has expired by
/// `shadow`, the text of shadow(5).
///
/// Neither a locked password nor the shell nologin is enough: sshd(8) lets keys in all the same, and forwards
/// ports without a shell; an agent could write itself an authorized_keys. Lingering starts units of any
/// account, and what was written while an account was closed is there when it is opened. Expiry
/// (`usermod --expiredate 1`) stops every way in. When in doubt it is an account that people log in to, which
/// costs nothing but a few read-only files.
#[must_use]
pub fn can_log_in(shadow: &str, name: &AccountName, today: u64) -> bool {
    let expiry = shadow
        .lines()
        .filter_map(|line| line.strip_prefix(name.as_str())?.strip_prefix(':'))
        // Behind the name: password, last change, least, most, warning, inactive, expiry.
        .find_map(|rest| rest.split(':').nth(6)?.parse::<u64>().ok());
    expiry.is_none_or(|day| today < day)
}

/// Whether an account with this uid, in these groups, may host a worker.
///
/// # Errors
/// The first reason against it.
pub fn judge(name: &AccountName, uid: Uid, groups: &[String], gateway: &str) -> Result<(), Unfit> {
    if uid.is_root() {
        return Err(Unfit::Root);
    }
    if name.as_str() == gateway {
        return Err(Unfit::Gateway);
    }
    if uid.as_raw() < FIRST_PERSON || uid.as_raw() == NOBODY || uid.as_raw() == u32::MAX {
        return Err(Unfit::System(uid.as_raw()));
    }
    let refused =
        |group: &&String| ROOT_EQUIVALENT.contains(&group.as_str()) || group.starts_with("kai-");
    match groups.iter().find(refused) {
        Some(group) => Err(Unfit::Group(group.clone())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(name: &str, uid: u32, groups: &[&str]) -> Result<(), Unfit> {
        let groups: Vec<String> = groups.iter().map(|&g| g.to_owned()).collect();
        let name = AccountName::try_from(name.to_owned()).unwrap();
        judge(&name, Uid::from_raw(uid), &groups, "kai-gateway")
    }

    #[test]
    fn root_under_any_name_is_refused() {
        assert_eq!(judged("toor", 0, &[]), Err(Unfit::Root));
    }

    #[test]
    fn system_accounts_are_refused() {
        for uid in [1, 33, 999, 65534, u32::MAX] {
            assert_eq!(judged("www-data", uid, &[]), Err(Unfit::System(uid)));
        }
        assert_eq!(judged("alice", 1000, &["alice"]), Ok(()));
    }

    #[test]
    fn every_root_equivalent_group_is_refused_and_others_are_kept() {
        for group in ROOT_EQUIVALENT
            .into_iter()
            .chain(["kai-gateway", "kai-admin"])
        {
            assert_eq!(
                judged("alice", 1000, &["alice", group]),
                Err(Unfit::Group(group.to_owned()))
            );
        }
        assert_eq!(
            judged("alice", 1000, &["alice", "users", "audio", "kaiser"]),
            Ok(())
        );
    }

    #[test]
    fn the_gateways_account_is_refused() {
        assert_eq!(judged("kai-gateway", 1000, &[]), Err(Unfit::Gateway));
    }

    #[test]
    fn only_an_account_that_has_expired_is_closed_to_people() {
        let alice = AccountName::try_from("alice".to_owned()).unwrap();
        let shadow =
            |expiry: &str| format!("al:!:1:0:9:7::1:\nalice:!:19000:0:99999:7::{expiry}:\n");
        for (expiry, open) in [("", true), ("1", false), ("20000", false), ("20001", true)] {
            let found = can_log_in(&shadow(expiry), &alice, 20_000);
            assert_eq!(found, open, "{expiry}");
        }
        assert!(can_log_in("", &alice, 20_000));
    }

    #[test]
    fn an_account_that_does_not_exist_is_refused() {
        let name = AccountName::try_from("kai-no-such-account".to_owned()).unwrap();
        assert_eq!(resolve(&name, "kai-gateway"), Err(Unfit::Missing));
    }
}
