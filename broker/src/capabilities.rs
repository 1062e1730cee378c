//! What the broker keeps of root's capabilities (capabilities(7)).

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};

/// The capabilities that launching and stopping workers takes, with the reason for each.
const KEPT: [(Capability, &str); 6] = [
    (Capability::CAP_SETUID, "become the user's account"),
    (Capability::CAP_SETGID, "take the account's groups"),
    (Capability::CAP_SETPCAP, "empty the worker's bounding set"),
    (Capability::CAP_SYS_ADMIN, "make namespaces and mounts"),
    (
        Capability::CAP_KILL,
        "stop a worker, and let the kernel stop it when the broker dies",
    ),
    (
        Capability::CAP_CHOWN,
        "give a user the directory of the worker's state, the gateway its socket",
    ),
];

/// Drops every capability but those in the table, from every set. There is no way back: the bounding
/// set loses them too.
///
/// # Errors
/// What capset(2) or prctl(2) answers, as when the process is not root's.
pub fn keep_only_needed() -> Result<(), CapsError> {
    let kept: CapsHashSet = KEPT.iter().map(|(capability, _)| *capability).collect();
    caps::clear(None, CapSet::Ambient)?;
    for capability in caps::read(None, CapSet::Bounding)?.difference(&kept) {
        caps::drop(None, CapSet::Bounding, *capability)?;
    }
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)
}
