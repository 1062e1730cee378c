//! The system calls that no safe library offers. The only unsafe code of the probe.

use std::{io, os::fd::RawFd};

use nix::unistd::Pid;

/// Which side of a fork this is.
pub(crate) enum Side {
    /// The child.
    Child,
    /// The parent, with the child's id.
    Parent(Pid),
}

/// fork(2), of a process with one thread.
pub(crate) fn fork() -> nix::Result<Side> {
    // SAFETY: the probe has one thread, so the child's heap and locks are in a known state.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Child => Ok(Side::Child),
        nix::unistd::ForkResult::Parent { child } => Ok(Side::Parent(child)),
    }
}

/// Ends the process at once.
pub(crate) fn exit_now() -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(0) }
}

/// A pointer as an argument of [`call`].
pub(crate) fn at<T: ?Sized>(to: &T) -> i64 {
    std::ptr::from_ref(to).cast::<u8>() as i64
}

/// Any system call, in a process that exists for this call alone.
///
/// # Errors
/// What the kernel answers.
pub(crate) fn call<const N: usize>(number: i64, arguments: [i64; N]) -> io::Result<i64> {
    let argument = |at: usize| arguments.get(at).copied().unwrap_or(0);
    // SAFETY: pointers among the arguments come from `at` and outlive the call. What a call could still
    // break is this process, which ends after it.
    let result = unsafe {
        libc::syscall(
            number,
            argument(0),
            argument(1),
            argument(2),
            argument(3),
            argument(4),
            argument(5),
        )
    };
    match result {
        -1 => Err(io::Error::last_os_error()),
        other => Ok(other),
    }
}

/// ioctl(2) with a number, or a pointer from [`at`], as its argument.
///
/// # Errors
/// What the kernel answers.
pub(crate) fn ioctl(descriptor: RawFd, request: u64, argument: i64) -> io::Result<i64> {
    call(
        libc::SYS_ioctl,
        [descriptor.into(), request as i64, argument],
    )
}

/// getpid(2) as a 32-bit program calls it; none on other processors.
pub(crate) fn getpid_as_32_bit() -> Option<i32> {
    #[cfg(target_arch = "x86_64")]
    {
        let result: i32;
        // SAFETY: the call takes no argument and changes no memory; the registers that the kernel may
        // change are named.
        unsafe {
            std::arch::asm!(
                "int 0x80",
                inlateout("eax") 20 => result,
                out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            );
        }
        Some(result)
    }
    #[cfg(not(target_arch = "x86_64"))]
    None
}
