//! What users.yaml says of one user's walls: pure data, read with the line and key of every mistake.
//!
//! | key | values | without it |
//! |---|---|---|
//! | `confinement` | `strict`: every layer that the oldest supported kernel has, or no worker; `best-effort` | `strict` |
//! | `network` | `host`, or `none`: a loopback of its own and nothing else | `host` |
//! | `ports` | TCP ports to connect to, or `any` | `agent.connect_ports` of kai.yaml |
//! | `paths` | `read` and `write`: lists of paths beside the home | none |
//! | `limits` | `memory`, `processes`, `cpu`, `files`, `file_size`, `tmp`, `free` | [`Limits::default`] |
//! | `allow` | names of [`Allowance`] | none |
//!
//! What lowers a wall is named by [`Policy::weakened`], for `kai-broker status`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use kai_program::yaml::{Map, Mistake, Node};
use kai_proto::worker_broker::Allowance;

/// The first Landlock ABI that holds TCP ports, of Linux 6.7 (landlock(7)).
pub const PORTS_ABI: u8 = 4;
/// Paths in one list; an assignment must fit into one datagram.
const PATHS: usize = 16;
/// Longest of these paths, in bytes.
const PATH: usize = 255;
/// Ports in one list.
const PORTS: usize = 64;

/// What a user's worker is launched with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// How hard the layers are wanted.
    pub confinement: Confinement,
    /// Whose network it is.
    pub network: Network,
    /// Where TCP may connect to.
    pub ports: Ports,
    /// Paths that may be read and executed in.
    pub read: Vec<PathBuf>,
    /// Paths that may be written.
    pub write: Vec<PathBuf>,
    /// How much of what.
    pub limits: Limits,
    /// What seccomp leaves open.
    pub allow: Vec<Allowance>,
}

/// How hard the layers are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Confinement {
    /// No worker without every layer that the oldest supported kernel has.
    #[default]
    Strict,
    /// A worker with what is there.
    BestEffort,
}

/// Whose network a worker has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// The host's.
    #[default]
    Host,
    /// A namespace with a loopback and nothing else.
    None,
}

/// Where TCP may connect to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Ports {
    /// As kai.yaml says.
    #[default]
    General,
    /// Anywhere.
    Any,
    /// To these.
    Only(Vec<u16>),
}

/// How much of what one user's worker and agent may take together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory, held by a cgroup alone; none means half of the host's.
    pub memory: Option<u64>,
    /// Processes and threads.
    pub processes: u64,
    /// Hundredths of a processor, held by a cgroup alone; none means what others leave.
    pub cpu: Option<u64>,
    /// Open files of one process.
    pub files: u64,
    /// Bytes of one file; none for no such limit.
    pub file_size: Option<u64>,
    /// Bytes of /tmp, /var/tmp and /dev/shm together, which are memory.
    pub tmp: u64,
    /// Bytes that must be free on the home's file system before a turn begins.
    pub free: u64,
}

const MIB: u64 = 1 << 20;

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: None,
            // An agent needs some 24; a build with a few hundred compilers is still let through.
            processes: 512,
            cpu: None,
            files: 65_536,
            file_size: None,
            tmp: 1024 * MIB,
            free: 64 * MIB,
        }
    }
}

/// What this kernel can hold, as far as a policy depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel {
    /// Its Landlock ABI, 0 for none.
    pub landlock_abi: u8,
}

impl Policy {
    /// Takes the keys of a policy out of the entry of a user whose home is `home`.
    ///
    /// # Errors
    /// The first mistake in them, a port list that `kernel` cannot hold, or a path in the home, where the
    /// agent would choose what stands there.
    pub fn parse(map: &mut Map, kernel: Kernel, home: &Path) -> Result<Self, Mistake> {
        let confinement = match map.optional("confinement") {
            None => Confinement::Strict,
            Some(node) => match node.text()? {
                "strict" => Confinement::Strict,
                "best-effort" => Confinement::BestEffort,
                _ => return Err(node.mistake("must be strict or best-effort")),
            },
        };
        let network = match map.optional("network") {
            None => Network::Host,
            Some(node) => match node.text()? {
                "host" => Network::Host,
                "none" => Network::None,
                _ => return Err(node.mistake("must be none or host")),
            },
        };
        let ports = match map.optional("ports") {
            None => Ports::General,
            Some(node) => ports(node, confinement, kernel)?,
        };
        let mut section = map.section("paths")?;
        let mut listed = |key: &str| {
            section
                .optional(key)
                .map_or(Ok(Vec::new()), |node| paths(node, home))
        };
        let (read, write) = (listed("read")?, listed("write")?);
        section.finish()?;
        Ok(Self {
            confinement,
            network,
            ports,
            read,
            write,
            limits: Limits::parse(map.section("limits")?)?,
            allow: map.optional("allow").map_or(Ok(Vec::new()), allowances)?,
        })
    }

