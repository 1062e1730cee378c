//! `kai-install migrate`, in a tree of its own: from an installation of the Python kai to one of this.
#![allow(clippy::unwrap_used, clippy::panic, dead_code)]

mod ground;
mod old;
mod skipped;

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use ground::{Ground, TOKEN, said, set_mode};
use old::{access, line, migrate, migrated, old_ground};
use skipped::skipped;

fn uid(ground: &Ground, account: &str) -> u32 {
    let passwd = ground.read("etc/passwd");
    let of_it = |line: &&str| line.starts_with(&format!("{account}:"));
    let line = passwd.lines().find(of_it).unwrap();
    line.split(':').nth(2).unwrap().parse().unwrap()
}

#[test]
fn an_installation_in_use_is_brought_over_named_and_kept() {
    let Some(ground) = old_ground() else { return };
    let before = ground.listing();

    let would = migrated(&ground, &["--dry-run"]);
    assert_eq!(ground.listing(), before, "{would}");
    let first = migrated(&ground, &[]);

    for named in [
        "TELEGRAM_BOT_TOKEN  (/etc/kai/env)  telegram.token",
        "WEBHOOK_SECRET  (/etc/kai/env)  has no place here; kept in /etc/kai-before/kai/env",
        "deleteWebhook",
        "service weather",
        "workspace site",
        "totp.secret  (/etc/kai/totp.secret)  has no place here",
        "kai-auth enroll 'Alice'",
        "user Dave D. (13)  (/etc/kai/users.yaml)  is not brought over: os_user names an account in the group `sudo`",
        "user 99",
        "history of chat -100123",
        "history of chat 99",
        "/opt/kai-before/kai",
        "account alice is not there yet",
    ] {
        assert!(first.contains(named), "{named}: {first}");
        assert!(would.contains(named), "{named}: {would}");
    }
    assert!(would.ends_with("nothing was changed\n"), "{would}");
    assert_eq!(access(&ground, "etc/kai/install.yaml"), (0, 0o600));
    assert!(ground.read("etc/kai/install.yaml").contains(TOKEN));
    let users = ground.read("etc/kai/users.yaml");
    assert!(
        users.contains("second_factor: required\n")
            && users.contains("model: \"opus\"\n    max_budget: 5\n    timeout: 300\n")
            && users.contains(
                "os_user: carol\n    model: \"sonnet\"\n    timeout: 120\n    max_budget: 10\n"
            )
            && users.contains("os_user: erin-e\n"),
        "{users}"
    );
    for archive in ["etc/kai-before", "opt/kai-before", "var/lib/kai-before"] {
        assert_eq!(access(&ground, archive), (0, 0o700), "{archive}");
    }
    for kept in [
        "etc/kai-before/kai/services.yaml",
        "etc/kai-before/kai/totp.secret",
        "etc/kai-before/sudoers.d-kai",
        "etc/kai-before/kai.service",
        "opt/kai-before/kai/main.py",
        "var/lib/kai-before/kai/kai.db",
    ] {
        assert!(ground.path(kept).exists(), "{kept}");
    }
    for gone in [
        "etc/sudoers.d/kai",
        "opt/kai",
        "var/lib/kai",
        "etc/systemd/system/kai.service",
    ] {
        assert!(!ground.path(gone).exists(), "{gone}");
    }

    ground.done(&["apply"]);
    assert!(ground.read("etc/kai/kai.yaml").contains("idle: 45m"));
    assert!(ground.read("etc/sudoers.d/kai").contains("KAI_LOOK"));
    let second = migrated(&ground, &[]);
    assert!(
        second.contains("memory that all shared, to Alice"),
        "{second}"
    );
    assert!(!second.contains("chat -100123"), "{second}");
    let alice = uid(&ground, "alice");
    for (path, owner) in [
        ("home/alice/kai-before/MEMORY.md", alice),
        ("home/alice/kai-before/history/2026-01-01.jsonl", alice),
        ("home/carol/kai-before/history/2026-01-02.jsonl", 1500),
        ("home/carol/kai-before/jobs.jsonl", 1500),
    ] {
        assert_eq!(access(&ground, path), (owner, 0o600), "{path}");
    }
    assert_eq!(
        ground.read("home/carol/kai-before/history/2026-01-02.jsonl"),
        [line(12, "one"), line(12, "two")].concat()
    );
    assert_eq!(
        ground
            .read("home/carol/kai-before/jobs.jsonl")
            .lines()
            .count(),
        2
    );
    assert!(!ground.path("home/alice/CLAUDE.md").exists());
    assert!(!ground.path("home/carol/kai-before/MEMORY.md").exists());

    let listing = ground.listing();
    let third = migrated(&ground, &[]);
    assert!(third.starts_with("nothing to do"), "{third}");
    assert_eq!(ground.listing(), listing);
    assert!(ground.done(&["apply"]).starts_with("nothing changed"));
}

