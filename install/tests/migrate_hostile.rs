//! `kai-install migrate` against whoever wrote what it reads, and owns what it writes into; and its end at any
//! change.
#![allow(clippy::unwrap_used, clippy::panic, dead_code)]

mod ground;
mod old;
mod skipped;

use std::{collections::HashMap, fs, os::unix::fs::symlink, process::Command};

use ground::{Ground, said};
use old::{access, migrate, migrated, old_ground};
use skipped::skipped;

#[test]
fn what_the_old_account_planted_is_named_and_leads_nowhere() {
    let Some(ground) = old_ground() else { return };
    let at = |name: &str| ground.path("var/lib/kai").join(name);
    ground.write(
        "root/secret",
        "{\"chat_id\": 12, \"text\": \"root's own\"}\n",
        0o600,
    );
    fs::remove_file(at("memory/MEMORY.md")).unwrap();
    symlink("/root/secret", at("memory/MEMORY.md")).unwrap();
    let days = at("history/12");
    symlink("../../../../../root/secret", days.join("2026-02-01.jsonl")).unwrap();
    fs::hard_link(ground.path("root/secret"), days.join("2026-02-02.jsonl")).unwrap();
    let fifo = days.join("2026-02-03.jsonl");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::create_dir(days.join("2026-02-04.jsonl")).unwrap();
    let huge = fs::File::create(days.join("2026-02-05.jsonl")).unwrap();
    huge.set_len(10 << 30).unwrap();
    ground.write("var/lib/kai/history/12/\u{1b}[2Jx", "", 0o600);
    fs::remove_dir_all(at("history/13")).unwrap();
    symlink("/root", at("history/11x")).unwrap();
    fs::remove_dir_all(at("history/11")).unwrap();
    symlink("12", at("history/11")).unwrap();
    ground.write(
        "etc/kai/env",
        &format!(
            "{}hunter2-webhook\n\u{1b}[2J=1\n",
            ground.read("etc/kai/env")
        ),
        0o600,
    );
    ground.write("etc/kai/services.yaml", "services: [hunter2-webhook", 0o600);
    fs::remove_file(ground.path("opt/kai/.env")).unwrap();
    symlink("/etc/shadow", ground.path("opt/kai/.env")).unwrap();
    symlink("/root/secret", ground.path("opt/kai/users.yaml")).unwrap();

    let said = migrated(&ground, &[]);

    for named in [
        "line 17",
        "line 18",
        "/opt/kai/.env)  is a link",
        "memory  (/var/lib/kai-before/kai/memory/MEMORY.md)  is a link",
        "each service  (/etc/kai/services.yaml)  has no place here: /etc/kai/services.yaml:",
    ] {
        assert!(said.contains(named), "{named}: {said}");
    }
    assert!(
        !said.contains('\u{1b}') && !said.contains("root's own"),
        "{said}"
    );
    let brought = fs::read_dir(ground.path("home/carol/kai-before/history")).unwrap();
    let mut brought: Vec<_> = brought
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    brought.sort();
    assert_eq!(brought, ["2026-01-01.jsonl", "2026-01-02.jsonl"], "{said}");
    ground.done(&["apply"]);
    let said = migrated(&ground, &[]);
    assert!(said.contains("history of Alice"), "{said}");
    assert!(!ground.path("home/alice/kai-before").exists(), "{said}");
}

#[test]
fn a_hostile_database_is_read_by_nobody_and_harms_nothing() {
    let Some(ground) = old_ground() else { return };
    let place = ground.path("var/lib/kai/kai.db");
    let _ = fs::remove_file(place.with_extension("db-wal"));
    fs::write(&place, vec![0x41; 1 << 20]).unwrap();
    let said = migrated(&ground, &[]);
    assert!(
        said.contains("the database is not read to its end"),
        "{said}"
    );
    assert!(ground.path("home/carol/kai-before/history").exists());

    let place = ground.path("var/lib/kai-before/kai/kai.db");
    for (sql, expected) in [
        // Without an end, and without a limit to its length.
        (
            "CREATE VIEW jobs AS WITH RECURSIVE c(chat_id) AS (SELECT 12 UNION ALL SELECT chat_id FROM c) SELECT * FROM c;",
            None,
        ),
        (
            "CREATE TABLE jobs(chat_id INTEGER, prompt GENERATED ALWAYS AS (zeroblob(900000000)) VIRTUAL);
             INSERT INTO jobs(chat_id) VALUES (12);",
            Some("jobs"),
        ),
        // Other types than the columns have, and no chat.
        (
            "CREATE TABLE jobs(id, chat_id, prompt);
             INSERT INTO jobs VALUES (x'00ff', 'twelve', 1.5), (1, 12.5, NULL), (x'00', 12, 'x'), (1, 12, zeroblob(9));",
            Some("4 jobs"),
        ),
        ("CREATE TABLE jobs(chat_id);", None),
        ("CREATE TABLE other(x);", None),
    ] {
        fs::remove_file(&place).unwrap();
        rusqlite::Connection::open(&place).unwrap().execute_batch(sql).unwrap();
        let said = migrated(&ground, &[]);
        if let Some(expected) = expected {
            assert!(said.contains(expected), "{sql}: {said}");
        }
        assert!(!ground.path("home/carol/kai-before/jobs.jsonl").exists(), "{sql}");
        assert!(!ground.path("etc/kai-before/.database").exists(), "{sql}");
    }
    fs::remove_file(&place).unwrap();
    symlink("/etc/shadow", &place).unwrap();
    let said = migrated(&ground, &[]);
    assert!(said.contains("kai.db is a link"), "{said}");
}

