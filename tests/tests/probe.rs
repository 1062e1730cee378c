//! `kai-broker probe` on a host where kai runs: all walls hold, each stops alone what SECURITY.md says, and
//! one that is left out is missed.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::BTreeMap,
    fs,
    process::{Command, Output},
};

use kai_tests::{BOB, Kai, is_root};
use serde_json::Value;

fn probe(kai: &Kai, arguments: &[&str]) -> Output {
    Command::new(kai.ground.programs().join("kai-broker"))
        .arg("probe")
        .args(arguments)
        .arg("--config")
        .arg(kai.ground.config())
        .env_clear()
        .output()
        .unwrap()
}

/// What Landlock stops from which ABI on.
const FROM_ABI: [(&str, u64); 5] = [
    ("tcp-local", 4),
    ("tcp-local-v6", 4),
    ("tcp-any-address", 4),
    ("socket-abstract", 6),
    ("agent-signal", 6),
];

/// What each attempt came to, by its name, and the exit status.
fn attempts(kai: &Kai, arguments: &[&str]) -> (BTreeMap<String, Value>, i32) {
    let output = probe(kai, &[arguments, &["--json"]].concat());
    let verdict: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let attempts = verdict["attempts"].as_array().unwrap().iter();
    let by_name = attempts.map(|one| (one["name"].as_str().unwrap().to_owned(), one.clone()));
    (by_name.collect(), output.status.code().unwrap())
}

/// Whether this kernel's Landlock stops `name` at all.
fn is_held(kai: &Kai, name: &str) -> bool {
    let status = kai.ground.status_json().unwrap();
    let report = &status["users"][1]["worker"]["layers"];
    let landlock = report.as_array().unwrap().iter();
    let detail = landlock
        .filter(|layer| layer["name"] == "landlock")
        .find_map(|layer| layer["detail"].as_str())
        .unwrap();
    let abi: u64 = detail[4..5].parse().unwrap();
    FROM_ABI
        .iter()
        .all(|(known, from)| *known != name || abi >= *from)
}

fn standing(attempts: &BTreeMap<String, Value>, name: &str) -> String {
    attempts[name]["standing"].as_str().unwrap().to_owned()
}

/// What SECURITY.md says that each wall stops, and an attempt that shows it: blocked by this wall with none
/// of the others but the account.
const ALONE: &[(&str, &[&str])] = &[
    (
        "account",
        &[
            "neighbour-file-read",
            "neighbour-file-write",
            "neighbour-home-list",
            "process-environment",
            "process-memory",
            "process-signal",
            "process-trace",
            "socket-gateway-broker",
            "socket-gateway-authd",
            "socket-broker-authd",
            "socket-admin-broker",
            "socket-admin-authd",
            "users-yaml",
            "state-gateway",
            "state-authd",
            "audit-broker",
            "audit-authd",
            "audit-make",
            "program-change",
            "broker-signal",
            "broker-environment",
            "become-root",
            "become-neighbour",
            "groups",
            "set-user-id",
            "new-privileges",
            "bounding-set",
            "capabilities",
            "device-memory",
            "limit",
            "shadow",
            "sudoers",
            "etc-write",
            "program-write",
            "descriptors",
            "worker-environment",
            "worker-control",
            "worker-connection",
            "worker-trace",
        ],
    ),
    (
        "namespaces",
        &[
            "neighbour-home-look",
            "neighbour-watch",
            "processes-see",
            "process-arguments",
            "process-handle",
            "process-affinity",
            "shared-tmp",
            "shared-var-tmp",
            "shared-shm",
            "sysv-memory",
            "sysv-messages",
            "sysv-semaphores",
            "socket-in-run",
            "socket-in-tmp",
            "terminal",
            "sudoers-read",
            "configuration-list",
            "broker-arguments",
        ],
    ),
    (
        "landlock",
        &[
            "logs",
            "logins",
            "var-lib",
            "configuration-list",
            "firmware",
            "tcp-local",
            "tcp-local-v6",
            "tcp-any-address",
            "socket-abstract",
            "worker-state",
            "worker-state-make",
            "agent-environment",
            "agent-memory-file",
            "agent-output",
            "agent-input",
            "agent-trace",
            "agent-memory",
            "agent-descriptor",
            "agent-signal",
            "worker-journal",
            "worker-answer",
            "shell-replaced",
            "environment",
        ],
    ),
    (
        "seccomp",
        &[
            "umount",
            "open-tree",
            "mount-setattr",
            "chroot",
            "unshare-user",
            "clone-user",
            "clone3",
            "setns",
            "keyctl",
            "add-key",
            "request-key",
            "bpf",
            "perf",
            "io-uring",
            "handle-name",
            "personality",
            "type-ahead",
            "trace",
            "compare",
            "socket-netfilter",
            "socket-audit",
            "tcp-fast-open",
            "multipath-tcp",
            "agent-trace",
            "agent-memory",
            "agent-descriptor",
        ],
    ),
];

