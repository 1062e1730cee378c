//! From root to the user's account, for good.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use caps::CapSet;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{prctl, signal::Signal},
    unistd::{Gid, Uid, getresgid, getresuid, setgroups, setresgid, setresuid},
};

use super::{Failed, Step};
use crate::{accounts::Account, sys};

/// The bounding set and the groups go first: neither can be changed without root. After the
/// ids, every way to have root back is tried and must fail.
///
/// # Errors
/// The part that failed.
pub fn become_account(account: &Account) -> Result<(), Failed> {
    become_ids(account.uid, account.gid, &account.groups)
}

/// As [`become_account`], for what has these numbers and no name.
///
/// # Errors
/// The part that failed.
pub fn become_ids(uid: Uid, gid: Gid, groups: &[Gid]) -> Result<(), Failed> {
    // Whoever shares one possesses what is in it, whatever the accounts are (keyrings(7)). Made by root, it does
    // not count against the account's quota, which its user could use up.
    sys::own_session_keyring().map_err(|error| (Step::Keyring, error))?;
    let capabilities =
        |error: caps::errors::CapsError| (Step::Capabilities, io::Error::other(error.to_string()));
    caps::clear(None, CapSet::Ambient).map_err(capabilities)?;
    caps::clear(None, CapSet::Bounding).map_err(capabilities)?;
    caps::clear(None, CapSet::Inheritable).map_err(capabilities)?;
    setgroups(groups).map_err(|error| (Step::Groups, error.into()))?;
    setresgid(gid, gid, gid).map_err(|error| (Step::Ids, error.into()))?;
    setresuid(uid, uid, uid).map_err(|error| (Step::Ids, error.into()))?;
    prove_no_way_back(uid, gid)
}

fn prove_no_way_back(uid: Uid, gid: Gid) -> Result<(), Failed> {
    let broken = || {
        (
            Step::WayBack,
            io::Error::from(io::ErrorKind::PermissionDenied),
        )
    };
    let root = Uid::from_raw(0);
    let wheel = Gid::from_raw(0);
    let uids = getresuid().map_err(|error| (Step::WayBack, error.into()))?;
    let gids = getresgid().map_err(|error| (Step::WayBack, error.into()))?;
    let ids_are_the_accounts = [uids.real, uids.effective, uids.saved]
        .iter()
        .all(|found| *found == uid)
        && [gids.real, gids.effective, gids.saved]
            .iter()
            .all(|found| *found == gid);
    let still_capable = [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable]
        .into_iter()
        .any(|set| !caps::read(None, set).is_ok_and(|set| set.is_empty()));
    let root_again = setresuid(root, root, root).is_ok()
        || setresgid(wheel, wheel, wheel).is_ok()
        || setgroups(&[]).is_ok();
    if ids_are_the_accounts && !still_capable && !root_again {
        Ok(())
    } else {
        Err(broken())
    }
}

/// After the ids, because setresuid(2) clears the signal (prctl(2), `PR_SET_PDEATHSIG`). If
/// the broker died before, its end of the control socket is closed by now: getppid(2) would not tell,
/// it is always 0 in a new PID namespace.
///
/// # Errors
/// [`Step::ParentDeath`].
pub fn end_with_the_broker(control: &OwnedFd) -> Result<(), Failed> {
    let step = |error: nix::Error| (Step::ParentDeath, error.into());
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(step)?;
    let mut polled = [PollFd::new(control.as_fd(), PollFlags::empty())];
    poll(&mut polled, PollTimeout::ZERO).map_err(step)?;
    if polled[0]
        .revents()
        .is_some_and(|events| events.contains(PollFlags::POLLHUP))
    {
        return Err((
            Step::ParentDeath,
            io::Error::from(io::ErrorKind::NotConnected),
        ));
    }
    Ok(())
}

/// From here on no set-user-id program gives anything to the worker or its agent.
///
/// # Errors
/// [`Step::NoNewPrivileges`].
pub fn give_up_new_privileges() -> Result<(), Failed> {
    prctl::set_no_new_privs().map_err(|error| (Step::NoNewPrivileges, error.into()))
}
