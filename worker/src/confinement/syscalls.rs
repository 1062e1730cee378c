//! The system calls that workers and agents are denied, as data: one entry a call, with its reason.
//!
//! A deny-list: agents run whatever compilers, package managers and runtimes their users have, and an
//! allow-list would break a different one each month. What is denied is what reaches other processes,
//! changes the host or the namespaces, or is a large and seldom needed part of the kernel.
//!
//! Left alone on purpose: the setuid family (make(1) breaks without it, and no_new_privs makes it
//! harmless), extended attributes (`cp -a`), links, inotify, scheduling of one's own.

use kai_proto::worker_broker::Allowance;

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
}

/// One entry.
#[derive(Debug, Clone, Copy)]
pub struct Denied {
    /// The call's number here.
    pub call: i64,
    /// In which cases.
    pub when: When,
    /// Why.
    pub reason: &'static str,
}

const fn always(call: i64, reason: &'static str) -> Denied {
    Denied {
        call,
        when: When::Always,
        reason,
    }
}

const fn denied(call: i64, when: When, reason: &'static str) -> Denied {
    Denied { call, when, reason }
}

/// `open_tree_attr` of Linux 6.15, which libc does not name; new calls have one number everywhere.
const OPEN_TREE_ATTR: i64 = 467;

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

/// Terminal controls that write into somebody's terminal, and not into one's own output.
const TERMINAL_INPUT: &[u32] = &[libc::TIOCSTI as u32, libc::TIOCLINUX as u32];

/// Families of sockets that are left: local, IPv4, IPv6, and netlink for what it says of interfaces.
const FAMILIES: &[u32] = &[
    libc::AF_UNIX as u32,
    libc::AF_INET as u32,
    libc::AF_INET6 as u32,
    libc::AF_NETLINK as u32,
];

/// Protocols that are left: the family's own, TCP, UDP.
const PROTOCOLS: &[u32] = &[0, libc::IPPROTO_TCP as u32, libc::IPPROTO_UDP as u32];

/// Answered with `EPERM`, on every architecture.
pub const NOT_PERMITTED: &[Denied] = &[
    always(libc::SYS_ptrace, "another process's memory and registers"),
    always(libc::SYS_process_vm_readv, "another process's memory"),
    always(libc::SYS_process_vm_writev, "another process's memory"),
    always(libc::SYS_pidfd_getfd, "another process's descriptors"),
    always(libc::SYS_kcmp, "what another process has open"),
    always(libc::SYS_mount, "the file system's shape"),
    always(libc::SYS_umount2, "would uncover what the broker hid"),
    always(libc::SYS_open_tree, "the file system's shape"),
    always(OPEN_TREE_ATTR, "the file system's shape"),
    always(libc::SYS_move_mount, "the file system's shape"),
    always(libc::SYS_fsopen, "the file system's shape"),
    always(libc::SYS_fsconfig, "the file system's shape"),
    always(libc::SYS_fsmount, "the file system's shape"),
    always(libc::SYS_fspick, "the file system's shape"),
    always(libc::SYS_mount_setattr, "the file system's shape"),
    always(libc::SYS_pivot_root, "the file system's shape"),
    always(libc::SYS_chroot, "the file system's shape"),
    always(
        libc::SYS_unshare,
        "a user namespace opens much of the kernel to its maker",
    ),
    always(libc::SYS_setns, "other namespaces"),
    denied(
        libc::SYS_clone,
        When::AnyBit(0, NEW_NAMESPACES),
        "a user namespace opens much of the kernel to its maker",
    ),
    always(
        libc::SYS_keyctl,
        "keyrings are shared by all processes of an account",
    ),
    always(libc::SYS_add_key, "likewise"),
    always(
        libc::SYS_request_key,
        "likewise, and starts a program as root",
    ),
    always(libc::SYS_bpf, "a large part of the kernel"),
    always(
        libc::SYS_perf_event_open,
        "a large part of the kernel; sees other processes",
    ),
    always(
        libc::SYS_userfaultfd,
        "holds the kernel still in the middle of a copy",
    ),
    always(
        libc::SYS_io_uring_setup,
        "does calls that these filters do not see",
    ),
    always(libc::SYS_io_uring_enter, "likewise"),
    always(libc::SYS_io_uring_register, "likewise"),
    always(libc::SYS_kexec_load, "the host"),
    always(libc::SYS_init_module, "the host"),
    always(libc::SYS_finit_module, "the host"),
    always(libc::SYS_delete_module, "the host"),
    always(libc::SYS_quotactl, "the host"),
    always(libc::SYS_quotactl_fd, "the host"),
    always(libc::SYS_swapon, "the host"),
    always(libc::SYS_swapoff, "the host"),
    always(libc::SYS_reboot, "the host"),
    always(libc::SYS_sethostname, "the host"),
    always(libc::SYS_setdomainname, "the host"),
    always(libc::SYS_acct, "the host"),
    always(
        libc::SYS_syslog,
        "the kernel's log: addresses, and what others do",
    ),
    always(
        libc::SYS_name_to_handle_at,
        "the first half of opening by handle",
    ),
    always(
        libc::SYS_open_by_handle_at,
        "opens files past directories (CVE-2014-3519)",
    ),
    always(libc::SYS_fanotify_init, "what others do with files"),
    always(libc::SYS_fanotify_mark, "likewise"),
    always(libc::SYS_settimeofday, "the host's clock"),
    always(libc::SYS_clock_settime, "the host's clock"),
    always(libc::SYS_clock_adjtime, "the host's clock"),
    always(libc::SYS_adjtimex, "the host's clock"),
    always(libc::SYS_vhangup, "the terminal"),
    denied(
        libc::SYS_personality,
        When::NoneOf(0, &[0, u32::MAX]),
        "turns off address randomisation; 0 and asking are harmless",
    ),
    denied(
        libc::SYS_ioctl,
        When::OneOf(1, TERMINAL_INPUT),
        "types into a terminal (CVE-2017-5226)",
    ),
    denied(
        libc::SYS_sendto,
        When::AnyBit(3, FAST_OPEN),
        "TCP fast open connects past Landlock's port list",
    ),
    denied(libc::SYS_sendmsg, When::AnyBit(2, FAST_OPEN), "likewise"),
    denied(libc::SYS_sendmmsg, When::AnyBit(3, FAST_OPEN), "likewise"),
];