    /// The TCP ports that may be connected to, where `general` is what kai.yaml says and `base` the
    /// port of the Messages API; none leaves them all open.
    #[must_use]
    pub fn connect_ports(&self, general: Option<&[u16]>, base: Option<u16>) -> Option<Vec<u16>> {
        let listed = match (&self.ports, self.network) {
            (Ports::Any, _) => return None,
            (Ports::Only(ports), _) => ports.as_slice(),
            // There is nothing behind these ports but what the worker itself listens on.
            (Ports::General, Network::None) => return None,
            (Ports::General, Network::Host) => general?,
        };
        Some(listed.iter().copied().chain(base).collect())
    }

    /// Each way in which this policy lowers a wall, where `general` is the list of ports in kai.yaml, and each in
    /// which `kernel` does not hold one that this policy raises.
    #[must_use]
    pub fn weakened(&self, general: Option<&[u16]>, kernel: Kernel) -> Vec<String> {
        let mut weakened = Vec::new();
        if self.confinement == Confinement::BestEffort {
            weakened.push("confinement best-effort: a missing layer does not stop a launch".into());
        }
        if self.network == Network::Host {
            match (&self.ports, general) {
                (Ports::Any, _) | (Ports::General, None) => {
                    weakened.push("ports any: TCP to every port of every host".into());
                }
                (Ports::Only(ports), Some(general)) => {
                    let more = ports.iter().filter(|port| !general.contains(port));
                    let more: Vec<_> = more.map(u16::to_string).collect();
                    if !more.is_empty() {
                        weakened.push(format!("ports {}", more.join(", ")));
                    }
                }
                (Ports::Only(_), None) | (Ports::General, Some(_)) => {}
            }
            if self.connect_ports(general, None).is_some() && kernel.landlock_abi < PORTS_ABI {
                weakened.push(format!(
                    "ports not held by this kernel (Landlock ABI {}, ports from {PORTS_ABI} on, Linux 6.7): TCP to \
                     every port of every host",
                    kernel.landlock_abi
                ));
            }
        }
        let shown = |path: &Path| path.display().to_string();
        weakened.extend(
            self.read
                .iter()
                .map(|path| format!("reads {}", shown(path))),
        );
        weakened.extend(
            self.write
                .iter()
                .map(|path| format!("writes {}", shown(path))),
        );
        weakened.extend(self.allow.iter().map(|a| format!("allow {}", a.name())));
        weakened
    }
}

impl Limits {
    fn parse(mut map: Map) -> Result<Self, Mistake> {
        let usual = Self::default();
        let mut sized = |key: &str, range: (u64, u64)| {
            map.optional(key).map(|node| size(&node, range)).transpose()
        };
        // An agent survives in 150 MiB, and is of no use in less.
        let memory = sized("memory", (256 * MIB, 1 << 50))?;
        let file_size = sized("file_size", (MIB, 1 << 50))?;
        let tmp = sized("tmp", (16 * MIB, 1 << 40))?.unwrap_or(usual.tmp);
        let free = sized("free", (0, 1 << 50))?.unwrap_or(usual.free);
        let mut counted = |key: &str, range: std::ops::RangeInclusive<i64>| {
            map.optional(key)
                .map(|node| node.number(range).map(i64::unsigned_abs))
                .transpose()
        };
        let processes = counted("processes", 32..=1 << 22)?.unwrap_or(usual.processes);
        let files = counted("files", 256..=1 << 20)?.unwrap_or(usual.files);
        let cpu = map
            .optional("cpu")
            .map(|node| node.decimal(0.1..=4096.0))
            .transpose()?
            // In range, so neither negative nor near 2^64.
            .map(|processors| (processors * 100.0).round() as u64);
        map.finish()?;
        Ok(Self {
            memory,
            processes,
            cpu,
            files,
            file_size,
            tmp,
            free,
        })
    }
}

