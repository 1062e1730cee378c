//! From the fork to the exec of one worker, one function and one error a step: [`STEPS`] names them in
//! order, and SECURITY.md has the same list. What follows, the worker does to itself before it has a
//! second thread.
//!
//! | steps | where |
//! |---|---|
//! | the program | [`program`] |
//! | socket, fork, exec | [`start`] |
//! | what is seen of the file system | [`mounts`], `etc`, `login_files` |
//! | a network of its own | `network` |
//! | limits, umask, session, signals | [`limits`] |
//! | ids, the broker's end, no new privileges | [`identity`] |
//! | descriptors | [`descriptors`] |

pub mod descriptors;
mod etc;
pub mod identity;
pub mod limits;
mod login_files;
pub mod mounts;
mod network;
pub mod program;

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use kai_proto::{codec, peer, worker_broker::Assignment};
use nix::{
    fcntl::OFlag,
    sched::{CloneFlags, unshare},
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socketpair},
    unistd::{Pid, pipe2},
};

use crate::{
    accounts::Account,
    cgroups::Cgroup,
    policy::{Limits, Network},
    sys::{self, Side},
};
pub use mounts::{LoginFiles, World};
pub use program::WorkerProgram;

/// Namespaces that every worker is forked into; that of cgroups has the group at its root in which its
/// maker is, and so is made by the child (cgroup_namespaces(7)).
const NAMESPACES: i32 =
    libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;

/// The launch in order, from 1, in the words of SECURITY.md; the worker's own list goes on from here.
pub const STEPS: &[&str] = &[
    "The worker's program is root's, as are all directories above it, and nobody else can write them.",
    "The broker has one thread; the control socket is made, and the worker's assignment is in it.",
    "clone3(2) into new PID, mount, IPC and UTS namespaces, with `network: none` a network namespace, and, where \
     there is cgroup v2, a cgroup with the user's limits.",
    "A cgroup namespace, with that cgroup as its root.",
    "In a network of its own, the loopback is brought up; nothing else is there.",
    "Mounts are private.",
    "/etc is read-only, and what is secret in it is covered.",
    "Homes, /root, /run and kai's own directories are hidden; the user's home and state are bound back, and of \
     /run there is a copy of what /etc/resolv.conf leads to.",
    "If people log in to the account, the files that run at a login are read-only.",
    "/tmp, /var/tmp and /dev/shm are the worker's own, of one size together.",
    "/dev/pts and /dev/mqueue are the worker's own.",
    "Of the control groups it sees its own, read-only, and none where there is no cgroup v2.",
    "A fresh /proc.",
    "Limits (no cores; without cgroup v2, processes), umask 077, a session of its own, signals as at first.",
    "An empty session keyring; groups, group and user ids and the bounding set are the account's, and every way \
     back is tried and fails.",
    "The end of the broker is the end of the worker.",
    "No new privileges.",
    "Descriptors 3 (the gateway's connection, or a login's terminal), 4 (the control socket), 5 (the agent's key); all others closed.",
    "Exec by descriptor, with an environment of nothing.",
];

/// Exit status of a child that failed before its exec; the reason is in the status pipe.
const FAILED: i32 = 70;