#[test]
fn what_a_user_planted_in_their_home_helps_them_to_nothing() {
    type Plant = fn(&Ground);
    let cases: [(&str, Plant); 6] = [
        ("a link in the place of the directory", |ground| {
            symlink("/etc/kai", ground.path("home/carol/kai-before")).unwrap();
        }),
        ("a link that climbs", |ground| {
            fs::create_dir(ground.path("home/carol/kai-before")).unwrap();
            symlink(
                "../../../root",
                ground.path("home/carol/kai-before/history"),
            )
            .unwrap();
        }),
        ("a directory of root's", |ground| {
            fs::create_dir(ground.path("home/carol/kai-before")).unwrap();
        }),
        ("a pipe in the place of a day", |ground| {
            fs::create_dir_all(ground.path("home/carol/kai-before/history")).unwrap();
            let day = ground.path("home/carol/kai-before/history/2026-01-01.jsonl");
            nix::unistd::mkfifo(&day, nix::sys::stat::Mode::S_IRWXU).unwrap();
            old::own(&ground.path("home/carol"), 1500);
        }),
        ("a name of somebody else's file", |ground| {
            fs::create_dir_all(ground.path("home/carol/kai-before/history")).unwrap();
            old::own(&ground.path("home/carol"), 1500);
            let day = ground.path("home/carol/kai-before/history/2026-01-01.jsonl");
            fs::hard_link(ground.path("root/file"), day).unwrap();
        }),
        ("a home that is a link", |ground| {
            fs::remove_dir(ground.path("home/carol")).unwrap();
            symlink("/root", ground.path("home/carol")).unwrap();
        }),
    ];
    for (case, plant) in cases {
        let Some(ground) = old_ground() else { return };
        ground.write("root/file", "root's", 0o600);
        plant(&ground);
        let (status, said) = migrate(&ground, &[]);

        assert!(!ground.path("etc/kai/history").exists(), "{case}");
        assert_eq!(
            fs::read_dir(ground.path("root")).unwrap().count(),
            1,
            "{case}: {said}"
        );
        assert_eq!(ground.read("root/file"), "root's", "{case}");
        assert_eq!(access(&ground, "root/file"), (0, 0o600), "{case}");
        assert_eq!(status, Some(0), "{case}: {said}");
        assert!(said.contains("look at  history of carol"), "{case}: {said}");
    }
}

#[test]
fn a_memory_in_a_home_is_read_only_if_it_was_the_old_kai_s() {
    // Carol's home is where the old one worked; she puts there what is told to an admin's agent.
    for (owner, is_read) in [(1500, false), (old::BOT, true), (0, true)] {
        let Some(ground) = old_ground() else { return };
        old::of_carol_alone(&ground);
        fs::remove_dir_all(ground.path("var/lib/kai/memory")).unwrap();
        let env = ground.read("etc/kai/env");
        let env = env.replace("BASE=/srv/kai", "BASE=/home/carol");
        ground.write("etc/kai/env", &env, 0o600);
        let memory = "home/carol/.claude/MEMORY.md";
        ground.write(memory, "obey", 0o600);
        old::own(&ground.path("home/carol"), 1500);
        old::own(&ground.path(memory), owner);

        let said = migrated(&ground, &[]);

        let is_brought = ground.path("home/carol/CLAUDE.md").exists();
        assert_eq!(is_brought, is_read, "{owner}: {said}");
        assert_eq!(said.contains("chown it to root"), !is_read, "{said}");
    }
}

#[test]
fn what_is_mounted_in_a_home_is_not_gone_into() {
    let Some(ground) = old_ground() else { return };
    let place = ground.path("home/carol/kai-before");
    fs::create_dir(&place).unwrap();
    old::own(&ground.path("home/carol"), 1500);
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "uid=1500,gid=1500,mode=0700", "none"])
        .arg(&place)
        .status();
    if !mount.is_ok_and(|status| status.success()) {
        return skipped("cannot mount a small file system");
    }
    let (status, said) = migrate(&ground, &[]);
    let is_empty = fs::read_dir(&place).unwrap().next().is_none();
    let unmounted = Command::new("umount").arg(&place).status().unwrap();

    assert!(unmounted.success() && status == Some(0), "{said}");
    assert!(is_empty && said.contains("in the home is not"), "{said}");
}

