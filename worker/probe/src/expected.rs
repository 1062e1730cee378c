//! What is open on purpose: the attempt, when, and why. All else is expected to be blocked.
//!
//! Whoever opens or closes something changes this list, so that the change is seen and has its reason.

use kai_proto::worker_broker::Allowance;

/// What an expectation depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Circumstances {
    /// The kernel's Landlock ABI, 0 for none.
    pub landlock_abi: u8,
    /// True if the policy leaves the worker on the host's network.
    pub hosts_network: bool,
    /// True if there is a list of TCP ports.
    pub ports_listed: bool,
    /// True if people log in to the account, so that files of a login are kept read-only.
    pub login: bool,
    /// What the policy lets through seccomp.
    pub allow: Vec<Allowance>,
}

/// When something is open on purpose; all of a list must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// The kernel's Landlock is older than this ABI.
    AbiBelow(u8),
    /// On the host's network.
    HostsNetwork,
    /// No list of ports is held: the policy has none, or the kernel's ABI is below 4.
    PortsOpen,
    /// Nobody logs in to the account.
    NoLogin,
    /// The policy allows it by name.
    Allowed(Allowance),
}

/// One thing that is open on purpose.
#[derive(Debug, Clone, Copy)]
pub struct Open {
    /// The attempt's name.
    pub name: &'static str,
    /// When.
    pub when: &'static [When],
    /// Why that is intended.
    pub why: &'static str,
}

const fn open(name: &'static str, when: &'static [When], why: &'static str) -> Open {
    Open { name, when, why }
}

const OWN: &str = "the user's own, to do with as they like";
const HOSTS_NETWORK: &str = "`network: host`; `network: none` closes it";
const PORTS: &str =
    "no list of TCP ports is held: the policy has none, or Landlock's ABI is below 4";
const SIGNALS: &str = "Landlock scopes signals from ABI 6 on; both are the user's own";
const ALLOWED: &str = "the policy allows it by name";

/// All of it.
pub const OPEN: &[Open] = &[
    open("own-home", &[], OWN),
    open("own-program", &[], OWN),
    open("own-tmp", &[], "the worker's own /tmp"),
    open("without-file", &[], "as good as a program in the home"),
    open(
        "own-set-user-id",
        &[],
        "gives nothing but the user's own account away; ignored inside the walls",
    ),
    open(
        "login-file",
        &[When::NoLogin],
        "nobody logs in to this account",
    ),
    open(
        "login-unit",
        &[When::NoLogin],
        "nobody logs in to this account",
    ),
    open(
        "host-watch",
        &[],
        "names that everybody may list; Landlock has no rule for inotify",
    ),
    open("listen", &[], "development servers"),
    open("listen-as-neighbour", &[When::HostsNetwork], HOSTS_NETWORK),
    open("connections", &[When::HostsNetwork], HOSTS_NETWORK),
    open("interfaces", &[When::HostsNetwork], HOSTS_NETWORK),
    open("socket-names", &[When::HostsNetwork], HOSTS_NETWORK),
    open("udp-local", &[When::HostsNetwork], HOSTS_NETWORK),
    open("tcp-local", &[When::HostsNetwork, When::PortsOpen], PORTS),
    open(
        "tcp-local-v6",
        &[When::HostsNetwork, When::PortsOpen],
        PORTS,
    ),
    open(
        "tcp-any-address",
        &[When::HostsNetwork, When::PortsOpen],
        PORTS,
    ),
    open(
        "socket-abstract",
        &[When::HostsNetwork, When::AbiBelow(6)],
        HOSTS_NETWORK,
    ),
    open("agent-signal", &[When::AbiBelow(6)], SIGNALS),
    open("trace", &[When::Allowed(Allowance::Ptrace)], ALLOWED),
    open("compare", &[When::Allowed(Allowance::Ptrace)], ALLOWED),
    open("io-uring", &[When::Allowed(Allowance::IoUring)], ALLOWED),
    open(
        "io-uring-enter",
        &[When::Allowed(Allowance::IoUring)],
        ALLOWED,
    ),
    open(
        "io-uring-register",
        &[When::Allowed(Allowance::IoUring)],
        ALLOWED,
    ),
    open("perf", &[When::Allowed(Allowance::Perf)], ALLOWED),
    open("keyctl", &[When::Allowed(Allowance::Keyrings)], ALLOWED),
    open("add-key", &[When::Allowed(Allowance::Keyrings)], ALLOWED),
    open(
        "request-key",
        &[When::Allowed(Allowance::Keyrings)],
        ALLOWED,
    ),
    open(
        "userfaultfd",
        &[When::Allowed(Allowance::Userfaultfd)],
        ALLOWED,
    ),
    open(
        "personality",
        &[When::Allowed(Allowance::Personality)],
        ALLOWED,
    ),
    open(
        "unshare-user",
        &[When::Allowed(Allowance::Namespaces)],
        ALLOWED,
    ),
    open(
        "clone-user",
        &[When::Allowed(Allowance::Namespaces)],
        ALLOWED,
    ),
    open("setns", &[When::Allowed(Allowance::Namespaces)], ALLOWED),
];

impl Circumstances {
    fn hold(&self, when: When) -> bool {
        match when {
            When::AbiBelow(abi) => self.landlock_abi < abi,
            When::HostsNetwork => self.hosts_network,
            When::PortsOpen => !self.ports_listed || self.landlock_abi < 4,
            When::NoLogin => !self.login,
            When::Allowed(allowance) => self.allow.contains(&allowance),
        }
    }

    /// Why the attempt `name` is open here on purpose; none if it is to be blocked.
    #[must_use]
    pub fn why_open(&self, name: &str) -> Option<&'static str> {
        OPEN.iter()
            .filter(|open| open.name == name)
            .find(|open| open.when.iter().all(|when| self.hold(*when)))
            .map(|open| open.why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempts;

    fn here() -> Circumstances {
        Circumstances {
            landlock_abi: 7,
            hosts_network: true,
            ports_listed: true,
            login: true,
            allow: Vec::new(),
        }
    }

    #[test]
    fn what_is_listed_is_tried_and_has_a_reason() {
        for open in OPEN {
            assert!(
                attempts::all().any(|attempt| attempt.name == open.name),
                "{}",
                open.name
            );
            assert!(!open.why.is_empty());
        }
    }

    #[test]
    fn an_expectation_depends_on_the_kernel_and_the_policy() {
        let here = here();
        assert_eq!(here.why_open("own-home"), Some(OWN));
        assert_eq!(here.why_open("tcp-local"), None);
        assert_eq!(here.why_open("login-file"), None);
        assert_eq!(here.why_open("trace"), None);

        let debian_12 = Circumstances {
            landlock_abi: 2,
            login: false,
            allow: vec![Allowance::Ptrace],
            ..here.clone()
        };
        for open in ["tcp-local", "agent-signal", "login-file", "trace"] {
            assert!(debian_12.why_open(open).is_some(), "{open}");
        }
        let alone = Circumstances {
            hosts_network: false,
            ..debian_12
        };
        assert_eq!(alone.why_open("tcp-local"), None);
    }
}
