//! Judges each layer of a worker's confinement by what `/proc` says, and says whose word it is.

use kai_proto::worker_broker::Report;
use serde::Serialize;

use crate::proc::{self, Bounds, NAMESPACES, ProcStatus, Tree};

/// How a layer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It holds.
    On,
    /// It is not there by configuration.
    Off,
    /// It should be there and is not.
    Missing,
}

/// Who says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Witness {
    /// The kernel, in /proc, read by this command.
    Proc,
    /// The worker itself, before its agent started: nothing outside can see it.
    Worker,
}

/// One layer of one worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Layer {
    /// What it is called.
    pub name: &'static str,
    /// How it stands.
    pub standing: Standing,
    /// Who says so.
    pub witness: Witness,
    /// More, where there is more to say.
    pub detail: String,
}

/// Filters that a worker installs on itself.
const FILTERS: u32 = 1;

/// Judges all layers of the worker with this pid, whose processes are `tree`.
#[must_use]
pub fn judge(pid: u32, uid: u32, tree: &Tree, report: Option<&Report>) -> Vec<Layer> {
    let threads: Vec<ProcStatus> = tree
        .processes
        .iter()
        .flat_map(|pid| proc::threads(*pid))
        .collect();
    let every =
        |holds: &dyn Fn(&ProcStatus) -> bool| !threads.is_empty() && threads.iter().all(holds);
    let mut layers = vec![
        by_proc(
            "account",
            every(&|thread| thread.uids.iter().all(|found| *found == uid)),
        ),
        by_proc("capabilities", every(&|thread| thread.no_capabilities)),
        by_proc("no_new_privs", every(&|thread| thread.no_new_privs)),
        by_proc(
            "seccomp",
            every(&|thread| {
                thread.seccomp_filter && thread.seccomp_filters >= inherited_filters(pid) + FILTERS
            }),
        ),
    ];
    for kind in NAMESPACES {
        let theirs = proc::namespace(&pid.to_string(), kind);
        let own = theirs.is_some() && theirs != proc::namespace("self", kind);
        layers.push(match (kind, own) {
            ("net", false) => Layer {
                name: "net",
                standing: Standing::Off,
                witness: Witness::Proc,
                detail: "the host's network".to_owned(),
            },
            _ => by_proc(kind, own),
        });
    }
    layers.push(landlock(report));
    layers.push(limits(proc::bounds(pid)));
    layers
}

/// What a worker has of its parent, the broker: under systemd the unit's own filter makes `Seccomp: 2` of
/// everything below it.
fn inherited_filters(pid: u32) -> u32 {
    let status = |pid: u32| proc::status(&format!("/proc/{pid}"));
    status(pid)
        .and_then(|worker| status(worker.parent))
        .map_or(0, |broker| broker.seccomp_filters)
}

fn limits(bounds: Option<Bounds>) -> Layer {
    let (standing, detail) = match bounds {
        None => (Standing::Missing, String::new()),
        Some(Bounds::Cgroup {
            memory,
            processes,
            cpu,
        }) => {
            let mib = memory.parse::<u64>().unwrap_or(0) >> 20;
            let cpu = cpu.as_deref().and_then(processors);
            let cpu = cpu.map_or_else(String::new, |cpu| format!(", {cpu} processors"));
            let detail = format!("cgroup: {mib} MiB, {processes} processes{cpu}");
            (Standing::On, detail)
        }
        Some(Bounds::Rlimits { processes }) => {
            let detail = format!("rlimits: {processes} processes, no limit of memory");
            (Standing::On, detail)
        }
    };
    Layer {
        name: "limits",
        standing,
        witness: Witness::Proc,
        detail,
    }
}

/// Of `cpu.max`, a time and its period.
fn processors(cpu: &str) -> Option<f64> {
    let (time, period) = cpu.split_once(' ')?;
    Some(time.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
}

fn by_proc(name: &'static str, holds: bool) -> Layer {
    Layer {
        name,
        standing: if holds {
            Standing::On
        } else {
            Standing::Missing
        },
        witness: Witness::Proc,
        detail: String::new(),
    }
}

fn landlock(report: Option<&Report>) -> Layer {
    let (standing, detail) = match report {
        None => (Standing::Missing, "not reported yet".to_owned()),
        Some(report) if report.landlock_abi == 0 => (Standing::Missing, String::new()),
        Some(report) if !report.landlock_whole => (
            Standing::On,
            format!("ABI {}, in part", report.landlock_abi),
        ),
        Some(report) => (Standing::On, format!("ABI {}", report.landlock_abi)),
    };
    Layer {
        name: "landlock",
        standing,
        witness: Witness::Worker,
        detail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_process_is_not_confined() {
        let pid = std::process::id();
        let tree = Tree {
            processes: vec![pid],
            ..Tree::default()
        };

        let layers = judge(pid, nix::unistd::getuid().as_raw(), &tree, None);

        let standing = |name: &str| layers.iter().find(|l| l.name == name).unwrap().standing;
        assert_eq!(standing("account"), Standing::On);
        assert_eq!(standing("pid"), Standing::Missing);
        assert_eq!(standing("net"), Standing::Off);
        assert_eq!(standing("landlock"), Standing::Missing);
    }

    #[test]
    fn a_worker_without_a_process_has_no_layer() {
        let layers = judge(u32::MAX, 1000, &Tree::default(), None);
        assert!(
            layers.iter().all(|layer| layer.standing != Standing::On),
            "{layers:?}"
        );
    }
}
