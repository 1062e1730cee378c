//! Seldom needed parts of the kernel, asked for so that nothing comes of it: what is open here was reached,
//! and refused the attempt's arguments, if at all.

use nix::errno::Errno;

use super::{
    Attempt,
    Group::Kernel,
    of,
    ways::{list, reached, read, write},
};
use crate::{
    answer::Answer,
    sys::{at, call, getpid_as_32_bit, ioctl},
};

/// What the kernel answers to arguments that are wrong, once it looks at them.
const FAULTS: &[Errno] = &[
    Errno::EINVAL,
    Errno::EFAULT,
    Errno::EBADF,
    Errno::ENOENT,
    Errno::ENOTDIR,
    Errno::ESRCH,
    Errno::ENOEXEC,
    Errno::ENOTTY,
    Errno::EOPNOTSUPP,
    Errno::ENODEV,
    Errno::ENOTBLK,
    Errno::ENOKEY,
    Errno::EACCES,
];

fn ask<const N: usize>(number: i64, arguments: [i64; N]) -> Answer {
    reached(call(number, arguments), FAULTS)
}

fn socket(family: i32, kind: i32, protocol: i32) -> Answer {
    let made = call(
        libc::SYS_socket,
        [family.into(), kind.into(), protocol.into()],
    );
    reached(made, &[])
}

/// The same call by the number that a program with 32-bit pointers uses.
fn as_x32() -> Answer {
    if cfg!(target_arch = "x86_64") {
        // __X32_SYSCALL_BIT of asm/unistd.h.
        match call(libc::SYS_getpid | 0x4000_0000, []) {
            Ok(_) => Answer::open(),
            Err(error) => Answer::refused(&error),
        }
    } else {
        Answer::Nothing("a thing of x86-64".to_owned())
    }
}

fn as_32_bit() -> Answer {
    match getpid_as_32_bit() {
        None => Answer::Nothing("a thing of x86-64".to_owned()),
        Some(number) if number > 0 => Answer::open(),
        Some(_) => Answer::Blocked("ENOSYS".to_owned()),
    }
}

/// Types into a terminal of its own, with TIOCSTI or, for a console, TIOCLINUX.
fn terminal(request: u64) -> Answer {
    let Ok(own) = nix::pty::openpty(None, None) else {
        return Answer::Unknown("has no terminal of its own".to_owned());
    };
    let typed = [7_u8; 4];
    let slave = std::os::fd::AsRawFd::as_raw_fd(&own.slave);
    // Of one's controlling terminal only.
    let _ = call(libc::SYS_setsid, []);
    let _ = ioctl(slave, libc::TIOCSCTTY, 0);
    let asked = ioctl(slave, request, at(&typed));
    // Closed, it would end this process with a signal before its answer is told.
    std::mem::forget(own);
    reached(asked, &[Errno::EINVAL, Errno::ENOTTY])
}

const NEW_USER: i64 = libc::CLONE_NEWUSER as i64;
const NOWHERE: &str = "\0";
/// Not a valid set of flags for any call here.
const WRONG: i64 = 0x7fff_0000;

