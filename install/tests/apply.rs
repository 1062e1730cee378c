//! `kai-install apply` in a tree of its own, with real files, accounts and programs of Debian's.
#![allow(clippy::unwrap_used, clippy::panic, dead_code)]

mod ground;
mod skipped;

use std::{
    fs,
    os::unix::fs::{MetadataExt, chown, symlink},
    path::Path,
    time::{Duration, Instant},
};

use ground::{Ground, TOKEN, said, set_mode};

#[test]
fn a_first_run_makes_all_and_a_second_changes_nothing() {
    let Some(ground) = Ground::new() else { return };

    let would = ground.done(&["apply", "--dry-run"]);
    assert!(!ground.path("opt/kai").exists(), "{would}");
    let first = ground.done(&["apply"]);
    let listing = ground.listing();
    let began = Instant::now();
    let second = ground.done(&["apply"]);

    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    assert!(second.starts_with("nothing changed"), "{second}");
    assert_eq!(ground.listing(), listing);
    assert_eq!(
        would.lines().count(),
        first.lines().count(),
        "{would}\n{first}"
    );
    for text in [&would, &first, &second] {
        assert!(!text.contains(TOKEN), "{text}");
    }
    let alice = ground.read("etc/passwd");
    assert!(alice.contains(":/home/alice:/usr/sbin/nologin"), "{alice}");
    let shadow = ground.read("etc/shadow");
    let alice = shadow
        .lines()
        .find(|line| line.starts_with("alice:"))
        .unwrap();
    let fields: Vec<&str> = alice.split(':').collect();
    assert_eq!((fields[1], fields[7]), ("!", "1"), "{alice}");
    assert_eq!(ground.read("etc/cron.deny"), "alice\n");
    let home = fs::metadata(ground.path("home/alice")).unwrap();
    assert!(home.mode() & 0o7777 == 0o700 && home.uid() >= 1000);
    assert_eq!(
        fs::read_link(ground.path("opt/kai/current"))
            .unwrap()
            .to_str(),
        Some("0.1.0")
    );
    let token = fs::metadata(ground.path("etc/kai/credentials/telegram-token")).unwrap();
    assert_eq!((token.mode() & 0o7777, token.uid()), (0o600, 0));
    assert!(ground.path("var/lib/kai/authd/authd.sqlite").exists());
    assert!(
        ground
            .path("etc/systemd/system/kai.target.wants/kai-gateway.service")
            .is_symlink()
    );
    assert!(ground.read("etc/group").contains("kai-admin:x:"));
    assert!(
        ground
            .read("etc/group")
            .lines()
            .any(|l| l.starts_with("kai-admin:") && l.ends_with(":dave"))
    );
}

#[test]
fn commands_lead_to_what_runs_and_replace_nobody_s() {
    let Some(ground) = Ground::new() else { return };
    ground.write("usr/local/sbin/kai-auth", "mine", 0o755);

    let refused = ground.install(&["apply"]);

    let text = said(&refused);
    assert!(
        !refused.status.success() && text.contains("usr/local/sbin/kai-auth"),
        "{text}"
    );
    assert_eq!(ground.read("usr/local/sbin/kai-auth"), "mine");
    assert!(!ground.path("opt/kai").exists());

    fs::remove_file(ground.path("usr/local/sbin/kai-auth")).unwrap();
    ground.done(&["apply"]);
    for name in ["kai-broker", "kai-auth", "kai-install"] {
        let to = fs::read_link(ground.path("usr/local/sbin").join(name)).unwrap();
        assert_eq!(to, Path::new("/opt/kai/current").join(name));
    }
}

#[test]
fn what_others_changed_is_changed_back() {
    let Some(ground) = Ground::new() else { return };
    ground.done(&["apply"]);
    let listing = ground.listing();
    ground.write(
        "etc/systemd/system/kai-gateway.service",
        "[Service]\n",
        0o600,
    );
    fs::remove_file(ground.path("etc/sudoers.d/kai")).unwrap();
    set_mode(&ground.path("var/log/kai"), 0o777);
    set_mode(&ground.path("opt/kai/0.1.0/kai-worker"), 0o777);
    fs::remove_file(ground.path("etc/tmpfiles.d/kai.conf")).unwrap();
    symlink("/etc/shadow", ground.path("etc/tmpfiles.d/kai.conf")).unwrap();
    let shadow = ground.read("etc/shadow");
    ground.write("etc/shadow", &shadow.replace("::1:", ":::"), 0o644);

    let said = ground.done(&["apply"]);

    assert_eq!(said.lines().count(), 7, "{said}");
    assert!(said.contains("has not expired"), "{said}");
    assert_eq!(ground.listing(), listing);
}

