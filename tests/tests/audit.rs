//! The audit logs of a whole kai: what is in them, how they are shown, and that a change is found.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use kai_playground::ground::Daemon;
use kai_tests::{ALICE, BOB, Kai, is_root};
use serde_json::Value;

/// Runs `kai-broker audit` with these arguments.
fn audit(kai: &Kai, arguments: &[&str]) -> Output {
    command(kai, arguments).output().unwrap()
}

fn command(kai: &Kai, arguments: &[&str]) -> Command {
    let mut command = Command::new(kai.ground.programs().join("kai-broker"));
    command
        .arg("--config")
        .arg(kai.ground.config())
        .arg("audit")
        .args(arguments)
        .env_clear()
        .stdin(Stdio::null());
    command
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

fn log(kai: &Kai, name: &str) -> PathBuf {
    kai.ground.root().join("log").join(name).join("audit.jsonl")
}

/// What a daemon wrote to its standard error, which is the journal on an installed host.
fn journal(kai: &Kai, daemon: Daemon) -> String {
    let name = format!("{}.txt", daemon.name());
    let path = kai.ground.root().join("log").join(name);
    path.to_str().unwrap().to_owned()
}

fn events(kai: &Kai, name: &str) -> Vec<Value> {
    let text = fs::read_to_string(log(kai, name)).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A day with everything in it, at whose end the daemons stop.
fn a_whole_day() -> Kai {
    let kai = Kai::start(|_| {});
    let alice = kai.enroll("alice");
    let said = kai.say(ALICE, "echo it-ran");
    kai.answer(ALICE, said, |message| {
        message.text().contains("Send a code")
    });
    let wrong = kai.say(ALICE, &alice.authenticator.wrong());
    kai.answer(ALICE, wrong, |message| {
        message.text().contains("was not accepted")
    });
    kai.say(ALICE, &alice.authenticator.code());
    kai.answer(ALICE, said, |message| message.text().trim() == "it-ran");
    kai.ask(BOB, "echo bob", "bob");
    let lock = kai.say(ALICE, "/lock");
    kai.answer(ALICE, lock, |message| message.text().contains("Locked"));
    let said = kai.say(ALICE, "echo by-recovery");
    kai.answer(ALICE, said, |message| {
        message.text().contains("Send a code")
    });
    kai.say(ALICE, &alice.recovery[0]);
    kai.answer(ALICE, said, |message| {
        message.text().trim() == "by-recovery"
    });
    kai.ground.broker_command(&["reload"]).unwrap();
    kai.ground.auth_command(&["unlock", "alice"]).unwrap();
    kai.ground.auth_command(&["remove", "alice"]).unwrap();
    thread::sleep(Duration::from_millis(500));
    for daemon in [Daemon::Gateway, Daemon::Broker, Daemon::Authd] {
        kai.ground.stop_one(daemon).unwrap();
    }
    kai
}

#[test]
fn what_root_decided_is_in_the_logs_and_a_change_is_found() {
    if !is_root() {
        return;
    }
    let kai = a_whole_day();
    everything_is_there(&kai);
    it_is_shown(&kai);
    changes_are_found(&kai);
}

fn everything_is_there(kai: &Kai) {
    let lists: [(&str, &[&str]); 2] = [
        (
            "authd",
            &[
                "daemon.started",
                "config.loaded",
                "enrolment.began",
                "enrolment.confirmed",
                "code.refused",
                "code.accepted",
                "grant.made",
                "grant.ended",
                "recovery.accepted",
                "enrolment.unlocked",
                "enrolment.removed",
                "daemon.stopped",
            ],
        ),
        (
            "broker",
            &[
                "daemon.started",
                "config.loaded",
                "users.loaded",
                "attach.allowed",
                "worker.started",
                "worker.ended",
                "admin.reload",
                "daemon.stopped",
            ],
        ),
    ];
    for (name, wanted) in lists {
        let events = events(kai, name);
        for event in wanted {
            let found = events.iter().find(|line| line["event"] == *event);
            let found = found.unwrap_or_else(|| panic!("{name} lacks {event}"));
            if event.starts_with("enrolment") || event.starts_with("admin") {
                assert_eq!(found["admin"], 0, "{found}");
            }
            if event.ends_with("loaded") {
                assert_eq!(found["sha256"].as_str().unwrap().len(), 64, "{found}");
            }
        }
        for (line, seq) in events.iter().zip(1..) {
            assert_eq!(line["seq"], seq, "{name}");
        }
    }
    let broker = events(kai, "broker");
    let ended = broker
        .iter()
        .find(|l| l["event"] == "worker.ended")
        .unwrap();
    for key in ["pid", "status", "cpu_ms", "peak_kib", "why"] {
        assert!(!ended[key].is_null(), "{ended}");
    }
}

fn it_is_shown(kai: &Kai) {
    let all = said(&audit(kai, &[]));
    assert!(
        all.contains("code refused") && all.contains("worker started"),
        "{all}"
    );
    let alice = said(&audit(kai, &["--user", "alice", "--since", "1h"]));
    assert!(
        alice.contains("recovery accepted") && !alice.contains("bob"),
        "{alice}"
    );
    let none = audit(kai, &["--json", "--until", "2020-01-01"]);
    assert!(none.status.success() && none.stdout.is_empty());
    let json = audit(kai, &["--json"]);
    let mut last = String::new();
    for line in String::from_utf8(json.stdout).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(["authd", "broker"].contains(&line["log"].as_str().unwrap()));
        let at = line["at"].as_str().unwrap().to_owned();
        assert!(at >= last, "{at} after {last}");
        last = at;
    }
    // Somebody else sees nothing of it.
    let account = kai.ground.account("bob").unwrap();
    let seen = kai_tests::as_account(account, || fs::read(log(kai, "authd")));
    assert!(seen.is_err());
}

fn verify(kai: &Kai) -> (Option<i32>, String) {
    let (authd, broker) = (journal(kai, Daemon::Authd), journal(kai, Daemon::Broker));
    let output = audit(kai, &["verify", "--marks", &authd, "--marks", &broker]);
    (output.status.code(), said(&output))
}

fn changes_are_found(kai: &Kai) {
    let (status, words) = verify(kai);
    assert_eq!(status, Some(0), "{words}");

    let path = log(kai, "authd");
    let good = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = good.lines().collect();
    let line = lines
        .iter()
        .position(|l| l.contains("code.refused"))
        .unwrap();
    let number = line + 1;
    let changed = lines[line].replace("code.refused", "code.accepted");
    let with = |lines: &[&str]| {
        lines
            .iter()
            .map(|line| format!("{line}\n"))
            .collect::<String>()
    };
    let mut forged = lines.clone();
    forged[line] = &changed;
    let mut fewer = lines.clone();
    fewer.remove(line);
    let mut more = lines.clone();
    more.insert(line, lines[line]);
    let cut = &lines[..lines.len() - 1];
    for (text, words) in [
        (with(&forged), format!("line {number} was CHANGED")),
        (with(&fewer), format!("line {number} was REMOVED")),
        (with(&more), format!("line {number} was INSERTED")),
        (with(cut), format!("line {} was REMOVED", lines.len())),
    ] {
        replace(&path, &text);
        let (status, said) = verify(kai);
        assert_eq!(status, Some(3), "{said}");
        assert!(said.contains(&words), "{said}");
        assert!(said.contains("broker: lines 1 to"), "{said}");
    }
    replace(&path, &good);
    assert_eq!(verify(kai).0, Some(0));
}

fn replace(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
}

#[test]
fn following_shows_what_comes() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|_| {});
    let output = kai.ground.root().join("followed");
    let mut following = command(&kai, &["--follow", "--json", "--user", "bob"])
        .stdout(fs::File::create(&output).unwrap())
        .spawn()
        .unwrap();
    kai.ask(BOB, "echo bob", "bob");

    let mut shown = String::new();
    for _ in 0..200 {
        shown = fs::read_to_string(&output).unwrap();
        if shown.contains("worker.started") {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }

    following.kill().unwrap();
    following.wait().unwrap();
    assert!(shown.contains("worker.started"), "{shown}");
    assert_eq!(shown.matches("attach.allowed").count(), 1, "{shown}");
}

#[test]
fn a_broker_that_cannot_write_its_log_attaches_nobody() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|_| {});
    kai.ground.stop_one(Daemon::Broker).unwrap();
    let directory = kai.ground.root().join("log/broker");
    fs::set_permissions(
        &directory,
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();

    let refused = kai
        .ground
        .start_one(Daemon::Broker)
        .unwrap_err()
        .to_string();

    assert!(refused.contains("chmod 0700"), "{refused}");
}
