//! From the fork to the exec of one worker. The numbers are those of SECURITY.md, "The launch".
//!
//! | | step | where |
//! |---|---|---|
//! | 1 | the program checked, root's and nobody else's to write | [`program`] |
//! | 2 | one thread, the control socket, the assignment in it | [`start`] |
//! | 3 | fork into new PID, mount, IPC, UTS and cgroup namespaces | [`start`] |
//! | 4 | mounts private | [`mounts`] |
//! | 5 | other homes, /run and kai's own directories hidden | [`mounts`] |
//! | 6 | own /tmp, /var/tmp, /dev/shm | [`mounts`] |
//! | 7 | fresh /proc | [`mounts`] |
//! | 8 | limits, umask, session, signals | [`limits`] |
//! | 9 | ids dropped, with proof that there is no way back | [`identity`] |
//! | 10 | the end of the broker is the end of the worker | [`identity`] |
//! | 11 | no new privileges | [`identity`] |
//! | 12 | descriptors 3, 4 and 5, all others closed | [`descriptors`] |
//! | 13 | exec, with an environment of nothing | [`start`] |
//!
//! What follows, from "not dumpable" on, the worker does to itself before it has a second thread.

pub mod descriptors;
pub mod identity;
pub mod limits;
pub mod mounts;
pub mod program;

use std::{
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use kai_proto::{codec, peer, worker_broker::Assignment};
use nix::{
    fcntl::OFlag,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socketpair},
    unistd::{Pid, pipe2},
};

use crate::{
    accounts::Account,
    sys::{self, Side},
};
pub use mounts::World;
pub use program::WorkerProgram;

/// Namespaces that every worker has of its own. The network's is the host's.
const NAMESPACES: i32 = libc::CLONE_NEWPID
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;

/// Exit status of a child that failed before its exec; the reason is in the status pipe.
const FAILED: i32 = 70;

/// The step that failed, as the child reports it: one variant a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// Mounts could not be made private.
    PrivateMounts = 1,
    /// What is kept could not be opened before the rest is hidden.
    KeptPaths,
    /// Other homes, /run or kai's directories could not be hidden.
    Hidden,
    /// /tmp, /var/tmp or /dev/shm could not be made.
    OwnTemporary,
    /// /proc could not be mounted.
    FreshProc,
    /// Limits, umask, session or signals.
    Limits,
    /// The bounding or ambient set could not be emptied.
    Capabilities,
    /// The groups could not be set.
    Groups,
    /// The ids could not be set.
    Ids,
    /// Root could be had back.
    WayBack,
    /// The signal at the broker's death could not be set, or the broker is already gone.
    ParentDeath,
    /// no_new_privs could not be set.
    NoNewPrivileges,
    /// The descriptors could not be put in their places.
    Descriptors,
    /// The program could not be executed.
    Exec,
}

impl Step {
    const ALL: [Self; 14] = [
        Self::PrivateMounts,
        Self::KeptPaths,
        Self::Hidden,
        Self::OwnTemporary,
        Self::FreshProc,
        Self::Limits,
        Self::Capabilities,
        Self::Groups,
        Self::Ids,
        Self::WayBack,
        Self::ParentDeath,
        Self::NoNewPrivileges,
        Self::Descriptors,
        Self::Exec,
    ];
}

/// Why there is no worker.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The worker's program is not to be trusted.
    #[error(transparent)]
    Program(#[from] program::Untrusted),
    /// There is more than one thread, so a fork would copy locks in an unknown state.
    #[error("the broker has {0} threads where it must have one")]
    Threads(usize),
    /// The assignment is longer than a control frame.
    #[error("the worker's assignment cannot be written: {0}")]
    Assignment(#[from] codec::CodecError),
    /// A socket or pipe could not be made.
    #[error("the worker's sockets cannot be made: {0}")]
    Sockets(io::Error),
    /// The fork failed.
    #[error("cannot fork into new namespaces: {0}")]
    Fork(io::Error),
    /// The child failed at a step.
    #[error("the launch failed at step {0:?}: {1}")]
    Step(Step, io::Error),
    /// The child ended before its exec without saying why.
    #[error("the launch ended before the worker's program began")]
    Vanished,
}

/// A failing step and the kernel's answer.
type Failed = (Step, io::Error);

/// What a launch needs.
#[derive(Debug)]
pub struct Order<'a> {
    /// The account that the worker runs as.
    pub account: &'a Account,
    /// What the worker is to know.
    pub assignment: &'a Assignment,
    /// The program, opened and checked.
    pub program: WorkerProgram,
    /// What the worker sees of the file system.
    pub world: &'a World,
    /// The gateway's connection.
    pub connection: &'a UnixStream,
    /// The opened file with the agent's key.
    pub key: Option<OwnedFd>,
}