/// Answered with `EPERM`, where these exist.
#[cfg(target_arch = "x86_64")]
pub const NOT_PERMITTED_HERE: &[Denied] = &[
    always(libc::SYS_kexec_file_load, "the host"),
    always(libc::SYS_iopl, "ports of devices"),
    always(libc::SYS_ioperm, "ports of devices"),
];

/// Answered with `EPERM`, where these exist.
#[cfg(target_arch = "aarch64")]
pub const NOT_PERMITTED_HERE: &[Denied] = &[always(libc::SYS_kexec_file_load, "the host")];

/// What each name under `allow` in users.yaml takes out of the tables. What it opens, and to whom, stands
/// beside the name in [`Allowance::ALL`].
pub const LIFTED: &[(Allowance, &[i64])] = &[
    (
        Allowance::Ptrace,
        &[
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_pidfd_getfd,
            libc::SYS_kcmp,
        ],
    ),
    (
        Allowance::IoUring,
        &[
            libc::SYS_io_uring_setup,
            libc::SYS_io_uring_enter,
            libc::SYS_io_uring_register,
        ],
    ),
    (Allowance::Perf, &[libc::SYS_perf_event_open]),
    (
        Allowance::Keyrings,
        &[libc::SYS_keyctl, libc::SYS_add_key, libc::SYS_request_key],
    ),
    (Allowance::Userfaultfd, &[libc::SYS_userfaultfd]),
    (Allowance::Personality, &[libc::SYS_personality]),
    (
        Allowance::Namespaces,
        &[libc::SYS_unshare, libc::SYS_setns, libc::SYS_clone],
    ),
];

/// True if a policy that allows `allow` leaves `call` open.
#[must_use]
pub fn lifted(call: i64, allow: &[Allowance]) -> bool {
    LIFTED
        .iter()
        .any(|(allowance, calls)| allow.contains(allowance) && calls.contains(&call))
}

/// Answered with `ENOSYS`: the C library then falls back to what can be judged.
pub const NOT_THERE: &[Denied] = &[always(
    libc::SYS_clone3,
    "its flags are in memory, where no filter sees them",
)];

/// Answered with `EAFNOSUPPORT`.
pub const NO_SUCH_FAMILY: &[Denied] = &[denied(
    libc::SYS_socket,
    When::NoneOf(0, FAMILIES),
    "packet, Bluetooth, VSOCK and others: large parts of the kernel, and ways out",
)];

/// Answered with `EPROTONOSUPPORT`.
pub const NO_SUCH_PROTOCOL: &[Denied] = &[
    denied(
        libc::SYS_socket,
        When::NoneOf(2, PROTOCOLS),
        "MPTCP passes Landlock's port list; SCTP and others are large parts of the kernel",
    ),
    denied(
        libc::SYS_socket,
        When::Unless(
            (0, libc::AF_NETLINK as u32),
            (2, libc::NETLINK_ROUTE as u32),
        ),
        "netlink beside what getifaddrs(3) and getaddrinfo(3) ask for",
    ),
];
