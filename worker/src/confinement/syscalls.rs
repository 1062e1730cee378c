//! The system calls that workers and agents are denied, as data: one entry a call, with its reason.
//!
//! A deny-list: agents run whatever compilers, package managers and runtimes their users have, and an
//! allow-list would break a different one each month. What is denied is what reaches other processes,
//! changes the host or the namespaces, or is a large and seldom needed part of the kernel.
//!
//! Left alone on purpose: the setuid family (make(1) breaks without it, and no_new_privs makes it
//! harmless), extended attributes (`cp -a`), links, inotify, scheduling of one's own.

use kai_proto::worker_broker::Allowance;

use super::calls::*;

/// When a call is denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Always.
    Always,
    /// If the low 32 bits of this argument have any of these bits.
    AnyBit(u8, &'static [u32]),
    /// If the low 32 bits of this argument are one of these.
    OneOf(u8, &'static [u32]),
    /// If the low 32 bits of this argument are none of these.
    NoneOf(u8, &'static [u32]),
    /// If the low 32 bits of the first argument are the first number, and those of the second are
    /// not the second: pairs of argument and value.
    Unless((u8, u32), (u8, u32)),
    /// If the low 32 bits of the first argument are the first number, and those of the second under a
    /// mask are this: a pair of argument and value, then argument, mask and value.
    And((u8, u32), (u8, u32, u32)),
}

/// One entry.
#[derive(Debug, Clone, Copy)]
pub struct Denied {
    /// Which.
    pub call: Call,
    /// In which cases.
    pub when: When,
    /// Why.
    pub reason: &'static str,
}

const fn always(call: Call, reason: &'static str) -> Denied {
    Denied {
        call,
        when: When::Always,
        reason,
    }
}

const fn denied(call: Call, when: When, reason: &'static str) -> Denied {
    Denied { call, when, reason }
}

/// Bits of clone(2) that make namespaces. `CLONE_NEWTIME` shares its bit with the signal number of
/// clone(2), which therefore cannot ask for it; unshare(2) and clone3(2) can, and are denied.
const NEW_NAMESPACES: &[u32] = &[
    libc::CLONE_NEWNS as u32,
    libc::CLONE_NEWUTS as u32,
    libc::CLONE_NEWIPC as u32,
    libc::CLONE_NEWUSER as u32,
    libc::CLONE_NEWPID as u32,
    libc::CLONE_NEWNET as u32,
    libc::CLONE_NEWCGROUP as u32,
];

const FAST_OPEN: &[u32] = &[libc::MSG_FASTOPEN as u32];

/// Terminal controls that write into somebody's terminal, and not into one's own output; and the one that
/// loads line disciplines, which are drivers of modems (CVE-2017-2636).
const TERMINAL: &[u32] = &[
    libc::TIOCSTI as u32,
    libc::TIOCLINUX as u32,
    libc::TIOCSETD as u32,
];

/// Families of sockets that are left: local, IPv4, IPv6, and netlink for what it says of interfaces.
const FAMILIES: &[u32] = &[
    libc::AF_UNIX as u32,
    libc::AF_INET as u32,
    libc::AF_INET6 as u32,
    libc::AF_NETLINK as u32,
];

/// Protocols that are left: the family's own, TCP, UDP.
const PROTOCOLS: &[u32] = &[0, libc::IPPROTO_TCP as u32, libc::IPPROTO_UDP as u32];

/// Types of sockets beside streams and datagrams whose own protocol is another than TCP or UDP: DCCP (6 in
/// linux/net.h), and SCTP as `SOCK_SEQPACKET`. The type's upper bits are flags.
const KIND: u32 = 0xf;

/// Answered with `EPERM`.
pub const NOT_PERMITTED: &[Denied] = &[
    always(PTRACE, "another process's memory and registers"),
    always(PROCESS_VM_READV, "another process's memory"),
    always(PROCESS_VM_WRITEV, "another process's memory"),
    always(PIDFD_GETFD, "another process's descriptors"),
    always(KCMP, "what another process has open"),
    always(MOUNT, "the file system's shape"),
    always(UMOUNT2, "would uncover what the broker hid"),
    always(OPEN_TREE, "the file system's shape"),
    always(OPEN_TREE_ATTR, "the file system's shape"),
    always(MOVE_MOUNT, "the file system's shape"),
    always(FSOPEN, "the file system's shape"),
    always(FSCONFIG, "the file system's shape"),
    always(FSMOUNT, "the file system's shape"),
    always(FSPICK, "the file system's shape"),
    always(MOUNT_SETATTR, "the file system's shape"),
    always(PIVOT_ROOT, "the file system's shape"),
    always(CHROOT, "the file system's shape"),
    always(
        UNSHARE,
        "a user namespace opens much of the kernel to its maker",
    ),
    always(SETNS, "other namespaces"),
    denied(
        CLONE,
        When::AnyBit(0, NEW_NAMESPACES),
        "a user namespace opens much of the kernel to its maker",
    ),
    always(KEYCTL, "keyrings are shared by all processes of an account"),
    always(ADD_KEY, "likewise"),
    always(REQUEST_KEY, "likewise, and starts a program as root"),
    always(BPF, "a large part of the kernel"),
    always(
        PERF_EVENT_OPEN,
        "a large part of the kernel; sees other processes",
    ),
    always(
        USERFAULTFD,
        "holds the kernel still in the middle of a copy",
    ),
    always(IO_URING_SETUP, "does calls that these filters do not see"),
    always(IO_URING_ENTER, "likewise"),
    always(IO_URING_REGISTER, "likewise"),
    always(KEXEC_LOAD, "the host"),
    always(INIT_MODULE, "the host"),
    always(FINIT_MODULE, "the host"),
    always(DELETE_MODULE, "the host"),
    always(QUOTACTL, "the host"),
    always(QUOTACTL_FD, "the host"),
    always(SWAPON, "the host"),
    always(SWAPOFF, "the host"),
    always(REBOOT, "the host"),
    always(SETHOSTNAME, "the host"),
    always(SETDOMAINNAME, "the host"),
    always(ACCT, "the host"),
    always(SYSLOG, "the kernel's log: addresses, and what others do"),
    always(NAME_TO_HANDLE_AT, "the first half of opening by handle"),
    always(
        OPEN_BY_HANDLE_AT,
        "opens files past directories (CVE-2014-3519)",
    ),
    always(FANOTIFY_INIT, "what others do with files"),
    always(FANOTIFY_MARK, "likewise"),
    always(SETTIMEOFDAY, "the host's clock"),
    always(CLOCK_SETTIME, "the host's clock"),
    always(CLOCK_ADJTIME, "the host's clock"),
    always(ADJTIMEX, "the host's clock"),
    always(VHANGUP, "the terminal"),
    denied(
        PERSONALITY,
        When::NoneOf(0, &[0, u32::MAX]),
        "turns off address randomisation; 0 and asking are harmless",
    ),
    denied(
        IOCTL,
        When::OneOf(1, TERMINAL),
        "types into a terminal (CVE-2017-5226), loads drivers",
    ),
    denied(
        SENDTO,
        When::AnyBit(3, FAST_OPEN),
        "TCP fast open connects past Landlock's port list",
    ),
    denied(SENDMSG, When::AnyBit(2, FAST_OPEN), "likewise"),
    denied(SENDMMSG, When::AnyBit(3, FAST_OPEN), "likewise"),
    denied(
        PRLIMIT64,
        When::NoneOf(0, &[0]),
        "limits of other processes of the account, the worker's among them",
    ),
    always(KEXEC_FILE_LOAD, "the host"),
    always(IOPL, "ports of devices"),
    always(IOPERM, "ports of devices"),
];

/// What each name under `allow` in users.yaml takes out of the tables. What it opens, and to whom, stands
/// beside the name in [`Allowance::ALL`].
pub const LIFTED: &[(Allowance, &[Call])] = &[
    (
        Allowance::Ptrace,
        &[
            PTRACE,
            PROCESS_VM_READV,
            PROCESS_VM_WRITEV,
            PIDFD_GETFD,
            KCMP,
        ],
    ),
    (
        Allowance::IoUring,
        &[IO_URING_SETUP, IO_URING_ENTER, IO_URING_REGISTER],
    ),
    (Allowance::Perf, &[PERF_EVENT_OPEN]),
    (Allowance::Keyrings, &[KEYCTL, ADD_KEY, REQUEST_KEY]),
    (Allowance::Userfaultfd, &[USERFAULTFD]),
    (Allowance::Personality, &[PERSONALITY]),
    (Allowance::Namespaces, &[UNSHARE, SETNS, CLONE]),
];

/// True if a policy that allows `allow` leaves `call` open.
#[must_use]
pub fn lifted(call: Call, allow: &[Allowance]) -> bool {
    LIFTED
        .iter()
        .any(|(allowance, calls)| allow.contains(allowance) && calls.contains(&call))
}

/// Answered with `ENOSYS`: the C library then falls back to what can be judged.
pub const NOT_THERE: &[Denied] = &[always(
    CLONE3,
    "its flags are in memory, where no filter sees them",
)];

/// Answered with `EAFNOSUPPORT`.
pub const NO_SUCH_FAMILY: &[Denied] = &[
    denied(
        SOCKET,
        When::NoneOf(0, FAMILIES),
        "packet, Bluetooth, VSOCK and others: large parts of the kernel, and ways out",
    ),
    denied(
        SOCKETPAIR,
        When::NoneOf(0, &[libc::AF_UNIX as u32]),
        "loads and asks every family before it says that few have pairs; TIPC does",
    ),
];

/// Answered with `EPROTONOSUPPORT`.
pub const NO_SUCH_PROTOCOL: &[Denied] = &[
    denied(
        SOCKET,
        When::NoneOf(2, PROTOCOLS),
        "MPTCP passes Landlock's port list; SCTP and others are large parts of the kernel",
    ),
    denied(
        SOCKET,
        When::And(
            (0, libc::AF_INET as u32),
            (1, KIND, libc::SOCK_SEQPACKET as u32),
        ),
        "SCTP without naming it",
    ),
    denied(
        SOCKET,
        When::And(
            (0, libc::AF_INET6 as u32),
            (1, KIND, libc::SOCK_SEQPACKET as u32),
        ),
        "likewise",
    ),
    denied(
        SOCKET,
        When::And((0, libc::AF_INET as u32), (1, KIND, libc::SOCK_DCCP as u32)),
        "DCCP without naming it (CVE-2017-6074)",
    ),
    denied(
        SOCKET,
        When::And(
            (0, libc::AF_INET6 as u32),
            (1, KIND, libc::SOCK_DCCP as u32),
        ),
        "likewise",
    ),
    denied(
        SOCKET,
        When::Unless(
            (0, libc::AF_NETLINK as u32),
            (2, libc::NETLINK_ROUTE as u32),
        ),
        "netlink beside what getifaddrs(3) and getaddrinfo(3) ask for",
    ),
];
