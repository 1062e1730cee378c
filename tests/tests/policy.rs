//! What users.yaml says of one user's walls, as that user's agent meets it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

use kai_tests::{ALICE, BOB, Kai, is_root};

/// Asks alice's agent to run `command`, and gives what it printed on both streams.
fn output(kai: &Kai, command: &str) -> String {
    let marked = format!("{{ {command} ; }} 2>&1; echo \"[status $?]\"");
    let answer = kai.ask(ALICE, &marked, "[status ");
    answer.text().to_owned()
}

/// An account that is removed when this is dropped.
struct Throwaway(String);

impl Throwaway {
    fn new() -> Self {
        let name = format!("kai-pol-{}", std::process::id());
        let made = Command::new("useradd")
            .args(["--no-create-home", &name])
            .status();
        assert!(made.unwrap().success());
        Self(name)
    }
}

impl Drop for Throwaway {
    fn drop(&mut self) {
        let _ = Command::new("userdel").arg(&self.0).status();
    }
}

#[test]
fn a_file_of_etc_that_the_host_replaces_is_the_new_one_in_a_running_worker() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|_| {});
    assert!(!output(&kai, "cat /etc/passwd").contains("kai-pol-"));

    // Makes /etc/passwd anew and renames it into its place.
    let account = Throwaway::new();

    let said = output(&kai, &format!("id -u {}; cat /etc/passwd", account.0));
    assert!(said.contains(&format!("{}:x:", account.0)), "{said}");
    assert!(output(&kai, "id -un").contains("[status 0]"));
}

#[test]
fn a_policy_that_lowers_a_wall_is_shown_as_such_and_opens_what_it_says_and_no_more() {
    if !is_root() {
        return;
    }
    let place = tempfile::Builder::new()
        .prefix("kai-policy")
        .tempdir_in("/srv")
        .unwrap();
    let path = |name: &str| place.path().join(name).display().to_string();
    use std::{fs, os::unix::fs::PermissionsExt};
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["read", "write", "neither"] {
        fs::create_dir(path(name)).unwrap();
        fs::write(path(&format!("{name}/file")), "content").unwrap();
        fs::set_permissions(path(name), fs::Permissions::from_mode(0o777)).unwrap();
    }
    let policy = format!(
        "paths: {{read: [{}], write: [{}]}}\nallow: [ptrace]\nlimits: {{files: 300, tmp: 16m}}",
        path("read"),
        path("write")
    );
    let kai =
        Kai::start(|options| options.people[0].keys = policy.lines().map(str::to_owned).collect());

    let open = |command: &str| output(&kai, command).contains("[status 0]");
    assert!(open(&format!("cat {}", path("read/file"))));
    assert!(!open(&format!("touch {}", path("read/new"))));
    assert!(open(&format!("touch {}", path("write/new"))));
    assert!(!open(&format!("cat {}", path("neither/file"))));
    assert!(
        !open("head -c 20000000 /dev/zero > /tmp/large"),
        "more than tmp"
    );
    assert!(output(&kai, "ulimit -Hn").contains("300"));
    kai.ask(BOB, "echo bob is here", "bob is here");
    let hosts = "NET host: open are what listens on localhost";
    let table = kai.ground.broker_command(&["status"]).unwrap();
    // Behind what this kernel does not hold, where there is anything.
    let expected = format!(
        "reads {}; writes {}; allow ptrace",
        path("read"),
        path("write")
    );
    let weakened = |name: &str| {
        let begin = format!("{name}: weakened: ");
        table.lines().find_map(|line| line.strip_prefix(&begin))
    };
    assert!(weakened("alice").unwrap().ends_with(&expected), "{table}");
    assert!(table.contains(hosts), "{table}");
    let by = ["cgroup: ", "rlimits: 512 processes, no limit of memory"];
    assert!(by.iter().any(|by| table.contains(by)), "{table}");
    let bobs = weakened("bob").unwrap_or("ports not held");
    assert!(
        bobs.starts_with("ports not held") && !bobs.contains(';'),
        "{table}"
    );
    assert!(
        table.contains(", kai)"),
        "the kind of account is not in\n{table}"
    );
}

