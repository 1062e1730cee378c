//! What the kernel says of a process, in proc(5).
//!
//! A process may end between two reads: whatever cannot be read is none, never an error.

use std::{collections::HashMap, fs, path::PathBuf};

/// The namespaces that are compared, as `/proc/PID/ns` names them.
pub const NAMESPACES: [&str; 6] = ["pid", "mnt", "ipc", "uts", "cgroup", "net"];

/// Bits of no capability at all.
const NO_CAPABILITIES: u64 = 0;

/// `/proc/PID/status`, the part that matters here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProcStatus {
    /// Real, effective, saved and file-system user.
    pub uids: Vec<u32>,
    /// Real, effective, saved and file-system group.
    pub gids: Vec<u32>,
    /// Process ids, from the reader's namespace to the innermost.
    pub pids: Vec<u32>,
    /// Inheritable, permitted, effective, bounding and ambient capabilities are all empty.
    pub no_capabilities: bool,
    /// `NoNewPrivs` is set.
    pub no_new_privs: bool,
    /// `Seccomp` is 2: a filter.
    pub seccomp_filter: bool,
    /// How many filters (`Seccomp_filters`, Linux 5.9).
    pub seccomp_filters: u32,
    /// The parent's process id.
    pub parent: u32,
}

/// Reads the status of one process or thread.
#[must_use]
pub fn status(path: &str) -> Option<ProcStatus> {
    parse_status(&fs::read_to_string(format!("{path}/status")).ok()?)
}

fn parse_status(text: &str) -> Option<ProcStatus> {
    let fields: HashMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key, value.trim()))
        .collect();
    let numbers = |key: &str| -> Option<Vec<u32>> {
        fields
            .get(key)?
            .split_whitespace()
            .map(|number| number.parse().ok())
            .collect()
    };
    let capabilities = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];
    let no_capabilities = capabilities.iter().all(|set| {
        fields
            .get(set)
            .and_then(|bits| u64::from_str_radix(bits, 16).ok())
            == Some(NO_CAPABILITIES)
    });
    Some(ProcStatus {
        uids: numbers("Uid")?,
        gids: numbers("Gid")?,
        pids: numbers("NSpid")?,
        no_capabilities,
        no_new_privs: fields.get("NoNewPrivs") == Some(&"1"),
        seccomp_filter: fields.get("Seccomp") == Some(&"2"),
        seccomp_filters: numbers("Seccomp_filters")
            .and_then(|count| count.first().copied())
            .unwrap_or(0),
        parent: *numbers("PPid")?.first()?,
    })
}

/// The status of every thread of a process.
#[must_use]
pub fn threads(pid: u32) -> Vec<ProcStatus> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| status(&entry.path().to_string_lossy()))
        .collect()
}

/// What bounds all that a worker starts, as read from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bounds {
    /// A control group of version 2: bytes of memory and processes, in the kernel's words.
    Cgroup {
        /// `memory.max`.
        memory: String,
        /// `pids.max`.
        processes: String,
        /// `cpu.max`: microseconds of a period, and the period.
        cpu: Option<String>,
    },
    /// Rlimits: processes of the whole account, and no bound on memory.
    Rlimits {
        /// The hard limit.
        processes: String,
    },
}

/// The bounds of a process; none if it has none, or is gone.
#[must_use]
pub fn bounds(pid: u32) -> Option<Bounds> {
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let group = cgroup.lines().find_map(|line| line.strip_prefix("0::"));
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    in_cgroup(&PathBuf::from("/sys/fs/cgroup"), group).or_else(|| by_rlimits(&limits))
}

fn in_cgroup(mount: &std::path::Path, group: Option<&str>) -> Option<Bounds> {
    let directory = mount.join(group?.trim_start_matches('/'));
    let read = |file: &str| {
        let text = fs::read_to_string(directory.join(file)).ok()?;
        let text = text.trim().to_owned();
        (text != "max").then_some(text)
    };
    Some(Bounds::Cgroup {
        memory: read("memory.max")?,
        processes: read("pids.max")?,
        cpu: read("cpu.max").filter(|cpu| !cpu.starts_with("max")),
    })
}

fn by_rlimits(limits: &str) -> Option<Bounds> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max processes"))?;
    let hard = line.split_whitespace().nth(1)?;
    (hard != "unlimited").then(|| Bounds::Rlimits {
        processes: hard.to_owned(),
    })
}

