//! kai's own programs: their sockets, files and processes.

use std::{fs, path::Path};

use super::{
    Attempt,
    Group::Kai,
    of,
    ways::{connect, list, make, read, signal, trace, with_process, write},
};
use crate::{answer::Answer, scene::Scene, sys::call};

fn socket(scene: &Scene, name: &str) -> Answer {
    if scene.run.as_os_str().is_empty() {
        return Answer::Nothing("kai does not run".to_owned());
    }
    connect(scene.run.join(name))
}

/// The cgroup that this process is in, as it sees it.
fn own_cgroup() -> Option<std::path::PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let path = Path::new("/sys/fs/cgroup").join(path);
    path.join("cgroup.procs").exists().then_some(path)
}

fn of_cgroup(file: &str) -> Answer {
    match own_cgroup() {
        Some(path) => write(path.join(file)),
        None => Answer::Nothing("no cgroup v2 is seen".to_owned()),
    }
}

/// Groups that are not below its own: that of systemd, or another hierarchy's.
fn host_cgroups() -> Answer {
    let seen = fs::read_dir("/sys/fs/cgroup").map(|entries| {
        let names = entries
            .flatten()
            .filter(|entry| entry.path().is_dir())
            .map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.collect::<Vec<_>>()
    });
    match seen {
        Ok(names) if names.is_empty() => Answer::Blocked("none seen".to_owned()),
        Ok(names) => Answer::Open(names.join(", ")),
        Err(error) => Answer::refused(&error),
    }
}

/// What is open beside the three streams.
fn inherited() -> Answer {
    let open: Vec<String> = (3..256)
        .filter(|number| call(libc::SYS_fcntl, [*number, libc::F_GETFD.into()]).is_ok())
        .filter_map(|number| fs::read_link(format!("/proc/self/fd/{number}")).ok())
        .map(|path| path.display().to_string())
        // The attacker's own report, and the pipe on which this answer goes.
        .filter(|path| !path.ends_with("/report") && !path.starts_with("pipe:"))
        .collect();
    if open.is_empty() {
        Answer::Blocked("none".to_owned())
    } else {
        Answer::Open(open.join(", "))
    }
}

pub(super) const ATTEMPTS: &[Attempt] = &[
    of(
        Kai,
        "socket-gateway-broker",
        "connects where the gateway asks the broker",
        |s| socket(s, "gateway/broker.sock"),
    ),
    of(
        Kai,
        "socket-gateway-authd",
        "connects where the gateway asks authd",
        |s| socket(s, "gateway/authd.sock"),
    ),
    of(
        Kai,
        "socket-broker-authd",
        "connects where the broker asks authd",
        |s| socket(s, "broker/authd.sock"),
    ),
    of(
        Kai,
        "socket-admin-broker",
        "connects where the admin asks the broker",
        |s| socket(s, "admin/broker.sock"),
    ),
    of(
        Kai,
        "socket-admin-authd",
        "connects where the admin asks authd",
        |s| socket(s, "admin/authd.sock"),
    ),
    of(Kai, "users-yaml", "reads the table of users", |s| {
        read(s.configuration.join("users.yaml"))
    }),
    of(
        Kai,
        "configuration-list",
        "lists kai's configuration",
        |s| list(&s.configuration),
    ),
    of(
        Kai,
        "configuration-make",
        "puts a file beside kai's configuration",
        |s| make(s.configuration.join("new")),
    ),
    of(Kai, "state-gateway", "lists the gateway's state", |s| {
        list(s.kai_state.join("gateway"))
    }),
    of(Kai, "state-authd", "lists authd's state", |s| {
        list(s.kai_state.join("authd"))
    }),
    of(Kai, "state-users", "lists whose answers are kept", |s| {
        list(s.kai_state.join("users"))
    }),
    of(Kai, "audit-broker", "lists the broker's audit log", |s| {
        list(s.log.join("broker"))
    }),
    of(Kai, "audit-authd", "lists authd's audit log", |s| {
        list(s.log.join("authd"))
    }),
    of(
        Kai,
        "audit-make",
        "puts a file beside the audit logs",
        |s| make(s.log.join("new")),
    ),
    of(Kai, "program-change", "changes the worker's program", |s| {
        write(s.programs.join("kai-worker"))
    }),
    of(Kai, "program-add", "puts a program beside kai's", |s| {
        make(s.programs.join("new"))
    }),
    of(Kai, "broker-signal", "signals the broker", |s| {
        signal(s.broker)
    }),
    of(
        Kai,
        "broker-environment",
        "reads the broker's environment",
        |s| with_process(s.broker, |process| read(format!("/proc/{process}/environ"))),
    ),
    of(
        Kai,
        "broker-arguments",
        "reads the broker's command line",
        |s| with_process(s.broker, |process| read(format!("/proc/{process}/cmdline"))),
    ),
    of(Kai, "root-signal", "signals a process of root's", |s| {
        signal(s.root)
    }),
    of(Kai, "root-trace", "attaches to a process of root's", |s| {
        trace(s.root)
    }),
    of(
        Kai,
        "descriptors",
        "has descriptors that it should not have",
        |_| inherited(),
    ),
    of(Kai, "worker-state", "lists what its worker keeps", |s| {
        list(&s.state)
    }),
    of(
        Kai,
        "worker-state-make",
        "puts a file to what its worker keeps",
        |s| make(s.state.join("new")),
    ),
    of(
        Kai,
        "cgroup-leave",
        "writes to its control group's list of processes",
        |_| of_cgroup("cgroup.procs"),
    ),
    of(
        Kai,
        "cgroup-limit",
        "raises its control group's memory limit",
        |_| of_cgroup("memory.max"),
    ),
    of(
        Kai,
        "cgroup-others",
        "lists the control groups of the host",
        |_| host_cgroups(),
    ),
];