#[test]
fn without_a_network_an_agent_works_and_reaches_nothing_of_the_hosts() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|options| options.people[0].keys = vec!["network: none".to_owned()]);

    let seen = output(&kai, "tail -n +3 /proc/net/dev | cut -d: -f1");

    assert!(seen.contains("lo") && seen.contains("[status 0]"), "{seen}");
    assert!(!seen.contains("eth"), "{seen}");
    kai.ask(BOB, "echo bob is here", "bob is here");
    let status: serde_json::Value =
        serde_json::from_str(&kai.ground.broker_command(&["status", "--json"]).unwrap()).unwrap();
    let net = |user: usize| {
        let layers = status["users"][user]["worker"]["layers"]
            .as_array()
            .unwrap();
        let net = layers.iter().find(|layer| layer["name"] == "net").unwrap();
        net["standing"].as_str().unwrap().to_owned()
    };
    assert_eq!([net(0), net(1)], ["on", "off"]);
}

#[test]
fn a_login_file_that_is_replaced_outside_is_read_only_again_before_the_agent_can_use_it() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|_| {});
    let alice = kai.ground.account("alice").unwrap().clone();
    // People log in to an account that has not expired.
    let opened = Command::new("usermod")
        .args(["--expiredate", "", &alice.name])
        .status();
    assert!(opened.unwrap().success());
    kai.ground.broker_command(&["reload"]).unwrap();
    let refused = output(&kai, "echo evil >> ~/.bashrc");
    assert!(refused.contains("Read-only"), "{refused}");
    let table = kai.ground.broker_command(&["status"]).unwrap();
    assert!(
        table.contains(", login)"),
        "the kind of account is not in\n{table}"
    );
    let worker = || {
        kai.ground
            .status()
            .unwrap()
            .worker("alice")
            .map(|worker| worker.pid)
    };
    let before = worker();

    // What an editor does.
    let bashrc = alice.home.join(".bashrc");
    let new = alice.home.join(".bashrc.new");
    std::fs::write(&new, "alias ll='ls -l'\n").unwrap();
    std::os::unix::fs::chown(&new, Some(alice.uid), Some(alice.gid)).unwrap();
    std::fs::rename(&new, &bashrc).unwrap();

    let refused = output(&kai, "echo evil >> ~/.bashrc");
    assert!(refused.contains("Read-only"), "{refused}");
    assert_ne!(worker(), before, "the worker whose wall was gone lives");
    assert_eq!(
        std::fs::read_to_string(bashrc).unwrap(),
        "alias ll='ls -l'\n"
    );
}

#[test]
fn links_that_others_plant_on_the_way_to_a_listed_path_lead_nobody_anywhere() {
    if !is_root() {
        return;
    }
    use std::{
        fs,
        os::unix::fs::{PermissionsExt, chown, symlink},
    };

    let place = tempfile::Builder::new()
        .prefix("kai-links")
        .tempdir_in("/srv")
        .unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = |name: &str| place.path().join(name);
    let victim = path("victim");
    fs::write(&victim, "root's own").unwrap();
    fs::create_dir(path("secret")).unwrap();
    fs::write(path("secret/file"), "a secret").unwrap();
    let target = path("shared/data");
    fs::create_dir_all(&target).unwrap();
    let keys = format!("paths: {{write: [{}]}}", target.display());
    let kai = Kai::start(|options| options.people[0].keys = vec![keys]);
    let bob = kai.ground.account("bob").unwrap().clone();
    chown(path("shared"), Some(bob.uid), Some(bob.gid)).unwrap();
    kai.ask(ALICE, "echo before", "before");

    // bob may write above alice's path.
    fs::remove_dir(&target).unwrap();
    for planted in [
        path("secret"),
        victim.clone(),
        "/var/lib".into(),
        path("nowhere"),
    ] {
        symlink(&planted, &target).unwrap();
        kai.ground.kill_worker("alice").unwrap();
        let said = output(
            &kai,
            &format!("cat {0}/file; echo x > {0}; ls {0}/", target.display()),
        );
        assert!(
            !said.contains("a secret") && !said.contains("dpkg"),
            "{said}"
        );
        assert_eq!(fs::read_to_string(&victim).unwrap(), "root's own");
        assert!(!path("nowhere").exists());
        fs::remove_file(&target).unwrap();
    }
}