fn ports(node: Node, confinement: Confinement, kernel: Kernel) -> Result<Ports, Mistake> {
    if node.text().is_ok_and(|text| text == "any") {
        return Ok(Ports::Any);
    }
    if confinement == Confinement::Strict && kernel.landlock_abi < PORTS_ABI {
        return Err(node.mistake(format!(
            "cannot be held by this kernel (Landlock ABI {}, ports from {PORTS_ABI} on, Linux 6.7): leave \
             it out, say `network: none`, or accept it unheld with `confinement: best-effort`",
            kernel.landlock_abi
        )));
    }
    let place = node.mistake(format!("must have at most {PORTS} ports"));
    let mut ports = Vec::new();
    for item in node.into_list()? {
        ports.extend(u16::try_from(item.number(1..=65_535)?).ok());
    }
    if ports.len() > PORTS {
        return Err(place);
    }
    Ok(Ports::Only(ports))
}

fn paths(node: Node, home: &Path) -> Result<Vec<PathBuf>, Mistake> {
    let place = node.mistake(format!("must have at most {PATHS} paths"));
    let items = node.into_list()?;
    if items.len() > PATHS {
        return Err(place);
    }
    let mut paths = Vec::with_capacity(items.len());
    for item in items {
        let path = item.path()?;
        if path.as_os_str().len() > PATH || path.parent().is_none() {
            return Err(item.mistake(format!("must be a path below / of at most {PATH} bytes")));
        }
        if path.starts_with(home) {
            return Err(item.mistake("lies in the user's own home, which the worker has whole"));
        }
        if fs::canonicalize(&path).is_ok_and(|real| real != path) {
            return Err(item.mistake(
                "goes through a link, or has more slashes and dots than it needs: say where it leads",
            ));
        }
        paths.push(path);
    }
    Ok(paths)
}

fn allowances(node: Node) -> Result<Vec<Allowance>, Mistake> {
    let mut allowed = Vec::new();
    for item in node.into_list()? {
        let text = item.text()?;
        let known = Allowance::ALL.iter().find(|(_, name, _)| *name == text);
        let Some((allowance, _, _)) = known else {
            let names: Vec<_> = Allowance::ALL.iter().map(|(_, name, _)| *name).collect();
            return Err(item.mistake(format!("must be one of {}", names.join(", "))));
        };
        if !allowed.contains(allowance) {
            allowed.push(*allowance);
        }
    }
    Ok(allowed)
}

/// A number of bytes: `512m`, `4g`, `64k`, `1t`, or a plain number.
fn size(node: &Node, (least, most): (u64, u64)) -> Result<u64, Mistake> {
    let text = node.text()?;
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 20),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 30),
        Some(b't' | b'T') => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .filter(|bytes| (least..=most).contains(bytes))
        .ok_or_else(|| {
            node.mistake(format!(
                "must be a size like 512m or 4g, from {}m to {}g",
                least >> 20,
                most >> 30
            ))
        })
}

#[cfg(test)]
mod tests {
    use kai_program::yaml::Document;

    use super::*;

    const HERE: Kernel = Kernel { landlock_abi: 7 };
    const DEBIAN_12: Kernel = Kernel { landlock_abi: 2 };
    const GENERAL: Option<&[u16]> = Some(&[53, 443]);

    fn parse(text: &str, kernel: Kernel) -> Result<Policy, String> {
        let read = || {
            let mut map = Document::parse(Path::new("/u"), text)?.into_map()?;
            let policy = Policy::parse(&mut map, kernel, Path::new("/home/alice"))?;
            map.finish()?;
            Ok(policy)
        };
        read().map_err(|mistake: Mistake| mistake.to_string())
    }

    #[test]
    fn nothing_said_is_strict_on_the_hosts_network_and_weakens_nothing() {
        let policy = parse("", HERE).unwrap();

        assert_eq!(policy, Policy::default());
        assert_eq!(policy.confinement, Confinement::Strict);
        assert_eq!(policy.network, Network::Host);
        assert!(policy.weakened(GENERAL, HERE).is_empty());
        assert_eq!(
            policy.connect_ports(GENERAL, Some(8)),
            Some(vec![53, 443, 8])
        );
        assert_eq!(
            policy.weakened(None, HERE).len(),
            1,
            "all ports are open by kai.yaml"
        );
    }

    #[test]
    fn every_key_is_read() {
        let policy = parse(
            "confinement: best-effort\nnetwork: none\nports: [22, 5432]\n\
             paths: {read: [/srv/data], write: [/srv/out]}\nallow: [ptrace, perf, ptrace]\n\
             limits: {memory: 4g, processes: 100, cpu: 1.5, files: 4096, file_size: 10G, tmp: 64m, free: 0}\n",
            HERE,
        )
        .unwrap();

        assert_eq!(
            policy,
            Policy {
                confinement: Confinement::BestEffort,
                network: Network::None,
                ports: Ports::Only(vec![22, 5432]),
                read: vec!["/srv/data".into()],
                write: vec!["/srv/out".into()],
                limits: Limits {
                    memory: Some(4 << 30),
                    processes: 100,
                    cpu: Some(150),
                    files: 4096,
                    file_size: Some(10 << 30),
                    tmp: 64 << 20,
                    free: 0,
                },
                allow: vec![Allowance::Ptrace, Allowance::Perf],
            }
        );
    }