/// What only one wall stops: without it, it is open.
const MISSED: [(&str, [&str; 3]); 3] = [
    (
        "namespaces",
        ["processes-see", "shared-tmp", "socket-in-run"],
    ),
    ("landlock", ["var-lib", "agent-environment", "logs"]),
    ("seccomp", ["unshare-user", "io-uring", "tcp-fast-open"]),
];

#[test]
fn with_all_walls_nothing_is_open_that_should_not_be_and_each_stops_alone_what_it_is_said_to() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|_| {});
    // The broker's own directories are there, and a neighbour's worker runs.
    kai.ask(BOB, "echo bob is here", "bob is here");
    let before = left_behind();

    let (attempts, status) = attempts(&kai, &["alice"]);

    let wrong: Vec<&Value> = attempts
        .values()
        .filter(|one| ["hole", "unknown", "shut"].contains(&one["standing"].as_str().unwrap()))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(status, 0);
    let blocked = |one: &&Value| one["standing"] == "blocked";
    let blocked = attempts.values().filter(blocked).count();
    assert!(blocked >= 150, "{blocked} blocked");
    for (wall, names) in ALONE {
        for name in names.iter().filter(|name| is_held(&kai, name)) {
            let walls = attempts[*name]["walls"].as_array().unwrap();
            assert!(
                walls.iter().any(|alone| alone == wall),
                "{wall} alone does not stop {name}: {}",
                attempts[*name]
            );
        }
    }
    for name in ["own-home", "own-program", "own-tmp", "listen"] {
        assert_eq!(standing(&attempts, name), "open", "{name}");
    }
    assert_eq!(left_behind(), before);
}

/// What a probe could leave: names of its own in the places where it makes some.
fn left_behind() -> Vec<String> {
    let mut left = Vec::new();
    for place in ["/var/lib", "/run", "/tmp", "/var/tmp", "/dev/shm"] {
        for entry in fs::read_dir(place).into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().unwrap_or_default();
            if name.starts_with("kai-probe") {
                left.push(format!("{place}/{name}"));
            }
        }
    }
    for table in ["shm", "msg", "sem"] {
        left.push(fs::read_to_string(format!("/proc/sysvipc/{table}")).unwrap_or_default());
    }
    left
}

#[test]
fn a_wall_that_is_left_out_is_missed_and_its_absence_is_exit_status_3() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|_| {});
    for (wall, names) in MISSED {
        let (attempts, status) = attempts(&kai, &["--without", wall]);
        assert_eq!(status, 3, "without {wall}");
        for name in names {
            assert_eq!(standing(&attempts, name), "hole", "{name} without {wall}");
        }
        // The account stands whatever is left out.
        for name in ["become-root", "neighbour-file-read", "users-yaml"] {
            assert_eq!(
                standing(&attempts, name),
                "blocked",
                "{name} without {wall}"
            );
        }
        for (other, names) in MISSED {
            for name in names.iter().filter(|_| other != wall) {
                assert_eq!(
                    standing(&attempts, name),
                    "blocked",
                    "{name} without {wall}"
                );
            }
        }
    }
}

#[test]
fn a_policy_is_probed_as_it_is() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|options| {
        options.people[0].keys = vec!["network: none".into(), "allow: [ptrace, io-uring]".into()];
        options.people[1].keys = vec!["ports: any".into()];
    });

    let (alice, status) = attempts(&kai, &["alice"]);
    assert_eq!(status, 0);
    for name in ["trace", "io-uring"] {
        assert_eq!(standing(&alice, name), "open", "{name}");
    }
    for name in [
        "udp-local",
        "tcp-local",
        "listen-as-neighbour",
        "connections",
    ] {
        assert_eq!(standing(&alice, name), "blocked", "{name}");
    }
    let (bob, status) = attempts(&kai, &["bob"]);
    assert_eq!(status, 0);
    assert_eq!(standing(&bob, "tcp-local"), "open");
    assert_eq!(standing(&bob, "trace"), "blocked");
}

#[test]
fn people_are_shown_the_wall_and_a_mistake_is_one_sentence() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|_| {});

    let output = probe(&kai, &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    for words in [
        "OTHER USERS",
        "FORGING",
        "blocked by namespaces (ENOENT)",
        "open: the user's own",
        "nothing is open that should not be",
    ] {
        assert!(text.contains(words), "{words} is not in\n{text}");
    }
    let progress = String::from_utf8(output.stderr).unwrap();
    assert!(progress.starts_with("probing all walls\n"), "{progress}");

    let output = probe(&kai, &["mallory"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("has no user `mallory`; it has alice, bob"),
        "{said}"
    );
}
