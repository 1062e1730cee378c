//! The system calls that no safe library offers. The only unsafe code of the worker.

use std::{
    fs::File,
    io::{self, IoSliceMut},
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

use landlock::RulesetCreated;
use nix::{
    cmsg_space,
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::socket::{ControlMessageOwned, MsgFlags, recvmsg},
    unistd::Pid,
};

use tokio::io::{Interest, unix::AsyncFd};

use crate::agent::tree::Reaped;

/// A file that the runtime tells to be readable. Must be called within a runtime.
///
/// # Errors
/// If it cannot be watched, as plain files cannot (epoll_ctl(2)).
pub fn watched_file(file: File) -> io::Result<AsyncFd<File>> {
    // SAFETY: a File keeps its descriptor as long as it lives, and gives the same one each time.
    let watched = unsafe { AsyncFd::register_with_interest(file, Interest::READABLE) };
    Ok(watched?)
}

/// Takes ownership of the descriptors that the broker left open across the exec, and has them closed
/// at the next one, so that the agent inherits none. None for each that is not open.
///
/// # Errors
/// On a second call: they have their owner then.
pub fn inherited<const N: usize>(numbers: [RawFd; N]) -> io::Result<[Option<OwnedFd>; N]> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Err(io::Error::from(io::ErrorKind::AlreadyExists));
    }
    Ok(numbers.map(|number| {
        // SAFETY: F_GETFD touches nothing, and answers EBADF for a number that is not open.
        if unsafe { libc::fcntl(number, libc::F_GETFD) } == -1 {
            return None;
        }
        // SAFETY: the number is open, and nothing else in this process owns it: it was inherited,
        // this is called before anything opens a descriptor, and only once.
        let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
        fcntl(&descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
        Some(descriptor)
    }))
}

/// One datagram with at most one descriptor, without waiting: its length and the descriptor.
///
/// A length of 0 means that the other side is gone.
///
/// # Errors
/// What recvmsg(2) answers; `WouldBlock` if nothing is there.
pub fn receive_with_descriptor(
    socket: &impl AsFd,
    bytes: &mut [u8],
) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = cmsg_space!([RawFd; 1]);
    let mut slices = [IoSliceMut::new(bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let raw = socket.as_fd().as_raw_fd();
    let message = recvmsg::<()>(raw, &mut slices, Some(&mut space), flags)?;
    let mut received = Vec::new();
    // Alignment makes room for a second descriptor beside the one that is meant; whatever came is
    // owned here, and what is not handed out is closed.
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            for number in numbers {
                // SAFETY: the kernel has just made this number for us, and nobody else owns it.
                received.push(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
    }
    let length = message.bytes;
    let only = if received.len() == 1 {
        received.pop()
    } else {
        None
    };
    Ok((length, only))
}

/// Has the program that `command` starts begin in `domain`.
pub fn confine_at_exec(command: &mut Command, domain: RulesetCreated) {
    let mut domain = Some(domain);
    let confine = move || match domain.take() {
        Some(domain) => domain
            .restrict_self()
            .map(drop)
            .map_err(|_| io::Error::last_os_error()),
        None => Err(io::Error::from(io::ErrorKind::AlreadyExists)),
    };
    // SAFETY: between fork and exec the child may only do what is safe in a signal handler, because
    // another thread may have held a lock; entering a domain is two calls of the kernel.
    unsafe {
        command.pre_exec(confine);
    }
}

/// Has the program that `command` starts begin in a session of its own, whose terminal is its standard input.
pub fn own_terminal_at_exec(command: &mut Command) {
    let own = || {
        nix::unistd::setsid()?;
        // SAFETY: TIOCSCTTY takes no pointer, and an argument of 0 takes the terminal from nobody.
        match unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    // SAFETY: between fork and exec the child may only do what is safe in a signal handler; this is two calls
    // of the kernel.
    unsafe {
        command.pre_exec(own);
    }
}

/// Looks once, without waiting, for an ended child among `which`, as waitpid(2) takes it.
///
/// nix's own waitpid knows no real-time signals, and forgets the child that one of them ended.
#[must_use]
pub fn reap(which: Pid) -> Reaped {
    let mut status = 0;
    loop {
        // SAFETY: the pointer is to a live local of the right type.
        match unsafe { libc::waitpid(which.as_raw(), &raw mut status, libc::WNOHANG) } {
            0 => return Reaped::Running,
            -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            -1 => return Reaped::NoneLeft,
            pid => {
                let status = if libc::WIFSIGNALED(status) {
                    -libc::WTERMSIG(status)
                } else {
                    libc::WEXITSTATUS(status)
                };
                return Reaped::Ended {
                    pid: Pid::from_raw(pid),
                    status,
                };
            }
        }
    }
}

/// Makes a call by its number, and gives its errno, 0 if it had none.
#[cfg(test)]
pub fn errno_of(call: i64, arguments: [u64; 6]) -> i32 {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: only for calls that a filter denies before the kernel looks at any argument.
    let answered = unsafe { libc::syscall(call, a, b, c, d, e, f) };
    if answered == -1 {
        io::Error::last_os_error().raw_os_error().unwrap_or(0)
    } else {
        0
    }
}
