//! From the fork to the exec of one worker, without a privilege: what the broker does by being root,
//! as far as a user namespace can do it. The steps come in the broker's order.
//!
//! A mount namespace of its own hides everything that is hidden from a broker's worker, and the
//! account's real home as well: an agent that is only being tried has no business there.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
};

use caps::CapSet;
use kai_brokerd::{
    launch::Launched,
    sys::{self, Side},
};
use kai_proto::{
    codec,
    worker_broker::{Assignment, CONNECTION_FD, CONTROL_FD, KEY_FD},
};
use nix::{
    fcntl::{OFlag, open},
    mount::{MsFlags, mount},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        resource::{Resource, setrlimit},
        signal::{SigSet, SigmaskHow, Signal, sigprocmask},
        socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socketpair},
        stat::{Mode, umask},
        statvfs::{FsFlags, statvfs},
    },
    unistd::{Gid, Uid, getegid, geteuid, pipe2, setsid},
};

/// Namespaces that every worker has of its own.
const NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;
/// Exit status of a child that failed before its exec, after it said why on standard error.
const FAILED: i32 = 70;
/// Descriptors are moved above this number before they are placed.
const FREE: RawFd = 16;

/// What a launch needs.
#[derive(Debug)]
pub struct Order<'a> {
    /// What the worker is to know.
    pub assignment: &'a Assignment,
    /// Its program.
    pub program: &'a Path,
    /// Directories that it does not see, each an empty one.
    pub hidden: &'a [PathBuf],
    /// Directories below those that it sees, and may write.
    pub own: &'a [PathBuf],
    /// Directories below those that it sees, and may not write.
    pub readable: &'a [PathBuf],
    /// The gateway's connection.
    pub connection: &'a UnixStream,
    /// The opened file with the agent's key.
    pub key: Option<OwnedFd>,
}

/// Forks a worker and returns at once. The caller has one thread.
///
/// # Errors
/// What failed before the fork or at it.
pub fn start(order: &Order<'_>) -> io::Result<Launched> {
    let (ours, theirs) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?;
    let assignment = codec::encode(order.assignment).map_err(io::Error::other)?;
    send(ours.as_raw_fd(), &assignment, MsgFlags::MSG_DONTWAIT)?;
    // Stays empty: a launch that fails says so on standard error. It closes at the exec.
    let (status, _open_until_exec) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    let account = (geteuid(), getegid());
    match sys::fork_into(u64::from(NAMESPACES.unsigned_abs()), None)? {
        Side::Parent { pid, pidfd } => Ok(Launched {
            pid,
            pidfd,
            control: ours,
            status: File::from(status),
            cgroup: None,
        }),
        Side::Child => {
            // Its copy of the launcher's end would hide that the launcher is gone.
            drop(ours);
            let failed = become_worker(order, account, &theirs);
            let _ = writeln!(io::stderr(), "the launch of a worker failed: {failed}");
            sys::exit_now(FAILED);
        }
    }
}

/// The child's way to the worker's program. Returns only if a step failed.
fn become_worker(order: &Order<'_>, (uid, gid): (Uid, Gid), control: &OwnedFd) -> io::Error {
    let prepared = (|| {
        keep_the_account(uid, gid).map_err(at("mapping the account"))?;
        let program = open(
            order.program,
            OFlag::O_PATH | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
        .map_err(io::Error::from)
        .map_err(at("opening the program"))?;
        arrange(order)?;
        limit().map_err(at("limits"))?;
        give_up(control).map_err(at("giving up privileges"))?;
        std::env::set_current_dir(&order.assignment.home).map_err(at("entering the home"))?;
        place(order, control, program).map_err(at("placing descriptors"))
    })();
    match prepared {
        Ok(program) => at("exec")(sys::execute(&program, c"kai-worker")),
        Err(failed) => failed,
    }
}

fn at(step: &str) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{step}: {error}"))
}

