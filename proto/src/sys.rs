//! The one system call that no safe library offers. The only unsafe code of this crate.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// `SO_PASSRIGHTS` of Linux 6.16, which libc does not name yet.
const SO_PASSRIGHTS: libc::c_int = 83;

/// Whether the peer of this Unix socket may send descriptors.
///
/// # Errors
/// `ENOPROTOOPT` below Linux 6.16.
pub(crate) fn set_pass_rights(socket: BorrowedFd<'_>, pass: bool) -> io::Result<()> {
    let value = libc::c_int::from(pass);
    // SAFETY: the option takes one int, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSRIGHTS,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
