//! The system calls that no safe library offers. The only unsafe code of the broker.

use std::{
    ffi::CStr,
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    ptr,
    time::Duration,
};

use nix::unistd::Pid;

/// Which side of a fork this is.
#[derive(Debug)]
pub enum Side {
    /// The child, with a copy of everything.
    Child,
    /// The parent.
    Parent {
        /// The child's process id.
        pid: Pid,
        /// A descriptor that stands for the child, also when its id is used again.
        pidfd: OwnedFd,
    },
}

/// Begins the child in the cgroup of [`libc::clone_args::cgroup`] (Linux 5.7); libc cuts it to an int.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Forks into the new namespaces of `flags` (`CLONE_NEW*`), with clone3(2) of Linux 5.3, and into a control
/// group of version 2 if there is one: no moment passes in which the child is in the broker's.
///
/// The caller has exactly one thread; the launch asserts it. Only so is the child's copy of the heap
/// and of every lock in a known state, and ordinary code may run in it.
///
/// # Errors
/// What clone3(2) answers.
pub fn fork_into(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Side> {
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is plain data, for which all zeros is valid and means "nothing asked for".
    let mut arguments: libc::clone_args = unsafe { MaybeUninit::zeroed().assume_init() };
    arguments.flags = flags | libc::CLONE_PIDFD as u64;
    arguments.pidfd = ptr::from_mut(&mut pidfd) as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd().unsigned_abs().into();
    }
    // SAFETY: without CLONE_VM the child has its own copy of the address space and goes on from here
    // on its own copy of this stack, as after fork(2); the arguments outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            ptr::from_mut(&mut arguments),
            size_of_val(&arguments),
        )
    };
    match result {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Side::Child),
        pid => {
            // SAFETY: on success the kernel has put a fresh descriptor there, which nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Side::Parent {
                pid: Pid::from_raw(pid as i32),
                pidfd,
            })
        }
    }
}

/// Executes the program that `program` stands for, with this one argument and no environment
/// (execveat(2) with `AT_EMPTY_PATH`). Returns only if that failed.
pub fn execute(program: &impl AsFd, name: &CStr) -> io::Error {
    let arguments = [name.as_ptr(), ptr::null()];
    let environment: [*const libc::c_char; 1] = [ptr::null()];
    // SAFETY: both arrays end with a null pointer and, like the strings, outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_fd().as_raw_fd(),
            c"".as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    io::Error::last_os_error()
}

/// Makes `descriptor` also known as `number`, open across exec, replacing what was there.
///
/// # Errors
/// What dup2(2) answers.
pub fn place_descriptor(descriptor: RawFd, number: RawFd) -> io::Result<()> {
    // SAFETY: dup2 touches descriptors only; the child that calls this owns all of its numbers and is
    // about to exec.
    match unsafe { libc::dup2(descriptor, number) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Duplicates a descriptor to a free number from `lowest` up, closed at exec.
///
/// # Errors
/// What fcntl(2) answers.
pub fn move_above(descriptor: BorrowedFd<'_>, lowest: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC touches descriptors only.
    match unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_DUPFD_CLOEXEC, lowest) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: the number is fresh, and nobody else owns it.
        number => Ok(unsafe { OwnedFd::from_raw_fd(number) }),
    }
}

/// Marks every descriptor from `first` up to be closed at exec (close_range(2), Linux 5.11).
///
/// # Errors
/// What close_range(2) answers.
pub fn close_at_exec_from(first: RawFd) -> io::Result<()> {
    // SAFETY: only flags of descriptors change.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first as libc::c_uint,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Gives every signal its default disposition, as execve(2) does not for ignored ones.
pub fn reset_signal_dispositions() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL runs no code of ours. It fails for KILL and STOP, and for the two numbers
        // that the C library keeps to itself; nothing is lost by that.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Ends the process without running anything that the parent registered for its own end.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(status) }
}

