//! What the broker keeps of root's capabilities (capabilities(7)).

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};

/// The capabilities that launching and stopping workers takes, with the reason for each.
const KEPT: [(Capability, &str); 7] = [
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
    (
        Capability::CAP_NET_ADMIN,
        "bring the loopback of a worker's own network up; not in force but in that child",
    ),
];

/// Drops every capability but those in the table, from every set, and takes those that only a child needs
/// out of force. There is no way back: the bounding set loses them too.
///
/// # Errors
/// What capset(2) or prctl(2) answers, as when the process is not root's.
pub fn keep_only_needed() -> Result<(), CapsError> {
    let mut kept: CapsHashSet = KEPT.iter().map(|(capability, _)| *capability).collect();
    if !caps::has_cap(None, CapSet::Permitted, Capability::CAP_NET_ADMIN)? {
        // Only `network: none` needs it, and its launch says so.
        kept.remove(&Capability::CAP_NET_ADMIN);
    }
    caps::clear(None, CapSet::Ambient)?;
    for capability in caps::read(None, CapSet::Bounding)?.difference(&kept) {
        caps::drop(None, CapSet::Bounding, *capability)?;
    }
    caps::clear(None, CapSet::Inheritable)?;
    let mut in_force = kept.clone();
    in_force.remove(&Capability::CAP_NET_ADMIN);
    caps::set(None, CapSet::Effective, &in_force)?;
    caps::set(None, CapSet::Permitted, &kept)
}