    #[test]
    fn mistakes_name_the_line_and_the_key() {
        for (text, said) in [
            ("confinement: lax", "/u:1: `confinement` must be strict or"),
            ("network: bridge", "/u:1: `network` must be none or host"),
            ("\nports: all", "/u:2: `ports` must be a list"),
            (
                "ports: [0]",
                "/u:1: `ports[0]` must be a whole number from 1",
            ),
            ("paths: {reed: []}", "`paths.reed` is not a key"),
            (
                "paths: {read: [srv]}",
                "`paths.read[0]` must be an absolute",
            ),
            (
                "paths: {write: [/]}",
                "`paths.write[0]` must be a path below /",
            ),
            (
                "paths: {read: [/home/alice/x]}",
                "`paths.read[0]` lies in the user's own home",
            ),
            (
                "paths: {read: [/srv, /proc/self/cwd]}",
                "`paths.read[1]` goes through a link",
            ),
            ("allow:\n- sudo", "/u:2: `allow[0]` must be one of ptrace,"),
            (
                "limits:\n  memory: 1m",
                "/u:2: `limits.memory` must be a size",
            ),
            ("limits: {tmp: -1}", "`limits.tmp` must be a size"),
            ("limits: {tmp: 99999999999t}", "`limits.tmp` must be a size"),
            ("limits: {processes: 1}", "must be a whole number from 32"),
            ("limits: {cpu: 0}", "must be a number from 0.1"),
            ("limits: {swap: 1g}", "`limits.swap` is not a key"),
        ] {
            let error = parse(text, HERE).unwrap_err();
            assert!(error.contains(said), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_port_list_that_the_kernel_cannot_hold_is_refused_in_one_sentence_under_strict() {
        let refused = parse("ports: [443]", DEBIAN_12).unwrap_err();
        assert!(refused.starts_with("/u:1: `ports` cannot be held by this kernel (Landlock ABI 2"));

        for text in [
            "",
            "ports: any",
            "{ports: [443], confinement: best-effort}",
            "network: none",
        ] {
            assert!(parse(text, DEBIAN_12).is_ok(), "{text}");
        }
        for (landlock_abi, good) in [(0, false), (1, false), (3, false), (4, true), (5, true)] {
            assert_eq!(parse("ports: [1]", Kernel { landlock_abi }).is_ok(), good);
        }
    }

    #[test]
    fn every_weakening_is_named_and_nothing_else_is() {
        for (text, named) in [
            (
                "confinement: best-effort",
                vec!["confinement best-effort: a missing layer does not stop a launch"],
            ),
            ("network: none", vec![]),
            (
                "ports: any",
                vec!["ports any: TCP to every port of every host"],
            ),
            ("ports: [443]", vec![]),
            ("ports: [443, 5432, 22]", vec!["ports 5432, 22"]),
            ("{network: none, ports: [5432]}", vec![]),
            (
                "paths: {read: [/srv/a], write: [/srv/b]}",
                vec!["reads /srv/a", "writes /srv/b"],
            ),
            (
                "allow: [ptrace, io-uring]",
                vec!["allow ptrace", "allow io-uring"],
            ),
            ("limits: {memory: 64g}", vec![]),
        ] {
            assert_eq!(
                parse(text, HERE).unwrap().weakened(GENERAL, HERE),
                named,
                "{text}"
            );
        }
    }

    #[test]
    fn a_kernel_that_does_not_hold_the_general_list_is_shown() {
        let weakened = |text| parse(text, DEBIAN_12).unwrap().weakened(GENERAL, DEBIAN_12);

        assert!(weakened("")[0].starts_with("ports not held by this kernel (Landlock ABI 2,"));
        assert_eq!(weakened("network: none").len(), 0);
        assert_eq!(weakened("ports: any").len(), 1);
    }

    #[test]
    fn a_network_of_its_own_has_no_list_of_ports_unless_one_is_given() {
        let policy = parse("network: none", HERE).unwrap();
        assert_eq!(policy.connect_ports(GENERAL, None), None);
        let policy = parse("{network: none, ports: [80]}", HERE).unwrap();
        assert_eq!(policy.connect_ports(GENERAL, None), Some(vec![80]));
    }
}
