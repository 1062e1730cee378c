//! Limits, umask, session and signals.

use nix::{
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal::{SigSet, SigmaskHow, sigprocmask},
        stat::{Mode, umask},
    },
    unistd::setsid,
};

use super::{Failed, Step};
use crate::sys;

/// Open files: the soft limit that programs with select(2) survive, and what others may raise it to.
const FILES: (u64, u64) = (1024, 65_536);

/// Sets them for this process and all that it starts.
///
/// # Errors
/// [`Step::Limits`] with the kernel's answer.
pub(super) fn set() -> Result<(), Failed> {
    let step = |error: nix::Error| (Step::Limits, error.into());
    // A core would hold the agent's key.
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(step)?;
    // The broker has no CAP_SYS_RESOURCE: a hard limit can only go down.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(step)?;
    let hard = hard.min(FILES.1);
    setrlimit(Resource::RLIMIT_NOFILE, FILES.0.min(hard), hard).map_err(step)?;
    // What an agent makes is its user's alone until the user says otherwise.
    umask(Mode::from_bits_truncate(0o077));
    setsid().map_err(step)?;
    sys::reset_signal_dispositions();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).map_err(step)
}
