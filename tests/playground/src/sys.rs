//! The playground's unsafe code: what a child does between fork and exec. Only system calls happen
//! there; whatever takes memory is made ready before.

use std::{
    ffi::CStr,
    fs::File,
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::Command,
};

use nix::{
    fcntl::{OFlag, open},
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::{
        signal::{SigSet, SigmaskHow, Signal, sigprocmask},
        stat::{Mode, umask},
    },
    unistd::write,
};

/// Makes the child end when the thread that starts it does, gives it `mask` as its umask, and takes
/// back whatever signals were blocked.
///
/// prctl(2): the signal comes at the end of the *thread* that forked. Start such a child only from a
/// thread that lives as long as it is to. std applies uid and gid before this runs, which matters
/// because a change of ids clears the setting.
pub fn end_with_this_thread(command: &mut Command, mask: u32) {
    let parent = std::process::id();
    let before_exec = move || {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have ended before the line above.
        if nix::unistd::getppid().as_raw().unsigned_abs() != parent {
            return Err(io::Error::from(io::ErrorKind::BrokenPipe));
        }
        umask(Mode::from_bits_truncate(mask));
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; the closure makes
    // system calls and allocates nothing: an io::Error from an errno or a kind holds no box.
    unsafe {
        command.pre_exec(before_exec);
    }
}

/// Has the child begin in a control group of version 2 (cgroups(7)).
///
/// # Errors
/// If the group is not there.
pub fn begin_in_cgroup(command: &mut Command, cgroup: &Path) -> io::Result<()> {
    let processes = File::options()
        .write(true)
        .open(cgroup.join("cgroup.procs"))?;
    // 0 stands for the writer.
    let before_exec = move || write(&processes, b"0").map(drop).map_err(io::Error::from);
    // SAFETY: one system call on a descriptor that is open already; nothing is allocated.
    unsafe {
        command.pre_exec(before_exec);
    }
    Ok(())
}

/// Runs the child as root of a user namespace of its own, in which this account, and no other, is
/// called root. Outside it is what it was.
pub fn as_root_of_its_own(command: &mut Command) {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let maps = [
        (c"/proc/self/setgroups", "deny".to_owned()),
        (c"/proc/self/uid_map", format!("0 {uid} 1")),
        (c"/proc/self/gid_map", format!("0 {gid} 1")),
    ];
    let before_exec = move || {
        unshare(CloneFlags::CLONE_NEWUSER)?;
        for (path, line) in &maps {
            let file = open(*path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
            write(&file, line.as_bytes())?;
        }
        Ok(())
    };
    // SAFETY: as above; the strings were made before the fork, and nix takes a C string as it is.
    unsafe {
        command.pre_exec(before_exec);
    }
}

/// Lets the child fail to start where a user namespace cannot have mounts of its own.
pub fn only_with_mounts_of_its_own(command: &mut Command) {
    let before_exec = || {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&CStr>, c"/", None::<&CStr>, private, None::<&CStr>)?;
        Ok(())
    };
    // SAFETY: as above.
    unsafe {
        command.pre_exec(before_exec);
    }
}

/// A second descriptor for what process `pid` has open as `number`: root's, to speak in its name.
///
/// # Errors
/// What pidfd_open(2) or pidfd_getfd(2) answer.
pub fn descriptor_of(pid: u32, number: i32) -> io::Result<OwnedFd> {
    let made = |descriptor: libc::c_long| match i32::try_from(descriptor) {
        // SAFETY: the kernel has just made this number for us, and nobody else owns it.
        Ok(number @ 0..) => Ok(unsafe { OwnedFd::from_raw_fd(number) }),
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: both calls take numbers alone, and answer with a new descriptor or an error.
    let process = made(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: as above.
    made(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) })
}
