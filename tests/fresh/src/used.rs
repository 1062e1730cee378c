//! An installed kai, as its users and admins have it from day to day.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use kai_emulators::messages_api::{Match, Reply};

use crate::{
    Given,
    machine::{ADMIN, ALICE, BOB, Machine},
    processes,
};

/// The services, in the order in which they need each other.
pub const SERVICES: [&str; 3] = [
    "kai-authd.service",
    "kai-broker.service",
    "kai-gateway.service",
];

/// What an agent does, it does as its user; a second user is let in without a pause for the first.
pub fn each_agent_has_its_users_account(machine: &Machine) {
    machine.done("sudo kai-install user add bob --telegram-id 1002 --create-account");
    let key = "/etc/kai/credentials/alice-key";
    machine.done(&format!(
        "sudo sed -i '/os_user: bob/a\\    api_key_file: {key}' /etc/kai/users.yaml"
    ));
    machine.done("sudo kai-broker reload");
    machine.model.when(
        Match::contains("who are you"),
        Reply::bash(
            "id -un; touch ~/was-here; ls -d ~/was-here; \
             for home in alice bob; do ls /home/$home >/dev/null 2>&1 || echo not $home; done",
        ),
    );

    let alice = machine.ask(ALICE, "who are you", "not bob");
    let bob = machine.ask(BOB, "who are you", "not alice");

    assert!(
        alice
            .text()
            .starts_with("alice\n/home/alice/was-here\nnot bob")
    );
    assert!(bob.text().starts_with("bob\n/home/bob/was-here\nnot alice"));
    for name in ["alice", "bob"] {
        let home = fs::metadata(format!("/home/{name}")).unwrap();
        let file = fs::metadata(format!("/home/{name}/was-here")).unwrap();
        assert_eq!((home.mode() & 0o7777, home.uid()), (0o700, file.uid()));
        assert!(file.uid() >= 1000);
    }
    assert_ne!(
        fs::metadata("/home/alice").unwrap().uid(),
        fs::metadata("/home/bob").unwrap().uid()
    );
}

/// What runs while alice's agent runs a command and bob's is idle.
pub fn alice_works_while_bob_is_idle(machine: &Machine, given: &Given) {
    machine.model.when(
        Match::contains("take your time"),
        Reply::bash("sleep 15; echo done"),
    );
    let asked = machine.says(ALICE, "take your time");
    machine.wait("alice's command", || {
        machine
            .run_quietly("pgrep --full '^sleep 15'")
            .then_some(())
    });
    processes::are_those_of_security_md(machine, &given.files.join("SECURITY.md"));
    machine.answer(ALICE, asked, |message| message.text().contains("done"));
}

/// A member of kai-admin sees with sudo who uses kai, and changes nothing.
pub fn an_admin_may_look_and_do_nothing(machine: &Machine) {
    let by_her = |command: &str| machine.run(&format!("su - {ADMIN} -c 'sudo -n {command}'"));

    for command in [
        "kai-broker status",
        "kai-broker status --json",
        "kai-broker audit --user alice --since 1h",
        "kai-broker audit verify",
        "kai-install status",
    ] {
        let said = by_her(command);
        assert_eq!(said.status, Some(0), "{command}: {}", said.text);
        assert!(!said.text.is_empty(), "{command}");
    }
    let status = by_her("kai-broker status").text;
    assert!(status.contains("alice"), "{status}");
    // In the virtual machine always, and in the container where its host has them.
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    let limited = if controllers.contains("memory") {
        "cgroup: "
    } else {
        "rlimits: "
    };
    assert!(status.contains(limited), "{limited}: {status}");
    if !machine.is_timed() {
        assert_eq!(limited, "cgroup: ", "the virtual machine has no cgroup v2");
        limits_are_those_of_a_cgroup(machine);
        // Of Debian 12's own kernel.
        let kernel = machine.run("sudo kai-install check").text;
        assert!(kernel.contains("ABI 2"), "{kernel}");
    }
    for command in [
        "kai-broker reload",
        "kai-broker status --config /etc/shadow",
        "kai-install apply",
        "kai-auth status",
        "cat /etc/shadow",
    ] {
        let said = by_her(command);
        assert_ne!(said.status, Some(0), "{command}: {}", said.text);
        assert!(said.text.contains("password"), "{command}: {}", said.text);
    }
}

