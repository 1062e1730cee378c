//! The daemon's own walls, put up when everything is open and before the first peer is served:
//! Landlock to its two directories, then a seccomp allow-list. Nothing takes them down again.
//!
//! They hold what reached this process in spite of everything: it opens no other file, makes no
//! socket, starts no program and touches no other process. systemd's unit has walls of its own; these
//! do not need them.

pub mod calls;

use std::{collections::BTreeMap, fmt, io, path::Path, path::PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus,
    PathBeneath, PathFd, PathFdError, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use calls::{ALLOWED, ALLOWED_HERE, Allowed, When};

/// The newest Landlock whose controls are asked for. 7 added only what is logged, 8 several threads.
const ASKED: ABI = ABI::V6;

/// Why the daemon is not confined, and must not run.
#[derive(Debug, thiserror::Error)]
pub enum Unconfined {
    /// Both walls stand around one thread: another would stay outside.
    #[error("{0} threads where there must be one")]
    Threads(usize),
    /// A directory cannot be opened.
    #[error("{0}: {1}")]
    Directory(PathBuf, io::Error),
    /// The kernel has no Landlock, or it is not switched on.
    #[error(
        "this kernel does not enforce Landlock; use Debian 12's or a newer one, and have `landlock` in its lsm= parameter"
    )]
    NoLandlock,
    /// The kernel refused a ruleset of its own ABI.
    #[error("Landlock failed: {0}")]
    Landlock(#[from] RulesetError),
    /// The table cannot be made a filter.
    #[error("the seccomp filter cannot be built: {0}")]
    Build(#[from] seccompiler::BackendError),
    /// The kernel does not take it.
    #[error("the seccomp filter cannot be installed: {0}")]
    Install(#[from] seccompiler::Error),
}

/// What was reached; the daemon logs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Confined {
    /// The ABI of Landlock that is enforced, at least 1.
    pub landlock_abi: u8,
    /// True if the kernel enforces all that was asked of Landlock.
    pub landlock_whole: bool,
}

impl fmt::Display for Confined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.landlock_whole {
            "whole"
        } else {
            "in part"
        };
        write!(f, "Landlock ABI {} ({how}), seccomp", self.landlock_abi)
    }
}

/// Confines this process, for good, to files in `state` and `audit` and to the calls of [`calls`].
///
/// Whatever else is needed must be open already. To be called with one thread, after
/// `no_new_privs` is set and the capabilities are gone.
///
/// # Errors
/// [`Unconfined`]: one wall may then stand already, and the process must end.
pub fn confine(state: &Path, audit: &Path) -> Result<Confined, Unconfined> {
    one_thread()?;
    // Built first: an error on the way is then told with all files still at hand.
    let program = filter()?;
    let confined = restrict_files(&[state, audit])?;
    seccompiler::apply_filter(&program)?;
    Ok(confined)
}

fn one_thread() -> Result<(), Unconfined> {
    match std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count) {
        1 => Ok(()),
        count => Err(Unconfined::Threads(count)),
    }
}

/// Landlock: regular files in these directories are made, read, written and removed, and nothing is
/// executed. No TCP at all, no signal and no abstract socket beyond this process, where the kernel
/// knows these.
fn restrict_files(directories: &[&Path]) -> Result<Confined, Unconfined> {
    let access: BitFlags<AccessFs> = AccessFs::ReadFile
        | AccessFs::ReadDir
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::RemoveFile;
    let mut created = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ASKED))?
        .handle_access(AccessNet::from_all(ASKED))?
        .scope(Scope::from_all(ASKED))?
        .create()?;
    for directory in directories {
        let opened = PathFd::new(directory).map_err(|error| match error {
            PathFdError::OpenCall { source, .. } => {
                Unconfined::Directory(directory.to_path_buf(), source)
            }
            _ => Unconfined::Directory(directory.to_path_buf(), io::ErrorKind::Other.into()),
        })?;
        created = created.add_rule(PathBeneath::new(opened, access))?;
    }
    let status = created.restrict_self()?;
    match (status.ruleset, status.landlock) {
        (RulesetStatus::NotEnforced, _) => Err(Unconfined::NoLandlock),
        (reached, LandlockStatus::Available { effective_abi, .. }) => Ok(Confined {
            landlock_abi: effective_abi as u8,
            landlock_whole: reached == RulesetStatus::FullyEnforced,
        }),
        _ => Err(Unconfined::NoLandlock),
    }
}

/// The filter. What is not in the table ends the process.
///
/// Not `EPERM`: no code of this daemon makes such a call, so whoever does has taken it over and gets
/// no second try, and the kernel's log names the call. An end at any moment costs nothing that was
/// decided: each decision is on disk before its answer, and every grant falls, which is the safe side.
///
/// A call of another architecture ends the process too, by the check at the head of the filter, and
/// one of x32 because its number, with bit 30, is in no table.
fn filter() -> Result<BpfProgram, Unconfined> {
    let mut calls: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for Allowed { call, when, .. } in ALLOWED.iter().chain(ALLOWED_HERE) {
        calls.entry(*call).or_default().extend(cases(*when)?);
    }
    let target = TargetArch::try_from(std::env::consts::ARCH)?;
    let filter = SeccompFilter::new(
        calls,
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        target,
    )?;
    Ok(filter.try_into()?)
}

/// The rules of one entry, of which any suffices; none at all stands for "always".
fn cases(when: When) -> Result<Vec<SeccompRule>, Unconfined> {
    // An int argument fills half of its register and the kernel ignores the rest: only the low half
    // is compared, as the kernel does.
    let low = |argument, comparison, value: u32| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, comparison, value.into())
    };
    let mut rules = Vec::new();
    match when {
        When::Always => {}
        When::OneOf(argument, values) => {
            for &value in values {
                let equal = low(argument, SeccompCmpOp::Eq, value)?;
                rules.push(SeccompRule::new(vec![equal])?);
            }
        }
        When::Without(argument, bits) => {
            let clear = low(argument, SeccompCmpOp::MaskedEq(bits.into()), 0)?;
            rules.push(SeccompRule::new(vec![clear])?);
        }
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_is_small_and_no_call_is_in_the_table_twice() {
        let mut calls: Vec<i64> = ALLOWED.iter().chain(ALLOWED_HERE).map(|e| e.call).collect();
        let entries = calls.len();
        calls.sort_unstable();
        calls.dedup();

        assert_eq!(calls.len(), entries);
        assert!(filter().unwrap().len() < 512, "{}", filter().unwrap().len());
    }

    #[test]
    fn a_second_thread_stays_unconfined_and_so_nothing_is() {
        let refused = std::thread::spawn(|| confine(Path::new("/"), Path::new("/")))
            .join()
            .unwrap();

        assert!(matches!(refused, Err(Unconfined::Threads(2..))));
    }
}
