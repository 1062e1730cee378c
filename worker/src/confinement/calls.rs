//! The numbers of the calls that are denied, on both architectures: a table can be judged on one that is
//! not there to run it. A test compares those of the native one with the C library's.

/// One system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// What it is called.
    pub name: &'static str,
    /// Its number on x86-64, where it exists.
    pub x86_64: Option<i64>,
    /// Its number on aarch64, where it exists.
    pub aarch64: Option<i64>,
}

macro_rules! calls {
    ($($constant:ident = $name:literal, $x86_64:literal, $aarch64:literal, $native:ident;)+) => {
        $(
            #[doc = $name]
            pub const $constant: Call = Call {
                name: $name,
                x86_64: Some($x86_64),
                aarch64: Some($aarch64),
            };
        )+

        #[cfg(test)]
        const NATIVE: &[(Call, i64)] = &[$(($constant, libc::$native)),+];
    };
}

calls! {
    PTRACE = "ptrace", 101, 117, SYS_ptrace;
    PROCESS_VM_READV = "process_vm_readv", 310, 270, SYS_process_vm_readv;
    PROCESS_VM_WRITEV = "process_vm_writev", 311, 271, SYS_process_vm_writev;
    PIDFD_GETFD = "pidfd_getfd", 438, 438, SYS_pidfd_getfd;
    KCMP = "kcmp", 312, 272, SYS_kcmp;
    MOUNT = "mount", 165, 40, SYS_mount;
    UMOUNT2 = "umount2", 166, 39, SYS_umount2;
    OPEN_TREE = "open_tree", 428, 428, SYS_open_tree;
    MOVE_MOUNT = "move_mount", 429, 429, SYS_move_mount;
    FSOPEN = "fsopen", 430, 430, SYS_fsopen;
    FSCONFIG = "fsconfig", 431, 431, SYS_fsconfig;
    FSMOUNT = "fsmount", 432, 432, SYS_fsmount;
    FSPICK = "fspick", 433, 433, SYS_fspick;
    MOUNT_SETATTR = "mount_setattr", 442, 442, SYS_mount_setattr;
    PIVOT_ROOT = "pivot_root", 155, 41, SYS_pivot_root;
    CHROOT = "chroot", 161, 51, SYS_chroot;
    UNSHARE = "unshare", 272, 97, SYS_unshare;
    SETNS = "setns", 308, 268, SYS_setns;
    CLONE = "clone", 56, 220, SYS_clone;
    KEYCTL = "keyctl", 250, 219, SYS_keyctl;
    ADD_KEY = "add_key", 248, 217, SYS_add_key;
    REQUEST_KEY = "request_key", 249, 218, SYS_request_key;
    BPF = "bpf", 321, 280, SYS_bpf;
    PERF_EVENT_OPEN = "perf_event_open", 298, 241, SYS_perf_event_open;
    USERFAULTFD = "userfaultfd", 323, 282, SYS_userfaultfd;
    IO_URING_SETUP = "io_uring_setup", 425, 425, SYS_io_uring_setup;
    IO_URING_ENTER = "io_uring_enter", 426, 426, SYS_io_uring_enter;
    IO_URING_REGISTER = "io_uring_register", 427, 427, SYS_io_uring_register;
    KEXEC_LOAD = "kexec_load", 246, 104, SYS_kexec_load;
    INIT_MODULE = "init_module", 175, 105, SYS_init_module;
    FINIT_MODULE = "finit_module", 313, 273, SYS_finit_module;
    DELETE_MODULE = "delete_module", 176, 106, SYS_delete_module;
    QUOTACTL = "quotactl", 179, 60, SYS_quotactl;
    QUOTACTL_FD = "quotactl_fd", 443, 443, SYS_quotactl_fd;
    SWAPON = "swapon", 167, 224, SYS_swapon;
    SWAPOFF = "swapoff", 168, 225, SYS_swapoff;
    REBOOT = "reboot", 169, 142, SYS_reboot;
    SETHOSTNAME = "sethostname", 170, 161, SYS_sethostname;
    SETDOMAINNAME = "setdomainname", 171, 162, SYS_setdomainname;
    ACCT = "acct", 163, 89, SYS_acct;
    SYSLOG = "syslog", 103, 116, SYS_syslog;
    NAME_TO_HANDLE_AT = "name_to_handle_at", 303, 264, SYS_name_to_handle_at;
    OPEN_BY_HANDLE_AT = "open_by_handle_at", 304, 265, SYS_open_by_handle_at;
    FANOTIFY_INIT = "fanotify_init", 300, 262, SYS_fanotify_init;
    FANOTIFY_MARK = "fanotify_mark", 301, 263, SYS_fanotify_mark;
    SETTIMEOFDAY = "settimeofday", 164, 170, SYS_settimeofday;
    CLOCK_SETTIME = "clock_settime", 227, 112, SYS_clock_settime;
    CLOCK_ADJTIME = "clock_adjtime", 305, 266, SYS_clock_adjtime;
    ADJTIMEX = "adjtimex", 159, 171, SYS_adjtimex;
    VHANGUP = "vhangup", 153, 58, SYS_vhangup;
    PERSONALITY = "personality", 135, 92, SYS_personality;
    IOCTL = "ioctl", 16, 29, SYS_ioctl;
    SENDTO = "sendto", 44, 206, SYS_sendto;
    SENDMSG = "sendmsg", 46, 211, SYS_sendmsg;
    SENDMMSG = "sendmmsg", 307, 269, SYS_sendmmsg;
    KEXEC_FILE_LOAD = "kexec_file_load", 320, 294, SYS_kexec_file_load;
    CLONE3 = "clone3", 435, 435, SYS_clone3;
    SOCKET = "socket", 41, 198, SYS_socket;
    SOCKETPAIR = "socketpair", 53, 199, SYS_socketpair;
    PRLIMIT64 = "prlimit64", 302, 261, SYS_prlimit64;
}

/// Of Linux 6.15, which libc does not name; new calls have one number everywhere.
pub const OPEN_TREE_ATTR: Call = Call {
    name: "open_tree_attr",
    x86_64: Some(467),
    aarch64: Some(467),
};
/// Ports of devices are a thing of x86.
pub const IOPL: Call = Call {
    name: "iopl",
    x86_64: Some(172),
    aarch64: None,
};
/// Likewise.
pub const IOPERM: Call = Call {
    name: "ioperm",
    x86_64: Some(173),
    aarch64: None,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn native_numbers_are_those_of_the_c_library() {
        for (call, native) in NATIVE {
            let ours = match std::env::consts::ARCH {
                "x86_64" => call.x86_64,
                "aarch64" => call.aarch64,
                other => panic!("no filters for {other}"),
            };
            assert_eq!(ours, Some(*native), "{}", call.name);
        }
    }
}