/// A worker between its fork and its first report.
#[derive(Debug)]
pub struct Launched {
    /// Its process id.
    pub pid: Pid,
    /// Stands for it.
    pub pidfd: OwnedFd,
    /// The broker's end of the control socket.
    pub control: OwnedFd,
    /// Ends without a byte at the exec, or carries what [`outcome`] reads.
    pub status: File,
}

/// Forks a worker and returns at once; whether it came to its exec is read with [`outcome`].
///
/// # Errors
/// What failed before the fork or at it.
pub fn start(order: Order<'_>) -> Result<Launched, LaunchError> {
    match threads() {
        1 => {}
        several => return Err(LaunchError::Threads(several)),
    }
    let sockets = |error: nix::Error| LaunchError::Sockets(error.into());
    let (ours, theirs) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
    .map_err(sockets)?;
    peer::refuse_descriptors(&ours);
    let assignment = codec::encode(order.assignment)?;
    send(ours.as_raw_fd(), &assignment, MsgFlags::MSG_DONTWAIT).map_err(sockets)?;
    let (status, report) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(sockets)?;
    match sys::fork_into(NAMESPACES as u64).map_err(LaunchError::Fork)? {
        Side::Parent { pid, pidfd } => Ok(Launched {
            pid,
            pidfd,
            control: ours,
            status: File::from(status),
        }),
        Side::Child => {
            // Open here, the broker's end would hide from step 10 that the broker is gone.
            drop(ours);
            let (step, error) = become_worker(&order, &theirs);
            let [a, b, c, d] = error.raw_os_error().unwrap_or(0).to_le_bytes();
            let _ = File::from(report).write_all(&[step as u8, a, b, c, d]);
            sys::exit_now(FAILED);
        }
    }
}

/// The child's way from root to the worker's program. Returns only if a step failed.
fn become_worker(order: &Order<'_>, control: &OwnedFd) -> Failed {
    let prepared = (|| {
        mounts::arrange(order.world)?;
        limits::set()?;
        identity::become_account(order.account)?;
        identity::end_with_the_broker(control)?;
        identity::give_up_new_privileges()?;
        std::env::set_current_dir(&order.account.home)
            .or_else(|_| std::env::set_current_dir("/"))
            .map_err(|error| (Step::Descriptors, error))?;
        descriptors::place(
            order.connection,
            control,
            order.key.as_ref(),
            order.program.as_fd(),
        )
    })();
    match prepared {
        Ok(program) => (Step::Exec, sys::execute(&program, c"kai-worker")),
        Err(failed) => failed,
    }
}

/// What the status pipe says: none while the child is on its way.
///
/// # Errors
/// The step that failed.
pub fn outcome(status: &mut File) -> Option<Result<(), LaunchError>> {
    let mut bytes = [0; 5];
    match status.read(&mut bytes) {
        Ok(0) => Some(Ok(())),
        Ok(5) => {
            let [step, a, b, c, d] = bytes;
            let error = io::Error::from_raw_os_error(i32::from_le_bytes([a, b, c, d]));
            let step = Step::ALL.into_iter().find(|known| *known as u8 == step);
            Some(Err(step.map_or(LaunchError::Vanished, |step| {
                LaunchError::Step(step, error)
            })))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        Ok(_) | Err(_) => Some(Err(LaunchError::Vanished)),
    }
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}
