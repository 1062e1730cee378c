//! Broker and worker, on the socketpair that the worker inherits as descriptor
//! [`CONTROL_FD`]. It is of type SEQPACKET: one datagram is one message.
//!
//! Broker to worker: first one [`Assignment`], already in the socket when the worker starts; then, for
//! every further attach, the single byte [`HANDOVER`] with the gateway's connection as its one
//! descriptor. The connection of the first attach is inherited as [`CONNECTION_FD`].
//!
//! Worker to broker: [`Report`], of fixed size and without strings. The broker takes no descriptors
//! on this socket and reads nothing else from it.

use std::time::Duration;

use bincode::Options;
use serde::{Deserialize, Serialize};

use crate::{
    codec::control_messages,
    ids::{AccountName, ModelName, SessionId},
};

/// The gateway's connection, inherited; for a login ([`Assignment::login`]) its terminal.
pub const CONNECTION_FD: i32 = 3;
/// The control socket, inherited.
pub const CONTROL_FD: i32 = 4;
/// The opened file with the agent's key, inherited if [`Assignment::has_key`].
pub const KEY_FD: i32 = 5;
/// The datagram that carries a further connection.
pub const HANDOVER: u8 = b'h';
/// How many reports a worker may send within one second before it is ended.
pub const REPORTS_PER_SECOND: u32 = 10;

/// Everything a worker needs to know, from root's own configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The account it runs as.
    pub account: AccountName,
    /// That account's home directory.
    pub home: String,
    /// The account's login shell; the agent's `SHELL`.
    pub shell: String,
    /// The directory for the worker's own state, the user's and 0700.
    pub state: String,
    /// The agent: a program's absolute path and its leading arguments.
    pub agent: Vec<String>,
    /// Where the agent finds the Messages API, if not at its default.
    pub base_url: Option<String>,
    /// True if [`KEY_FD`] is open.
    pub has_key: bool,
    /// True if it is to run the agent's own login on the terminal at [`CONNECTION_FD`], and nothing else.
    pub login: bool,
    /// The model to begin with.
    pub model: Option<ModelName>,
    /// Where one session's cost is cut off, in millionths of a US dollar.
    pub budget_micro_usd: Option<u64>,
    /// How long the worker waits for what.
    pub clocks: Clocks,
    /// TCP ports that may be connected to; none leaves them all open.
    pub connect_ports: Option<Vec<u16>>,
    /// Directories beside the system's that may be read and executed in.
    pub read_paths: Vec<String>,
    /// What the user's policy makes of the walls that the worker raises itself.
    pub walls: Walls,
}

/// What a policy in users.yaml makes of the walls that the worker raises itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Walls {
    /// True if the worker must not go on without a layer that the oldest supported kernel has.
    pub strict: bool,
    /// What seccomp leaves open.
    pub allow: Vec<Allowance>,
    /// Paths beside the home that may be written.
    pub write_paths: Vec<String>,
    /// Bytes that must be free on the home's file system before a turn begins; 0 for no such rule.
    pub free: u64,
}

/// One group of system calls that a policy can leave open, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Allowance {
    /// Debuggers and tracers.
    Ptrace,
    /// Asynchronous calls that no filter sees.
    IoUring,
    /// Profilers.
    Perf,
    /// Kernel and session keyrings.
    Keyrings,
    /// Faults handled by the program itself.
    Userfaultfd,
    /// Programs without address randomisation.
    Personality,
    /// New namespaces.
    Namespaces,
}

impl Allowance {
    /// All of them: the name in users.yaml, and what it opens.
    pub const ALL: [(Self, &str, &str); 7] = [
        (
            Self::Ptrace,
            "ptrace",
            "gdb and strace: a process reads and changes the memory of whatever shares its Landlock \
             domain",
        ),
        (
            Self::IoUring,
            "io-uring",
            "calls that seccomp does not see; a part of the kernel with many past holes",
        ),
        (
            Self::Perf,
            "perf",
            "perf(1); a part of the kernel with many past holes",
        ),
        (
            Self::Keyrings,
            "keyrings",
            "keyctl(1); keyrings are shared with everything else of the account",
        ),
        (
            Self::Userfaultfd,
            "userfaultfd",
            "live migration and some collectors; holds the kernel still in the middle of a copy",
        ),
        (
            Self::Personality,
            "personality",
            "setarch(8); programs without address randomisation",
        ),
        (
            Self::Namespaces,
            "namespaces",
            "unshare(1), without mounts, which Landlock denies to everybody in it; much of the kernel \
             opens to who is root in a namespace",
        ),
    ];

