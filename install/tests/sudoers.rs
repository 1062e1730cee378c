//! `sudoers.d/kai`: accepted by sudo's own checker, and exactly the commands that it shall allow.
#![allow(clippy::unwrap_used, clippy::panic)]

mod skipped;

use std::{fs, io, path::PathBuf, process::Command};

use skipped::skipped;

/// What they may run, with all of its arguments.
const ALLOWED: [&str; 14] = [
    "kai-broker status",
    "kai-broker status --json",
    "kai-broker status --watch",
    "kai-broker audit",
    "kai-broker audit --json",
    "kai-broker audit --follow --user alice",
    "kai-broker audit --user 1001 --since 2h --until 90m --json",
    "kai-broker audit --since 2026-11-21T08:30:00Z",
    "kai-broker audit --since 2026-11-21",
    "kai-broker audit --user bärbel_2.0",
    "kai-broker audit verify",
    "kai-broker audit verify --json",
    "kai-install status",
    "kai-install status --json",
];

/// kai's own programs that call nobody's sudo. kai-probe does, to see that it gets it nothing.
const SOURCES: [&str; 8] = [
    "authd/cli/src",
    "authd/src",
    "broker/cli/src",
    "broker/src",
    "gateway/src",
    "install/src",
    "proto",
    "worker/src",
];

/// And what they may not, however near it is.
const REFUSED: [&str; 29] = [
    "kai-broker",
    "kai-broker reload",
    "kai-broker strangers",
    "kai-broker probe",
    "kai-broker probe alice",
    "kai-broker login alice",
    "kai-broker status --config /etc/shadow",
    "kai-broker --config /etc/shadow status",
    "kai-broker status --json --watch",
    "kai-broker audit --config /etc/shadow",
    "kai-broker audit --config=/etc/shadow",
    "kai-broker --config /etc/shadow audit",
    "kai-broker audit --user alice --config /etc/shadow",
    "kai-broker audit --user --config /etc/shadow",
    "kai-broker audit --user --json",
    "kai-broker audit --user alice /etc/shadow",
    "kai-broker audit --since /etc/shadow",
    "kai-broker audit --since --config",
    "kai-broker audit verify --marks /etc/shadow",
    "kai-broker audit verify --config /etc/shadow",
    "kai-broker audit --json verify",
    "kai-install",
    "kai-install apply",
    "kai-install check",
    "kai-install check --config /etc/shadow",
    "kai-install status --root /tmp",
    "kai-install status --file /etc/shadow",
    "kai-install uninstall",
    "kai-auth status",
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
fn sudo_lets_an_admin_look_and_nothing_else() {
    if !nix::unistd::geteuid().is_root() {
        return skipped("needs root, to ask sudo about somebody else");
    }
    for tool in ["sudo", "unshare"] {
        if Command::new(tool).arg("--version").output().is_err() {
            return skipped(&format!("{tool} is not installed"));
        }
    }
    let place = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(place.path().join(name), text).unwrap();
    let with = |file: &str, lines: &str| fs::read_to_string(file).unwrap() + lines;
    write(
        "passwd",
        &with("/etc/passwd", "\nkai-play-admin:x:61777:61777::/:/bin/sh\n"),
    );
    let groups = "\nkai-play-admin:x:61777:\nkai-admin:x:61778:kai-play-admin\n";
    write("group", &with("/etc/group", groups));
    let rules = fs::read_to_string(file()).unwrap();
    write("sudoers", &format!("root ALL=(ALL:ALL) ALL\n{rules}"));
    let cases: Vec<&str> = ALLOWED.iter().chain(&REFUSED).copied().collect();
    write("cases", &(cases.join("\n") + "\n"));
    // In a tree of mounts of its own, which goes with it.
    let script = r#"
        set -e
        chmod 0440 sudoers && chown 0:0 sudoers
        for file in passwd group sudoers; do mount --bind $file /etc/$file; done
        mount -t tmpfs none /opt
        mkdir -p /opt/kai/current
        for program in kai-broker kai-install kai-auth; do
            printf '#!/bin/true\n' > /opt/kai/current/$program
            chmod 0755 /opt/kai/current/$program
        done
        while read -r program arguments; do
            if sudo -n -l -U kai-play-admin /opt/kai/current/$program $arguments > /dev/null 2>&1
            then echo yes; else echo no; fi < /dev/null
        done < cases
    "#;
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "private", "sh", "-c", script]);
    let output = unshare.current_dir(place.path()).output().unwrap();

    let said = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let verdicts: Vec<&str> = said.lines().collect();
    assert_eq!(verdicts.len(), cases.len(), "{errors}");
    for (case, verdict) in cases.iter().zip(verdicts) {
        let expected = if ALLOWED.contains(case) { "yes" } else { "no" };
        assert_eq!(verdict, expected, "{case}");
    }
}

#[test]
fn what_is_spelled_out_is_whole_and_the_one_expression_is_anchored() {
    for name in ["KAI_LOOK", "KAI_ASK"] {
        let prefix = format!("Cmnd_Alias {name} = ");
        let statements = statements();
        let alias = statements
            .iter()
            .find_map(|line| line.strip_prefix(&prefix));
        for command in alias.unwrap().split(", ") {
            let (program, arguments) = command.split_once(' ').unwrap_or((command, ""));
            assert!(program.starts_with("/opt/kai/current/kai-"), "{command}");
            // Without an argument sudo would accept any, and these stand for more than themselves.
            let plain = !arguments.is_empty() && !arguments.contains(['*', '?', '[', '^', '\\']);
            let anchored = arguments.starts_with("^audit( --") && arguments.ends_with(")*$");
            assert!(plain || anchored, "{command}");
        }
    }
}

#[test]
fn the_group_is_given_nothing_else() {
    let rest: Vec<String> = statements()
        .into_iter()
        .filter(|line| !line.starts_with("Cmnd_Alias KAI_"))
        .collect();

    assert_eq!(
        rest,
        [
            "Defaults!KAI_LOOK env_reset, noexec, use_pty",
            "Defaults!KAI_ASK env_reset, use_pty",
            "%kai-admin ALL = (root) NOPASSWD: KAI_LOOK, KAI_ASK",
        ]
    );
}

#[test]
fn nothing_in_kai_calls_sudo() {
    let tree = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut places: Vec<PathBuf> = SOURCES.iter().map(|place| tree.join(place)).collect();
    let mut seen = 0;
    while let Some(place) = places.pop() {
        for entry in fs::read_dir(&place).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                places.push(path);
            } else if path.extension().is_some_and(|name| name == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                for call in ["new(\"sudo", "find(\"sudo", "run(\"sudo", "bin/sudo"] {
                    assert!(!text.contains(call), "{}: {call}", path.display());
                }
                seen += 1;
            }
        }
    }
    assert!(seen > 200, "{seen}");
}
