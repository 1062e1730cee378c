//! What root does with a running kai: reload, strangers, limits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    thread,
    time::{Duration, Instant},
};

use kai_playground::ground::{Daemon, Person};
use kai_tests::{ALICE, BOB, Kai, STRANGER, is_root};
use nix::sys::signal::Signal;

#[test]
fn who_is_gone_from_users_yaml_loses_the_worker_within_a_second() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|_| {});
    kai.ask(ALICE, "echo alice", "alice");
    kai.ask(BOB, "echo bob", "bob");
    kai.ground
        .write_users(&[Person::new("alice", ALICE.0)])
        .unwrap();

    let told = kai.ground.broker_command(&["reload"]).unwrap();
    let reloaded = Instant::now();

    assert!(told.contains("users in force: 1;"), "{told}");
    while kai.ground.status().unwrap().worker("bob").is_some() {
        assert!(
            reloaded.elapsed() < Duration::from_secs(1),
            "bob's worker lives on"
        );
        thread::sleep(Duration::from_millis(20));
    }
    let answers = kai.said_to(BOB).len();
    kai.say(BOB, "echo am I still here");
    kai.ask(ALICE, "echo alice again", "alice again");
    assert_eq!(
        kai.said_to(BOB).len(),
        answers,
        "somebody who is gone gets no answer"
    );
}

#[test]
fn a_hangup_signal_takes_the_new_users_yaml_too() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|_| {});
    kai.ask(BOB, "echo bob", "bob");
    kai.ground
        .write_users(&[Person::new("alice", ALICE.0)])
        .unwrap();

    kai.ground.signal(Daemon::Broker, Signal::SIGHUP).unwrap();

    let due = Instant::now() + Duration::from_secs(2);
    while kai.ground.status().unwrap().user("bob").is_some() {
        assert!(Instant::now() < due, "bob is still a user");
        thread::sleep(Duration::from_millis(20));
    }
    kai.ask(ALICE, "echo alice is still one", "alice is still one");
}

#[test]
fn a_key_for_everybody_is_a_finding_of_status() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    std::fs::write(&key, "sk-made-up-for-everybody").unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let kai = Kai::start(|options| {
        options.agent_keys = vec![
            ("api_key_file".into(), key.display().to_string()),
            ("shared_key_readable_by_every_user".into(), "true".into()),
        ];
    });

    kai.ask(ALICE, "env | grep -c sk-made-up-for-everybody", "1");
    let status = kai.ground.status().unwrap();

    let findings = status.findings.join("\n");
    assert!(findings.contains("readable by every user"), "{findings}");
}

#[test]
fn a_bad_users_yaml_is_refused_with_its_line_and_the_old_one_stays() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|_| {});
    let file = kai.ground.config().with_file_name("users.yaml");
    let good = std::fs::read_to_string(&file).unwrap();
    std::fs::write(
        &file,
        good.replace("telegram_id: 1002", "telegram_id: 1001"),
    )
    .unwrap();

    let refused = kai
        .ground
        .broker_command(&["reload"])
        .unwrap_err()
        .to_string();

    assert!(
        refused.contains("users.yaml:") && refused.contains("telegram_id"),
        "{refused}"
    );
    kai.ask(BOB, "echo still here", "still here");
}

#[test]
fn strangers_get_no_answer_and_are_listed_for_root() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|_| {});

    let sent = kai
        .telegram
        .send_text(STRANGER, STRANGER.private_chat(), "let me in")
        .unwrap();
    assert!(
        kai.telegram
            .wait_confirmed(sent.update.unwrap(), Duration::from_secs(10))
    );
    kai.ask(ALICE, "echo alice", "alice");

    let due = Instant::now() + Duration::from_secs(5);
    loop {
        let listed = kai.ground.broker_command(&["strangers", "--json"]).unwrap();
        if listed.contains("6666") {
            assert!(!listed.contains("let me in"));
            break;
        }
        assert!(Instant::now() < due, "{listed}");
        thread::sleep(Duration::from_millis(50));
    }
    assert!(kai.said_to(STRANGER).is_empty());
}

#[test]
fn an_idle_worker_is_ended_and_comes_back_with_the_next_message() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|options| options.limits.push(("idle".into(), "1s".into())));
    kai.ask(ALICE, "echo one", "one");

    let due = Instant::now() + Duration::from_secs(5);
    while kai.ground.status().unwrap().worker("alice").is_some() {
        assert!(Instant::now() < due, "an idle worker lives on");
        thread::sleep(Duration::from_millis(50));
    }

    kai.ask(ALICE, "echo two", "two");
}

#[test]
fn at_the_cap_the_idle_worker_makes_room_and_the_busy_one_does_not() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|options| options.limits.push(("workers".into(), "1".into())));
    kai.ask(ALICE, "echo one", "one");
    thread::sleep(Duration::from_secs(1));
    kai.ask(BOB, "echo two", "two");
    assert!(kai.ground.status().unwrap().worker("alice").is_none());

    thread::sleep(Duration::from_secs(1));
    let slow = kai.say(BOB, "slow 6 alpha beta gamma omega");
    kai.answer(BOB, slow, |message| message.text().contains("alpha"));
    let asked = kai.say(ALICE, "echo three");

    kai.answer(ALICE, asked, |message| message.text().contains("places"));
    kai.answer(BOB, slow, |message| message.text().contains("omega"));
}
