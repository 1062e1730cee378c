//! Ways that many attempts have in common.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::{MetadataExt, OpenOptionsExt},
            net::{SocketAddr, UnixStream},
        },
    },
    path::Path,
};

use nix::{errno::Errno, sys::signal::kill, unistd::Pid};

use crate::{
    answer::Answer,
    sys::{at, call},
};

/// Opens a file to read. What is covered by the device without content is not the file.
pub(super) fn read(path: impl AsRef<Path>) -> Answer {
    let mut options = OpenOptions::new();
    // A terminal must not become the attacker's own, and a pipe without a writer not hold it up.
    options
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    match options.open(path).and_then(|file| file.metadata()) {
        Ok(found) => Answer::open_if(found.rdev() != libc::makedev(1, 3), "covered"),
        Err(error) => Answer::refused(&error),
    }
}

/// Opens a file to write, without changing it.
pub(super) fn write(path: impl AsRef<Path>) -> Answer {
    let mut options = OpenOptions::new();
    options
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    options.open(path).into()
}

/// Makes a file, and removes it again.
pub(super) fn make(path: impl AsRef<Path>) -> Answer {
    let made = File::create_new(&path);
    if made.is_ok() {
        let _ = fs::remove_file(&path);
    }
    made.into()
}

/// Lists a directory; an empty one is what a wall leaves of it.
pub(super) fn list(path: impl AsRef<Path>) -> Answer {
    match fs::read_dir(path) {
        Ok(entries) => Answer::open_if(entries.count() > 0, "empty"),
        Err(error) => Answer::refused(&error),
    }
}

/// Connects to a socket that has a path.
pub(super) fn connect(path: impl AsRef<Path>) -> Answer {
    UnixStream::connect(path).into()
}

/// Connects to a socket that has an abstract name (unix(7)).
pub(super) fn connect_abstract(name: &str) -> Answer {
    SocketAddr::from_abstract_name(name)
        .and_then(|address| UnixStream::connect_addr(&address))
        .into()
}

/// Asks whether a signal could be sent, and sends none.
pub(super) fn signal(process: i32) -> Answer {
    with_process(process, |process| kill(Pid::from_raw(process), None).into())
}

/// Does `with` to a process, if it is known.
pub(super) fn with_process(process: i32, with: impl Fn(i32) -> Answer) -> Answer {
    if process == 0 {
        Answer::Nothing("no such process runs on this host".to_owned())
    } else {
        with(process)
    }
}

/// Attaches to a process, and lets it go.
pub(super) fn trace(process: i32) -> Answer {
    with_process(process, |process| {
        // SEIZE does not stop it.
        let seized = call(
            libc::SYS_ptrace,
            [libc::PTRACE_SEIZE.into(), process.into()],
        );
        let _ = call(
            libc::SYS_ptrace,
            [libc::PTRACE_DETACH.into(), process.into()],
        );
        seized.into()
    })
}

/// Asks to read a process's memory. Whoever may is told that nothing is mapped at 0.
pub(super) fn memory(process: i32) -> Answer {
    with_process(process, |process| {
        let buffer = [0_u8; 8];
        let local = libc::iovec {
            iov_base: buffer.as_ptr().cast_mut().cast(),
            iov_len: buffer.len(),
        };
        let remote = libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: buffer.len(),
        };
        let arguments = [process.into(), at(&local), 1, at(&remote), 1, 0];
        reached(
            call(libc::SYS_process_vm_readv, arguments),
            &[Errno::EFAULT],
        )
    })
}

/// Takes a descriptor of another process.
pub(super) fn take_descriptor(process: i32) -> Answer {
    with_process(process, |process| {
        match call(libc::SYS_pidfd_open, [process.into(), 0]) {
            Ok(pidfd) => call(libc::SYS_pidfd_getfd, [pidfd, 0, 0]).into(),
            Err(error) => Answer::refused(&error),
        }
    })
}

/// Open also if the kernel answers one of these: it has gone past everything that says who may, and found
/// fault with what it was given.
pub(super) fn reached<T>(result: io::Result<T>, faults: &[Errno]) -> Answer {
    match result {
        Err(error)
            if error
                .raw_os_error()
                .is_some_and(|number| faults.contains(&Errno::from_raw(number))) =>
        {
            Answer::Open("got as far as its arguments".to_owned())
        }
        other => other.into(),
    }
}
