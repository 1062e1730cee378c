//! `kai-install check`, run as the admin runs it.
#![allow(clippy::unwrap_used, clippy::panic)]

mod skipped;

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;
use skipped::skipped;

const TOKEN: &str = "123456:AAbbCCddEEffGGhhIIjjKKllMMnn";
/// An account that every host has.
const NOBODY: u32 = 65534;

/// An installed kai in a directory of its own, complete as far as `check` can see.
struct Host {
    directory: tempfile::TempDir,
}

impl Host {
    /// None, with the reason on standard error, if this run cannot make one.
    fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            skipped("needs root, to own what is judged");
            return None;
        }
        // Not below /tmp: what everybody can write to is no place for programs of root's.
        let host = Self {
            directory: tempfile::tempdir_in("/var/lib").unwrap(),
        };
        set_mode(host.directory.path(), 0o755);
        for program in [
            "kai-gateway",
            "kai-brokerd",
            "kai-authd",
            "kai-worker",
            "kai-tools",
            "kai-probe",
            "kai-broker",
            "kai-auth",
            "claude",
        ] {
            host.write(program, "#!/bin/true\n", 0o755);
        }
        fs::copy(env!("CARGO_BIN_EXE_kai-install"), host.path("kai-install")).unwrap();
        host.write("token", TOKEN, 0o600);
        host.write("users.yaml", "users: []\n", 0o600);
        let configuration = format!(
            "telegram: {{token_file: {}}}\nagent: {{command: {}}}\naccounts: {{gateway: nobody}}\n",
            host.path("token").display(),
            host.path("claude").display(),
        );
        host.write("kai.yaml", &configuration, 0o644);
        Some(host)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        fs::write(self.path(name), text).unwrap();
        set_mode(&self.path(name), mode);
    }

    fn check(&self, change: impl FnOnce(&mut Command)) -> Output {
        let mut command = Command::new(self.path("kai-install"));
        command
            .arg("check")
            .arg("--config")
            .arg(self.path("kai.yaml"));
        change(&mut command);
        command.output().unwrap()
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

#[test]
fn a_complete_host_is_ready() {
    let Some(host) = Host::new() else { return };

    let output = host.check(|_| {});

    let said = said(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(
        said.lines()
            .all(|line| line.starts_with("ok ") || line.starts_with("note ")),
        "{said}"
    );
    assert_eq!(said.lines().count(), 18, "{said}");
}

#[test]
fn each_thing_that_is_wrong_is_one_line_that_says_how_to_mend_it() {
    type Harm = fn(&Host);
    let harms: [(Harm, &str, &str); 6] = [
        (
            |host| set_mode(&host.path("token"), 0o644),
            "bot token",
            "chmod 0600",
        ),
        (
            |host| fs::remove_file(host.path("users.yaml")).unwrap(),
            "table of users",
            "mode 0600",
        ),
        (
            |host| set_mode(&host.path("claude"), 0o777),
            "agent",
            "chmod go-w",
        ),
        (
            |host| fs::remove_file(host.path("kai-worker")).unwrap(),
            "kai-worker",
            "install the program",
        ),
        (
            |host| set_mode(&host.path("kai-brokerd"), 0o644),
            "kai-brokerd",
            "chmod a+x",
        ),
        (
            |host| set_mode(&host.path("kai.yaml"), 0o666),
            "configuration",
            "chmod 0644",
        ),
    ];
    for (harm, name, mend) in harms {
        let Some(host) = Host::new() else { return };
        harm(&host);

        let output = host.check(|_| {});

        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let missing: Vec<&str> = said
            .lines()
            .filter(|line| line.starts_with("missing "))
            .collect();
        let [line] = missing[..] else {
            panic!("not one line: {said}")
        };
        assert!(line.contains(name) && line.contains(mend), "{line}");
        assert!(!said.contains(TOKEN), "{said}");
    }
}

#[test]
fn without_root_it_says_what_needs_root_and_guesses_nothing() {
    let Some(host) = Host::new() else { return };

    let output = host.check(|command| {
        command.arg("--json").uid(NOBODY).gid(NOBODY);
    });

    let said = said(&output);
    assert_eq!(output.status.code(), Some(3), "{said}");
    let answer: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(answer["ready"], false);
    let state = |name: &str| {
        let checks = answer["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["name"] == name).unwrap();
        check["state"].as_str().unwrap().to_owned()
    };
    assert_eq!(state("table of users"), "needs_root");
    assert_eq!(state("agent"), "ok");
}

#[test]
fn a_mistake_in_the_configuration_is_named_by_line_and_key() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("kai.yaml");
    fs::write(&file, "agent:\n  command: /bin/true\n  comand: hunter2\n").unwrap();
    set_mode(&file, 0o644);

    let output = Command::new(env!("CARGO_BIN_EXE_kai-install"))
        .args(["--config".as_ref(), file.as_os_str(), "check".as_ref()])
        .output()
        .unwrap();

    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("kai.yaml:3: `agent.comand`"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn what_is_not_understood_is_refused() {
    for arguments in [&[][..], &["aply"], &["check", "--jason"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_kai-install"))
            .args(arguments)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}
