//! The walls of `hardening`, tried in processes of their own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::BTreeSet,
    error::Error,
    fs, io,
    os::unix::fs::PermissionsExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    time::SystemTime,
};

use kai_audit::{Limits, Log, Record};
use kai_authd::{
    clock::Now,
    codes::RecoveryHash,
    hardening::{
        self,
        calls::{ALLOWED, ALLOWED_HERE, Allowed, When},
    },
    store::{NewEnrolment, Secret, Store},
};
use kai_proto::gateway_authd::User;
use nix::{
    sys::{
        signal::Signal,
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, fork},
};
use zeroize::Zeroizing;

/// One above the highest number of a call that any kernel has now.
const BEYOND: i64 = 512;

/// `uretprobe` and `uprobe` of x86-64, which seccomp lets pass on purpose: the kernel itself puts them
/// into a process that root traces, and anywhere else they do nothing.
#[cfg(target_arch = "x86_64")]
const PROBES: [i64; 2] = [335, 336];
#[cfg(not(target_arch = "x86_64"))]
const PROBES: [i64; 0] = [];

/// The exit status of a process that came to no end of its own.
const PANICKED: i32 = 101;

/// Runs `act` in a process of its own, which is confined to directories in `place` first, and tells
/// how it ended.
fn confined(place: &Path, act: impl FnOnce() -> i32) -> WaitStatus {
    prepared(place, || (), |()| act())
}

/// The same, with what was opened before.
fn prepared<T>(
    place: &Path,
    prepare: impl FnOnce() -> T,
    act: impl FnOnce(T) -> i32,
) -> WaitStatus {
    // SAFETY: the child has one thread, this one; the others of the harness wait and hold no lock but
    // perhaps the allocator's, which the C library makes whole again in the child. It never returns
    // from here.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => waitpid(child, None).unwrap(),
        ForkResult::Child => {
            let acted = catch_unwind(AssertUnwindSafe(|| {
                let ready = prepare();
                let confined = hardening::confine(&place.join("state"), &place.join("audit"));
                assert!(confined.unwrap().landlock_abi >= 1);
                act(ready)
            }));
            // SAFETY: ends the process at once, without what the harness would do at its end.
            unsafe { libc::_exit(acted.unwrap_or(PANICKED)) }
        }
    }
}

fn place() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    for name in ["state", "audit", "other"] {
        fs::create_dir(place.path().join(name)).unwrap();
    }
    fs::write(place.path().join("other/file"), "x").unwrap();
    place
}

/// A raw call. The pointers among the arguments are null or point nowhere; the kernel says so.
fn call(number: i64, arguments: [usize; 6]) -> io::Result<i64> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: no argument points into this process's memory, and callers choose calls and arguments
    // that neither unmap nor overwrite any.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// No descriptor, no address, no size.
const NOTHING: usize = usize::MAX;

/// Makes each call of the table once, so that it does nothing, and ends with the number of them.
fn every_allowed_call() -> i32 {
    let mut made = 0;
    for Allowed {
        call: number, when, ..
    } in ALLOWED.iter().chain(ALLOWED_HERE)
    {
        let mut arguments = [NOTHING; 6];
        match *number {
            // It does not return.
            libc::SYS_exit_group => continue,
            // Without a timeout that ends it at once, they wait.
            libc::SYS_ppoll => arguments = [0, 0, NOTHING, 0, 0, 0],
            #[cfg(target_arch = "x86_64")]
            libc::SYS_poll => arguments = [0; 6],
            _ => {}
        }
        match when {
            When::Always => {}
            When::OneOf(at, values) => arguments[usize::from(*at)] = values[0] as usize,
            When::Without(at, _) => arguments[usize::from(*at)] = 0,
        }
        let _ = call(*number, arguments);
        made += 1;
    }
    made
}

