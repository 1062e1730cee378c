//! What `kai-authd` says before it runs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    process::{Command, Output},
};

fn authd(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kai-authd"))
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn help_and_version_are_there() {
    assert!(String::from_utf8_lossy(&authd(&["--help"]).stdout).contains("--config FILE"));
    assert!(String::from_utf8_lossy(&authd(&["--version"]).stdout).starts_with("kai-authd "));
}

#[test]
fn a_mistake_in_the_configuration_is_named_with_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("kai.yaml");
    fs::write(
        &file,
        "agent: {command: /bin/true}\nlimits:\n  workers: hunter2\n",
    )
    .unwrap();

    let refused = authd(&["--check", "--config", file.to_str().unwrap()]);

    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(78));
    assert!(
        said.contains("kai.yaml:3: `limits.workers` must be"),
        "{said}"
    );
    assert!(!said.contains("hunter2"));
}
