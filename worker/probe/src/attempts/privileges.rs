//! Root, and what root alone may do.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use super::{
    Attempt,
    Group::Privileges,
    of,
    ways::{connect, make, read, write},
};
use crate::{
    answer::Answer,
    scene::Scene,
    sys::{at, call},
};

/// Runs a program of the host's as somebody who wants to be root would.
fn become_root(program: &str, arguments: &[&str]) -> Answer {
    let places = ["/usr/bin", "/bin", "/usr/sbin"];
    let mut found = places.iter().map(|place| Path::new(place).join(program));
    let Some(path) = found.find(|path| path.exists()) else {
        return Answer::Nothing(format!("{program} is not on this host"));
    };
    match Command::new(path).args(arguments).env_clear().output() {
        Ok(output) if output.status.success() && output.stdout.starts_with(b"0") => Answer::open(),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let said: String = said.lines().next().unwrap_or("").chars().take(60).collect();
            Answer::Blocked(said)
        }
        Err(error) => Answer::refused(&error),
    }
}

/// A file of the attacker's own, for what is to be done to it.
fn own_file(scene: &Scene, name: &str, with: impl Fn(&Path) -> Answer) -> Answer {
    let path = scene.home.join(name);
    if let Err(error) = fs::write(&path, "") {
        return Answer::Unknown(error.to_string());
    }
    let answer = with(&path);
    let _ = fs::remove_file(&path);
    answer
}

fn owner(path: &Path, uid: u32) -> Answer {
    std::os::unix::fs::chown(path, Some(uid), None).into()
}

fn device(scene: &Scene, kind: u32, numbers: (u32, u32)) -> Answer {
    let path = scene.home.join("device");
    let text = format!("{}\0", path.display());
    let device = libc::makedev(numbers.0, numbers.1);
    let here = libc::AT_FDCWD.into();
    let arguments = [
        here,
        at(text.as_str()),
        (kind | 0o600).into(),
        device as i64,
    ];
    let made = call(libc::SYS_mknodat, arguments);
    let _ = fs::remove_file(&path);
    made.into()
}

fn prctl(option: i32, argument: i64) -> std::io::Result<i64> {
    call(libc::SYS_prctl, [option.into(), argument, 0, 0, 0])
}

/// The capabilities that a program of root's could still have.
fn bounding_set() -> Answer {
    let left = (0..64).filter(|number| matches!(prctl(libc::PR_CAPBSET_READ, *number), Ok(1)));
    match left.count() {
        0 => Answer::Blocked("empty".to_owned()),
        count => Answer::Open(format!("{count} capabilities")),
    }
}

fn raise_capabilities() -> Answer {
    // _LINUX_CAPABILITY_VERSION_3 of linux/capability.h: this process; then all bits of all sets.
    let header = [0x2008_0522_u32, 0];
    let data = [u32::MAX; 6];
    call(libc::SYS_capset, [at(&header), at(&data)]).into()
}

/// A program that is set-user-id for the neighbour: whom does it run as?
fn set_user_id(scene: &Scene) -> Answer {
    let program = scene.place.join("neighbours-program");
    match Command::new(&program).arg("whoami").env_clear().output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout);
            let theirs = said.trim() == scene.neighbour_uid.to_string();
            Answer::open_if(theirs, "ran as itself")
        }
        Err(error) => Answer::refused(&error),
    }
}

fn raise_limit() -> Answer {
    let mut limit = [0_u64; 2];
    let files = libc::RLIMIT_NOFILE.into();
    let asked = call(libc::SYS_prlimit64, [0, files, 0, at(&limit)]);
    if let Err(error) = asked {
        return Answer::refused(&error);
    }
    // The kernel has written there.
    limit = std::hint::black_box(limit);
    let more = [limit[1], limit[1] + 1];
    call(libc::SYS_prlimit64, [0, files, at(&more), 0]).into()
}