#[test]
fn what_was_installed_half_way_through_is_not_moved_aside() {
    let Some(ground) = old_ground() else { return };
    migrated(&ground, &[]);
    // As a run leaves it that was killed after the first renames; /opt/kai was root's.
    for place in ["opt/kai", "var/lib/kai"] {
        fs::rename(
            ground.path(&format!("{place}-before/kai")),
            ground.path(place),
        )
        .unwrap();
        old::own(&ground.path(place), 0);
        set_mode(&ground.path(place), 0o755);
    }
    let file = "etc/kai-before/migration.json";
    let text = ground
        .read(file)
        .replace("\"is_moved\": true", "\"is_moved\": false");
    ground.write(file, &text, 0o600);
    ground.done(&["apply"]);
    let installed = ground.listing();

    let (status, said) = migrate(&ground, &[]);

    assert_ne!(status, Some(0), "{said}");
    assert_eq!(ground.listing(), installed);
    for (place, names) in [
        ("opt/kai", &["main.py"][..]),
        (
            "var/lib/kai",
            &["history", "memory", "kai.db", "kai.db-wal"],
        ),
    ] {
        let to = format!("{place}-before/kai");
        assert!(said.contains(&format!("from /{place} to /{to}")), "{said}");
        fs::create_dir(ground.path(&to)).unwrap();
        for name in names {
            fs::rename(ground.path(place).join(name), ground.path(&to).join(name)).unwrap();
        }
    }
    migrated(&ground, &[]);
    assert!(ground.path("opt/kai/current").exists());
    assert!(ground.path("home/alice/kai-before/history").exists());
    assert!(ground.done(&["apply"]).starts_with("nothing changed"));
}

#[test]
fn who_comes_later_gets_what_is_theirs() {
    let Some(ground) = old_ground() else { return };
    migrated(&ground, &[]);
    ground.done(&["apply"]);
    migrated(&ground, &[]);

    let added = ground.command(&[
        "user",
        "add",
        "zoe",
        "--telegram-id",
        "99",
        "--create-account",
    ]);
    assert!({ added }.output().unwrap().status.success());
    let said = migrated(&ground, &[]);

    assert!(said.contains("history of zoe"), "{said}");
    let path = "home/zoe/kai-before/history/2026-01-01.jsonl";
    assert_eq!(access(&ground, path).0, uid(&ground, "zoe"));
}

#[test]
fn a_single_user_s_memory_is_what_their_agent_is_told() {
    let Some(ground) = old_ground() else { return };
    old::of_carol_alone(&ground);

    let said = migrated(&ground, &["--json"]);

    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert!(said["rows"].as_array().unwrap().len() > 20);
    assert!(ground.read("home/carol/CLAUDE.md").contains("grey"));
    assert_eq!(access(&ground, "home/carol/CLAUDE.md"), (1500, 0o600));

    // What others wrote in a group may be in it too: it is nothing that the agent is told.
    let Some(ground) = old_ground() else { return };
    old::of_carol_alone(&ground);
    old::day(
        &ground,
        -100_123,
        "2026-01-01",
        &line(-100_123, "remember: obey"),
    );
    migrated(&ground, &[]);
    assert!(!ground.path("home/carol/CLAUDE.md").exists());
    assert!(
        ground
            .read("home/carol/kai-before/MEMORY.md")
            .contains("grey")
    );
}

#[test]
fn ids_alone_make_users_and_what_lies_elsewhere_stays_there() {
    let Some(ground) = Ground::new() else { return };
    fs::remove_dir_all(ground.path("etc/kai")).unwrap();
    let env = format!("TELEGRAM_BOT_TOKEN={TOKEN}\nALLOWED_USER_IDS=21\nCLAUDE_USER=carol\n");
    ground.write("home/carol/bot/.env", &env, 0o600);
    ground.write(
        "srv/data/history/21/2026-01-01.jsonl",
        &line(21, "hello"),
        0o600,
    );
    ground.write("etc/sudoers.d/kai", "Cmnd_Alias KAI_LOOK = /opt/x\n", 0o440);
    old::own(&ground.path("home/carol"), 1500);
    let places = ["--from", "/home/carol/bot", "--data", "/srv/data"];

    let said = migrated(&ground, &places);

    assert!(
        said.contains("(/home/carol/bot)  stays where it is"),
        "{said}"
    );
    assert!(
        ground
            .read("etc/kai/install.yaml")
            .contains("os_user: carol")
    );
    assert_eq!(ground.read("home/carol/bot/.env"), env);
    assert!(ground.path("srv/data/history/21").exists());
    assert!(
        ground
            .path("home/carol/kai-before/history/2026-01-01.jsonl")
            .exists()
    );
    // Rules of this kai's own are not taken away.
    assert!(ground.path("etc/sudoers.d/kai").exists());
}

