//! Another version, and back.

use std::{fs, path::Path, thread, time::Duration};

use kai_emulators::messages_api::{Match, Reply};

use crate::{
    Given, installed,
    machine::{ALICE, Machine},
    readme,
};

/// What the long turn says last.
const END: &str = "and that was all.";

/// The version that runs.
fn running(machine: &Machine) -> String {
    let pid = machine.main_process("kai-gateway.service").unwrap();
    let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    let version = program.parent().and_then(Path::file_name).unwrap();
    version.to_string_lossy().into_owned()
}

/// A version whose gateway does not start: the one before runs again, and answers.
pub fn a_version_that_does_not_start(machine: &Machine, given: &Given) {
    let before = running(machine);
    machine.done(&next_package(given));
    fs::copy("/bin/false", "/usr/lib/kai/kai-gateway").unwrap();

    let said = machine.run("sudo /usr/lib/kai/kai-install apply");

    assert_eq!(said.status, Some(1), "{}", said.text);
    for words in [
        "kai-gateway.service does not run",
        &format!("{before} runs again"),
    ] {
        assert!(said.text.contains(words), "{words}: {}", said.text);
    }
    assert_eq!(running(machine), before);
    machine.ask(ALICE, "good morning", "Good morning to you, too.");
    let again = next_package(given).replace("install", "install --reinstall");
    machine.done(&again);
}

/// On a host with systemd: an upgrade that is killed at each of its steps is made good by the runs after it.
pub fn an_upgrade_that_is_killed_at_each_step(machine: &Machine) {
    // A kill is a kill on an emulated processor, too, and takes much longer there.
    if !machine.is_timed() {
        return;
    }
    let before = running(machine);
    let apply = "sudo /usr/lib/kai/kai-install apply";
    machine.run_killed_at_each_change(apply, &["link /opt/kai/current", "kai-gateway.service"]);
    assert_ne!(running(machine), before);
    machine.ask(ALICE, "good morning", "Good morning to you, too.");
    machine.done("sudo kai-install status");
    machine.done("sudo kai-install rollback");
    assert_eq!(running(machine), before);
    machine.ask(ALICE, "good morning", "Good morning to you, too.");
}

/// How README.md brings another version's package.
fn next_package(given: &Given) -> String {
    let steps = readme::commands(&given.files.join("README.md"), "### Another version");
    let package = installed::as_it_can_be_typed(&steps[0], given);
    package.replace("./kai_0.2.0-1_amd64.deb", "./next.deb")
}

/// While alice's agent speaks, all of kai becomes another version: what was said or not is told, and the
/// conversation goes on where it was.
pub fn upgrade_with_a_turn_in_flight(machine: &Machine, given: &Given) {
    let before = running(machine);
    let pieces: Vec<String> = (1..=12)
        .map(|n| format!("part {n}, "))
        .chain([END.to_owned()])
        .collect();
    machine.model.when(
        Match::contains("a long story"),
        Reply::streamed(pieces, Duration::from_secs(1)),
    );
    machine
        .model
        .when(Match::contains("go on"), Reply::text("I go on."));

    let asked = machine.says(ALICE, "a long story");
    machine.answer(ALICE, asked, |message| message.text().contains("part 2"));
    let steps = readme::commands(&given.files.join("README.md"), "### Another version");
    machine.done(&next_package(given));
    assert_eq!(
        running(machine),
        before,
        "a package by itself starts nothing"
    );
    machine.done(&steps[1]);

    assert_ne!(running(machine), before);
    let told = machine.answer(ALICE, asked, |message| {
        let text = message.text();
        text.contains(END) || text.contains("stopped") || text.contains("interrupted")
    });
    println!(
        "the turn {}",
        if told.text().contains(END) {
            "was finished"
        } else {
            "was reported interrupted"
        }
    );

    machine.ask(ALICE, "go on", "I go on.");
    let asked = machine.model.turns();
    let prompts = asked.last().unwrap().prompts();
    for said in ["good morning", "a long story", "go on"] {
        assert!(
            prompts.iter().any(|prompt| prompt.contains(said)),
            "{said}: {prompts:?}"
        );
    }
    machine.done("sudo kai-install status");
}

/// The version before runs again.
pub fn rollback(machine: &Machine) {
    let before = running(machine);

    machine.done("sudo kai-install rollback");

    assert_ne!(running(machine), before);
    machine.ask(ALICE, "go on", "I go on.");
    // Nothing crashed on the way: what restarts is counted by systemd for a while.
    thread::sleep(Duration::from_secs(1));
    let restarts = machine
        .done("systemctl show --value --property=NRestarts kai-gateway kai-broker kai-authd");
    assert!(
        restarts.split_whitespace().all(|count| count == "0"),
        "{restarts}"
    );
}