/// Tries the files: each bit of the status that is missing is one thing that was not as it should be.
fn files(place: &Path) -> i32 {
    let path = |name: &str| place.join(name);
    let denied = |result: io::Result<()>| {
        result.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    };
    let as_it_should_be = [
        fs::write(path("state/new"), "x").is_ok(),
        fs::rename(path("state/new"), path("state/renamed")).is_ok()
            && fs::read(path("state/renamed")).is_ok()
            && fs::remove_file(path("state/renamed")).is_ok(),
        fs::write(path("audit/new"), "x").is_ok() && fs::read_dir(path("audit")).is_ok(),
        denied(fs::read(path("other/file")).map(drop)) && denied(fs::read("/etc/passwd").map(drop)),
        denied(fs::write(path("other/new"), "x")) && denied(fs::write(path("new"), "x")),
        denied(fs::read_dir(place).map(drop)) && denied(fs::read_dir("/proc/self").map(drop)),
        denied(fs::read("/dev/urandom").map(drop)),
    ];
    as_it_should_be
        .iter()
        .enumerate()
        .fold(0, |bits, (at, good)| bits | i32::from(*good) << at)
}

/// The end that the filter gives.
fn ended_by_the_filter(status: WaitStatus) -> bool {
    matches!(status, WaitStatus::Signaled(_, Signal::SIGSYS, _))
}

