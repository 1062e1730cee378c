//! The system calls that the daemon makes once it is confined, as data: one entry a call, with its
//! reason. What is not here ends the process.
//!
//! What is left out on purpose, and what the tests show to be refused: making a socket or connecting
//! one, executing, forking, threads, signals to anybody, ptrace(2), memory of other processes, mounts,
//! namespaces, ids, keyrings, passing descriptors, executable memory. There is one thread, so what only
//! several need is not here either; and the database opens no file but those that it opened first.

/// When a call is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Always.
    Always,
    /// If the low 32 bits of this argument are one of these.
    OneOf(u8, &'static [u32]),
    /// If the low 32 bits of this argument have none of these bits.
    Without(u8, u32),
}

/// One entry.
#[derive(Debug, Clone, Copy)]
pub struct Allowed {
    /// The call's number here.
    pub call: i64,
    /// In which cases.
    pub when: When,
    /// Why.
    pub reason: &'static str,
}

const fn always(call: i64, reason: &'static str) -> Allowed {
    Allowed {
        call,
        when: When::Always,
        reason,
    }
}

const fn allowed(call: i64, when: When, reason: &'static str) -> Allowed {
    Allowed { call, when, reason }
}

/// Commands of fcntl(2): locks of SQLite, and whether a descriptor is open. Not
/// `F_SETOWN` and `F_SETSIG`, by which the kernel signals another process.
const DESCRIPTOR_COMMANDS: &[u32] = &[
    libc::F_GETLK as u32,
    libc::F_SETLK as u32,
    libc::F_GETFD as u32,
];

/// A new connection is made non-blocking.
const NON_BLOCKING: &[u32] = &[libc::FIONBIO as u32];

const EXECUTABLE: u32 = libc::PROT_EXEC as u32;

/// Allowed on every architecture.
pub const ALLOWED: &[Allowed] = &[
    // Peers.
    always(libc::SYS_accept4, "a peer connects"),
    always(libc::SYS_getsockopt, "who the peer is"),
    allowed(
        libc::SYS_ioctl,
        When::OneOf(1, NON_BLOCKING),
        "no peer can hold the loop up",
    ),
    always(libc::SYS_recvfrom, "what a peer says"),
    always(libc::SYS_sendto, "what a peer is answered"),
    always(libc::SYS_ppoll, "whose turn it is"),
    always(libc::SYS_timerfd_settime, "when the next grant ends"),
    // The database, the audit log, the daemon's own log; Landlock says where.
    always(libc::SYS_openat, "the next file of the audit log"),
    always(libc::SYS_close, "files and connections"),
    always(
        libc::SYS_read,
        "the signal that ends the daemon, and that a grant's time is over",
    ),
    always(libc::SYS_write, "the audit log, and the daemon's own"),
    always(libc::SYS_pread64, "the database"),
    always(libc::SYS_pwrite64, "the database"),
    always(libc::SYS_fsync, "on disk before it is answered"),
    always(libc::SYS_fdatasync, "on disk before it is answered"),
    always(
        libc::SYS_ftruncate,
        "a journal that was taken in, a torn line",
    ),
    always(
        libc::SYS_fallocate,
        "the reserves of the audit log and the journal",
    ),
    always(libc::SYS_fstat, "files that are open"),
    always(
        libc::SYS_newfstatat,
        "the same, and is the database still there",
    ),
    always(libc::SYS_statx, "the same, by the standard library"),
    always(libc::SYS_getdents64, "the files of the audit log"),
    always(
        libc::SYS_unlinkat,
        "the journal, the oldest file of the audit log",
    ),
    always(libc::SYS_renameat, "the audit log begins a new file"),
    allowed(
        libc::SYS_fcntl,
        When::OneOf(1, DESCRIPTOR_COMMANDS),
        "locks of the database; the standard library looks before it closes",
    ),
    always(libc::SYS_flock, "the lock of the audit log"),
    // Time and chance.
    always(libc::SYS_getrandom, "secrets, grants, recovery codes"),
    always(
        libc::SYS_clock_gettime,
        "where the kernel's own page does not have the clock",
    ),
    // The process itself.
    always(libc::SYS_brk, "memory"),
    allowed(
        libc::SYS_mmap,
        When::Without(2, EXECUTABLE),
        "memory that is not executable",
    ),
    allowed(
        libc::SYS_mprotect,
        When::Without(2, EXECUTABLE),
        "memory that is not executable",
    ),
    always(libc::SYS_mremap, "memory that grows"),
    always(libc::SYS_munmap, "memory given back"),
    always(libc::SYS_madvise, "memory given back"),
    always(
        libc::SYS_getpid,
        "status; SQLite looks whether it was forked",
    ),
    always(libc::SYS_gettid, "named in the last words of a panic"),
    always(
        libc::SYS_restart_syscall,
        "the kernel's own, when the process was stopped and goes on",
    ),
    always(libc::SYS_sigaltstack, "the end"),
    always(libc::SYS_exit_group, "the end"),
];

/// Allowed where these exist: what the C library calls there for the same.
#[cfg(target_arch = "x86_64")]
pub const ALLOWED_HERE: &[Allowed] = &[
    always(libc::SYS_poll, "whose turn it is"),
    always(
        libc::SYS_unlink,
        "the journal, the oldest file of the audit log",
    ),
    always(libc::SYS_rename, "the audit log begins a new file"),
];

/// Allowed where these exist.
#[cfg(target_arch = "aarch64")]
pub const ALLOWED_HERE: &[Allowed] = &[];