pub(super) const ATTEMPTS: &[Attempt] = &[
    of(Kernel, "mount", "mounts something", |s| {
        let home = format!("{}\0", s.home.display());
        let arguments = [at("none\0"), at(home.as_str()), at("tmpfs\0"), 0, 0];
        reached(call(libc::SYS_mount, arguments), &[])
    }),
    of(Kernel, "umount", "uncovers what was mounted over", |_| {
        ask(libc::SYS_umount2, [at("/\0"), WRONG])
    }),
    of(
        Kernel,
        "open-tree",
        "copies a part of the file system's tree",
        |_| ask(libc::SYS_open_tree, [-1, at(NOWHERE), WRONG]),
    ),
    of(Kernel, "move-mount", "moves a mount", |_| {
        ask(
            libc::SYS_move_mount,
            [-1, at(NOWHERE), -1, at(NOWHERE), WRONG],
        )
    }),
    of(Kernel, "fsopen", "begins a new file system", |_| {
        reached(call(libc::SYS_fsopen, [at("tmpfs\0"), 0]), &[])
    }),
    of(Kernel, "fsconfig", "configures a new file system", |_| {
        ask(libc::SYS_fsconfig, [-1, 99, 0, 0, 0])
    }),
    of(Kernel, "fsmount", "mounts a new file system", |_| {
        ask(libc::SYS_fsmount, [-1, 0, 0])
    }),
    of(Kernel, "fspick", "changes a file system", |_| {
        ask(libc::SYS_fspick, [-1, at(NOWHERE), WRONG])
    }),
    of(
        Kernel,
        "mount-setattr",
        "makes a mount writable again",
        |_| ask(libc::SYS_mount_setattr, [-1, at(NOWHERE), WRONG, 0, 0]),
    ),
    of(Kernel, "pivot-root", "takes another root", |_| {
        reached(
            call(libc::SYS_pivot_root, [at("/nowhere\0"), at("/nowhere\0")]),
            &[Errno::ENOENT],
        )
    }),
    of(Kernel, "chroot", "takes another root for itself", |_| {
        reached(call(libc::SYS_chroot, [at("/nowhere\0")]), &[Errno::ENOENT])
    }),
    of(
        Kernel,
        "unshare-user",
        "makes a user namespace, and is root in it (unshare)",
        |_| reached(call(libc::SYS_unshare, [NEW_USER]), &[]),
    ),
    of(
        Kernel,
        "unshare-mount",
        "makes a mount namespace (unshare)",
        |_| reached(call(libc::SYS_unshare, [libc::CLONE_NEWNS.into()]), &[]),
    ),
    of(
        Kernel,
        "clone-user",
        "makes a user namespace (clone)",
        |_| {
            let flags = NEW_USER | i64::from(libc::SIGCHLD);
            match call(libc::SYS_clone, [flags, 0, 0, 0, 0]) {
                Ok(0) => crate::sys::exit_now(),
                other => other.into(),
            }
        },
    ),
    of(
        Kernel,
        "clone3",
        "makes namespaces where no filter sees it (clone3)",
        |_| ask(libc::SYS_clone3, [0, 0]),
    ),
    of(Kernel, "setns", "enters other namespaces", |_| {
        ask(libc::SYS_setns, [-1, 0])
    }),
    of(Kernel, "keyctl", "reads keyrings", |_| {
        // KEYCTL_GET_KEYRING_ID of the session keyring (keyctl(2)).
        reached(call(libc::SYS_keyctl, [0, -3, 0]), FAULTS)
    }),
    of(Kernel, "add-key", "adds a key", |_| {
        let description = "kai-probe\0";
        let arguments = [at("user\0"), at(description), at("x"), 1, -1];
        reached(call(libc::SYS_add_key, arguments), FAULTS)
    }),
    of(
        Kernel,
        "request-key",
        "has the kernel ask for a key",
        |_| {
            ask(
                libc::SYS_request_key,
                [at("user\0"), at("kai-probe\0"), 0, 0],
            )
        },
    ),
    of(
        Kernel,
        "bpf",
        "loads a program into the kernel (bpf)",
        |_| ask(libc::SYS_bpf, [99, 0, 0]),
    ),
    of(
        Kernel,
        "perf",
        "watches the processor (perf_event_open)",
        |_| ask(libc::SYS_perf_event_open, [0, 0, -1, -1, 0]),
    ),
    of(
        Kernel,
        "userfaultfd",
        "handles its own faults (userfaultfd)",
        |_| ask(libc::SYS_userfaultfd, [WRONG]),
    ),
    of(
        Kernel,
        "io-uring",
        "calls the kernel where no filter sees it (io_uring)",
        |_| ask(libc::SYS_io_uring_setup, [0, 0]),
    ),
    of(Kernel, "io-uring-enter", "uses somebody's io_uring", |_| {
        ask(libc::SYS_io_uring_enter, [-1, 0, 0, 0, 0, 0])
    }),
    of(
        Kernel,
        "io-uring-register",
        "registers with an io_uring",
        |_| ask(libc::SYS_io_uring_register, [-1, 0, 0, 0]),
    ),
    of(Kernel, "kexec", "boots another kernel", |_| {
        ask(libc::SYS_kexec_load, [0, 0, 0, WRONG])
    }),
    of(Kernel, "module-load", "loads a module", |_| {
        ask(libc::SYS_init_module, [0, 0, 0])
    }),
    of(Kernel, "module-file", "loads a module from a file", |_| {
        ask(libc::SYS_finit_module, [-1, 0, 0])
    }),
    of(Kernel, "module-remove", "removes a module", |_| {
        ask(libc::SYS_delete_module, [at(NOWHERE), 0])
    }),
    of(Kernel, "quota", "changes quotas", |_| {
        ask(libc::SYS_quotactl, [WRONG, 0, 0, 0])
    }),
    of(Kernel, "swap", "switches swap off", |_| {
        ask(libc::SYS_swapoff, [at(NOWHERE)])
    }),
    of(Kernel, "reboot", "reboots", |_| {
        // With a wrong magic number: only who may is told that it is wrong.
        ask(libc::SYS_reboot, [0, 0, 0, 0])
    }),
    of(Kernel, "host-name", "renames the host", |_| {
        ask(libc::SYS_sethostname, [at("x"), -1])
    }),
    of(Kernel, "accounting", "switches accounting off", |_| {
        reached(call(libc::SYS_acct, [at("/nowhere\0")]), &[Errno::ENOENT])
    }),
    of(Kernel, "kernel-log", "reads the kernel's log", |_| {
        // SYSLOG_ACTION_SIZE_BUFFER of syslog(2).
        reached(call(libc::SYS_syslog, [10, 0, 0]), &[])
    }),
    of(Kernel, "handle-name", "gets a file's handle", |_| {
        ask(libc::SYS_name_to_handle_at, [-1, at(NOWHERE), 0, 0, WRONG])
    }),
    of(
        Kernel,
        "handle-open",
        "opens a file by its handle, past directories",
        |_| ask(libc::SYS_open_by_handle_at, [-1, 0, 0]),
    ),
    of(Kernel, "fanotify", "watches all files (fanotify)", |_| {
        ask(libc::SYS_fanotify_init, [WRONG, 0])
    }),
    of(Kernel, "clock-set", "sets the clock", |_| {
        ask(libc::SYS_clock_settime, [99, 0])
    }),
    of(
        Kernel,
        "clock-adjust",
        "asks how the clock is adjusted (clock_adjtime)",
        |_| {
            let nothing = [0_u8; 256];
            reached(call(libc::SYS_clock_adjtime, [0, at(&nothing)]), FAULTS)
        },
    ),
    of(Kernel, "hang-up", "hangs up its terminal", |_| {
        reached(call(libc::SYS_vhangup, []), &[])
    }),
    of(
        Kernel,
        "personality",
        "runs without address randomisation",
        |_| call(libc::SYS_personality, [libc::ADDR_NO_RANDOMIZE.into()]).into(),
    ),
    of(
        Kernel,
        "type-ahead",
        "types into a terminal (TIOCSTI)",
        |_| terminal(libc::TIOCSTI),
    ),
    of(
        Kernel,
        "console-paste",
        "pastes into a console (TIOCLINUX)",
        |_| terminal(libc::TIOCLINUX),
    ),
    of(
        Kernel,
        "ports",
        "reads and writes ports of devices (iopl)",
        |_| {
            #[cfg(target_arch = "x86_64")]
            return ask(libc::SYS_iopl, [99]);
            #[cfg(not(target_arch = "x86_64"))]
            Answer::Nothing("a thing of x86-64".to_owned())
        },
    ),
    of(Kernel, "trace", "is traced, or traces", |_| {
        reached(
            call(libc::SYS_ptrace, [libc::PTRACE_TRACEME.into(), 0, 0, 0]),
            &[],
        )
    }),
    of(
        Kernel,
        "compare",
        "compares what two processes share (kcmp)",
        |_| {
            let me = i64::from(std::process::id());
            ask(libc::SYS_kcmp, [me, me, 99, 0, 0])
        },
    ),
    of(Kernel, "x32", "calls by the numbers of x32", |_| as_x32()),
    of(
        Kernel,
        "32-bit",
        "calls as a 32-bit program (int 0x80)",
        |_| as_32_bit(),
    ),
    of(
        Kernel,
        "socket-packet",
        "reads the wire (AF_PACKET)",
        |_| socket(libc::AF_PACKET, libc::SOCK_RAW, 0),
    ),
    of(
        Kernel,
        "socket-crypto",
        "uses the kernel's cryptography (AF_ALG)",
        |_| socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0),
    ),
    of(
        Kernel,
        "socket-vsock",
        "speaks with a hypervisor (AF_VSOCK)",
        |_| socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0),
    ),
    of(Kernel, "socket-bluetooth", "speaks Bluetooth", |_| {
        socket(libc::AF_BLUETOOTH, libc::SOCK_RAW, 1)
    }),
    of(Kernel, "socket-key", "manages IPsec (AF_KEY)", |_| {
        socket(libc::AF_KEY, libc::SOCK_RAW, 2)
    }),
    of(Kernel, "socket-xdp", "reads the wire (AF_XDP)", |_| {
        socket(libc::AF_XDP, libc::SOCK_RAW, 0)
    }),
    of(Kernel, "socket-tipc", "speaks TIPC", |_| {
        socket(libc::AF_TIPC, libc::SOCK_SEQPACKET, 0)
    }),
    of(
        Kernel,
        "socket-netfilter",
        "speaks with the packet filter (netlink)",
        |_| socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER),
    ),
    of(
        Kernel,
        "socket-audit",
        "speaks with the audit system (netlink)",
        |_| socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_AUDIT),
    ),
    of(
        Kernel,
        "socket-uevent",
        "hears of devices (netlink)",
        |_| {
            socket(
                libc::AF_NETLINK,
                libc::SOCK_RAW,
                libc::NETLINK_KOBJECT_UEVENT,
            )
        },
    ),
    of(
        Kernel,
        "socket-raw",
        "makes packets of its own (raw IP)",
        |_| socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
    ),
    of(Kernel, "socket-sctp", "speaks SCTP", |_| {
        socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP)
    }),
    of(
        Kernel,
        "socket-seqpacket",
        "speaks SCTP without naming it",
        |_| socket(libc::AF_INET, libc::SOCK_SEQPACKET, 0),
    ),
    of(
        Kernel,
        "socket-dccp",
        "speaks DCCP without naming it",
        |_| socket(libc::AF_INET, libc::SOCK_DCCP, 0),
    ),
    of(
        Kernel,
        "socket-pair",
        "loads families by asking for pairs (AF_VSOCK)",
        |_| {
            let ends = [0_i32; 2];
            let kind = libc::SOCK_STREAM.into();
            ask(
                libc::SYS_socketpair,
                [libc::AF_VSOCK.into(), kind, 0, at(&ends)],
            )
        },
    ),
    of(
        Kernel,
        "line-discipline",
        "loads drivers of modems (TIOCSETD)",
        |_| terminal(libc::TIOCSETD),
    ),
    of(Kernel, "device-mem", "opens the host's memory", |_| {
        read("/dev/mem")
    }),
    of(Kernel, "device-kmsg", "opens the kernel's log", |_| {
        read("/dev/kmsg")
    }),
    of(Kernel, "device-kvm", "opens the hypervisor", |_| {
        read("/dev/kvm")
    }),
    of(Kernel, "device-fuse", "serves file systems (FUSE)", |_| {
        read("/dev/fuse")
    }),
    of(Kernel, "device-tun", "makes network interfaces", |_| {
        read("/dev/net/tun")
    }),
    of(Kernel, "device-loop", "makes loop devices", |_| {
        read("/dev/loop-control")
    }),
    of(Kernel, "device-mapper", "maps disks", |_| {
        read("/dev/mapper/control")
    }),
    of(Kernel, "device-input", "types for others (uinput)", |_| {
        write("/dev/uinput")
    }),
    of(Kernel, "kernel-memory", "reads the kernel's memory", |_| {
        read("/proc/kcore")
    }),
    of(
        Kernel,
        "kernel-debug",
        "lists the kernel's debugging files",
        |_| list("/sys/kernel/debug"),
    ),
    of(
        Kernel,
        "kernel-tracing",
        "lists the kernel's tracing files",
        |_| list("/sys/kernel/tracing"),
    ),
    of(Kernel, "firmware", "lists the firmware's variables", |_| {
        list("/sys/firmware")
    }),
    of(Kernel, "power", "puts the host to sleep", |_| {
        write("/sys/power/state")
    }),
    of(
        Kernel,
        "modules-list",
        "lists what of the kernel is loaded (sysfs)",
        |_| list("/sys/module"),
    ),
    of(Kernel, "sysctl", "changes how the kernel works", |_| {
        write("/proc/sys/kernel/randomize_va_space")
    }),
];
