//! What alice's agent can and cannot reach, asked through the chat.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;

use kai_playground::ground::Daemon;
use kai_tests::{ALICE, BOB, Kai, is_root};

/// Asks alice's agent to run `command`, and gives what it printed on both streams.
fn output(kai: &Kai, command: &str) -> String {
    let marked = format!("{{ {command} ; }} 2>&1; echo \"[status $?]\"");
    let answer = kai.ask(ALICE, &marked, "[status ");
    answer.text().to_owned()
}

#[test]
fn an_agent_runs_as_its_own_user_and_reaches_nothing_of_others() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|_| {});
    let secret = kai
        .ground
        .write_in_home("bob", "secret.txt", "blue suitcase")
        .unwrap();
    kai.ask(BOB, "echo bob is here", "bob is here");
    let alice = kai.ground.account("alice").unwrap().clone();
    let bobs_worker = kai.ground.status().unwrap().worker("bob").unwrap().pid;
    let broker = kai.ground.pid(Daemon::Broker).unwrap();
    let gateway = kai.ground.pid(Daemon::Gateway).unwrap();

    let id = output(&kai, "id -un; id -u");
    assert!(
        id.contains(&alice.name) && id.contains(&alice.uid.to_string()),
        "{id}"
    );

    let refused = |command: &str| {
        let said = output(&kai, command);
        assert!(
            !said.contains("[status 0]"),
            "`{command}` was not refused: {said}"
        );
        said
    };
    let said = refused(&format!("cat {}", secret.display()));
    assert!(!said.contains("blue suitcase"), "{said}");
    refused("cat /etc/shadow");
    refused(&format!(
        "ls {}",
        kai.ground.state().join("gateway").display()
    ));
    refused(&format!(
        "cat {}",
        kai.ground.config().with_file_name("users.yaml").display()
    ));
    for pid in [bobs_worker, broker, gateway] {
        refused(&format!("kill -0 {pid}"));
        refused(&format!("cat /proc/{pid}/environ"));
    }
    let run = kai.ground.run();
    for socket in [
        "gateway/broker.sock",
        "gateway/authd.sock",
        "admin/broker.sock",
        "admin/authd.sock",
        "broker/authd.sock",
    ] {
        let socket = run.join(socket);
        assert!(
            fs::metadata(&socket).is_ok(),
            "{} is not there at all",
            socket.display()
        );
        // Of Debian's essential packages only perl-base can connect to a socket with a path.
        let connect = "use IO::Socket::UNIX; IO::Socket::UNIX->new(Peer=>shift) or die qq($!\\n)";
        let said = refused(&format!("perl -e '{connect}' {}", socket.display()));
        assert!(
            said.contains("No such file") || said.contains("Permission denied"),
            "perl did not even try: {said}"
        );
    }
}

#[test]
fn an_agents_tool_sees_only_its_own_processes() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|_| {});
    kai.ask(BOB, "echo bob is here", "bob is here");
    let alice = kai.ground.account("alice").unwrap().clone();

    // What ps(1) reads, which a small Debian does not have.
    let listed = output(&kai, "stat -c %u /proc/[0-9]* | sort -u");
    let uids: Vec<&str> = listed
        .lines()
        .map(str::trim)
        .filter(|line| line.bytes().all(|b| b.is_ascii_digit()) && !line.is_empty())
        .collect();

    assert_eq!(uids, [alice.uid.to_string()], "{listed}");
}

#[test]
fn an_agents_tool_cannot_write_into_the_agents_own_streams() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|_| {});

    for number in [0, 1, 2] {
        let said = output(&kai, &format!("echo forged > /proc/$PPID/fd/{number}"));
        assert!(!said.contains("[status 0]"), "fd/{number}: {said}");
    }
    for number in [0, 1, 3, 4] {
        let said = output(&kai, &format!("echo forged > /proc/1/fd/{number}"));
        assert!(!said.contains("[status 0]"), "worker's fd/{number}: {said}");
    }
    kai.ask(
        ALICE,
        "echo still the same conversation",
        "still the same conversation",
    );
}

