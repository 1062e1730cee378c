//! Other users: a neighbour with a home, processes, sockets and shared memory.

use std::{fs, os::unix::fs::MetadataExt};

use nix::unistd::geteuid;

use super::{
    Attempt,
    Group::Users,
    of,
    ways::{
        connect, connect_abstract, list, make, memory, read, signal, take_descriptor, trace,
        with_process, write,
    },
};
use crate::{
    answer::Answer,
    scene::Scene,
    sys::{at, call},
};

fn laid_out(scene: &Scene, name: &str, with: impl Fn(&str) -> Answer) -> Answer {
    match scene.of_neighbour(name) {
        "" => Answer::Nothing(format!("the neighbour could not lay out its {name}")),
        value => with(value),
    }
}

/// A System V object by its key; 0666, so that only a namespace or a filter is in the way.
fn by_key(scene: &Scene, name: &str, number: i64, arguments: fn(i64) -> [i64; 3]) -> Answer {
    laid_out(scene, name, |key| match key.parse() {
        Ok(key) => call(number, arguments(key)).into(),
        Err(_) => Answer::Unknown(key.to_owned()),
    })
}

fn in_proc(scene: &Scene, file: &str) -> String {
    format!("/proc/{}/{file}", scene.neighbour)
}

/// Whether what is seen there is the neighbour's at all.
fn theirs(scene: &Scene, path: &str) -> Answer {
    match fs::symlink_metadata(path) {
        Ok(found) => Answer::open_if(found.uid() == scene.neighbour_uid, "not the neighbour's"),
        Err(error) => Answer::refused(&error),
    }
}

fn watch(directory: &str) -> Answer {
    let directory = format!("{directory}\0");
    call(libc::SYS_inotify_init1, [0])
        .and_then(|watching| {
            let mask = libc::IN_CREATE.into();
            let arguments = [watching, at(directory.as_str()), mask];
            call(libc::SYS_inotify_add_watch, arguments)
        })
        .into()
}

fn sees_others() -> Answer {
    let me = geteuid().as_raw();
    let others = fs::read_dir("/proc").map(|entries| {
        entries
            .flatten()
            .filter(|entry| entry.file_name().as_encoded_bytes()[0].is_ascii_digit())
            .filter(|entry| entry.metadata().is_ok_and(|found| found.uid() != me))
            .count()
    });
    match others {
        // The worker's own process is root's to look at, because it is undumpable (proc(5)).
        Ok(0 | 1) => Answer::Blocked("none seen".to_owned()),
        Ok(count) => Answer::Open(format!("{count} processes")),
        Err(error) => Answer::refused(&error),
    }
}

