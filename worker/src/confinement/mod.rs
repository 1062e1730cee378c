//! What the worker does to itself, in the order of [`STEPS`] and of SECURITY.md, "The launch", before it
//! has a second thread: Landlock, no_new_privs, capabilities and seccomp count per thread, and a thread
//! that exists already would stay outside.

pub mod calls;
#[cfg(test)]
mod judged;
pub mod paths;
pub mod ruleset;
pub mod seccomp;
pub mod syscalls;

use std::io;

use caps::CapSet;
use kai_proto::worker_broker::Assignment;
use nix::{
    sys::prctl,
    unistd::{getpid, getresgid, getresuid},
};

/// The end of the launch in order, in the words of SECURITY.md; what comes before is the broker's.
pub const STEPS: &[&str] = &[
    "In the worker: it is the first process of its namespace, and has one thread.",
    "Not dumpable.",
    "Not root, no capability, no new privileges: looked at again.",
    "Landlock; less than the oldest supported kernel has is the end under `confinement: strict`.",
    "seccomp.",
];

/// The Landlock ABI of the oldest supported kernel, Debian 12's 6.1 (landlock(7)).
const OLDEST_LANDLOCK: u8 = 2;

/// Why the worker does not go on.
#[derive(Debug, thiserror::Error)]
pub enum Unconfined {
    /// Ending "every process" would reach beyond the worker's own.
    #[error("process {0} is not the first of its PID namespace; kai-brokerd starts workers so")]
    NotFirst(i32),
    /// More than one thread, or /proc is not there to tell.
    #[error("{0} threads where there must be one")]
    Threads(usize),
    /// `PR_SET_DUMPABLE` failed.
    #[error("cannot be made undumpable: {0}")]
    Dumpable(io::Error),
    /// One of the ids is root's.
    #[error("runs as root; a worker runs as its user's account alone")]
    Root,
    /// A capability is left.
    #[error("holds capabilities: {0}")]
    Capabilities(String),
    /// no_new_privs could not be set.
    #[error("cannot give up new privileges: {0}")]
    NoNewPrivileges(io::Error),
    /// A Landlock rule could not be made.
    #[error(transparent)]
    Landlock(#[from] ruleset::RulesetFailed),
    /// The policy is strict, and the kernel holds less than the oldest supported one does.
    #[error(
        "this kernel holds Landlock ABI {0}, and `confinement: strict` needs {OLDEST_LANDLOCK} (Linux 5.19): \
         boot a newer kernel with Landlock among its lsm=, or say `confinement: best-effort` in users.yaml"
    )]
    TooLittleLandlock(u8),
    /// The filters could not be installed.
    #[error(transparent)]
    Seccomp(#[from] seccomp::FilterFailed),
}

/// What was reached; the broker shows it as the worker's own word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Confined {
    /// The ABI of Landlock that is enforced, 0 for none.
    pub landlock_abi: u8,
    /// True if the kernel enforces all that was asked of Landlock.
    pub landlock_whole: bool,
    /// True if the filters are installed.
    pub seccomp: bool,
}

/// Proof that this process is the first of its PID namespace. Only its holder may end "every process".
#[derive(Debug, Clone, Copy)]
pub struct FirstProcess(());

impl FirstProcess {
    /// Looks at its own number.
    ///
    /// # Errors
    /// [`Unconfined::NotFirst`].
    pub fn prove() -> Result<Self, Unconfined> {
        match getpid().as_raw() {
            1 => Ok(Self(())),
            other => Err(Unconfined::NotFirst(other)),
        }
    }
}

/// Does all of [`STEPS`], for good.
///
/// # Errors
/// The step that failed; the worker must then end.
pub fn irrevocably_confine(
    assignment: &Assignment,
) -> Result<(FirstProcess, Confined), Unconfined> {
    let first = FirstProcess::prove()?;
    one_thread()?;
    prctl::set_dumpable(false).map_err(|error| Unconfined::Dumpable(error.into()))?;
    powerless()?;
    let landlock = ruleset::restrict(
        &paths::rules(assignment),
        assignment.connect_ports.as_deref(),
    )?;
    enough(assignment.walls.strict, landlock.abi)?;
    seccomp::install(&assignment.walls.allow, seccomp::Answers::Usual)?;
    one_thread()?;
    let confined = Confined {
        landlock_abi: landlock.abi,
        landlock_whole: landlock.whole,
        seccomp: true,
    };
    Ok((first, confined))
}

fn enough(strict: bool, landlock_abi: u8) -> Result<(), Unconfined> {
    if strict && landlock_abi < OLDEST_LANDLOCK {
        return Err(Unconfined::TooLittleLandlock(landlock_abi));
    }
    Ok(())
}

fn one_thread() -> Result<(), Unconfined> {
    match std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count) {
        1 => Ok(()),
        count => Err(Unconfined::Threads(count)),
    }
}

/// The broker has done all of it; this is the worker's own look.
fn powerless() -> Result<(), Unconfined> {
    let (Ok(uids), Ok(gids)) = (getresuid(), getresgid()) else {
        return Err(Unconfined::Root);
    };
    let any_root = [uids.real, uids.effective, uids.saved]
        .iter()
        .any(|id| id.is_root())
        || [gids.real, gids.effective, gids.saved]
            .iter()
            .any(|id| id.as_raw() == 0);
    if any_root {
        return Err(Unconfined::Root);
    }
    for set in [
        CapSet::Effective,
        CapSet::Permitted,
        CapSet::Inheritable,
        CapSet::Ambient,
    ] {
        match caps::read(None, set) {
            Ok(held) if held.is_empty() => {}
            Ok(held) => return Err(Unconfined::Capabilities(format!("{set:?} {held:?}"))),
            Err(error) => return Err(Unconfined::Capabilities(error.to_string())),
        }
    }
    let step = |error: nix::Error| Unconfined::NoNewPrivileges(error.into());
    prctl::set_no_new_privs().map_err(step)?;
    match prctl::get_no_new_privs().map_err(step)? {
        true => Ok(()),
        false => Err(Unconfined::NoNewPrivileges(io::Error::from(
            io::ErrorKind::Unsupported,
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_md_ends_the_launch_with_the_same_list_in_the_same_order() {
        let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../SECURITY.md");
        let text = std::fs::read_to_string(document).unwrap();
        let (list, _) = text.split_once("<!-- end of launch -->").unwrap();
        let (_, list) = list.split_once("<!-- launch -->\n").unwrap();
        let list = list.replace("\n   ", "");
        let words = |line: &str| line.split_once(". ").map(|(_, words)| words.to_owned());
        let all: Vec<String> = list.lines().filter_map(words).collect();
        assert!(all.len() > STEPS.len());
        assert_eq!(all[all.len() - STEPS.len()..], *STEPS);
    }

    #[test]
    fn strict_wants_what_the_oldest_supported_kernel_has_and_best_effort_wants_nothing() {
        for abi in 0..=8 {
            assert_eq!(enough(true, abi).is_ok(), abi >= 2, "ABI {abi}");
            assert!(enough(false, abi).is_ok());
        }
    }
}
