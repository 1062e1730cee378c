//! Whom the command becomes before it reads what an agent writes: the admin behind sudo(8), or, in a shell of
//! root's own, a number that no account has.

use std::io;

use kai_brokerd::launch::{Step, identity};
use kai_program::spare_uids::spare_uids;
use nix::{
    sys::{
        prctl,
        resource::{Resource, setrlimit},
    },
    unistd::{Gid, Uid},
};

/// Why root is not given up, and so nothing is copied. One sentence each.
#[derive(Debug, thiserror::Error)]
pub enum NotBecome {
    /// `SUDO_UID` or `SUDO_GID` says something strange.
    #[error("{0} is no number of an account; use: sudo kai-broker login NAME")]
    Strange(&'static str),
    /// No number is free.
    #[error(
        "no uid is free between 59000 and 59999; use: sudo kai-broker login NAME, as an account that is not root"
    )]
    NoneFree,
    /// A step of it failed.
    #[error("this command cannot give up root, at {0:?}: {1}")]
    Step(Step, io::Error),
    /// A limit could not be set.
    #[error("this command cannot give up root's means: {0}")]
    Means(nix::Error),
}

/// Numbers to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admin {
    uid: Uid,
    gid: Gid,
}

impl Admin {
    /// Whom sudo(8) names. root's own shell has nobody behind it: then numbers that no account, group or
    /// process has.
    ///
    /// # Errors
    /// [`NotBecome`].
    pub fn behind_sudo() -> Result<Self, NotBecome> {
        let said = |name: &str| std::env::var(name).ok();
        Self::of(said("SUDO_UID"), said("SUDO_GID"), || spare_uids().next())
    }

    fn of(
        uid: Option<String>,
        gid: Option<String>,
        free: impl FnOnce() -> Option<u32>,
    ) -> Result<Self, NotBecome> {
        let number = |text: Option<String>, name| match text.map(|text| text.parse::<u32>()) {
            None => Ok(0),
            Some(Ok(number)) if number != u32::MAX => Ok(number),
            Some(_) => Err(NotBecome::Strange(name)),
        };
        let (uid, gid) = (number(uid, "SUDO_UID")?, number(gid, "SUDO_GID")?);
        let (uid, gid) = match (uid, gid) {
            (1.., 1..) => (uid, gid),
            // root through sudo is root all the same.
            (0, _) => {
                let free = free().ok_or(NotBecome::NoneFree)?;
                (free, free)
            }
            (_, 0) => return Err(NotBecome::Strange("SUDO_GID")),
        };
        Ok(Self {
            uid: Uid::from_raw(uid),
            gid: Gid::from_raw(gid),
        })
    }

    /// Becomes it, with no group beside its own and no way back, which is tried; and gives up starting
    /// processes and being looked into by the rest of the account.
    ///
    /// # Errors
    /// [`NotBecome`]; nothing may be copied then.
    pub fn irrevocably_become(self) -> Result<(), NotBecome> {
        for resource in [Resource::RLIMIT_CORE, Resource::RLIMIT_NPROC] {
            setrlimit(resource, 0, 0).map_err(NotBecome::Means)?;
        }
        identity::become_ids(self.uid, self.gid, &[self.gid])
            .and_then(|()| identity::give_up_new_privileges())
            .map_err(|(step, error)| NotBecome::Step(step, error))?;
        // It holds a connection to the broker that root made.
        prctl::set_dumpable(false).map_err(NotBecome::Means)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(uid: Option<&str>, gid: Option<&str>) -> Result<(u32, u32), String> {
        let text = |text: Option<&str>| text.map(str::to_owned);
        Admin::of(text(uid), text(gid), || Some(59_999))
            .map(|admin| (admin.uid.as_raw(), admin.gid.as_raw()))
            .map_err(|why| why.to_string())
    }

    #[test]
    fn nobody_stays_root() {
        assert_eq!(chosen(Some("1000"), Some("100")), Ok((1000, 100)));
        for root in [(None, None), (Some("0"), Some("0")), (None, Some("100"))] {
            assert_eq!(chosen(root.0, root.1), Ok((59_999, 59_999)), "{root:?}");
        }
        for (uid, gid) in [
            (Some("-1"), Some("1")),
            (Some("4294967295"), Some("1")),
            (Some("4294967296"), Some("1")),
            (Some("alice"), Some("1")),
            (Some(""), Some("1")),
            (Some("1000"), Some("0")),
            (Some("1000"), None),
            (Some("1000"), Some("-1")),
        ] {
            assert!(chosen(uid, gid).is_err(), "{uid:?} {gid:?}");
        }
        assert!(matches!(
            Admin::of(None, None, || None),
            Err(NotBecome::NoneFree)
        ));
    }
}