pub(super) const ATTEMPTS: &[Attempt] = &[
    of(
        Users,
        "neighbour-file-read",
        "reads a file in a neighbour's home",
        |s| laid_out(s, "file", |path| read(path)),
    ),
    of(
        Users,
        "neighbour-file-write",
        "writes a file in a neighbour's home",
        |s| laid_out(s, "file", |path| write(path)),
    ),
    of(
        Users,
        "neighbour-home-list",
        "lists a neighbour's home",
        |s| laid_out(s, "home", |path| list(path)),
    ),
    of(
        Users,
        "neighbour-home-make",
        "makes a file in a neighbour's home",
        |s| laid_out(s, "home", |path| make(format!("{path}/new"))),
    ),
    of(
        Users,
        "neighbour-home-look",
        "looks at a neighbour's home from outside: owner, mode, times",
        |s| laid_out(s, "home", |path| theirs(s, path)),
    ),
    of(
        Users,
        "neighbour-watch",
        "is told what changes in a directory of a neighbour's in /tmp (inotify)",
        |s| laid_out(s, "tmp-directory", watch),
    ),
    of(
        Users,
        "host-watch",
        "is told what changes in a directory that everybody may list (inotify)",
        |_| watch("/var/lib"),
    ),
    of(Users, "processes-see", "sees processes of others", |_| {
        sees_others()
    }),
    of(
        Users,
        "process-arguments",
        "reads a neighbour's command line",
        |s| read(in_proc(s, "cmdline")),
    ),
    of(
        Users,
        "process-environment",
        "reads a neighbour's environment",
        |s| read(in_proc(s, "environ")),
    ),
    of(
        Users,
        "process-memory-file",
        "opens a neighbour's memory in /proc",
        |s| read(in_proc(s, "mem")),
    ),
    of(
        Users,
        "process-maps",
        "reads where a neighbour's memory is",
        |s| read(in_proc(s, "maps")),
    ),
    of(
        Users,
        "process-files",
        "lists what a neighbour has open",
        |s| list(in_proc(s, "fd")),
    ),
    of(
        Users,
        "process-root",
        "goes to the host's files through a neighbour's root",
        |s| list(in_proc(s, "root/")),
    ),
    of(
        Users,
        "process-status",
        "reads what a neighbour's process is doing",
        |s| read(in_proc(s, "status")),
    ),
    of(
        Users,
        "process-signal",
        "signals a neighbour's process",
        |s| signal(s.neighbour),
    ),
    of(
        Users,
        "process-trace",
        "attaches to a neighbour's process",
        |s| trace(s.neighbour),
    ),
    of(Users, "process-memory", "reads a neighbour's memory", |s| {
        memory(s.neighbour)
    }),
    of(
        Users,
        "process-descriptor",
        "takes a descriptor of a neighbour's",
        |s| take_descriptor(s.neighbour),
    ),
    of(
        Users,
        "process-handle",
        "gets a handle of a neighbour's process (pidfd_open)",
        |s| {
            with_process(s.neighbour, |process| {
                call(libc::SYS_pidfd_open, [process.into(), 0]).into()
            })
        },
    ),
    of(
        Users,
        "process-affinity",
        "asks on which processors a neighbour runs",
        |s| {
            with_process(s.neighbour, |process| {
                let mask = [0_u64; 128];
                call(
                    libc::SYS_sched_getaffinity,
                    [process.into(), 1024, at(&mask)],
                )
                .into()
            })
        },
    ),
    of(
        Users,
        "process-priority",
        "asks for a neighbour's priority",
        |s| {
            with_process(s.neighbour, |process| {
                call(libc::SYS_getpriority, [0, process.into()]).into()
            })
        },
    ),
    of(
        Users,
        "process-session",
        "asks for a neighbour's session",
        |s| {
            with_process(s.neighbour, |process| {
                call(libc::SYS_getsid, [process.into()]).into()
            })
        },
    ),
    of(
        Users,
        "process-limits",
        "asks for a neighbour's limits (prlimit)",
        |s| {
            with_process(s.neighbour, |process| {
                let limit = [0_u64; 2];
                let files = libc::RLIMIT_NOFILE.into();
                call(libc::SYS_prlimit64, [process.into(), files, 0, at(&limit)]).into()
            })
        },
    ),
    of(
        Users,
        "shared-tmp",
        "reads what a neighbour put into /tmp",
        |s| laid_out(s, "tmp-file", |path| read(path)),
    ),
    of(
        Users,
        "shared-var-tmp",
        "reads what a neighbour put into /var/tmp",
        |s| laid_out(s, "var-tmp-file", |path| read(path)),
    ),
    of(
        Users,
        "shared-shm",
        "opens a neighbour's shared memory in /dev/shm",
        |s| laid_out(s, "shm-file", |path| write(path)),
    ),
    of(
        Users,
        "sysv-memory",
        "gets a neighbour's shared memory (System V)",
        |s| by_key(s, "sysv-memory", libc::SYS_shmget, |key| [key, 0, 0]),
    ),
    of(
        Users,
        "sysv-messages",
        "gets a neighbour's message queue (System V)",
        |s| by_key(s, "sysv-messages", libc::SYS_msgget, |key| [key, 0, 0]),
    ),
    of(
        Users,
        "sysv-semaphores",
        "gets a neighbour's semaphores (System V)",
        |s| by_key(s, "sysv-semaphores", libc::SYS_semget, |key| [key, 0, 0]),
    ),
    of(
        Users,
        "message-queue",
        "opens a neighbour's message queue (POSIX)",
        |s| {
            laid_out(s, "message-queue", |name| {
                let name = format!("{name}\0");
                call(
                    libc::SYS_mq_open,
                    [at(name.as_str()), libc::O_RDONLY.into(), 0, 0],
                )
                .into()
            })
        },
    ),
    of(
        Users,
        "socket-abstract",
        "connects to a neighbour's socket with an abstract name",
        |s| laid_out(s, "abstract", connect_abstract),
    ),
    of(
        Users,
        "socket-in-run",
        "connects to a neighbour's socket below /run",
        |s| laid_out(s, "run-socket", |path| connect(path)),
    ),
    of(
        Users,
        "socket-in-tmp",
        "connects to a neighbour's socket below /tmp",
        |s| laid_out(s, "tmp-socket", |path| connect(path)),
    ),
    of(
        Users,
        "terminal",
        "writes to a neighbour's terminal that is open to all (mesg y)",
        |s| laid_out(s, "terminal", |path| write(path)),
    ),
    of(Users, "logins", "reads who logged in when", |_| {
        read("/var/log/wtmp")
    }),
    of(Users, "crontabs", "lists the crontabs of others", |_| {
        list("/var/spool/cron/crontabs")
    }),
    of(Users, "mail", "lists the mailboxes of others", |_| {
        list("/var/mail/")
    }),
    of(
        Users,
        "socket-names",
        "lists the names of the host's sockets",
        |_| {
            let names = fs::read_to_string("/proc/net/unix");
            match names {
                Ok(names) if names.contains(" @") || names.contains(" /") => Answer::open(),
                Ok(_) => Answer::Blocked("none seen".to_owned()),
                Err(error) => Answer::refused(&error),
            }
        },
    ),
];