/// The account has the same number inside the user namespace as outside: `id` tells the truth.
fn keep_the_account(uid: Uid, gid: Gid) -> io::Result<()> {
    // user_namespaces(7): without privileges the groups have to be given up before gid_map is taken.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

/// What the worker sees of the file system.
fn arrange(order: &Order<'_>) -> io::Result<()> {
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
        .map_err(io::Error::from)
        .map_err(at("making mounts private"))?;
    // Before anything is hidden: what is opened now can be bound again afterwards.
    let mut kept = Vec::new();
    for (paths, read_only) in [(order.own, false), (order.readable, true)] {
        for path in paths {
            let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let opened = open(path, flags, Mode::empty())
                .map_err(io::Error::from)
                .map_err(at(&format!("opening {}", path.display())))?;
            kept.push((path, opened, read_only));
        }
    }
    for directory in order.hidden.iter().filter(|directory| directory.is_dir()) {
        hide(directory).map_err(at(&format!("hiding {}", directory.display())))?;
    }
    for (path, opened, read_only) in &kept {
        keep(path, opened, *read_only).map_err(at(&format!("keeping {}", path.display())))?;
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(
        Some("proc"),
        "/proc",
        Some("proc"),
        flags,
        Some("hidepid=invisible"),
    )
    .map_err(io::Error::from)
    .map_err(at("mounting /proc"))
}

/// Puts an empty directory in its place, which is the worker's alone.
fn hide(directory: &Path) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let options = Some("mode=0755,size=1g");
    Ok(mount(
        Some("tmpfs"),
        directory,
        Some("tmpfs"),
        flags,
        options,
    )?)
}

/// Makes what is below a hidden directory visible again.
fn keep(path: &Path, opened: &OwnedFd, read_only: bool) -> io::Result<()> {
    let source = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
    fs::create_dir_all(path)?;
    let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(&source), path, None::<&str>, bind, None::<&str>)?;
    if !read_only {
        return Ok(());
    }
    // mount_namespaces(7): what the mount was made with is locked, and has to be said again.
    let locked = statvfs(path)?.flags();
    let mut flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    flags.set(MsFlags::MS_NOSUID, locked.contains(FsFlags::ST_NOSUID));
    flags.set(MsFlags::MS_NODEV, locked.contains(FsFlags::ST_NODEV));
    flags.set(MsFlags::MS_NOEXEC, locked.contains(FsFlags::ST_NOEXEC));
    Ok(mount(
        None::<&str>,
        path,
        None::<&str>,
        flags,
        None::<&str>,
    )?)
}

fn limit() -> io::Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    umask(Mode::from_bits_truncate(0o077));
    setsid()?;
    sys::reset_signal_dispositions();
    Ok(sigprocmask(
        SigmaskHow::SIG_SETMASK,
        Some(&SigSet::empty()),
        None,
    )?)
}

/// Gives up what the user namespace gave, for good, and ties the worker's life to the launcher's.
fn give_up(control: &OwnedFd) -> io::Result<()> {
    for set in [CapSet::Ambient, CapSet::Bounding, CapSet::Inheritable] {
        caps::clear(None, set).map_err(|error| io::Error::other(error.to_string()))?;
    }
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // A launcher that died before the line above has hung up.
    let mut polled = [PollFd::new(control.as_fd(), PollFlags::empty())];
    poll(&mut polled, PollTimeout::ZERO)?;
    if polled[0]
        .revents()
        .is_some_and(|events| events.contains(PollFlags::POLLHUP))
    {
        return Err(io::ErrorKind::NotConnected.into());
    }
    Ok(prctl::set_no_new_privs()?)
}

/// Puts the inherited descriptors in their places and marks all others to be closed at exec. Gives back
/// the program's.
fn place(order: &Order<'_>, control: &OwnedFd, program: OwnedFd) -> io::Result<OwnedFd> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let wanted = [
        (Some(null.as_fd()), 0),
        (Some(null.as_fd()), 1),
        (Some(order.connection.as_fd()), CONNECTION_FD),
        (Some(control.as_fd()), CONTROL_FD),
        (order.key.as_ref().map(AsFd::as_fd), KEY_FD),
    ];
    let program = sys::move_above(program.as_fd(), FREE)?;
    let mut moved = Vec::new();
    for (from, to) in wanted {
        if let Some(from) = from {
            moved.push((sys::move_above(from, FREE)?, to));
        }
    }
    sys::close_at_exec_from(3)?;
    for (from, to) in &moved {
        sys::place_descriptor(from.as_raw_fd(), *to)?;
    }
    Ok(program)
}
