//! The program as somebody might start it by hand.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::{Command, Output};

fn worker(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kai-worker"))
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn it_names_its_version_and_its_purpose() {
    let version = worker(&["--version"]);
    assert!(version.status.success());
    assert!(version.stdout.starts_with(b"kai-worker "));
    assert!(worker(&["--help"]).status.success());
}

#[test]
fn without_the_broker_it_refuses_in_one_sentence() {
    let refused = worker(&[]);

    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(64));
    assert_eq!(said.lines().count(), 1);
    assert!(said.contains("kai-brokerd alone"), "{said}");
}

#[test]
fn it_takes_no_configuration() {
    let refused = worker(&["--config", "/etc/kai/kai.yaml"]);
    assert_eq!(refused.status.code(), Some(64));
}