#[test]
fn what_the_admin_wrote_into_the_configuration_stays() {
    let Some(ground) = Ground::new() else { return };
    ground.done(&["apply"]);
    let config = format!("# mine\n{}log: debug\n", ground.read("etc/kai/kai.yaml"));
    let users = format!("# mine\n{}", ground.read("etc/kai/users.yaml"));
    ground.write("etc/kai/kai.yaml", &config, 0o644);
    ground.write("etc/kai/users.yaml", &users, 0o600);

    let said = ground.done(&["apply"]);

    assert!(said.starts_with("nothing changed"), "{said}");
    assert_eq!(ground.read("etc/kai/kai.yaml"), config);
    assert_eq!(ground.read("etc/kai/users.yaml"), users);
}

#[test]
fn a_second_version_takes_over_in_one_step_two_are_kept_and_the_first_comes_back() {
    let Some(ground) = Ground::new() else { return };
    ground.done(&["apply"]);
    for version in ["0.2.0", "0.3.0"] {
        ground.make_package(version, version);
        let output = ground.install_from(version, &["apply"]);
        assert!(output.status.success(), "{}", said(&output));
    }
    let versions = || {
        let mut names: Vec<String> = fs::read_dir(ground.path("opt/kai"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(versions(), ["0.2.0", "0.3.0", "current", "previous"]);

    let back = ground.command(&["rollback"]).output().unwrap();

    assert!(back.status.success(), "{}", said(&back));
    assert_eq!(
        fs::read_link(ground.path("opt/kai/current"))
            .unwrap()
            .to_str(),
        Some("0.2.0")
    );
    assert!(ground.read("opt/kai/current/kai-gateway").contains("0.2.0"));
    assert_eq!(versions(), ["0.2.0", "0.3.0", "current", "previous"]);
}

#[test]
fn a_unit_that_only_the_newer_version_has_goes_with_it_and_the_admin_s_own_stays() {
    let Some(ground) = Ground::new() else { return };
    ground.done(&["apply"]);
    ground.make_package("new", "0.2.0");
    let socket = "[Socket]\nListenStream=/run/kai/x\n[Install]\nWantedBy=sockets.target\n";
    fs::write(ground.beside("new/systemd/kai-new.socket"), socket).unwrap();
    ground.write(
        "etc/systemd/system/kai-backup.service",
        "[Service]\n",
        0o644,
    );
    let link = ground.path("etc/systemd/system/sockets.target.wants/kai-new.socket");
    let up = ground.install_from("new", &["apply"]);
    assert!(up.status.success() && link.is_symlink(), "{}", said(&up));

    let back = ground.command(&["rollback"]).output().unwrap();

    assert!(back.status.success(), "{}", said(&back));
    assert!(!link.is_symlink());
    assert!(!ground.path("etc/systemd/system/kai-new.socket").exists());
    assert!(
        ground
            .path("etc/systemd/system/kai-backup.service")
            .exists()
    );
}

#[test]
fn a_way_back_that_the_database_rules_out_is_announced_and_refused() {
    let Some(ground) = Ground::new() else { return };
    ground.done(&["apply"]);
    ground.make_package("new", "0.2.0");
    fs::write(
        ground.beside("new/version.yaml"),
        "version: 0.2.0\nauthd_schema: 2\n",
    )
    .unwrap();

    let up = ground.install_from("new", &["apply"]);
    let back = ground.command(&["rollback"]).output().unwrap();

    assert!(
        said(&up).contains("no way back from 0.2.0 to 0.1.0"),
        "{}",
        said(&up)
    );
    assert_eq!(back.status.code(), Some(1), "{}", said(&back));
    assert!(
        said(&back).contains("kai-auth init --restore"),
        "{}",
        said(&back)
    );
    assert_eq!(
        fs::read_link(ground.path("opt/kai/current"))
            .unwrap()
            .to_str(),
        Some("0.2.0")
    );
}

/// What is done to a ground before `apply`, and what it must say then.
type Wrong = (&'static str, fn(&Ground), &'static str);

const ALICE: &str = "users: [{telegram_id: 11, name: a, os_user: alice, create: true";

#[test]
fn wrong_input_is_one_sentence_and_changes_nothing() {
    let agent = "agent: {command: /opt/agents/claude}\ntelegram: {token: \"123456:AAbbCCddEEffGGhhIIjjKKllMMnn\"}\n";
    static AGENT: std::sync::OnceLock<&str> = std::sync::OnceLock::new();
    AGENT.get_or_init(|| agent);
    fn settings(ground: &Ground, more: &str) {
        ground.settings(&format!("{}{more}\n", AGENT.get().unwrap()));
    }
    let cases: [Wrong; 32] = [
        (
            "no settings",
            |g| fs::remove_file(g.path("etc/kai/install.yaml")).unwrap(),
            "install.yaml",
        ),
        (
            "settings of others",
            |g| set_mode(&g.path("etc/kai/install.yaml"), 0o644),
            "chmod 0600",
        ),
        (
            "bad YAML",
            |g| settings(g, "users: [\n- x"),
            "install.yaml:4:",
        ),
        (
            "an unknown key",
            |g| settings(g, "usrs: []"),
            "install.yaml:3: `usrs`",
        ),
        (
            "a bad token",
            |g| g.settings("telegram:\n  token: hunter2\n"),
            "install.yaml:2: `telegram.token` must be a bot's token",
        ),
        (
            "bad YAML of users",
            |g| g.write("etc/kai/users.yaml", "users:\n- {name: a\n", 0o600),
            "users.yaml:3:",
        ),
        (
            "an unknown key of users",
            |g| g.write("etc/kai/users.yaml", "users: []\nlimts: 3\n", 0o600),
            "users.yaml:2: `limts`",
        ),
        (
            "an account of root's power in the table of users",
            |g| {
                let dave = "users:\n- telegram_id: 1\n  name: n\n  os_user: dave\n";
                g.write("etc/kai/users.yaml", dave, 0o600);
            },
            "group `sudo`",
        ),
        (
            "an unknown key of the configuration",
            |g| {
                let text = "agent: {command: /opt/agents/claude}\nagnt: 1\n";
                g.write("etc/kai/kai.yaml", text, 0o644);
            },
            "kai.yaml:2: `agnt`",
        ),
        (
            "a missing account",
            |g| {
                settings(
                    g,
                    "users: [{telegram_id: 1, name: n, os_user: nobody-here}]",
                )
            },
            "useradd --create-home nobody-here",
        ),
        (
            "an account in sudo",
            |g| settings(g, "users: [{telegram_id: 1, name: n, os_user: dave}]"),
            "group `sudo`",
        ),
        (
            "a taken uid",
            |g| settings(g, &format!("{ALICE}, uid: 1500}}]")),
            "uid 1500, which alice shall have, is that of carol",
        ),
        (
            "a home of others",
            |g| {
                fs::create_dir_all(g.path("home/alice")).unwrap();
                chown(g.path("home/alice"), Some(1500), None).unwrap();
            },
            "belongs to uid 1500",
        ),
        (
            "a person's account to be closed",
            |g| {
                settings(
                    g,
                    "users: [{telegram_id: 1, name: n, os_user: carol, create: true}]",
                )
            },
            "will not close",
        ),
        (
            "a link in the place of secrets",
            |g| {
                fs::create_dir_all(g.path("srv")).unwrap();
                symlink("/srv", g.path("etc/kai/credentials")).unwrap();
            },
            "credentials: is not a directory",
        ),
        (
            "a token of others",
            |g| {
                g.write("etc/kai/credentials/telegram-token", "x", 0o640);
                set_mode(&g.path("etc/kai/credentials"), 0o700);
            },
            "chmod 0600",
        ),
        (
            "a token that somebody else owns",
            |g| {
                g.write("etc/kai/credentials/telegram-token", "x", 0o600);
                set_mode(&g.path("etc/kai/credentials"), 0o700);
                let token = g.path("etc/kai/credentials/telegram-token");
                chown(token, Some(1500), None).unwrap();
            },
            "has owner 1500 and mode 0600",
        ),
        (
            "a database of others",
            |g| {
                g.write("var/lib/kai/authd/authd.sqlite", "x", 0o644);
                set_mode(&g.path("var/lib/kai/authd"), 0o700);
            },
            "chmod 0600",
        ),
        (
            "settings that somebody else owns",
            |g| chown(g.path("etc/kai/install.yaml"), Some(1500), None).unwrap(),
            "chown 0",
        ),
        (
            "secrets of others",
            |g| {
                fs::create_dir_all(g.path("var/lib/kai/authd")).unwrap();
                chown(g.path("var/lib/kai/authd"), Some(1500), None).unwrap();
            },
            "has owner 1500",
        ),
        (
            "users of others",
            |g| g.write("etc/kai/users.yaml", "users: []\n", 0o644),
            "chmod 0600",
        ),
        (
            "a lost database",
            |g| {
                g.write("var/lib/kai/authd/authd.sqlite.before-1", "", 0o600);
                set_mode(&g.path("var/lib/kai/authd"), 0o700);
            },
            "kai-auth init --restore",
        ),
        (
            "no token",
            |g| g.settings("agent: {command: /opt/agents/claude}\n"),
            "--token-file",
        ),
        (
            "no agent",
            |g| fs::remove_file(g.path("opt/agents/claude")).unwrap(),
            "does not exist",
        ),
        (
            "an agent of everybody",
            |g| set_mode(&g.path("opt/agents/claude"), 0o777),
            "chmod go-w",
        ),
        (
            "an agent of somebody else's",
            |g| chown(g.path("opt/agents/claude"), Some(1500), None).unwrap(),
            "can be changed by others than root; mend it: chown root",
        ),
        (
            "an agent in a directory of everybody's",
            |g| set_mode(&g.path("opt/agents"), 0o777),
            "chmod go-w",
        ),
        (
            "an agent that nobody may run",
            |g| set_mode(&g.path("opt/agents/claude"), 0o644),
            "chmod a+x",
        ),
        (
            "a package without a program",
            |g| fs::remove_file(g.beside("package/kai-worker")).unwrap(),
            "kai-worker cannot be used",
        ),
        (
            "rules that sudo cannot read",
            |g| fs::write(g.beside("package/sudoers.d/kai"), "ALL ALL\n").unwrap(),
            "visudo",
        ),
        (
            "a configuration that says otherwise",
            |g| g.write("etc/kai/kai.yaml", "agent: {command: /bin/other}\n", 0o644),
            "say different things for `agent.command`",
        ),
        (
            "a directory of others",
            |g| chown(g.path("opt"), Some(1500), None).unwrap(),
            "chown root",
        ),
    ];
    for (name, harm, expected) in cases {
        let Some(ground) = Ground::new() else { return };
        harm(&ground);
        let listing = ground.listing();

        let output = ground.install(&["apply"]);

        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{name}: {said}");
        assert!(said.contains(expected), "{name}: {said}");
        assert_eq!(said.trim().lines().count(), 1, "{name}: {said}");
        assert!(!said.contains(TOKEN), "{name}: {said}");
        assert_eq!(ground.listing(), listing, "{name}");
    }
}

#[test]
fn a_full_disk_is_known_before_anything_is_changed() {
    for (full, size) in [("opt", "1m"), ("var/lib", "64k"), ("var/log", "64k")] {
        let Some(ground) = Ground::new() else { return };
        fs::remove_file(ground.path("opt/agents/claude")).unwrap();
        ground.write("srv/claude", "#!/bin/true\n", 0o755);
        let settings = ground.read("etc/kai/install.yaml");
        ground.settings(&settings.replace("/opt/agents", "/srv"));
        fs::create_dir_all(ground.path(full)).unwrap();
        let listing = ground.listing();
        let command = ground.command(&["apply"]);

        // In mounts of its own, which end with it.
        let output = std::process::Command::new("unshare")
            .args(["--mount", "sh", "-c"])
            .arg(format!(
                "mount -t tmpfs -o size={size} none \"$0\" && exec \"$@\""
            ))
            .arg(ground.path(full))
            .arg(command.get_program())
            .args(command.get_args())
            .arg("--source")
            .arg(ground.beside("package"))
            .output()
            .unwrap();

        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{full}: {said}");
        assert!(
            said.contains("no space is left") && said.contains("MiB"),
            "{full}: {said}"
        );
        assert!(said.contains(full), "{said}");
        assert_eq!(said.trim().lines().count(), 1, "{full}: {said}");
        assert_eq!(ground.listing(), listing, "{full}");
    }
}

#[test]
fn two_at_once_are_one_after_the_other() {
    let Some(ground) = Ground::new() else { return };
    let opened = fs::File::open(ground.root()).unwrap();
    let _held = nix::fcntl::Flock::lock(opened, nix::fcntl::FlockArg::LockExclusive).unwrap();

    let output = ground.install(&["apply"]);

    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("another kai-install"),
        "{}",
        said(&output)
    );
}
