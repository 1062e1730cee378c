//! What a ground makes on the machine it runs on, and that nothing of it stays.
//!
//! The programs here are empty ones: what is tested is around them.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use kai_emulators::prerequisite::found_or_skipped;
use kai_playground::ground::{
    self, Ground, GroundError, Names, Options, Person,
    programs::{NAMES, Programs},
};
use nix::unistd::{Group, User, geteuid};

fn empty_programs() -> (tempfile::TempDir, Programs) {
    let directory = tempfile::tempdir().unwrap();
    for name in NAMES {
        let path = directory.path().join(name);
        // The one that is run to its end while a ground is made; the others are daemons.
        let what = if name == "kai-auth" {
            "true"
        } else {
            "sleep 1000"
        };
        fs::write(&path, format!("#!/bin/sh\nexec {what}\n")).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o775)).unwrap();
    }
    let programs = Programs::in_directory(directory.path()).unwrap();
    (directory, programs)
}

fn options(names: Names) -> Options {
    let people = vec![Person::new("alice", 11), Person::new("bob", 12)];
    Options::new(names, people, "http://127.0.0.1:1", "1:token")
}

fn ground() -> Result<Ground, GroundError> {
    let (_directory, programs) = empty_programs();
    Ground::with_programs(&options(Names::Unique), &programs)
}

/// Whether a test that makes accounts can run.
fn root() -> Option<()> {
    let root = geteuid().is_root().then_some(());
    found_or_skipped(root.ok_or("making accounts needs root"))
}

#[test]
fn accounts_are_made_apart_from_each_other_and_removed_with_all_that_is_theirs() {
    if root().is_none() {
        return;
    }
    let ground = ground().unwrap();
    let alice = ground.account("alice").unwrap().clone();
    let bob = ground.account("bob").unwrap().clone();
    let gateway = ground.gateway_account().clone();
    let root = ground.root().to_owned();
    let secret = ground
        .write_in_home("bob", "secret.txt", "a secret")
        .unwrap();

    let home = fs::metadata(&alice.home).unwrap();
    let group = Group::from_gid(alice.gid.into()).unwrap().unwrap();
    assert_eq!(
        (home.uid(), home.gid(), home.mode() & 0o7777),
        (alice.uid, alice.gid, 0o700)
    );
    assert!(alice.uid >= 1000 && alice.uid != bob.uid && alice.gid != bob.gid);
    assert!(!group.name.starts_with("kai-"), "{}", group.name);
    assert_eq!(fs::metadata(&secret).unwrap().uid(), bob.uid);
    assert_eq!(mode(&root.join("etc/users.yaml")), (0, 0, 0o600));
    assert_eq!(
        mode(&root.join("etc/telegram-token")),
        (0, gateway.gid, 0o640)
    );
    assert_eq!(
        mode(&root.join("state/gateway")),
        (gateway.uid, gateway.gid, 0o700)
    );
    assert_eq!(mode(&root.join("bin/kai-worker")), (0, 0, 0o755));

    drop(ground);
    assert!(!root.exists() && !alice.home.exists() && !bob.home.exists());
    for name in [&alice.name, &bob.name, &gateway.name] {
        assert!(User::from_name(name).unwrap().is_none(), "{name}");
    }
    for gid in [alice.gid, bob.gid, gateway.gid] {
        assert!(Group::from_gid(gid.into()).unwrap().is_none(), "{gid}");
    }
}

#[test]
fn what_a_killed_run_left_is_removed_by_the_next_one() {
    if root().is_none() {
        return;
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "holder_of_a_ground", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let left: Vec<PathBuf> = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
        .find_map(|line| {
            Some(
                line.split_once("made ")?
                    .1
                    .split(' ')
                    .map(PathBuf::from)
                    .collect(),
            )
        })
        .unwrap();
    assert!(left.iter().all(|path| path.exists()), "{left:?}");
    ground::clean_up().unwrap();
    assert!(
        left.iter().all(|path| path.exists()),
        "a living run's was removed: {left:?}"
    );

    child.kill().unwrap();
    child.wait().unwrap();
    ground::clean_up().unwrap();

    assert!(left.iter().all(|path| !path.exists()), "{left:?}");
    let account = left[1].file_name().unwrap().to_str().unwrap();
    assert!(User::from_name(account).unwrap().is_none());
    for process in fs::read_dir("/proc").unwrap() {
        if let Ok(command) = fs::read(process.unwrap().path().join("cmdline")) {
            let command = String::from_utf8_lossy(&command).into_owned();
            assert!(!command.contains(left[0].to_str().unwrap()), "{command}");
        }
    }
}

/// Makes a ground with a running daemon, and waits to be killed. Run by the test above.
#[test]
#[ignore = "only for the test above"]
fn holder_of_a_ground() {
    let ground = ground().unwrap();
    // Not ready ever, but started.
    let root = ground.root().to_owned();
    let alice = ground.account("alice").unwrap().home.clone();
    std::thread::spawn(move || ground.start());
    std::thread::sleep(std::time::Duration::from_millis(300));
    println!("made {} {}", root.display(), alice.display());
    std::thread::sleep(std::time::Duration::from_secs(60));
}

fn mode(path: &Path) -> (u32, u32, u32) {
    let found = fs::metadata(path).unwrap();
    (found.uid(), found.gid(), found.mode() & 0o7777)
}