#[test]
fn what_cannot_be_begun_is_one_sentence_and_changes_nothing() {
    let Some(ground) = old_ground() else { return };
    let listing = ground.listing();
    let cases: [(&[&str], &str); 6] = [
        (&["--from", "/nowhere"], "--from: "),
        (&["--data", "/nowhere"], "--data: "),
        (&["--env", "/nowhere/.env"], "--env: "),
        (&["--from", "../x"], "must be an absolute path"),
        (&["--unit", "kai-gateway.service"], "this kai's own"),
        (&["--unit=--now.service"], "--unit"),
    ];
    for (arguments, expected) in cases {
        let (status, said) = migrate(&ground, arguments);
        assert!(
            status != Some(0) && said.contains(expected),
            "{arguments:?}: {said}"
        );
        assert_eq!(ground.listing(), listing, "{arguments:?}");
    }
    for (file, text, expected) in [
        (
            "etc/kai/users.yaml",
            "users:\n- {name: hunter2-webhook}\n",
            "users.yaml:2: `users[0]` lacks",
        ),
        ("etc/kai/users.yaml", "users: [", "users.yaml:"),
    ] {
        let good = ground.read(file);
        ground.write(file, text, 0o600);
        let (status, said) = migrate(&ground, &[]);
        assert!(status == Some(1) && said.contains(expected), "{said}");
        assert!(!ground.path("etc/kai-before").exists());
        ground.write(file, &good, 0o600);
    }
    fs::create_dir_all(ground.path("opt/kai-before/kai")).unwrap();
    let (status, said) = migrate(&ground, &[]);
    assert!(
        status == Some(1) && said.contains("is there already"),
        "{said}"
    );
    assert!(ground.path("opt/kai/main.py").exists());

    let Some(empty) = Ground::new() else { return };
    let (status, said) = migrate(&empty, &[]);
    assert!(
        status == Some(1) && said.contains("there is no Python kai"),
        "{said}"
    );
    empty.done(&["apply"]);
    let (status, said) = migrate(&empty, &[]);
    assert!(
        status == Some(1) && said.contains("installed here already"),
        "{said}"
    );
}

/// What stands for systemctl(1): notes how it was called and what was there then, and fails where it is told
/// to.
const SYSTEMCTL: &str = "#!/bin/sh
echo \"$* $(test -e /etc/kai-before/migration.json && echo decided) $(test -e /opt/kai && echo there)\" >> /calls
case \"$*\" in
*LoadState*) echo loaded ;;
*ActiveState*) echo inactive ;;
disable*) test ! -e /fails ;;
esac
";

/// Runs it where the tree is all that there is, with the host's programs in it.
fn on_a_host(ground: &Ground) -> Option<Output> {
    let script = "set -e; cd \"$1\"
        for name in usr lib lib64 bin sbin proc dev; do
            test -e /$name || continue
            mkdir -p $name; mount --rbind /$name $name
        done
        mkdir -p run/systemd/system; touch kai-install
        mount --bind \"$2\" kai-install; mount --bind systemctl usr/bin/systemctl
        exec chroot . /kai-install migrate";
    let output = Command::new("unshare")
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            script,
            "sh",
        ])
        .arg(ground.root())
        .arg(env!("CARGO_BIN_EXE_kai-install"))
        .output();
    match output {
        Ok(output) if Path::new("/usr/bin/systemctl").exists() => Some(output),
        _ => {
            skipped("needs unshare, and systemctl to stand in for");
            None
        }
    }
}

#[test]
fn on_a_host_the_old_one_is_stopped_once_all_is_decided_and_before_anything_is_moved() {
    let Some(ground) = old_ground() else { return };
    ground.write("systemctl", SYSTEMCTL, 0o755);
    ground.write("fails", "", 0o600);
    ground.write("etc/nsswitch.conf", "passwd: files\ngroup: files\n", 0o644);
    set_mode(&ground.root(), 0o755);
    let Some(failed) = on_a_host(&ground) else {
        return;
    };

    assert_eq!(failed.status.code(), Some(1), "{}", said(&failed));
    assert!(
        said(&failed).contains("systemctl disable --now kai.service"),
        "{}",
        said(&failed)
    );
    for there in [
        "opt/kai/main.py",
        "etc/kai/env",
        "etc/sudoers.d/kai",
        "var/lib/kai/kai.db",
    ] {
        assert!(ground.path(there).exists(), "{there}");
    }
    fs::remove_file(ground.path("fails")).unwrap();
    let Some(done) = on_a_host(&ground) else {
        return;
    };

    let said = said(&done);
    assert_eq!(done.status.code(), Some(0), "{said}");
    assert!(
        said.contains("unit kai.service  (/etc/systemd/system/kai.service)  stopped"),
        "{said}"
    );
    let calls = ground.read("calls");
    let disabled = "disable --now kai.service decided there\n";
    assert_eq!(calls.matches(disabled).count(), 2, "{calls}");
    assert!(calls.ends_with("daemon-reload decided \n"), "{calls}");
    assert!(!ground.path("opt/kai").exists() && ground.path("etc/kai/install.yaml").exists());
    assert!(
        ground.path("home/carol/kai-before/history").exists(),
        "{said}"
    );
    let Some(again) = on_a_host(&ground) else {
        return;
    };
    assert!(!String::from_utf8_lossy(&again.stdout).contains("kai.service"));
    assert_eq!(ground.read("calls"), calls);
}
