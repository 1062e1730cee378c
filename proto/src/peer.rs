//! Who is at the other end of a Unix socket, as the kernel says (`SO_PEERCRED`, unix(7)).
//!
//! True for connections accepted from a listener: the kernel recorded the peer at its connect(2). On
//! a socketpair it names whoever made the pair and proves nothing.

use std::os::fd::AsFd;

use nix::{
    sys::socket::{getsockopt, sockopt},
    unistd::{Gid, Pid, Uid},
};

/// The peer's ids at the time of its connect(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerCredentials {
    /// Its process; may have ended since.
    pub pid: Pid,
    /// Its effective user.
    pub uid: Uid,
    /// Its effective group.
    pub gid: Gid,
}

/// Asks the kernel for the peer of a connected socket.
///
/// # Errors
/// What getsockopt(2) answers.
pub fn credentials(socket: &impl AsFd) -> Result<PeerCredentials, nix::Error> {
    let found = getsockopt(socket, sockopt::PeerCredentials)?;
    Ok(PeerCredentials {
        pid: Pid::from_raw(found.pid()),
        uid: Uid::from_raw(found.uid()),
        gid: Gid::from_raw(found.gid()),
    })
}

/// Has the kernel refuse descriptors that the peer would send along with its bytes (`SO_PASSRIGHTS`,
/// Linux 6.16), also those of connections accepted from a listener.
///
/// Without it they are dropped by the plain read(2) of the receiver, and closing somebody else's
/// descriptor can block: a TCP socket with `SO_LINGER` set and unsent data does. An older kernel does
/// not know the option, and SECURITY.md says what that leaves open.
pub fn refuse_descriptors(socket: &impl AsFd) {
    let _ = crate::sys::set_pass_rights(socket.as_fd(), false);
}
