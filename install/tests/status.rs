//! `kai-install status` and `uninstall`, in a tree of their own.
#![allow(clippy::unwrap_used, clippy::panic, dead_code)]

mod ground;
mod skipped;

use std::{fs, os::unix::process::CommandExt, process::Command};

use ground::{Ground, TOKEN, said, set_mode};
use serde_json::Value;

/// The rows of what the tree has; what the kernel has is the host's.
fn rows(text: &str) -> Vec<(String, String, String)> {
    let answer: Value = serde_json::from_str(text).unwrap();
    let checks = answer["checks"].as_array().unwrap();
    let word = |check: &Value, key: &str| check[key].as_str().unwrap().to_owned();
    checks
        .iter()
        .map(|check| {
            (
                word(check, "name"),
                word(check, "state"),
                word(check, "found"),
            )
        })
        .collect()
}

#[test]
fn status_names_what_differs_and_ends_with_0_only_if_all_is_well() {
    let Some(ground) = Ground::new() else { return };
    let before = ground.install(&["status"]);
    assert_eq!(before.status.code(), Some(1));
    assert!(said(&before).contains("not installed"), "{}", said(&before));
    ground.done(&["apply"]);

    let well = ground.install(&["status", "--json"]);
    let found = rows(&said(&well));
    let of = |name: &str| found.iter().find(|row| row.0 == name).unwrap().clone();
    assert!(found.iter().all(|row| row.0 != "drift"), "{found:?}");
    assert_eq!(of("version").2, "0.1.0");
    assert_eq!(of("agent").1, "ok");
    assert!(found.iter().any(|row| row.0 == "landlock"));
    if found.iter().all(|row| row.1 == "ok" || row.1 == "note") {
        assert_eq!(well.status.code(), Some(0));
    }

    fs::remove_file(ground.path("etc/sudoers.d/kai")).unwrap();
    set_mode(&ground.path("opt/kai/0.1.0/kai-worker"), 0o777);
    let drifted = ground.install(&["status", "--json"]);
    assert_eq!(drifted.status.code(), Some(1));
    let found = rows(&said(&drifted));
    let drift: Vec<&str> = found
        .iter()
        .filter(|row| row.0 == "drift")
        .map(|row| row.2.as_str())
        .collect();
    assert_eq!(drift.len(), 2, "{drift:?}");
    assert!(
        drift[0].contains("kai-worker") && drift[0].contains("0777"),
        "{drift:?}"
    );
    assert!(!said(&drifted).contains(TOKEN));
}

#[test]
fn without_root_status_says_what_needs_root() {
    let Some(ground) = Ground::new() else { return };
    ground.done(&["apply"]);
    // The tree stands in a directory of root's alone, the programs where others cannot go.
    set_mode(ground.beside("").as_path(), 0o755);
    let program = ground.beside("kai-install");
    fs::copy(env!("CARGO_BIN_EXE_kai-install"), &program).unwrap();
    let mut command = std::process::Command::new(program);
    command
        .args(["status", "--json", "--root"])
        .arg(ground.root());
    command.arg("--source").arg(ground.beside("package"));

    let output = command.uid(65534).gid(65534).output().unwrap();

    let found = rows(&said(&output));
    assert!(found.iter().any(|row| row.1 == "needs_root"), "{found:?}");
    assert!(
        found
            .iter()
            .all(|row| row.0 != "drift" || row.1 == "needs_root"),
        "{found:?}"
    );
    if found.iter().all(|row| row.1 != "missing") {
        assert_eq!(output.status.code(), Some(3), "{found:?}");
    }
}

#[test]
fn uninstall_keeps_data_secrets_and_homes_and_apply_brings_kai_back() {
    let Some(ground) = Ground::new() else { return };
    ground.done(&["apply"]);
    let listing = ground.listing();
    ground.write("home/alice/work", "hers", 0o600);
    ground.write("etc/cron.deny", "alice\nmallory\n", 0o644);

    let said = ground.done(&["uninstall"]);

    assert!(
        !ground.path("opt/kai").exists() && !ground.path("run/kai").exists(),
        "{said}"
    );
    assert!(!ground.path("etc/sudoers.d/kai").exists());
    assert_eq!(ground.read("etc/cron.deny"), "mallory\n");
    for kept in [
        "etc/kai/kai.yaml",
        "etc/kai/credentials/telegram-token",
        "var/lib/kai/authd/authd.sqlite",
        "home/alice/work",
    ] {
        assert!(ground.path(kept).exists(), "{kept}");
    }
    assert!(ground.read("etc/passwd").contains("kai-gateway:"));
    fs::remove_file(ground.path("home/alice/work")).unwrap();
    ground.write("etc/cron.deny", "", 0o644);
    ground.done(&["apply"]);
    assert_eq!(ground.listing(), listing);
}

