//! What `kai-auth` says where there is no daemon.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    process::{Command, Output},
};

fn command(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kai-auth"))
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn help_names_the_subcommands() {
    let help = command(&["--help"]);
    assert!(help.status.success());
    assert!(String::from_utf8_lossy(&help.stdout).contains("status"));
}

#[test]
fn a_daemon_that_does_not_run_is_one_sentence() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("kai.yaml");
    let run = directory.path().join("run");
    fs::write(
        &file,
        format!(
            "agent: {{command: /bin/true}}\npaths: {{run: {}}}",
            run.display()
        ),
    )
    .unwrap();

    let failed = command(&["status", "--config", file.to_str().unwrap()]);

    let said = String::from_utf8_lossy(&failed.stderr);
    assert_eq!(failed.status.code(), Some(1));
    assert!(
        said.contains("cannot reach kai-authd") && said.lines().count() == 1,
        "{said}"
    );
}
