//! `sudoers.d/kai`: accepted by sudo's own checker, and exactly the commands that it shall allow.
#![allow(clippy::unwrap_used, clippy::panic)]

mod skipped;

use std::{collections::BTreeSet, fs, io, path::PathBuf, process::Command};

use skipped::skipped;

const ALLOWED: [&str; 7] = [
    "/opt/kai/current/kai-broker status",
    "/opt/kai/current/kai-broker status --json",
    "/opt/kai/current/kai-broker status --watch",
    "/opt/kai/current/kai-broker strangers",
    "/opt/kai/current/kai-broker strangers --json",
    "/opt/kai/current/kai-install check",
    "/opt/kai/current/kai-install check --json",
];

fn file() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "sudoers.d", "kai"]
        .iter()
        .collect()
}

/// The file's lines, continued ones joined, without comments.
fn statements() -> Vec<String> {
    let text = fs::read_to_string(file()).unwrap();
    text.replace("\\\n", " ")
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

#[test]
fn sudo_accepts_the_file() {
    // Not on every account's PATH.
    let found = ["visudo", "/usr/sbin/visudo"]
        .into_iter()
        .find_map(
            |visudo| match Command::new(visudo).arg("-cf").arg(file()).output() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                ran => Some(ran.unwrap()),
            },
        );
    let Some(output) = found else {
        return skipped("visudo is not installed");
    };

    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn the_commands_are_exactly_those_with_their_arguments_spelled_out() {
    let statements = statements();
    let alias = statements
        .iter()
        .find_map(|line| line.strip_prefix("Cmnd_Alias KAI_LOOK = "))
        .unwrap();
    let commands: BTreeSet<&str> = alias.split(", ").collect();

    assert_eq!(commands, ALLOWED.into_iter().collect());
    for command in commands {
        // Without an argument sudo would accept any, and each of these stands for more than itself.
        assert!(command.contains(' '), "{command}");
        assert!(!command.contains(['*', '?', '[', '^', '\\']), "{command}");
    }
}

#[test]
fn the_group_is_given_nothing_else() {
    let rest: Vec<String> = statements()
        .into_iter()
        .filter(|line| !line.starts_with("Cmnd_Alias KAI_LOOK = "))
        .collect();

    assert_eq!(
        rest,
        [
            "Defaults!KAI_LOOK env_reset, noexec, use_pty",
            "%kai-admin ALL = (root) NOPASSWD: KAI_LOOK",
        ]
    );
}