/// Sends `SIGKILL` through a pidfd (Linux 5.1): never to a later process of the same number.
///
/// # Errors
/// What pidfd_send_signal(2) answers; `ESRCH` once the process is reaped.
pub fn kill(pidfd: &impl AsFd) -> io::Result<()> {
    // SAFETY: a null siginfo is documented to act like kill(2).
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            libc::SIGKILL,
            ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Brings a network interface of this namespace up (netdevice(7)).
///
/// # Errors
/// What socket(2) or ioctl(2) answers.
pub fn raise_interface(name: &str) -> io::Result<()> {
    let socket = nix::sys::socket::socket(
        nix::sys::socket::AddressFamily::Inet,
        nix::sys::socket::SockType::Datagram,
        nix::sys::socket::SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // SAFETY: ifreq is plain data, for which all zeros is valid.
    let mut request: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
    // One byte stays 0, as the name's end.
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..room].iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// A copy of the mount that `at` is in, from `at` down, with what is mounted below it: in no place yet
/// (open_tree(2), Linux 5.2). A descriptor, and not a path, says which: nothing can be swapped under it.
///
/// # Errors
/// What open_tree(2) answers.
pub fn clone_tree(at: &impl AsFd) -> io::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE
        | libc::OPEN_TREE_CLOEXEC
        | (libc::AT_EMPTY_PATH | libc::AT_RECURSIVE) as libc::c_uint;
    // SAFETY: the path is a constant string, and the call makes nothing but a descriptor.
    let tree = unsafe {
        libc::syscall(
            libc::SYS_open_tree,
            at.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
        )
    };
    match RawFd::try_from(tree) {
        Ok(tree) if tree >= 0 => {
            // SAFETY: the number is fresh, and nobody else owns it.
            Ok(unsafe { OwnedFd::from_raw_fd(tree) })
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Adds `MOUNT_ATTR_*` to a copy of [`clone_tree`] and to what is mounted below it; what it has already, it
/// keeps (mount_setattr(2), Linux 5.12).
///
/// # Errors
/// What mount_setattr(2) answers.
pub fn add_attributes(tree: &impl AsFd, attributes: u64) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: attributes,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: path and attributes outlive the call, which is told the attributes' size.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            (libc::AT_EMPTY_PATH | libc::AT_RECURSIVE) as libc::c_uint,
            &raw const attributes,
            size_of_val(&attributes),
        )
    };
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Mounts a copy of [`clone_tree`] on what `at` stands for (move_mount(2), Linux 5.2).
///
/// # Errors
/// What move_mount(2) answers.
pub fn mount_on(tree: &impl AsFd, at: &impl AsFd) -> io::Result<()> {
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: both paths are constant strings.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            at.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
        )
    };
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Leaves the session keyring that was inherited for an empty one (keyctl(2)). A kernel without keyrings
/// has nothing to leave.
///
/// # Errors
/// What keyctl(2) answers.
pub fn own_session_keyring() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring.
    let joined = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            JOIN_SESSION_KEYRING,
            ptr::null::<libc::c_char>(),
        )
    };
    match io::Error::last_os_error() {
        error if joined == -1 && error.raw_os_error() != Some(libc::ENOSYS) => Err(error),
        _ => Ok(()),
    }
}

/// How a child ended and what it and its reaped children took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// The exit status, or the negated number of the signal.
    pub status: i32,
    /// Processor time in user and kernel mode.
    pub cpu: Duration,
    /// Largest resident set, in KiB.
    pub peak_kib: i64,
}

/// Reaps `pid` if it has ended (wait4(2) with `WNOHANG`).
///
/// # Errors
/// What wait4(2) answers.
pub fn reap(pid: Pid) -> io::Result<Option<Ended>> {
    let mut status = 0;
    // SAFETY: rusage is plain data, for which all zeros is valid.
    let mut usage: libc::rusage = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: both pointers are to live locals of the right type.
    match unsafe { libc::wait4(pid.as_raw(), &raw mut status, libc::WNOHANG, &raw mut usage) } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        _ => {
            let time = |t: libc::timeval| {
                Duration::from_secs(t.tv_sec.unsigned_abs())
                    + Duration::from_micros(t.tv_usec.unsigned_abs())
            };
            Ok(Some(Ended {
                status: if libc::WIFSIGNALED(status) {
                    -libc::WTERMSIG(status)
                } else {
                    libc::WEXITSTATUS(status)
                },
                cpu: time(usage.ru_utime) + time(usage.ru_stime),
                peak_kib: usage.ru_maxrss,
            }))
        }
    }
}

/// The kernel's Landlock ABI, 0 for none: landlock_create_ruleset(2) with its version flag.
#[must_use]
pub fn landlock_abi() -> u8 {
    const VERSION: libc::c_uint = 1;
    // SAFETY: with the version flag the kernel takes a null pointer of size 0 and makes nothing.
    let abi = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            ptr::null::<libc::c_void>(),
            0_usize,
            VERSION,
        )
    };
    u8::try_from(abi).unwrap_or(0)
}

/// Bytes that were sent on a Unix socket and that the other side has not read (`SIOCOUTQ`).
///
/// # Errors
/// What ioctl(2) answers.
pub fn unread_by_peer(socket: &impl AsFd) -> io::Result<i32> {
    let mut unread: libc::c_int = 0;
    // SAFETY: SIOCOUTQ, of the same number as TIOCOUTQ, stores one int.
    let result =
        unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut unread) };
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(unread)
    }
}
