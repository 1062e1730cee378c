//! What the kernel must offer: the layers of a worker's confinement.

use super::Finding;

/// The oldest supported kernel: Debian 12's.
const OLDEST: (u32, u32) = (6, 1);
/// The Landlock ABI of that kernel.
const LANDLOCK: u8 = 2;
/// What a worker's filter answers with.
const ACTIONS: [&str; 3] = ["allow", "errno", "kill_process"];
/// The namespaces that a worker gets, as `/proc/PID/ns` names them.
pub const NAMESPACES: [&str; 5] = ["pid", "mnt", "ipc", "uts", "cgroup"];
/// The controllers that can bound a user's processes.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// How Landlock answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Landlock {
    /// It confined a thread, with this ABI.
    Abi(u8),
    /// It is built into the kernel and was not enabled at boot.
    NotEnabled,
    /// It is not built into the kernel, or hidden by a filter.
    NotBuilt,
    /// It failed.
    Failed(String),
}

/// One kind of namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// As `/proc/PID/ns` names it.
    pub kind: &'static str,
    /// True if the kernel has it.
    pub exists: bool,
    /// How many there may be (`/proc/sys/user/max_KIND_namespaces`), if the kernel says.
    pub most: Option<u64>,
}

/// The kernel's version, from what uname(2) calls its release.
pub fn version(release: &str) -> Finding {
    let mut numbers = release
        .split(['.', '-', '+'])
        .map_while(|part| part.parse::<u32>().ok());
    let needed = format!("{}.{}", OLDEST.0, OLDEST.1);
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) >= OLDEST => Finding::ok(release),
        _ => Finding::missing(
            format!("{release:?} is older than {needed}, or not a version"),
            format!("boot a kernel from {needed} on, as Debian 12 has it"),
        ),
    }
}

/// Landlock, which confines a worker and its agent to their files.
pub fn landlock(answer: &Landlock) -> Finding {
    match answer {
        Landlock::Abi(abi) if *abi >= LANDLOCK => Finding::ok(format!("ABI {abi}")),
        Landlock::Abi(abi) => Finding::missing(
            format!("ABI {abi} where {LANDLOCK} is needed"),
            "boot a newer kernel",
        ),
        Landlock::NotEnabled => Finding::missing(
            "is built into the kernel and not enabled",
            "add landlock to the list behind lsm= on the kernel's command line, and boot again",
        ),
        Landlock::NotBuilt => Finding::missing(
            "is not built into the kernel, or hidden from this process",
            "boot a kernel with CONFIG_SECURITY_LANDLOCK; in a container, let the three \
             landlock_* calls through its filter",
        ),
        Landlock::Failed(problem) => Finding::missing(
            format!("does not confine a thread: {problem}"),
            "look at the kernel's log for why",
        ),
    }
}

/// Seccomp filters, from `/proc/sys/kernel/seccomp/actions_avail`.
pub fn seccomp(actions: Option<&str>) -> Finding {
    let offered: Vec<&str> = actions.unwrap_or_default().split_whitespace().collect();
    let lacking = lacking(&ACTIONS, &offered);
    if lacking.is_empty() {
        Finding::ok("filters with every action that is used")
    } else {
        Finding::missing(
            format!("filters lack the actions {}", lacking.join(", ")),
            "boot a kernel with CONFIG_SECCOMP_FILTER",
        )
    }
}

/// The namespaces that every worker gets for itself.
pub fn namespaces(found: &[Namespace]) -> Finding {
    let absent: Vec<&str> = found
        .iter()
        .filter(|namespace| !namespace.exists)
        .map(|namespace| namespace.kind)
        .collect();
    let forbidden: Vec<String> = found
        .iter()
        .filter(|namespace| namespace.exists && namespace.most == Some(0))
        .map(|namespace| format!("user.max_{}_namespaces", namespace.kind))
        .collect();
    if !absent.is_empty() {
        Finding::missing(
            format!("the kernel has none of the kinds {}", absent.join(", ")),
            "boot a kernel with CONFIG_NAMESPACES and all that stands below it",
        )
    } else if !forbidden.is_empty() {
        Finding::missing(
            format!("{} is 0, so there can be none", forbidden.join(" and ")),
            format!(
                "set {} to a few thousand in /etc/sysctl.d",
                forbidden.join(" and ")
            ),
        )
    } else {
        let kinds: Vec<&str> = found.iter().map(|namespace| namespace.kind).collect();
        Finding::ok(kinds.join(", "))
    }
}

