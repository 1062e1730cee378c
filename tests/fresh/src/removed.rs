//! kai goes, comes back from a copy, and goes for good.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use crate::{
    Given, installed,
    machine::{ALICE, Machine},
    readme, used,
};

/// What of kai is not left by a purge.
const GONE: [&str; 7] = [
    "/etc/kai",
    "/opt/kai",
    "/var/lib/kai",
    "/var/log/kai",
    "/run/kai",
    "/usr/local/sbin/kai-broker",
    "/etc/systemd/system/kai.target",
];

/// The README's copy, and the README's way back from it: the conversation goes on where it was.
pub fn restore(machine: &Machine, given: &Given) {
    let text = given.files.join("README.md");
    for command in readme::commands(&text, "### Backup") {
        machine.done(&command);
    }
    let copy = fs::metadata(given.files.join("kai.tar")).unwrap();
    assert_eq!((copy.mode() & 0o7777, copy.uid()), (0o600, 0));
    purge(machine, "/usr/lib/kai/kai-install");

    // Nobody is served before all is back, those who need a second factor least of all.
    let asked_meanwhile = machine.says(ALICE, "go on");
    for command in readme::commands(&text, "### Restore") {
        let prepares = command.ends_with("--no-start");
        if prepares && given.agent.is_some() {
            let agent = "sudo /usr/lib/kai/kai-install agent";
            machine.done(&installed::as_it_can_be_typed(agent, given));
        }
        if prepares && machine.is_timed() {
            // With the agent's program, which nothing else has installed there.
            machine.run_killed_at_each_change(&command, &["made     agent"]);
        } else {
            machine.done(&installed::as_it_can_be_typed(&command, given));
        }
        if prepares {
            for service in used::SERVICES {
                assert!(!machine.is_active(service), "{service}");
            }
        }
    }

    machine.answer(ALICE, asked_meanwhile, |message| {
        message.text().contains("I go on.")
    });
    let asked = machine.model.turns();
    let prompts = asked.last().unwrap().prompts();
    assert!(
        prompts.iter().any(|prompt| prompt.contains("a long story")),
        "{prompts:?}"
    );
    machine.done("sudo kai-install status");
    machine.done("rm kai.tar");
}

/// First what apply made and nothing of anybody's, then the package, then all.
pub fn uninstall(machine: &Machine, given: &Given) {
    machine.done("sudo kai-install uninstall");
    assert!(!Path::new("/opt/kai/current").exists());
    assert!(Path::new("/etc/kai/users.yaml").exists());
    assert!(Path::new("/var/lib/kai/gateway").exists());

    // What the package brought is as it was, and brings kai back.
    let agent = installed::as_it_can_be_typed("sudo /usr/lib/kai/kai-install agent", given);
    machine.done(&agent);
    machine.done("sudo /usr/lib/kai/kai-install apply");
    machine.ask(ALICE, "go on", "I go on.");

    // What runs has copies of its own, and can be taken away without the package.
    let brought = if given.agent.is_some() {
        "kai"
    } else {
        "kai npm"
    };
    machine.done(&format!("sudo apt-get purge --yes --quiet=2 {brought}"));
    machine.done("sudo apt-get autoremove --purge --yes --quiet=2");
    assert!(!Path::new("/usr/lib/kai").exists());
    machine.ask(ALICE, "go on", "I go on.");
    machine.done("sudo kai-install status");
    purge(machine, "kai-install");
}

fn purge(machine: &Machine, kai_install: &str) {
    machine.done(&format!("sudo {kai_install} uninstall --purge"));
    for gone in GONE {
        assert!(!Path::new(gone).exists(), "{gone}");
    }
    for name in ["passwd kai-gateway", "group kai-gateway", "group kai-admin"] {
        assert!(!machine.run_quietly(&format!("getent {name}")), "{name}");
    }
    assert!(Path::new("/home/alice/was-here").exists());
}