fn status_of(ended: WaitStatus) -> i32 {
    match ended {
        WaitStatus::Exited(_, status) => status,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_call_of_the_table_is_allowed() {
    let place = place();
    let calls = ALLOWED.len() + ALLOWED_HERE.len() - 1;

    let made = confined(place.path(), every_allowed_call);

    assert_eq!(status_of(made), i32::try_from(calls).unwrap());
}

#[test]
fn every_other_call_ends_the_process() {
    let place = place();
    let allowed: BTreeSet<i64> = ALLOWED
        .iter()
        .chain(ALLOWED_HERE)
        .map(|entry| entry.call)
        .collect();

    let survived: Vec<i64> = (0..BEYOND)
        .filter(|number| !allowed.contains(number) && !PROBES.contains(number))
        .filter(|number| {
            !ended_by_the_filter(confined(place.path(), || {
                let _ = call(*number, [NOTHING; 6]);
                0
            }))
        })
        .collect();

    assert_eq!(survived, Vec::<i64>::new());
    for (name, number) in [
        ("connect", libc::SYS_connect),
        ("socket", libc::SYS_socket),
        ("socketpair", libc::SYS_socketpair),
        ("sendmsg", libc::SYS_sendmsg),
        ("execve", libc::SYS_execve),
        ("execveat", libc::SYS_execveat),
        ("clone", libc::SYS_clone),
        ("clone3", libc::SYS_clone3),
        #[cfg(target_arch = "x86_64")]
        ("fork", libc::SYS_fork),
        #[cfg(target_arch = "x86_64")]
        ("vfork", libc::SYS_vfork),
        ("kill", libc::SYS_kill),
        ("tgkill", libc::SYS_tgkill),
        ("pidfd_send_signal", libc::SYS_pidfd_send_signal),
        ("ptrace", libc::SYS_ptrace),
        ("process_vm_readv", libc::SYS_process_vm_readv),
        ("mount", libc::SYS_mount),
        ("unshare", libc::SYS_unshare),
        ("setresuid", libc::SYS_setresuid),
        ("prctl", libc::SYS_prctl),
        ("bpf", libc::SYS_bpf),
        ("io_uring_setup", libc::SYS_io_uring_setup),
        ("chmod by name", libc::SYS_fchmodat),
    ] {
        assert!(
            (0..BEYOND).contains(&number) && !allowed.contains(&number),
            "{name}"
        );
    }
}

#[test]
fn an_allowed_call_with_arguments_that_are_not_ends_the_process() {
    let place = place();
    let executable = (libc::PROT_READ | libc::PROT_EXEC) as usize;
    let anonymous = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize;
    let garbage = 0xdead_beef_usize << 32;
    for (why, number, arguments) in [
        (
            "executable memory",
            libc::SYS_mmap,
            vec![0, 4096, executable, anonymous, NOTHING],
        ),
        (
            "memory made executable",
            libc::SYS_mprotect,
            vec![0, 0, executable],
        ),
        (
            "and with garbage above",
            libc::SYS_mprotect,
            vec![0, 0, garbage | executable],
        ),
        (
            "signals by a descriptor",
            libc::SYS_fcntl,
            vec![2, libc::F_SETOWN as usize, 1],
        ),
        (
            "typing into a terminal",
            libc::SYS_ioctl,
            vec![2, libc::TIOCSTI as usize],
        ),
    ] {
        let ended = confined(place.path(), || {
            let mut six = [0; 6];
            six[..arguments.len()].copy_from_slice(&arguments);
            let _ = call(number, six);
            0
        });
        assert!(ended_by_the_filter(ended), "{why}: {ended:?}");
    }
}

#[test]
fn files_are_those_of_the_two_directories_and_no_others() {
    let place = place();

    let good = status_of(confined(place.path(), || files(place.path())));

    assert_eq!(good, 0b111_1111, "{good:b}");
}

/// More changes than fit into SQLite's memory and its journal, and more lines than fit into one file of
/// the log: everything that both ever do with files.
fn a_busy_year(mut store: Store, mut log: Log) -> Result<(), Box<dyn Error>> {
    let now = || Now::read().map(|now| now.unix());
    let user = |n: i64| -> Result<User, Box<dyn Error>> {
        Ok(User {
            name: format!("user{n}").try_into()?,
            id: n.try_into()?,
        })
    };
    let secret = Secret::new(Zeroizing::new([7; 20]));
    let recovery: Vec<RecoveryHash> = (0..10)
        .map(|n| RecoveryHash {
            salt: [n; 16],
            hash: [n; 32],
        })
        .collect();
    let many = store.change()?;
    for n in 1..=500 {
        many.enrol(&NewEnrolment {
            user: &user(n)?,
            secret: &secret,
            since: now()?,
            last_step: 0,
            recovery: &recovery,
        })?;
    }
    many.commit()?;
    for n in 1..=300 {
        let change = store.change()?;
        change.charge(user(n)?.id, n.unsigned_abs())?;
        let record = Record::new("code.accepted").text("user", format!("user{n}"));
        log.append(&record, SystemTime::now())?;
        change.commit()?;
    }
    for n in 1..=400 {
        let change = store.change()?;
        change.remove(user(n)?.id)?;
        if n % 100 == 0 {
            change.commit()?;
            store.settle()?;
        }
    }
    if store.list()?.len() < 100 {
        return Err("users are lost".into());
    }
    drop(store);
    log.close();
    eprintln!("process {} is done", std::process::id());
    Ok(())
}

#[test]
fn the_database_and_the_audit_log_work_behind_the_walls() {
    if !nix::unistd::geteuid().is_root() {
        assert!(
            std::env::var_os("KAI_TESTS_MUST_RUN").is_none(),
            "must not be skipped here, but needs root"
        );
        return eprintln!("skipped: needs root, as the database belongs to root");
    }
    let place = place();
    let state = place.path().join("state");
    for name in ["state", "audit"] {
        fs::set_permissions(place.path().join(name), PermissionsExt::from_mode(0o700)).unwrap();
    }
    drop(Store::create(&state).unwrap());
    let small = Limits {
        file: 4096,
        files: 3,
    };

    let ended = prepared(
        place.path(),
        || {
            let log = Log::open(&place.path().join("audit"), small).unwrap();
            (Store::open(&state).unwrap(), log)
        },
        |(store, log)| match a_busy_year(store, log) {
            Ok(()) => 0,
            Err(error) => {
                eprintln!("{error}");
                1
            }
        },
    );

    assert_eq!(status_of(ended), 0);
    Store::open(&state).unwrap();
}

#[test]
fn every_entry_has_a_reason() {
    assert!(
        ALLOWED
            .iter()
            .chain(ALLOWED_HERE)
            .all(|entry| !entry.reason.is_empty())
    );
}
