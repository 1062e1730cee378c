//! From nothing to the first answer, with the commands of README.md as they stand there.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use kai_emulators::messages_api::{Match, Reply};

use crate::{
    Given,
    machine::{ADMIN, ALICE, Machine},
    readme,
};

/// The heading that the steps stand below.
const HEADING: &str = "## Install it";
/// Where the agent was being fetched.
const KILLED: &str = "/var/cache/kai-agent.killed";
/// alice's made-up key: a login of the agent's own needs the real model.
pub const KEY: &str = "sk-ant-made-up-for-alice";

/// Types each step, and sees alice get an answer.
pub fn by_the_readme(machine: &Machine, given: &Given) {
    // Where Telegram's own servers would be.
    write_settings(machine);
    let url = machine.model.url();
    let answers = [
        ("The bot's token", ""),
        ("The agent's program", ""),
        ("A Messages API", url.as_str()),
        ("Telegram id of a user", "1001"),
        ("Their account on this host", "alice"),
        ("Make it", "y"),
        ("Their name", ""),
        ("Are they told", "y"),
        ("Telegram id of a user", ""),
        ("Accounts that may look", ADMIN),
    ];
    let steps = readme::commands(&given.files.join("README.md"), HEADING);
    assert_eq!(steps.len(), 5, "{steps:?}");
    for step in steps {
        if step.contains("kai-install config") {
            let said = machine.run_typing(&step, &answers);
            assert_eq!(said.status, Some(0), "{}", said.text);
            assert!(!said.text.contains(machine.telegram.token()));
        } else if step.contains("kai-install apply") {
            let said = machine.run(&step);
            assert_eq!(said.status, Some(0), "{}", said.text);
            assert!(
                !machine.is_timed() || said.took < Duration::from_secs(15),
                "{:?}",
                said.took
            );
        } else if step.contains("kai-broker login") {
            log_in(machine, &step);
            give_a_key(machine);
        } else if step.ends_with("kai-install agent") && given.agent.is_none() {
            // As a fetch that was killed leaves it.
            fs::create_dir(KILLED).unwrap();
            machine.done(&step);
            assert!(!Path::new(KILLED).exists(), "{KILLED}");
        } else {
            machine.done(&as_it_can_be_typed(&step, given));
        }
    }

    machine.model.when(
        Match::contains("good morning"),
        Reply::text("Good morning to you, too."),
    );
    machine.ask(ALICE, "good morning", "Good morning to you, too.");
    let asked = machine.model.turns();
    assert_eq!(asked.last().unwrap().key(), Some(KEY));
}

/// The command where nobody can answer apt's question, and where no mirror and no registry can be reached.
pub fn as_it_can_be_typed(step: &str, given: &Given) -> String {
    // The lists of packages are as new as the machine. Newer ones would bring libraries that are no change of kai's.
    let step = step
        .replace("sudo apt update && ", "")
        .replace("apt install", "apt-get install --yes --quiet=2");
    match &given.agent {
        Some(package) if step.ends_with("kai-install agent") => {
            format!("{step} --from {}", package.display())
        }
        Some(_) => step.replace(" npm", ""),
        None => step,
    }
}

fn write_settings(machine: &Machine) {
    fs::create_dir_all("/etc/kai").unwrap();
    let settings = Path::new("/etc/kai/install.yaml");
    let text = format!(
        "telegram: {{token: \"{}\", api_url: \"{}\"}}\n",
        machine.telegram.token(),
        machine.telegram.url()
    );
    fs::write(settings, text).unwrap();
    fs::set_permissions(settings, PermissionsExt::from_mode(0o600)).unwrap();
}

/// The agent's own login, on a terminal, as far as it goes without the real model: to its address.
fn log_in(machine: &Machine, step: &str) {
    let status = machine.done("sudo kai-broker status");
    assert!(status.contains("kai-broker login alice"), "{status}");
    // The keys that end it, once it asks for the code that the address leads to.
    let said = machine.run_typing(step, &[("oauth/authorize", "\u{1d}\u{1d}\u{1d}")]);
    assert!(said.text.contains("https://"), "{}", said.text);
    assert_eq!(said.status, Some(1), "{}", said.text);
}

fn give_a_key(machine: &Machine) {
    let key = "/etc/kai/credentials/alice-key";
    fs::write(key, KEY).unwrap();
    fs::set_permissions(key, PermissionsExt::from_mode(0o600)).unwrap();
    machine.done(&format!(
        "sudo sed -i '/os_user: alice/a\\    api_key_file: {key}' /etc/kai/users.yaml"
    ));
    machine.done("sudo kai-broker reload");
}

/// A second run finds nothing to do, and does not take long to.
pub fn again_nothing_changes(machine: &Machine) {
    let said = machine.run("sudo kai-install apply");
    assert_eq!(said.status, Some(0), "{}", said.text);
    assert!(said.text.contains("nothing changed"), "{}", said.text);
    assert!(
        !machine.is_timed() || said.took < Duration::from_secs(2),
        "{:?}",
        said.took
    );
}

/// The installation is as apply made it, and says which agent there is.
pub fn status_is_well(machine: &Machine) {
    machine.done("sudo kai-install status");
    let text = machine.done("sudo kai-install status --json");
    let status: serde_json::Value = serde_json::from_str(&text).unwrap();
    let agent = fs::read_link("/opt/kai/agent/current").unwrap();
    assert!(text.contains(agent.to_str().unwrap()), "{status:#}");
}
