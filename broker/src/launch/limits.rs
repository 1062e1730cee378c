//! Limits, umask, session and signals.
//!
//! What a cgroup holds, it holds for all that a worker starts together. Without one, rlimits hold the rest of
//! it badly: processes are counted for the whole account, and memory is not limited at all. RLIMIT_AS counts
//! what is reserved, and the agent's runtime reserves more than any host has; RLIMIT_RSS does nothing.

use nix::{
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal::{SigSet, SigmaskHow, sigprocmask},
        stat::{Mode, umask},
    },
    unistd::setsid,
};

use super::{Failed, Step};
use crate::{policy::Limits, sys};

/// Open files: the soft limit, which programs with select(2) survive.
const FILES: u64 = 1024;

/// Sets them for this process and all that it starts; what a cgroup holds only if there is none.
///
/// # Errors
/// [`Step::Limits`] with the kernel's answer.
pub fn set(limits: &Limits, in_cgroup: bool) -> Result<(), Failed> {
    let step = |error: nix::Error| (Step::Limits, error.into());
    // The broker has no CAP_SYS_RESOURCE: a hard limit can only go down.
    let at_most = |resource: Resource, soft: u64, hard: u64| {
        let (_, ceiling) = getrlimit(resource).map_err(step)?;
        let hard = hard.min(ceiling);
        setrlimit(resource, soft.min(hard), hard).map_err(step)
    };
    // A core would hold the agent's key.
    at_most(Resource::RLIMIT_CORE, 0, 0)?;
    at_most(Resource::RLIMIT_NOFILE, FILES, limits.files)?;
    if let Some(size) = limits.file_size {
        at_most(Resource::RLIMIT_FSIZE, size, size)?;
    }
    if !in_cgroup {
        at_most(Resource::RLIMIT_NPROC, limits.processes, limits.processes)?;
    }
    // What an agent makes is its user's alone until the user says otherwise.
    umask(Mode::from_bits_truncate(0o077));
    setsid().map_err(step)?;
    sys::reset_signal_dispositions();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).map_err(step)
}
