//! What `kai-auth` says where there is no daemon.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

fn command(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kai-auth"))
        .args(arguments)
        .output()
        .unwrap()
}

/// A configuration with directories of its own, in which nothing runs.
fn configuration(more: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("kai.yaml");
    let at = |name: &str| directory.path().join(name).display().to_string();
    let paths = format!(
        "paths: {{run: {}, state: {}, log: {}}}",
        at("run"),
        at("state"),
        at("log")
    );
    fs::write(
        &file,
        format!("agent: {{command: /bin/true}}\n{paths}\n{more}"),
    )
    .unwrap();
    (directory, file)
}

#[test]
fn help_names_the_subcommands_and_each_has_its_own() {
    let help = command(&["--help"]);
    assert!(help.status.success());
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    for (subcommand, says) in [
        ("init", "--restore <FILE>"),
        ("enroll", "--telegram-id <ID>"),
        ("remove", "<NAME>"),
        ("unlock", "<NAME>"),
        ("status", "--json"),
    ] {
        assert!(help.contains(subcommand), "{help}");
        let own = command(&[subcommand, "--help"]);
        assert!(own.status.success());
        let own = String::from_utf8_lossy(&own.stdout).into_owned();
        assert!(own.contains(says) && own.contains("--config"), "{own}");
    }
    assert!(command(&["enrol", "--help"]).status.success());
}

#[test]
fn a_command_line_that_is_not_understood_has_a_status_of_its_own() {
    for arguments in [
        &["frobnicate"][..],
        &[],
        &["enroll"],
        &["enroll", " alice"],
        &["enroll", "alice", "--telegram-id", "-7"],
        &["enroll", "alice", "--telegram-id", "seven"],
        &["remove", "al\nice"],
    ] {
        assert_eq!(command(arguments).status.code(), Some(64), "{arguments:?}");
    }
}

#[test]
fn a_configuration_that_cannot_be_used_has_a_status_of_its_own() {
    let (_directory, file) = configuration("limits: {workers: hunter2}");
    let file = file.to_str().unwrap();
    for arguments in [&["status"][..], &["init"], &["unlock", "alice"]] {
        let failed = command(&[arguments, &["--config", file]].concat());
        let said = String::from_utf8_lossy(&failed.stderr);
        assert_eq!(failed.status.code(), Some(78));
        assert!(said.contains("kai.yaml:3: `limits.workers`"), "{said}");
        assert!(!said.contains("hunter2"));
    }
}

#[test]
fn a_daemon_that_does_not_run_is_one_sentence() {
    let (_directory, file) = configuration("");
    let file = file.to_str().unwrap();
    for arguments in [
        &["status"][..],
        &["status", "--json"],
        &["remove", "alice"],
        &["unlock", "alice"],
        &["enroll", "alice", "--telegram-id", "7"],
    ] {
        let failed = command(&[arguments, &["--config", file]].concat());

        let said = String::from_utf8_lossy(&failed.stderr);
        assert_eq!(failed.status.code(), Some(1));
        assert!(
            said.contains("cannot reach kai-authd") && said.lines().count() == 1,
            "{said}"
        );
        assert!(failed.stdout.is_empty());
    }
}
