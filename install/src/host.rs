//! Finds out what the checks judge. Reads and asks; changes nothing.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
};

use landlock::{
    AccessFs, LandlockStatus, RestrictionStatus, Ruleset, RulesetAttr, RulesetError, RulesetStatus,
};
use nix::unistd::{User, geteuid};

use crate::checks::{
    files::{Ids, Kind, Look, Seen, Unseen},
    kernel::{Landlock, NAMESPACES, Namespace},
};

/// True if this process is root's.
#[must_use]
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// The text of a file of the kernel's, if it is there.
#[must_use]
pub fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// What uname(2) calls the release.
#[must_use]
pub fn kernel_release() -> String {
    read("/proc/sys/kernel/osrelease")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// Lets Landlock confine a thread that does nothing else: a kernel that says it can and does not is
/// found out.
#[must_use]
pub fn landlock() -> Landlock {
    let confined = thread::spawn(|| -> Result<RestrictionStatus, RulesetError> {
        Ruleset::default()
            .handle_access(AccessFs::Execute)?
            .create()?
            .restrict_self()
    });
    let status = match confined.join() {
        Ok(Ok(status)) => status,
        Ok(Err(problem)) => return Landlock::Failed(problem.to_string()),
        Err(_) => return Landlock::Failed("the thread ended".to_owned()),
    };
    match status.landlock {
        LandlockStatus::NotEnabled => Landlock::NotEnabled,
        LandlockStatus::NotImplemented => Landlock::NotBuilt,
        LandlockStatus::Available { .. } if status.ruleset == RulesetStatus::NotEnforced => {
            Landlock::Failed("it enforced nothing".to_owned())
        }
        LandlockStatus::Available { effective_abi, .. } => Landlock::Abi(effective_abi as u8),
    }
}

/// Each kind of namespace that a worker gets.
#[must_use]
pub fn namespaces() -> Vec<Namespace> {
    let namespace = |kind| Namespace {
        kind,
        exists: fs::symlink_metadata(format!("/proc/self/ns/{kind}")).is_ok(),
        most: read(&format!("/proc/sys/user/max_{kind}_namespaces"))
            .and_then(|text| text.trim().parse().ok()),
    };
    NAMESPACES.into_iter().map(namespace).collect()
}

/// The numbers of an account, if it exists.
///
/// # Errors
/// What name service answers.
pub fn account(name: &str) -> Result<Option<Ids>, String> {
    match User::from_name(name) {
        Ok(user) => Ok(user.map(|user| Ids {
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
        })),
        Err(problem) => Err(problem.to_string()),
    }
}

/// Looks at what stands at `path`, and not at what a link there leads to.
///
/// # Errors
/// Why nothing is known.
pub fn look_at_link(path: &Path) -> Look {
    seen(fs::symlink_metadata(path))
}

/// Every directory on the way to `path`, as it is named and as it is behind links, and the file at
/// the end.
#[must_use]
pub fn way_to(path: &Path) -> Vec<(PathBuf, Look)> {
    let mut steps: Vec<PathBuf> = Vec::new();
    let mut add_all = |path: &Path| {
        let mut way: Vec<&Path> = path.ancestors().skip(1).collect();
        way.reverse();
        for step in way {
            if !steps.iter().any(|known| known == step) {
                steps.push(step.to_owned());
            }
        }
    };
    add_all(path);
    let end = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    add_all(&end);
    steps.push(end);
    steps
        .into_iter()
        .map(|step| {
            let look = seen(fs::metadata(&step));
            (step, look)
        })
        .collect()
}

/// The directory of this program.
#[must_use]
pub fn own_directory() -> PathBuf {
    std::env::current_exe()
        .ok()
        .and_then(|program| program.parent().map(Path::to_owned))
        .unwrap_or_else(|| "/opt/kai/current".into())
}

fn seen(found: io::Result<Metadata>) -> Look {
    let found = found.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Unseen::Absent,
        io::ErrorKind::PermissionDenied => Unseen::Denied,
        _ => Unseen::Failed(error.to_string()),
    })?;
    Ok(Seen {
        kind: if found.is_file() {
            Kind::File
        } else if found.is_dir() {
            Kind::Directory
        } else {
            Kind::Other
        },
        uid: found.uid(),
        gid: found.gid(),
        mode: found.mode() & 0o7777,
        links: found.nlink(),
        empty: found.len() == 0,
    })
}