/// cgroup v2 and its controllers, from `cgroup.controllers` at its root.
pub fn cgroup(controllers: Option<&str>) -> Finding {
    let Some(controllers) = controllers else {
        return Finding::note("not mounted at /sys/fs/cgroup: no limits by control group here");
    };
    let offered: Vec<&str> = controllers.split_whitespace().collect();
    let lacking = lacking(&CONTROLLERS, &offered);
    if lacking.is_empty() {
        Finding::ok(CONTROLLERS.join(", "))
    } else {
        Finding::note(format!("without the controllers {}", lacking.join(", ")))
    }
}

fn lacking<'a>(wanted: &[&'a str], offered: &[&str]) -> Vec<&'a str> {
    wanted
        .iter()
        .copied()
        .filter(|wanted| !offered.contains(wanted))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{
        super::State::{self, Missing, Note, Ok},
        *,
    };

    #[test]
    fn kernels_from_debian_12_s_on_are_new_enough() {
        for (release, state) in [
            ("6.1.0-18-amd64", Ok),
            ("6.1", Ok),
            ("6.18.44+deb13", Ok),
            ("10.0.0", Ok),
            ("6.0.19", Missing),
            ("5.15.0-91-generic", Missing),
            ("6", Missing),
            ("", Missing),
            ("six.one", Missing),
        ] {
            assert_eq!(version(release).state, state, "{release:?}");
        }
    }

    #[test]
    fn landlock_needs_the_abi_of_debian_12() {
        let failed = Landlock::Failed("no".to_owned());
        for (answer, state, said) in [
            (Landlock::Abi(2), Ok, "ABI 2"),
            (Landlock::Abi(7), Ok, "ABI 7"),
            (Landlock::Abi(1), Missing, "ABI 1 where 2"),
            (Landlock::Abi(0), Missing, "ABI 0"),
            (Landlock::NotEnabled, Missing, "not enabled"),
            (Landlock::NotBuilt, Missing, "not built"),
            (failed, Missing, "no"),
        ] {
            let finding = landlock(&answer);
            assert_eq!(finding.state, state, "{answer:?}");
            assert!(finding.found.contains(said), "{finding:?}");
        }
    }

    #[test]
    fn a_filter_needs_every_action() {
        let all = "kill_process kill_thread trap errno user_notif trace log allow\n";
        assert_eq!(seccomp(Some(all)).state, Ok);
        for actions in [
            None,
            Some(""),
            Some("allow errno"),
            Some("kill allow errno"),
        ] {
            assert_eq!(seccomp(actions).state, Missing, "{actions:?}");
        }
    }

    #[test]
    fn a_kind_of_namespace_that_is_absent_or_forbidden_is_named() {
        let namespace = |kind, exists, most| Namespace { kind, exists, most };
        let judged = |last: Namespace| namespaces(&[namespace("pid", true, Some(100)), last]);
        let cases: [(Namespace, State, &str); 4] = [
            (namespace("uts", true, Some(1)), Ok, "pid, uts"),
            (namespace("uts", true, None), Ok, "pid, uts"),
            (namespace("uts", false, None), Missing, "kinds uts"),
            (
                namespace("uts", true, Some(0)),
                Missing,
                "user.max_uts_namespaces",
            ),
        ];
        for (last, state, said) in cases {
            let finding = judged(last);
            assert_eq!(finding.state, state);
            assert!(finding.found.contains(said), "{finding:?}");
        }
    }

    #[test]
    fn control_groups_are_never_a_reason_against() {
        assert_eq!(cgroup(Some("cpuset cpu io memory pids\n")).state, Ok);
        assert_eq!(cgroup(Some("cpuset cpu")).state, Note);
        assert_eq!(cgroup(None).state, Note);
    }
}
