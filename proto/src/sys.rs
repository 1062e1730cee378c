//! What no safe library offers. The only unsafe code of this crate.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// Takes the descriptor of this number, which the process was started with and which nobody has taken yet.
///
/// # Errors
/// `EBADF` if there is none.
pub(crate) fn take_descriptor(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: asks about a number, whatever it stands for.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and the caller takes each number once, before anything else is opened by it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

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
