//! What `kai-brokerd` says before it runs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

fn brokerd(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kai-brokerd"))
        .args(arguments)
        .output()
        .unwrap()
}

fn check(directory: &Path, config: &str, users: &str, users_mode: u32) -> Result<String, String> {
    let file = directory.join("kai.yaml");
    fs::write(&file, config).unwrap();
    fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    let table = directory.join("users.yaml");
    fs::write(&table, users).unwrap();
    fs::set_permissions(&table, PermissionsExt::from_mode(users_mode)).unwrap();
    let output = brokerd(&["--check", "--config", file.to_str().unwrap()]);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}

#[test]
fn help_and_version_are_there() {
    let help = brokerd(&["--help"]);
    assert!(help.status.success());
    assert!(String::from_utf8_lossy(&help.stdout).contains("--config FILE"));
    assert!(String::from_utf8_lossy(&brokerd(&["--version"]).stdout).starts_with("kai-brokerd "));
}

#[test]
fn an_unknown_option_is_one_sentence_and_a_status_of_its_own() {
    let refused = brokerd(&["--start-as-root"]);
    assert_eq!(refused.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--start-as-root"));
}

#[test]
fn a_table_of_users_that_others_can_read_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let refused = check(
        directory.path(),
        "agent: {command: /bin/true}",
        "users: []",
        0o644,
    );
    assert!(
        refused
            .as_ref()
            .is_err_and(|said| said.contains("chmod 0600")),
        "{refused:?}"
    );
}

#[test]
fn an_account_as_good_as_root_is_refused_with_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let users = "users:\n- telegram_id: 7\n  name: somebody\n  os_user: root\n";
    let refused = check(
        directory.path(),
        "agent: {command: /bin/true}",
        users,
        0o600,
    )
    .unwrap_err();
    assert!(
        refused.contains("users.yaml:4: `users[0].os_user` names an account with uid 0"),
        "{refused}"
    );
}

#[test]
fn a_good_configuration_is_said_to_be_good() {
    let directory = tempfile::tempdir().unwrap();
    let said = check(
        directory.path(),
        "agent: {command: /bin/true}",
        "users: []",
        0o600,
    )
    .unwrap();
    assert!(said.contains("good, with 0 users"), "{said}");
}
