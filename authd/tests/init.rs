//! `kai-auth init`: the database is made once, and a copy comes back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod ground;

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
};

use ground::{
    Ground, authenticator,
    members::granted,
    peers::{Gateway, user},
    programs::is_root,
};
use kai_proto::gateway_authd::{Standing, Verdict};

#[test]
fn init_makes_the_database_once_and_leaves_it_alone_then() {
    if !is_root() {
        return;
    }
    let ground = Ground::bare("");

    let said = ground.done(&["init"]);

    assert!(
        said.contains("kai-auth enroll") && said.lines().count() == 1,
        "{said}"
    );
    let found = fs::metadata(ground.database()).unwrap();
    assert_eq!((found.uid(), found.mode() & 0o7777), (0, 0o600));
    let directory = fs::metadata(ground.state()).unwrap();
    assert_eq!((directory.uid(), directory.mode() & 0o7777), (0, 0o700));
    let before = fs::read(ground.database()).unwrap();
    let (status, said) = ground.not_done(&["init"]);
    assert_eq!(status, 1, "{said}");
    let after = fs::metadata(ground.database()).unwrap();
    assert_eq!(fs::read(ground.database()).unwrap(), before);
    assert_eq!(
        (found.ino(), found.mtime_nsec()),
        (after.ino(), after.mtime_nsec())
    );
}

#[test]
fn a_restored_copy_keeps_no_used_code_usable_and_the_database_that_was_there() {
    if !is_root() {
        return;
    }
    let mut ground = Ground::started("");
    let (alice, bob) = (user("alice", 1001), user("bob", 1002));
    let enrolled = ground.enroll("alice", 1001);
    let locked = ground.enroll("bob", 1002);
    let mut gateway = Gateway::connect(&ground.run()).unwrap();
    for _ in 0..3 {
        gateway.totp(&bob, locked.authenticator.wrong()).unwrap();
    }
    ground.stop();
    let copy = ground.path("copy.sqlite");
    fs::copy(ground.database(), &copy).unwrap();
    fs::set_permissions(&copy, PermissionsExt::from_mode(0o600)).unwrap();
    ground.start();
    let mut gateway = Gateway::connect(&ground.run()).unwrap();
    let code = enrolled.authenticator.totp(authenticator::step());
    granted(gateway.totp(&alice, code.clone()).unwrap());
    let restore = ["init", "--restore", copy.to_str().unwrap()];
    let (status, said) = ground.not_done(&restore);
    assert!(status == 1 && said.contains("stop it first"), "{said}");
    ground.stop();
    let before = fs::read(ground.database()).unwrap();

    ground.done(&restore);

    let kept = fs::read_dir(ground.state()).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        path != ground.database() && fs::read(path).unwrap() == before
    });
    assert!(kept, "the database that was there is gone");
    assert_eq!(
        fs::metadata(ground.database()).unwrap().mode() & 0o7777,
        0o600
    );
    ground.start();
    let mut gateway = Gateway::connect(&ground.run()).unwrap();
    assert_eq!(gateway.totp(&alice, code).unwrap(), Verdict::Refused);
    assert!(matches!(
        gateway.standing(&bob, None),
        Standing::Locked { .. }
    ));
}

#[test]
fn a_copy_that_is_no_database_of_ours_changes_nothing() {
    if !is_root() {
        return;
    }
    let ground = Ground::new("");
    let before = fs::read(ground.database()).unwrap();
    let copy = ground.path("copy.sqlite");
    fs::write(&copy, "not a database").unwrap();
    fs::set_permissions(&copy, PermissionsExt::from_mode(0o600)).unwrap();

    for file in [copy, ground.path("nowhere")] {
        let (status, said) = ground.not_done(&["init", "--restore", file.to_str().unwrap()]);
        assert_eq!(status, 1, "{said}");
        assert_eq!(fs::read(ground.database()).unwrap(), before);
    }
}