pub(super) const ATTEMPTS: &[Attempt] = &[
    of(
        Privileges,
        "become-root",
        "asks to be root (setresuid)",
        |_| call(libc::SYS_setresuid, [0, 0, 0]).into(),
    ),
    of(
        Privileges,
        "become-roots-group",
        "asks for root's group (setresgid)",
        |_| call(libc::SYS_setresgid, [0, 0, 0]).into(),
    ),
    of(
        Privileges,
        "groups",
        "gives itself groups (setgroups)",
        |_| {
            let groups = [0_u32];
            call(libc::SYS_setgroups, [1, at(&groups)]).into()
        },
    ),
    of(
        Privileges,
        "become-neighbour",
        "asks to be its neighbour",
        |s| {
            let uid = s.neighbour_uid.into();
            call(libc::SYS_setresuid, [uid, uid, uid]).into()
        },
    ),
    of(Privileges, "sudo", "calls sudo", |_| {
        become_root("sudo", &["-n", "id", "-u"])
    }),
    of(Privileges, "su", "calls su", |_| {
        become_root("su", &["-c", "id -u"])
    }),
    of(Privileges, "pkexec", "calls pkexec", |_| {
        become_root("pkexec", &["id", "-u"])
    }),
    of(
        Privileges,
        "set-user-id",
        "runs a program that is set-user-id",
        set_user_id,
    ),
    of(
        Privileges,
        "new-privileges",
        "takes back that it gave up new privileges",
        |_| match prctl(libc::PR_GET_NO_NEW_PRIVS, 0) {
            Ok(1) => prctl(libc::PR_SET_NO_NEW_PRIVS, 0).into(),
            _ => Answer::open(),
        },
    ),
    of(
        Privileges,
        "bounding-set",
        "has capabilities left to gain",
        |_| bounding_set(),
    ),
    of(
        Privileges,
        "capabilities",
        "gives itself capabilities (capset)",
        |_| raise_capabilities(),
    ),
    of(
        Privileges,
        "ambient-set",
        "hands capabilities on to what it starts",
        |_| {
            let raise = libc::PR_CAP_AMBIENT_RAISE.into();
            // CAP_SYS_ADMIN of linux/capability.h.
            call(
                libc::SYS_prctl,
                [libc::PR_CAP_AMBIENT.into(), raise, 21, 0, 0],
            )
            .into()
        },
    ),
    of(
        Privileges,
        "give-to-root",
        "makes a file of its own root's",
        |s| own_file(s, "given", |path| owner(path, 0)),
    ),
    of(
        Privileges,
        "give-to-neighbour",
        "makes a file of its own its neighbour's",
        |s| own_file(s, "given", |path| owner(path, s.neighbour_uid)),
    ),
    of(
        Privileges,
        "own-set-user-id",
        "makes a program that gives its own account away",
        |s| {
            own_file(s, "given", |path| {
                fs::set_permissions(path, fs::Permissions::from_mode(0o4755)).into()
            })
        },
    ),
    of(
        Privileges,
        "device-memory",
        "makes a device that is the host's memory",
        |s| device(s, libc::S_IFCHR, (1, 1)),
    ),
    of(
        Privileges,
        "device-disk",
        "makes a device that is a disk",
        |s| device(s, libc::S_IFBLK, (8, 0)),
    ),
    of(Privileges, "limit", "raises a limit of its own", |_| {
        raise_limit()
    }),
    of(
        Privileges,
        "priority",
        "runs before others (setpriority)",
        |_| call(libc::SYS_setpriority, [0, 0, -5]).into(),
    ),
    of(
        Privileges,
        "realtime",
        "runs before everything (SCHED_FIFO)",
        |_| {
            let priority = [1_i32];
            let policy = libc::SCHED_FIFO.into();
            call(libc::SYS_sched_setscheduler, [0, policy, at(&priority)]).into()
        },
    ),
    of(
        Privileges,
        "disk-priority",
        "reads and writes before others (ioprio_set)",
        |_| {
            // Realtime is class 1, in the upper bits (ioprio_set(2)).
            call(libc::SYS_ioprio_set, [1, 0, 1 << 13]).into()
        },
    ),
    of(
        Privileges,
        "oom-score",
        "is spared when memory runs out",
        |_| fs::write("/proc/self/oom_score_adj", "-1000").into(),
    ),
    of(
        Privileges,
        "core-pattern",
        "names a program that root runs at the next crash",
        |_| write("/proc/sys/kernel/core_pattern"),
    ),
    of(
        Privileges,
        "hotplug",
        "names a program that root runs for a module",
        |_| write("/proc/sys/kernel/modprobe"),
    ),
    of(Privileges, "sysrq", "orders the kernel about", |_| {
        write("/proc/sysrq-trigger")
    }),
    of(
        Privileges,
        "ptrace-scope",
        "switches off who may trace whom",
        |_| write("/proc/sys/kernel/yama/ptrace_scope"),
    ),
    of(Privileges, "passwd", "changes the accounts", |_| {
        write("/etc/passwd")
    }),
    of(
        Privileges,
        "shadow",
        "reads the hashes of passwords",
        |_| read("/etc/shadow"),
    ),
    of(Privileges, "sudoers", "lets itself become root", |_| {
        make("/etc/sudoers.d/kai-probe")
    }),
    of(
        Privileges,
        "preload",
        "has its code loaded by every program",
        |_| make("/etc/ld.so.preload"),
    ),
    of(Privileges, "cron", "leaves something for cron", |_| {
        make("/var/spool/cron/crontabs/kai-probe")
    }),
    of(
        Privileges,
        "cron-d",
        "leaves something for cron in /etc",
        |_| make("/etc/cron.d/kai-probe"),
    ),
    of(
        Privileges,
        "system-bus",
        "asks the system's services (D-Bus)",
        |_| connect("/run/dbus/system_bus_socket"),
    ),
    of(
        Privileges,
        "systemd",
        "asks systemd to run something",
        |_| connect("/run/systemd/private"),
    ),
    of(
        Privileges,
        "journal",
        "writes to the journal, past kai",
        |_| {
            let socket = std::os::unix::net::UnixDatagram::unbound();
            socket
                .and_then(|socket| socket.connect("/run/systemd/journal/socket"))
                .into()
        },
    ),
    of(
        Privileges,
        "docker",
        "asks docker to run something as root",
        |_| connect("/run/docker.sock"),
    ),
    of(Privileges, "id-map", "maps root's id to itself", |_| {
        fs::write("/proc/self/uid_map", "0 0 1").into()
    }),
];
