//! kill -9 of each program, in mid-turn and between turns.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    time::{Duration, Instant},
};

use kai_playground::ground::Daemon;
use kai_tests::{ALICE, BOB, Kai, is_root};

/// How soon the user is told.
const TOLD: Duration = Duration::from_secs(2);

#[test]
fn the_end_of_a_worker_in_mid_turn_is_told_within_two_seconds() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|_| {});
    let asked = kai.say(
        ALICE,
        "slow 20 one two three four five six seven eight nine ten",
    );
    kai.answer(ALICE, asked, |message| message.text().contains("one"));

    let killed = Instant::now();
    kai.ground.kill_worker("alice").unwrap();
    kai.answer(ALICE, asked, |message| message.text().contains("again"));

    assert!(killed.elapsed() < TOLD, "{:?}", killed.elapsed());
    kai.ask(ALICE, "echo the next one works", "the next one works");
}

#[test]
fn the_end_of_an_agent_in_mid_turn_is_told_within_two_seconds() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|_| {});
    let asked = kai.say(
        ALICE,
        "slow 20 one two three four five six seven eight nine ten",
    );
    kai.answer(ALICE, asked, |message| message.text().contains("one"));

    let killed = Instant::now();
    kai.ground.kill_agent("alice").unwrap();
    kai.answer(ALICE, asked, |message| {
        message.text().contains("ended by signal 9")
    });

    assert!(killed.elapsed() < TOLD, "{:?}", killed.elapsed());
    kai.ask(ALICE, "echo the next one works", "the next one works");
}

#[test]
fn a_gateway_killed_in_mid_turn_delivers_the_whole_answer_once() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|_| {});
    let asked = kai.say(ALICE, "slow 3 alpha beta gamma delta omega");
    kai.answer(ALICE, asked, |message| message.text().contains("alpha"));

    kai.ground.kill(Daemon::Gateway).unwrap();
    kai.answer(ALICE, asked, |message| message.text().contains("omega"));

    kai.ask(ALICE, "echo done", "done");
    let whole = kai
        .said_to(ALICE)
        .iter()
        .filter(|m| m.text().contains("omega"))
        .count();
    assert_eq!(
        whole,
        1,
        "{}",
        kai.telegram.transcript(ALICE.private_chat())
    );
}

#[test]
fn a_message_sent_while_the_gateway_is_down_is_answered_once_it_is_back() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|_| {});
    kai.ground.stop_one(Daemon::Gateway).unwrap();
    let asked = kai.say(ALICE, "echo was it lost");

    kai.ground.start_one(Daemon::Gateway).unwrap();

    kai.answer(ALICE, asked, |message| {
        message.text().contains("was it lost")
    });
}

#[test]
fn no_worker_outlives_the_broker_and_the_next_message_works() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|_| {});
    kai.ask(ALICE, "echo first", "first");
    let worker = kai
        .ground
        .status()
        .unwrap()
        .worker("alice")
        .unwrap()
        .clone();

    kai.ground.kill(Daemon::Broker).unwrap();

    let due = Instant::now() + Duration::from_secs(2);
    let gone = |pid: u32| fs::metadata(format!("/proc/{pid}")).is_err();
    while !(gone(worker.pid) && worker.agent_pid.is_none_or(gone)) {
        assert!(
            Instant::now() < due,
            "the worker or its agent outlived the broker"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    kai.ask(ALICE, "echo second", "second");
}

#[test]
fn a_restart_of_authd_delays_and_loses_nothing() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|_| {});
    kai.ground.kill(Daemon::Authd).unwrap();

    kai.ask(BOB, "echo authd came back", "authd came back");
}

#[test]
fn a_session_goes_on_after_its_worker_was_killed() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|_| {});
    let before = kai.ask(ALICE, "whoami-session", "session");
    let session = session_in(before.text());

    kai.ground.kill_worker("alice").unwrap();
    let after = kai.ask(ALICE, "whoami-session", "session");

    assert_eq!(session_in(after.text()), session);
}

/// The first UUID in a text.
fn session_in(text: &str) -> String {
    let is_uuid = |word: &&str| word.len() == 36 && word.matches('-').count() == 4;
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words.into_iter().find(is_uuid).unwrap().to_owned()
}

#[test]
fn nothing_is_left_of_a_worker_after_its_end() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|_| {});
    // A process that left its session, its parent and its output behind.
    kai.ask(
        ALICE,
        "setsid sh -c 'sleep 600 & exec sleep 600' >/dev/null 2>&1 & echo away",
        "away",
    );
    let uid = kai.ground.account("alice").unwrap().uid;
    assert!(!processes_of(uid).is_empty());

    kai.ground.kill_worker("alice").unwrap();

    let due = Instant::now() + Duration::from_secs(2);
    while !processes_of(uid).is_empty() {
        assert!(Instant::now() < due, "left: {:?}", processes_of(uid));
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn processes_of(uid: u32) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .bytes()
                .all(|b| b.is_ascii_digit())
        })
        .filter(|entry| entry.metadata().is_ok_and(|found| found.uid() == uid))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}
