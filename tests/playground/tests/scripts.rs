//! The playground as people start it: its sample conversations, with an account for everybody and with
//! one for all.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use kai_emulators::prerequisite::found_or_skipped;
use kai_playground::ground::programs;
use nix::unistd::{User, geteuid};

/// Debian's account without rights of its own.
const NOBODY: u32 = 65534;

fn playground() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_kai-playground"))
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("scripts")
        .join(name)
}

fn play(command: &mut Command, script: &Path) -> Output {
    command.arg("--script").arg(script).output().unwrap()
}

fn said(output: &Output) -> String {
    let transcript = String::from_utf8_lossy(&output.stdout);
    let rest = String::from_utf8_lossy(&output.stderr);
    format!("{transcript}\n{rest}")
}

#[test]
fn every_sample_conversation_goes_as_it_says_and_leaves_nothing_behind() {
    let root = geteuid().is_root().then_some(());
    if found_or_skipped(root.ok_or("making accounts needs root")).is_none() {
        return;
    }
    let mut scripts: Vec<PathBuf> = fs::read_dir(script(""))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    scripts.sort();
    assert!(scripts.len() >= 3);
    for file in scripts {
        let played = play(&mut Command::new(playground()), &file);

        let said = said(&played);
        assert!(played.status.success(), "{}: {said}", file.display());
        let root = said
            .lines()
            .find_map(|line| line.split_once("everything else is in "));
        assert!(!Path::new(root.unwrap().1).exists(), "{said}");
        let made = said
            .lines()
            .find_map(|line| line.split_once("made the accounts "))
            .unwrap()
            .1;
        for account in made.split(" and ") {
            assert!(User::from_name(account).unwrap().is_none(), "{account}");
            assert!(!Path::new("/home").join(account).exists(), "{account}");
        }
    }
}

#[test]
fn without_root_it_says_what_is_not_separated_and_plays_the_same() {
    programs::build_if_run_by_cargo().unwrap();
    // A checkout may be where nobody else can read it.
    let copies = tempfile::Builder::new()
        .prefix("kai-playground-")
        .tempdir_in("/var/tmp")
        .unwrap();
    fs::set_permissions(copies.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let beside = playground().parent().unwrap();
    for name in programs::NAMES.into_iter().chain(["kai-playground"]) {
        fs::copy(beside.join(name), copies.path().join(name)).unwrap();
    }
    for name in ["hello.script", "kill.script"] {
        let copy = copies.path().join(name);
        fs::copy(script(name), &copy).unwrap();
        fs::set_permissions(&copy, PermissionsExt::from_mode(0o644)).unwrap();
        let mut command = Command::new(copies.path().join("kai-playground"));
        command.env_clear().current_dir("/");
        if geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }

        let played = play(&mut command, &copy);

        let said = said(&played);
        let namespaces = if said.contains("this needs user namespaces") {
            Err(&said)
        } else {
            Ok(())
        };
        if found_or_skipped(namespaces).is_none() {
            return;
        }
        assert!(said.contains("not started as root"), "{said}");
        assert!(played.status.success(), "{said}");
        let root = said
            .lines()
            .find_map(|line| line.split_once("everything else is in "));
        assert!(!Path::new(root.unwrap().1).exists(), "{said}");
    }
}

#[test]
fn a_mistake_in_a_script_is_named_with_its_line_before_anything_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("mistake.script");
    fs::write(&file, "alice: hello\nalice dances\n").unwrap();

    let played = play(&mut Command::new(playground()), &file);

    let said = said(&played);
    assert_eq!(played.status.code(), Some(2), "{said}");
    assert!(said.contains("line 2: "), "{said}");
    assert!(!said.contains("everything else is in"), "{said}");
}

#[test]
fn an_expectation_that_fails_is_exit_status_1_with_the_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("unmet.script");
    // Nothing to press is known at once; an answer that does not come takes the script's 30 seconds.
    fs::write(&file, "alice: /start\nalice press No such button\n").unwrap();

    let played = play(&mut Command::new(playground()), &file);

    let said = said(&played);
    if !geteuid().is_root() && said.contains("this needs user namespaces") {
        return;
    }
    assert_eq!(played.status.code(), Some(1), "{said}");
    assert!(
        said.contains("line 2: no message to alice has a button"),
        "{said}"
    );
}