#[test]
fn what_the_user_made_themselves_stays_and_a_full_home_is_made_good_later() {
    let Some(ground) = old_ground() else { return };
    old::of_carol_alone(&ground);
    ground.write("home/carol/CLAUDE.md", "mine", 0o600);
    old::own(&ground.path("home/carol"), 1500);
    let home = ground.path("home/carol");
    let mount = Command::new("mount")
        .args([
            "-t",
            "tmpfs",
            "-o",
            "size=8k,uid=1500,gid=1500,mode=0700",
            "none",
        ])
        .arg(&home)
        .status();
    if mount.is_ok_and(|status| status.success()) {
        fs::write(home.join("full"), [0; 8192]).unwrap();
        let (status, said) = migrate(&ground, &[]);
        let unmounted = Command::new("umount").arg(&home).status().unwrap();
        assert!(unmounted.success() && status == Some(0), "{said}");
        assert!(said.contains("No space left"), "{said}");
    } else {
        skipped("cannot mount a small file system");
    }

    let said = migrated(&ground, &[]);

    assert!(said.contains("for there is another CLAUDE.md"), "{said}");
    assert_eq!(ground.read("home/carol/CLAUDE.md"), "mine");
    assert!(
        ground
            .read("home/carol/kai-before/MEMORY.md")
            .contains("grey")
    );
    assert!(migrated(&ground, &[]).starts_with("nothing to do"));
}

/// Calls that change something.
const WRITING: [&str; 8] = [
    "mkdirat",
    "renameat2",
    "linkat",
    "unlinkat",
    "fchown",
    "fchmod",
    "fsync",
    "setresuid",
];

#[test]
fn killed_at_any_change_the_next_run_makes_it_good() {
    if Command::new("strace").arg("-V").output().is_err() {
        return skipped("strace is not installed");
    }
    let strace = |ground: &Ground, arguments: &[&str]| {
        let mut command = Command::new("strace");
        command
            .args(["-f", "-qq", "-e", "signal=none"])
            .args(arguments);
        command.arg(env!("CARGO_BIN_EXE_kai-install"));
        command.args(["migrate", "--root"]).arg(ground.root());
        command.output().unwrap()
    };
    // Apart from what was said, and from the salt of the database's journal, it is the same.
    let outcome = |ground: &Ground| -> Vec<String> {
        let all = ground.listing().into_iter();
        all.filter(|line| !line.contains("migration.json") && !line.contains("-wal "))
            .collect()
    };
    let Some(ground) = old_ground() else { return };
    let trace = ground.beside("trace");
    let traced = format!("trace={}", WRITING.join(","));
    let output = strace(&ground, &["-o", trace.to_str().unwrap(), "-e", &traced]);
    assert!(output.status.success(), "{}", said(&output));
    let undisturbed = outcome(&ground);
    let mut calls: HashMap<&str, usize> = HashMap::new();
    for line in fs::read_to_string(trace).unwrap().lines() {
        if let Some(call) = WRITING
            .iter()
            .find(|call| line.contains(&format!("{call}(")))
        {
            *calls.entry(call).or_default() += 1;
        }
    }
    assert!(calls["renameat2"] > 8 && calls["linkat"] > 2, "{calls:?}");
    let mut killed = 0;
    for (call, count) in calls {
        // Each where little is done by it, and a few of what is done often.
        let step = count.div_ceil(if call == "renameat2" { 20 } else { 5 });
        for nth in (1..=count).step_by(step) {
            let Some(ground) = old_ground() else { return };
            let inject = format!("inject={call}:signal=KILL:when={nth}");
            let output = strace(&ground, &["-o", "/dev/null", "-e", &inject]);
            killed += usize::from(!output.status.success());

            let said = migrated(&ground, &[]);

            assert_eq!(outcome(&ground), undisturbed, "{call} {nth}: {said}");
        }
    }
    // The others ended a child alone.
    assert!(killed > 20, "{killed}");
}

#[test]
fn the_child_s_name_makes_nobody_root() {
    use std::os::unix::process::CommandExt;
    let Some(ground) = old_ground() else { return };
    let own = |arg0: &str, arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_kai-install"))
            .arg0(arg0)
            .args(arguments)
            .current_dir(ground.root())
            .output()
            .unwrap()
    };
    let child = "kai-install: child of migrate";
    for arguments in [
        &["write", "0", "0"][..],
        &["write", "1500", "0"],
        &["other", "1500", "1500"],
        &[],
    ] {
        assert!(!own(child, arguments).status.success(), "{arguments:?}");
    }
}
