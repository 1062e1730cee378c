//! `kai-install user`, in a tree of its own.
#![allow(clippy::unwrap_used, clippy::panic, dead_code)]

mod ground;
mod skipped;

use std::fs;

use ground::{Ground, said, set_mode};

fn user(ground: &Ground, arguments: &[&str]) -> (Option<i32>, String) {
    let output = ground
        .command(&[&["user"], arguments].concat())
        .output()
        .unwrap();
    (output.status.code(), said(&output))
}

#[test]
fn users_come_and_go_and_comments_stay() {
    let Some(ground) = Ground::new() else { return };
    fs::create_dir_all(ground.path("etc/ssh/sshd_config.d")).unwrap();
    let denied = || ground.read("etc/ssh/sshd_config.d/kai.conf");
    ground.done(&["apply"]);
    assert!(denied().contains("DenyUsers alice\n"), "{}", denied());
    let before = format!("# ours\n{}# the end\n", ground.read("etc/kai/users.yaml"));
    ground.write("etc/kai/users.yaml", &before, 0o600);

    let (status, said) = user(
        &ground,
        &["add", "bob", "--telegram-id", "13", "--create-account"],
    );
    assert_eq!(status, Some(0), "{said}");
    let with_bob = ground.read("etc/kai/users.yaml");
    assert!(
        with_bob.starts_with("# ours\n") && with_bob.ends_with("# the end\n"),
        "{with_bob}"
    );
    let (_, listed) = user(&ground, &["list", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed[2]["os_user"], "bob");
    assert!(ground.path("home/bob").exists());
    assert_eq!(ground.read("etc/cron.deny"), "alice\nbob\n");
    assert!(denied().contains("DenyUsers alice bob\n"), "{}", denied());
    assert!(ground.done(&["apply"]).starts_with("nothing changed"));

    let (status, said) = user(&ground, &["remove", "bob"]);
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(ground.read("etc/kai/users.yaml"), before);
    assert_eq!(ground.read("etc/cron.deny"), "alice\n");
    assert!(ground.path("home/bob").exists() && ground.read("etc/passwd").contains("bob:"));
    assert!(ground.done(&["apply"]).starts_with("nothing changed"));
}

#[test]
fn who_was_taken_out_of_the_table_by_hand_can_be_added_anew_and_apply_goes_on() {
    let Some(ground) = Ground::new() else { return };
    ground.done(&["apply"]);
    let (status, said) = user(
        &ground,
        &["add", "bob", "--telegram-id", "13", "--create-account"],
    );
    assert_eq!(status, Some(0), "{said}");
    ground.write("etc/kai/users.yaml", "users: []\n", 0o600);

    // The same person, with an account of theirs.
    let (status, said) = user(
        &ground,
        &["add", "bob", "--telegram-id", "13", "--os-user", "carol"],
    );

    assert_eq!(status, Some(0), "{said}");
    ground.done(&["apply"]);
    assert!(ground.done(&["apply"]).starts_with("nothing changed"));
}

#[test]
fn the_last_of_kai_s_accounts_takes_the_rule_for_sshd_with_it() {
    let Some(ground) = Ground::new() else { return };
    fs::create_dir_all(ground.path("etc/ssh/sshd_config.d")).unwrap();
    ground.done(&["apply"]);
    let rule = ground.path("etc/ssh/sshd_config.d/kai.conf");
    assert!(rule.exists());

    let (status, said) = user(&ground, &["remove", "Alice"]);

    assert_eq!(status, Some(0), "{said}");
    assert!(!rule.exists());
    // One of the admin's own by that name is none of kai's.
    fs::write(&rule, "DenyUsers mallory\n").unwrap();
    assert!(ground.done(&["apply"]).starts_with("nothing changed"));
    assert!(rule.exists());
}

#[test]
fn what_the_broker_would_refuse_is_refused_and_changes_nothing() {
    let Some(ground) = Ground::new() else { return };
    ground.done(&["apply"]);
    let listing = ground.listing();
    let cases: [(&[&str], &str); 7] = [
        (
            &["add", "Alice", "--telegram-id", "99", "--os-user", "carol"],
            "is the same as",
        ),
        (
            &["add", "x", "--telegram-id", "11", "--create-account"],
            "is the same as",
        ),
        (&["add", "dave", "--telegram-id", "99"], "group `sudo`"),
        (
            &["add", "nobody-here", "--telegram-id", "99"],
            "does not exist",
        ),
        (&["add", "Bob B.", "--telegram-id", "99"], "--os-user"),
        (&["add", "root", "--telegram-id", "99"], "uid 0"),
        (&["remove", "bob"], "no user bob"),
    ];
    for (arguments, expected) in cases {
        let (status, said) = user(&ground, arguments);
        assert_eq!(status, Some(1), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
        assert_eq!(said.trim().lines().count(), 1, "{said}");
        assert_eq!(ground.listing(), listing, "{arguments:?}");
    }
    set_mode(&ground.path("etc/kai/users.yaml"), 0o644);
    let (status, said) = user(
        &ground,
        &["add", "bob", "--telegram-id", "13", "--create-account"],
    );
    assert!(status == Some(1) && said.contains("chmod 0600"), "{said}");
    assert!(fs::read_dir(ground.path("home")).unwrap().count() == 1);
}
