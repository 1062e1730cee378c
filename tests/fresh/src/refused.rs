//! What apply says and does where it cannot go on.

use std::fs;

use crate::machine::{ADMIN, ALICE, Machine, Said};

/// A drop-in of somebody's that keeps the gateway from starting.
const DROP_IN: &str = "/etc/systemd/system/kai-gateway.service.d";

/// One sentence with what and how to mend it, and an exit status that scripts see.
fn is_refused_with(said: &Said, words: &[&str]) {
    assert!(!matches!(said.status, Some(0)), "{}", said.text);
    let mut lines = said.text.lines();
    let why = lines.find(|line| line.starts_with("kai-install: "));
    let why = why.unwrap_or_else(|| panic!("no reason: {}", said.text));
    for word in words {
        assert!(why.contains(word), "{word}: {why}");
    }
}

/// Where the kernel has no Landlock, nothing is changed.
pub fn a_kernel_without_landlock(machine: &Machine) {
    let said = machine.run(
        "sudo systemd-run --quiet --wait --pipe --property=SystemCallFilter=~landlock_create_ruleset \
         --property=SystemCallErrorNumber=ENOSYS /usr/local/sbin/kai-install apply",
    );
    is_refused_with(&said, &["landlock", "CONFIG_SECURITY_LANDLOCK"]);
    machine.done("sudo kai-install status");
}

/// What any account may lock is not what kai-install waits for.
pub fn nobody_else_can_hold_it_up(machine: &Machine) {
    let by_her = |command: &str| machine.run(&format!("su - {ADMIN} -c '{command}'"));
    by_her("flock / sleep 600 </dev/null >/dev/null 2>&1 &");
    machine.wait("her lock", || {
        (!machine.run_quietly("flock --nonblock / true")).then_some(())
    });

    let hers = by_her("flock --nonblock /run/kai-install.lock true");
    assert_ne!(hers.status, Some(0), "{}", hers.text);
    let said = machine.done("sudo kai-install apply");

    assert!(said.contains("nothing changed"), "{said}");
    assert!(!machine.run_quietly("flock --nonblock / true"));
    machine.done(&format!("pkill --euid {ADMIN} --full '^sleep 600'"));
}

/// Where a unit does not start, it is named, with where to look; once that is mended, apply goes on.
pub fn a_unit_that_fails_to_start(machine: &Machine) {
    fs::create_dir_all(DROP_IN).unwrap();
    fs::write(
        format!("{DROP_IN}/wrong.conf"),
        "[Service]\nExecStartPre=/bin/false\n",
    )
    .unwrap();
    machine.done("sudo systemctl daemon-reload");
    machine.run("sudo systemctl restart kai-gateway");

    let said = machine.run("sudo kai-install apply");

    is_refused_with(&said, &["kai-gateway.service", "journalctl"]);
    assert_eq!(machine.run("sudo kai-install status").status, Some(1));
    fs::remove_dir_all(DROP_IN).unwrap();
    machine.done("sudo systemctl daemon-reload");
    machine.done("sudo kai-install apply");
    machine.ask(ALICE, "good morning", "Good morning to you, too.");
}