/// The step that failed, as the child reports it: one variant a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// The cgroup namespace could not be made.
    OwnCgroups = 1,
    /// The loopback of a network of its own could not be brought up.
    Loopback,
    /// Mounts could not be made private.
    PrivateMounts,
    /// What is kept could not be opened before the rest is hidden.
    KeptPaths,
    /// /etc could not be made read-only, or its secrets not be covered.
    Etc,
    /// Other homes, /run or kai's directories could not be hidden.
    Hidden,
    /// The files that run at a login could not be made read-only.
    LoginFiles,
    /// /tmp, /var/tmp or /dev/shm could not be made.
    OwnTemporary,
    /// /dev/pts or /dev/mqueue could not be mounted.
    OwnDevices,
    /// The control groups could not be hidden.
    OwnCgroupView,
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
    /// The session keyring that was inherited could not be left.
    Keyring,
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
    const ALL: [Self; 21] = [
        Self::OwnCgroups,
        Self::Loopback,
        Self::PrivateMounts,
        Self::KeptPaths,
        Self::Etc,
        Self::Hidden,
        Self::LoginFiles,
        Self::OwnTemporary,
        Self::OwnDevices,
        Self::OwnCgroupView,
        Self::FreshProc,
        Self::Limits,
        Self::Capabilities,
        Self::Groups,
        Self::Ids,
        Self::WayBack,
        Self::Keyring,
        Self::ParentDeath,
        Self::NoNewPrivileges,
        Self::Descriptors,
        Self::Exec,
    ];

    /// How the admin mends it, where that is known.
    fn mend(self) -> &'static str {
        match self {
            Self::LoginFiles => {
                "; people log in to this account, and a file that runs at a login is a link or has several \
                 names: put plain files there, close the account with `usermod --expiredate 1`, or accept \
                 it with `confinement: best-effort`"
            }
            Self::Loopback => "; `network: none` needs CAP_NET_ADMIN in the broker's unit",
            _ => "",
        }
    }
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
    #[error("the launch failed at step {0:?}: {1}{mend}", mend = .0.mend())]
    Step(Step, io::Error),
    /// The child ended before its exec without saying why.
    #[error("the launch ended before the worker's program began")]
    Vanished,
}

/// A failing step and the kernel's answer.
pub type Failed = (Step, io::Error);

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
    /// Whose network it has.
    pub network: Network,
    /// What it may take; what is missing in `cgroup`, rlimits hold.
    pub limits: &'a Limits,
    /// The control group that it begins in.
    pub cgroup: Option<Cgroup>,
    /// The gateway's connection; for a login its terminal.
    pub connection: BorrowedFd<'a>,
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
    /// Its control group, which ends with it.
    pub cgroup: Option<Cgroup>,
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
    let mut namespaces = NAMESPACES;
    if order.network == Network::None {
        namespaces |= libc::CLONE_NEWNET;
    }
    let cgroup = order.cgroup.as_ref().map(AsFd::as_fd);
    match sys::fork_into(namespaces as u64, cgroup).map_err(LaunchError::Fork)? {
        Side::Parent { pid, pidfd } => Ok(Launched {
            pid,
            pidfd,
            control: ours,
            status: File::from(status),
            cgroup: order.cgroup,
        }),
        Side::Child => {
            // Open here, the broker's end would hide from the child that the broker is gone.
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
        unshare(CloneFlags::CLONE_NEWCGROUP).map_err(|error| (Step::OwnCgroups, error.into()))?;
        if order.network == Network::None {
            network::raise_loopback()?;
        }
        mounts::arrange(order.world, order.account)?;
        limits::set(order.limits, order.cgroup.is_some())?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_md_has_the_same_list_in_the_same_order() {
        let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../SECURITY.md");
        let text = std::fs::read_to_string(document).unwrap();
        let (_, list) = text.split_once("<!-- launch -->\n").unwrap();
        let (list, _) = list.split_once("<!-- end of launch -->").unwrap();
        // A line that begins with blanks goes on with the one before.
        let list = list.replace("\n   ", "");
        let mut lines = list.lines();
        for (number, step) in STEPS.iter().enumerate() {
            assert_eq!(lines.next(), Some(&*format!("{}. {step}", number + 1)));
        }
        let next = format!("{}. In the worker: ", STEPS.len() + 1);
        assert!(lines.next().is_some_and(|line| line.starts_with(&next)));
    }

    #[test]
    fn every_step_that_can_fail_is_read_back_from_the_status_pipe() {
        for (at, step) in Step::ALL.into_iter().enumerate() {
            assert_eq!(step as usize, at + 1);
        }
    }
}