/// What a namespace of a process is called; the same name is the same namespace.
#[must_use]
pub fn namespace(pid: &str, kind: &str) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok()
}

/// Everything that lives in the PID namespace of a worker.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tree {
    /// Its processes, by their number on the host.
    pub processes: Vec<u32>,
    /// Those processes by their number in the namespace.
    pub by_inner_pid: HashMap<u32, u32>,
    /// Proportional set size of all of them, in KiB.
    pub memory_kib: u64,
    /// Processor time of all of them, in seconds, with that of their reaped children.
    pub cpu_seconds: f64,
}

/// Finds the processes of each PID namespace but the reader's own. One walk over `/proc` serves all
/// workers.
#[must_use]
pub fn trees() -> HashMap<PathBuf, Tree> {
    let ours = namespace("self", "pid");
    let mut trees: HashMap<PathBuf, Tree> = HashMap::new();
    let Ok(entries) = fs::read_dir("/proc") else {
        return trees;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Some(inside) = namespace(&pid.to_string(), "pid") else {
            continue;
        };
        if Some(&inside) == ours.as_ref() {
            continue;
        }
        let tree = trees.entry(inside).or_default();
        tree.processes.push(pid);
        tree.memory_kib += memory_kib(pid).unwrap_or(0);
        tree.cpu_seconds += cpu_seconds(pid).unwrap_or(0.0);
        let inner = status(&format!("/proc/{pid}")).and_then(|status| status.pids.last().copied());
        tree.by_inner_pid.extend(inner.map(|inner| (inner, pid)));
    }
    trees
}

fn memory_kib(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

fn cpu_seconds(pid: u32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ticks = parse_ticks(&text)?;
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
    Some(ticks as f64 / per_second as f64)
}

/// utime, stime, cutime and cstime: fields 14 to 17, counted behind the name, which may hold anything.
fn parse_ticks(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = behind_name.split_whitespace().collect();
    fields
        .get(11..15)?
        .iter()
        .map(|field| field.parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_with_any_capability_is_not_without() {
        let text = |bounding: &str| {
            format!(
                "Name:\tx\nPPid:\t5\nUid:\t1\t1\t1\t1\nGid:\t2\t2\t2\t2\nNSpid:\t77\t1\n\
                 CapInh:\t0\nCapPrm:\t0\nCapEff:\t0\nCapBnd:\t{bounding}\nCapAmb:\t0\n\
                 NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t6\n"
            )
        };

        let clean = parse_status(&text("0000000000000000")).unwrap();
        let bounded = parse_status(&text("0000000000000400")).unwrap();

        assert!(clean.no_capabilities && clean.no_new_privs && clean.seccomp_filter);
        assert_eq!(clean.pids, [77, 1]);
        assert_eq!((clean.parent, clean.seccomp_filters), (5, 6));
        assert!(!bounded.no_capabilities);
    }

    #[test]
    fn a_process_cannot_forge_its_times_by_its_name() {
        let stat = "7 (evil) 9 9 9) S 1 7 7 0 -1 0 0 0 0 0 11 22 33 44 20 0 1 0";
        assert_eq!(parse_ticks(stat), Some(110));
    }

    #[test]
    fn bounds_are_those_of_the_cgroup_and_else_of_the_rlimits() {
        let mount = tempfile::tempdir().unwrap();
        let group = mount.path().join("system.slice/worker-1");
        fs::create_dir_all(&group).unwrap();
        fs::write(group.join("memory.max"), "4294967296\n").unwrap();
        fs::write(group.join("pids.max"), "512\n").unwrap();
        fs::write(group.join("cpu.max"), "150000 100000\n").unwrap();

        assert_eq!(
            in_cgroup(mount.path(), Some("/system.slice/worker-1")),
            Some(Bounds::Cgroup {
                memory: "4294967296".to_owned(),
                processes: "512".to_owned(),
                cpu: Some("150000 100000".to_owned()),
            })
        );
        fs::write(group.join("memory.max"), "max\n").unwrap();
        assert_eq!(
            in_cgroup(mount.path(), Some("/system.slice/worker-1")),
            None
        );
        let limits = |hard: &str| {
            format!("Max open files 1 2 files\nMax processes             512   {hard} processes\n")
        };
        assert_eq!(
            by_rlimits(&limits("1024")),
            Some(Bounds::Rlimits {
                processes: "1024".to_owned(),
            })
        );
        assert_eq!(by_rlimits(&limits("unlimited")), None);
    }
}