/// alice's worker and what it starts are limited by the kernel, all together.
fn limits_are_those_of_a_cgroup(machine: &Machine) {
    let pid = machine.done("pgrep --oldest --uid alice kai-worker");
    let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", pid.trim())).unwrap();
    let path = cgroup.trim().strip_prefix("0::").unwrap();
    assert!(path.contains("kai-broker.service"), "{path}");
    // The worker may be in a leaf below the group that has the limits.
    let limits: Vec<String> = Path::new(path)
        .ancestors()
        .take_while(|group| !group.ends_with("kai-broker.service"))
        .filter_map(|group| {
            let file = Path::new("/sys/fs/cgroup").join(group.strip_prefix("/").unwrap());
            fs::read_to_string(file.join("pids.max")).ok()
        })
        .collect();
    let is_limited = |limit: &String| limit.trim().parse::<u64>().is_ok();
    assert!(limits.iter().any(is_limited), "{path}: {limits:?}");
}

/// Each of the two services that hold secrets can execute its own program and no other of kai's, and the broker does
/// not see the bot's token.
pub fn services_have_what_they_need_and_no_more(machine: &Machine) {
    let within = |service: &str, command: &str| {
        let pid = machine.main_process(service).unwrap();
        machine.run(&format!("nsenter --target {pid} --mount {command}"))
    };
    for name in ["kai-authd", "kai-gateway"] {
        let own = within(name, &format!("/opt/kai/current/{name} --version"));
        assert_eq!(own.status, Some(0), "{}", own.text);
        for other in [
            "/opt/kai/current/kai-broker",
            "/opt/kai/agent/current/claude",
            "/usr/bin/id",
        ] {
            let said = within(name, &format!("{other} --version"));
            assert!(
                said.text.contains("Permission denied"),
                "{other}: {}",
                said.text
            );
        }
    }
    let tokens = "/etc/kai/credentials/telegram-token /etc/kai/credentials/telegram-token.cred";
    assert!(machine.run_quietly(&format!("cat {tokens} 2>/dev/null | grep -q .")));
    let seen = within("kai-broker", &format!("sh -c 'cat {tokens} 2>/dev/null'"));
    assert_eq!(seen.text, "");
}

/// Where `user add` and `user remove` were killed between the table and the broker, doing it again tells the broker.
pub fn a_killed_change_of_users_is_made_good(machine: &Machine) {
    let table = Path::new("/etc/kai/users.yaml");
    let has_bob = || machine.done("sudo kai-broker status").contains("bob");
    let with_bob = fs::read(table).unwrap();
    machine.done("sudo kai-install user remove bob");
    let without_bob = fs::read(table).unwrap();
    assert!(!has_bob());

    fs::write(table, &with_bob).unwrap();
    assert!(!has_bob());
    let add = "sudo kai-install user add bob --telegram-id 1002 --create-account";
    assert_eq!(machine.run(add).status, Some(1));
    assert!(has_bob());

    fs::write(table, &without_bob).unwrap();
    assert!(has_bob());
    assert_eq!(
        machine.run("sudo kai-install user remove bob").status,
        Some(1)
    );
    assert!(!has_bob());
    machine.done(add);
    assert!(has_bob());
}

/// The probe finds nothing open in alice's walls, on this very machine.
pub fn the_walls_hold(machine: &Machine) {
    machine.done("sudo kai-broker probe alice");
}

/// Each service is killed in turn: systemd has it back, and the next message is answered.
pub fn each_service_comes_back(machine: &Machine) {
    for service in SERVICES {
        let before = machine.crash(service);
        machine.wait(service, || {
            let now = machine.main_process(service).filter(|now| *now != before)?;
            machine.is_active(service).then_some(now)
        });
        machine.ask(ALICE, "good morning", "Good morning to you, too.");
    }
    machine.done("sudo kai-install status");
}
