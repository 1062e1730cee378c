//! `kai-install apply` in a tree of its own, with real files, accounts and programs of Debian's.
#![allow(clippy::unwrap_used, clippy::panic, dead_code)]

mod ground;
mod skipped;

use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
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
        said(&back).contains("kai-install uninstall --purge"),
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

#[test]
fn a_failed_upgrade_stays_where_the_database_rules_the_way_back_out() {
    let Some(ground) = Ground::new() else { return };
    ground.done(&["apply"]);
    ground.make_package("new", "0.2.0");
    let version = ground.beside("new/version.yaml");
    fs::write(&version, "version: 0.2.0\nauthd_schema: 2\n").unwrap();
    // What is tidied away last cannot be: it is a directory.
    let in_the_way = ground.path("etc/kai/credentials/telegram-token.cred");
    fs::create_dir(&in_the_way).unwrap();

    let failed = ground.install_from("new", &["apply"]);
    let link = || fs::read_link(ground.path("opt/kai/current")).unwrap();
    let stays = link();
    fs::remove_dir(&in_the_way).unwrap();
    let mended = ground.install_from("new", &["apply"]);

    assert_eq!(failed.status.code(), Some(1), "{}", said(&failed));
    assert!(said(&failed).contains("0.2.0 stays"), "{}", said(&failed));
    assert_eq!(stays, Path::new("0.2.0"));
    assert!(mended.status.success(), "{}", said(&mended));
    // The same with tables that both know goes back: a unit of this one cannot be enabled.
    ground.make_package("newest", "0.3.0");
    let version = ground.beside("newest/version.yaml");
    fs::write(&version, "version: 0.3.0\nauthd_schema: 2\n").unwrap();
    let unit = "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=kai.target\nAlias=no.socket\n";
    fs::write(ground.beside("newest/systemd/kai-new.service"), unit).unwrap();
    let failed = ground.install_from("newest", &["apply"]);
    assert_eq!(failed.status.code(), Some(1), "{}", said(&failed));
    assert!(
        said(&failed).contains("0.2.0 runs again"),
        "{}",
        said(&failed)
    );
    assert_eq!(link(), Path::new("0.2.0"));
    let again = ground.install_from("new", &["apply"]);
    assert!(said(&again).contains("nothing changed"), "{}", said(&again));
}

#[test]
fn a_closed_account_is_let_in_by_no_clock_and_does_not_linger() {
    let Some(ground) = Ground::new() else { return };
    ground.write("var/lib/systemd/linger/alice", "", 0o644);
    ground.write("etc/at.deny", "daemon\n", 0o644);
    fs::create_dir_all(ground.path("etc/ssh/sshd_config.d")).unwrap();

    ground.done(&["apply"]);

    assert!(!ground.path("var/lib/systemd/linger/alice").exists());
    assert_eq!(ground.read("etc/at.deny"), "daemon\nalice\n");
    assert_eq!(ground.read("etc/cron.deny"), "alice\n");
    let sshd = ground.read("etc/ssh/sshd_config.d/kai.conf");
    assert!(sshd.lines().any(|line| line == "DenyUsers alice"), "{sshd}");
}

#[test]
fn what_is_prepared_alone_is_all_but_started() {
    let Some(ground) = Ground::new() else { return };
    let prepared = ground.done(&["apply", "--no-start"]);
    assert!(prepared.contains("was not started"), "{prepared}");
    let again = ground.done(&["apply", "--no-start"]);
    assert!(again.contains("nothing changed"), "{again}");
    // A host that boots meanwhile starts nothing either.
    let wanted = ground.path("etc/systemd/system/multi-user.target.wants/kai.target");
    assert!(!wanted.is_symlink());
    let applied = ground.done(&["apply"]);
    assert!(wanted.is_symlink());
    for line in applied.lines().filter(|line| line.contains("  ")) {
        assert!(line.ends_with("is not enabled"), "{applied}");
    }
}

#[test]
fn an_output_that_nobody_reads_stops_no_change() {
    let Some(ground) = Ground::new() else { return };
    ground.done(&["apply"]);
    ground.make_package("new", "0.2.0");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);

    let mut command = ground.command(&["apply"]);
    command.arg("--source").arg(ground.beside("new"));
    let output = command.stdout(writer).output().unwrap();

    assert!(
        said(&output).contains("standard output"),
        "{}",
        said(&output)
    );
    assert!(
        said(&ground.install_from("new", &["apply"])).starts_with("nothing changed"),
        "it went on to its end"
    );
}

#[test]
fn a_service_that_opens_its_own_directory_keeps_nobody_from_an_upgrade() {
    let Some(ground) = Ground::new() else { return };
    ground.done(&["apply"]);
    let listing = ground.listing();
    let its_own = ground.path("var/lib/kai/gateway");
    set_mode(&its_own, 0o755);

    let said_first = ground.done(&["apply"]);

    assert!(said_first.contains("has mode 0755"), "{said_first}");
    assert_eq!(ground.listing(), listing);
    std::os::unix::fs::chown(&its_own, Some(1500), None).unwrap();
    let refused = ground.install(&["apply"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        said(&refused).contains("chown kai-gateway:kai-gateway"),
        "{}",
        said(&refused)
    );
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

#[test]
fn what_a_killed_run_left_among_the_versions_goes() {
    let Some(ground) = Ground::new() else { return };
    ground.done(&["apply"]);
    let begun = ground.path("opt/kai/.0.9.0.kai-install");
    let others = ground.path("opt/kai/.0.9.0.somebodys");
    for directory in [&begun, &others] {
        fs::create_dir(directory).unwrap();
    }
    std::os::unix::fs::symlink("0.9.0", ground.path("opt/kai/.current.kai-install")).unwrap();

    ground.done(&["apply"]);

    let left: Vec<_> = fs::read_dir(ground.path("opt/kai"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name.to_string_lossy().starts_with('.'))
        .collect();
    assert_eq!(left, [".0.9.0.somebodys"]);
}
