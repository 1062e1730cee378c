//! The tools' own Landlock domain, within the agent's.
//!
//! It forbids nothing of files that the agent may do: the walls around both are the worker's. It is
//! there because of what every domain does by itself: a process may look into another one (ptrace(2)
//! and all of /proc that asks for the same right: mem, environ, fd, maps, cwd, exe) only if that is in
//! its own domain or in one within it. The agent is in neither.

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, PathFdError, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, Scope,
};

/// Why there is no domain. Not that the kernel has no Landlock: the worker has said so already, and
/// whether that is good enough was decided before it started an agent.
#[derive(Debug, thiserror::Error)]
pub enum NotEntered {
    /// The root directory cannot be opened.
    #[error(transparent)]
    Root(#[from] PathFdError),
    /// The kernel refuses; E2BIG after sixteen domains within each other.
    #[error(transparent)]
    Kernel(#[from] RulesetError),
}

/// Enters it, for good.
///
/// # Errors
/// [`NotEntered`].
pub fn enter() -> Result<(), NotEntered> {
    // A ruleset has to handle something: no account makes block devices. Moving files between
    // directories is what every ruleset forbids that does not name it (Landlock's documentation,
    // "LANDLOCK_ACCESS_FS_REFER"), so it is named, and allowed everywhere.
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::MakeBlock | AccessFs::Refer)?
        // From ABI 6 on: no signals to the agent. Nor to what an earlier command of the agent left
        // running, which is in a domain of its own; the agent itself ends that.
        .scope(Scope::from_all(ABI::V6) & Scope::Signal)?
        .create()?
        .add_rule(PathBeneath::new(PathFd::new("/")?, AccessFs::Refer))?
        .restrict_self()?;
    Ok(())
}
