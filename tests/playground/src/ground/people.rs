//! Who the people of a ground are on this machine: accounts made for them, or everybody the same one.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command};

use nix::unistd::{User, geteuid};

use super::{
    GroundError, Names, Options,
    accounts::{self, Account},
    files,
    layout::Layout,
    removal::Made,
};
use crate::sys;

/// The accounts of a ground.
pub(super) struct Parts {
    /// In the order of the options.
    pub(super) people: Vec<Account>,
    /// The gateway's.
    pub(super) gateway: Account,
}

/// Makes an account for everybody and for the gateway.
pub(super) fn make_accounts(options: &Options, made: &mut Made) -> Result<Parts, GroundError> {
    let _guard = made.lock()?;
    let stem = free_stem(options, made.id())?;
    let mut people = Vec::new();
    for person in &options.people {
        let (account, group) = account_names(&stem, &person.name);
        people.push(accounts::make_person(made, &account, &group)?);
    }
    let gateway = accounts::make_service(made, &format!("kai-{stem}-gateway"))?;
    Ok(Parts { people, gateway })
}

/// An account and its group. The group's name cannot begin with `kai-`: those groups are kai's own,
/// and the broker gives their members no worker.
fn account_names(stem: &str, person: &str) -> (String, String) {
    (format!("kai-{stem}-{person}"), format!("{stem}-{person}"))
}

/// The first word for which nobody has any of the names.
fn free_stem(options: &Options, id: &str) -> Result<String, GroundError> {
    let candidates: Vec<String> = match options.names {
        Names::Unique => vec![format!("t{id}")],
        Names::Playground => std::iter::once("play".to_owned())
            .chain((2..10).map(|n| format!("play{n}")))
            .collect(),
    };
    for stem in &candidates {
        let gateway = format!("kai-{stem}-gateway");
        let mut free = accounts::is_free(&gateway, &gateway)?;
        for person in &options.people {
            let (account, group) = account_names(stem, &person.name);
            free = free && accounts::is_free(&account, &group)?;
        }
        if free {
            return Ok(stem.clone());
        }
    }
    Err(GroundError::Accounts(format!(
        "accounts, groups or homes called kai-{}-… exist and are not the playground's; it leaves \
         them alone",
        candidates.first().map_or("", String::as_str)
    )))
}

/// Everybody is whoever started this, with a home of their own below the root.
pub(super) fn one_account(options: &Options, layout: &Layout) -> Result<Parts, GroundError> {
    own_namespaces()?;
    let me = User::from_uid(geteuid())
        .ok()
        .flatten()
        .ok_or_else(|| GroundError::Accounts("this process's account has no name".to_owned()))?;
    let account = |home: PathBuf| Account {
        name: me.name.clone(),
        uid: me.uid.as_raw(),
        gid: nix::unistd::getegid().as_raw(),
        home,
    };
    let homes = layout.root().join("homes");
    let mut people = Vec::new();
    for person in &options.people {
        let home = homes.join(&person.name);
        fs::create_dir_all(&home)
            .and_then(|()| fs::set_permissions(&home, PermissionsExt::from_mode(0o700)))
            .map_err(files("cannot make a home"))?;
        people.push(account(home));
    }
    Ok(Parts {
        people,
        gateway: account(me.dir.clone()),
    })
}

/// Whether this account may have namespaces of its own, with mounts in them.
fn own_namespaces() -> Result<(), GroundError> {
    let mut nothing = Command::new("/bin/true");
    sys::as_root_of_its_own(&mut nothing);
    sys::only_with_mounts_of_its_own(&mut nothing);
    match nothing.status() {
        Ok(_) => Ok(()),
        Err(error) => Err(GroundError::Accounts(format!(
            "without root this needs user namespaces, which this machine does not give to your \
             account ({error}): start it as root, or allow them with sysctl \
             kernel.unprivileged_userns_clone=1, user.max_user_namespaces above 0 and, with \
             AppArmor, kernel.apparmor_restrict_unprivileged_userns=0"
        ))),
    }
}