    /// Its name in users.yaml.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(allowance, _, _)| *allowance == self)
            .map_or("", |(_, name, _)| name)
    }
}

/// The three clocks of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clocks {
    /// Longest time without a line from the agent while no tool runs.
    #[serde(with = "milliseconds")]
    pub silence: Duration,
    /// Longest turn.
    #[serde(with = "milliseconds")]
    pub turn: Duration,
    /// Longest time that one tool may run.
    #[serde(with = "milliseconds")]
    pub tool: Duration,
}

/// A time on the wire: one number has one meaning, and there is no fraction above a second to carry.
mod milliseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        u64::try_from(time.as_millis())
            .unwrap_or(u64::MAX)
            .serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

/// What a worker says of itself. Believed about its own user only, and shown as its own word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// True while a turn runs.
    pub in_turn: bool,
    /// The agent's process id in the worker's own namespace, 0 for none.
    pub agent_pid: u32,
    /// The Landlock ABI that was enforced, 0 for none, as found before the agent started.
    pub landlock_abi: u8,
    /// True if the kernel could enforce all that was asked of Landlock.
    pub landlock_whole: bool,
    /// True if the seccomp filter was installed.
    pub seccomp: bool,
    /// The session's raw bytes, all 0 for none.
    pub session: [u8; 16],
    /// Turns since the worker began.
    pub turns: u32,
}

impl Report {
    /// Bytes of every report.
    pub const BYTES: usize = 1 + 4 + 1 + 1 + 1 + 16 + 4;

    /// The datagram.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        // Cannot fail: every field has a fixed width and they add up to BYTES, which a test holds.
        let _ = Self::options().serialize_into(&mut bytes[..], self);
        bytes
    }

    /// Reads a datagram; none if it is not exactly a report.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != Self::BYTES {
            return None;
        }
        Self::options().deserialize(bytes).ok()
    }

    /// The session, if one has begun.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        SessionId::from_bytes(self.session)
    }

    fn options() -> impl Options {
        bincode::DefaultOptions::new()
            .with_fixint_encoding()
            .with_limit(Self::BYTES as u64)
            .reject_trailing_bytes()
    }
}

control_messages!(Assignment);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_report_has_the_same_size_and_survives() {
        let smallest = Report {
            in_turn: false,
            agent_pid: 0,
            landlock_abi: 0,
            landlock_whole: false,
            seccomp: false,
            session: [0; 16],
            turns: 0,
        };
        let largest = Report {
            in_turn: true,
            agent_pid: u32::MAX,
            landlock_abi: u8::MAX,
            landlock_whole: true,
            seccomp: true,
            session: [0xff; 16],
            turns: u32::MAX,
        };

        for report in [smallest, largest] {
            assert_eq!(Report::from_bytes(&report.to_bytes()), Some(report));
        }
    }

    #[test]
    fn security_md_explains_every_allowance_in_these_words() {
        let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../SECURITY.md");
        let text = std::fs::read_to_string(document).unwrap();
        for (_, name, opens) in Allowance::ALL {
            let row = format!("| `{name}` | {opens} |");
            assert!(text.contains(&row), "SECURITY.md has no row {row}");
        }
    }

    #[test]
    fn a_report_of_another_size_or_with_a_strange_bool_is_none() {
        assert_eq!(Report::from_bytes(&[0; Report::BYTES - 1]), None);
        assert_eq!(Report::from_bytes(&[0; Report::BYTES + 1]), None);
        assert_eq!(Report::from_bytes(&[7; Report::BYTES]), None);
    }
}