#[test]
fn what_others_put_beside_kai_s_versions_stays() {
    let Some(ground) = Ground::new() else { return };
    ground.write("opt/kai/kai/main.py", "an older kai", 0o644);
    ground.done(&["apply"]);
    ground.write("opt/kai/1-notes/mine", "mine", 0o644);
    // A copy of a version, and a checkout, which have one's description.
    for theirs in ["opt/kai/keep-0.1.0", "opt/kai/install"] {
        ground.write(
            &format!("{theirs}/version.yaml"),
            "version: 0.1.0\nauthd_schema: 1\n",
            0o644,
        );
    }
    assert!(ground.done(&["apply"]).starts_with("nothing changed"));

    let said = ground.done(&["uninstall", "--purge"]);

    assert!(said.contains("left     /opt/kai"), "{said}");
    assert_eq!(ground.read("opt/kai/kai/main.py"), "an older kai");
    assert_eq!(ground.read("opt/kai/1-notes/mine"), "mine");
    let left: Vec<_> = fs::read_dir(ground.path("opt/kai"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 4, "{left:?}");
}

#[test]
fn a_purge_is_held_up_by_nothing_that_users_make_below_their_own_directories() {
    let Some(ground) = Ground::new() else { return };
    ground.done(&["apply"]);
    let mut deep = ground.path("var/lib/kai/users/alice");
    deep.extend(std::iter::repeat_n("d", 200));
    fs::create_dir_all(&deep).unwrap();

    let output = Command::new("sh")
        .args(["-c", "ulimit -n 64; exec \"$@\"", "sh"])
        .arg(env!("CARGO_BIN_EXE_kai-install"))
        .args(["uninstall", "--purge", "--root"])
        .arg(ground.root())
        .arg("--source")
        .arg(ground.beside("package"))
        .output()
        .unwrap();

    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(!ground.path("var/lib/kai").exists());
}

#[test]
fn what_a_purge_cannot_take_away_keeps_the_means_to_do_it_and_its_owner() {
    let Some(ground) = Ground::new() else { return };
    ground.done(&["apply"]);
    let place = ground.path("var/lib/kai/users/alice");
    fs::create_dir_all(place.join("held")).unwrap();
    let purge = ["uninstall", "--purge"];
    let command = ground.command(&purge);

    // Where something is mounted, no directory goes.
    let held = ground.run_with_tmpfs(&place.join("held"), "size=1m", &command);

    let text = said(&held);
    assert_eq!(held.status.code(), Some(1), "{text}");
    assert!(text.contains("kai-install uninstall --purge"), "{text}");
    assert!(ground.path("opt/kai/current/kai-install").exists());
    assert!(ground.read("etc/passwd").contains("kai-gateway:"));
    // Whoever holds it up keeps no secret there.
    assert!(!ground.path("etc/kai/credentials").exists());
    assert!(!ground.path("var/lib/kai/authd").exists());
    ground.done(&purge);
    assert!(!ground.path("var/lib/kai").exists() && !ground.path("opt/kai").exists());
    assert!(!ground.read("etc/passwd").contains("kai-gateway:"));
}

#[test]
fn a_damaged_copy_of_what_runs_keeps_nobody_from_taking_it_away() {
    let Some(ground) = Ground::new() else { return };
    ground.done(&["apply"]);
    fs::remove_dir_all(ground.path("opt/kai/0.1.0/systemd")).unwrap();

    ground.done(&["uninstall"]);

    assert!(!ground.path("opt/kai").exists());
}

#[test]
fn a_purge_leaves_what_was_there_before_and_users_accounts_with_their_homes() {
    let Some(ground) = Ground::new() else { return };
    let before = ground.listing();
    ground.done(&["apply"]);

    let first = ground.done(&["uninstall", "--purge"]);
    let second = ground.done(&["uninstall", "--purge"]);

    assert!(first.contains("userdel --remove alice"), "{first}");
    assert!(second.contains("nothing was there"), "{second}");
    let names = |lines: &[String]| -> Vec<String> {
        lines
            .iter()
            .map(|line| line.split(' ').next().unwrap().to_owned())
            .collect()
    };
    let old = names(&before);
    let new: Vec<String> = names(&ground.listing())
        .into_iter()
        .filter(|name| !old.contains(name))
        .collect();
    // Directories of the host's, which every Debian has, and a home.
    assert_eq!(
        new,
        [
            "etc/sudoers.d",
            "etc/systemd",
            "etc/systemd/system",
            "etc/systemd/system/multi-user.target.wants",
            "etc/systemd/system/sockets.target.wants",
            "etc/sysusers.d",
            "etc/tmpfiles.d",
            "home",
            "home/alice",
            "run",
            "usr",
            "usr/local",
            "usr/local/sbin",
            "var",
            "var/lib",
            "var/log",
        ]
    );
    let gone: Vec<String> = old
        .into_iter()
        .filter(|name| !ground.path(name).exists())
        .collect();
    assert_eq!(gone, ["etc/kai", "etc/kai/install.yaml"]);
    let accounts = [ground.read("etc/passwd"), ground.read("etc/group")].concat();
    assert!(
        !accounts.contains("kai-") && accounts.contains("alice:"),
        "{accounts}"
    );
}