#[test]
fn kai_broker_status_sees_every_layer_from_outside() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|_| {});
    kai.ask(ALICE, "echo hello", "hello");

    let status: serde_json::Value =
        serde_json::from_str(&kai.ground.broker_command(&["status", "--json"]).unwrap()).unwrap();
    let table = kai.ground.broker_command(&["status"]).unwrap();

    let worker = &status["users"][0]["worker"];
    for layer in worker["layers"].as_array().unwrap() {
        let expected = if layer["name"] == "net" { "off" } else { "on" };
        assert_eq!(layer["standing"], expected, "{layer}");
        let witness = if layer["name"] == "landlock" {
            "worker"
        } else {
            "proc"
        };
        assert_eq!(layer["witness"], witness, "{layer}");
    }
    assert_eq!(status["findings"], serde_json::json!([]));
    assert!(
        worker["agent_pid"].as_u64().is_some_and(|pid| pid > 1),
        "{worker}"
    );
    assert!(
        worker["memory_kib"].as_u64().is_some_and(|kib| kib > 0),
        "{worker}"
    );
    for word in [
        "alice",
        "SECCOMP",
        "LANDLOCK",
        "connected",
        "the worker's own word",
    ] {
        assert!(table.contains(word), "{word} is not in\n{table}");
    }
}

#[test]
fn a_users_own_key_is_in_no_argument_log_or_environment_but_the_agents_own() {
    if !is_root() {
        return;
    }
    let key = "sk-made-up-key-of-alice-0123456789";
    let kai = Kai::start(|options| options.people[0].api_key = Some(key.to_owned()));

    let said = output(&kai, "env; cat /proc/[0-9]*/environ");
    assert!(!said.contains(key), "a tool has the agent's key: {said}");

    let status = kai.ground.status().unwrap();
    let worker = status.worker("alice").unwrap();
    let agent = worker.agent_pid.unwrap();
    let broker = kai.ground.pid(Daemon::Broker).unwrap();
    let gateway = kai.ground.pid(Daemon::Gateway).unwrap();
    for pid in [worker.pid, broker, gateway] {
        for file in ["cmdline", "environ"] {
            let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap();
            assert!(
                !String::from_utf8_lossy(&bytes).contains(key),
                "/proc/{pid}/{file}"
            );
        }
    }
    let environment = fs::read(format!("/proc/{agent}/environ")).unwrap();
    assert!(
        String::from_utf8_lossy(&environment).contains(key),
        "the agent has its key"
    );
    let arguments = fs::read(format!("/proc/{agent}/cmdline")).unwrap();
    assert!(!String::from_utf8_lossy(&arguments).contains(key));
    for daemon in Daemon::ALL {
        assert!(
            !kai.ground.log(daemon).contains(key),
            "{}'s log",
            daemon.name()
        );
    }
    kai.ask(BOB, "env; echo [end]", "[end]");
    assert!(
        kai.said_to(BOB)
            .iter()
            .all(|message| !message.text().contains(key))
    );
}

#[test]
fn no_log_holds_the_token_or_what_somebody_wrote() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|options| options.log = "debug".to_owned());

    kai.ask(
        ALICE,
        "echo a-word-that-only-alice-wrote",
        "a-word-that-only-alice-wrote",
    );

    for daemon in Daemon::ALL {
        let log = kai.ground.log(daemon);
        assert!(!log.is_empty(), "{} logs nothing at all", daemon.name());
        assert!(
            !log.contains("a-word-that-only-alice-wrote"),
            "{}",
            daemon.name()
        );
        assert!(!log.contains(kai.telegram.token()), "{}", daemon.name());
        let secret = kai.telegram.token().split(':').nth(1).unwrap();
        assert!(!log.contains(secret), "{}", daemon.name());
    }
}
