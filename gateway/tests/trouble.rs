//! What users see of a broker or a worker that is late, away or dead, through the real kai-gateway.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod stage;

use std::time::{Duration, Instant};

use kai_emulators::bot_api::{CallFilter, Fault, Refusal};
use kai_proto::{
    conversation::{Failure, Outcome, ToWorker},
    gateway_broker,
};
use stage::{ALICE, BOB, Stage};

#[test]
fn a_broker_that_comes_late_finds_everything_waiting() {
    let mut stage = Stage::dark();
    stage.authd.start();
    stage.start_gateway();
    let sent = stage.says(ALICE, "early");
    std::thread::sleep(Duration::from_millis(300));
    assert!(!stage.telegram.is_confirmed(sent.update.unwrap()));

    stage.broker.start();

    let worker = stage.worker(ALICE);
    worker.answer(worker.prompt().id, "at last");
    stage.wait_for(ALICE, "at last");
}

#[test]
fn a_message_waits_for_a_broker_that_is_away_and_its_user_is_told_once() {
    let stage = Stage::new();
    stage.broker.wait_subscribed();
    stage.says(BOB, "/help");
    stage.wait_until(BOB.private_chat(), |_| true);
    stage.broker.stop();
    stage.says(ALICE, "hello");
    let told = stage.wait_until(ALICE.private_chat(), |_| true);
    assert!(
        told.text().contains("cannot reach your agent"),
        "{}",
        told.text()
    );

    stage.broker.start();

    let worker = stage.worker(ALICE);
    worker.answer(worker.prompt().id, "back");
    stage.wait_for(ALICE, "back");
    assert_eq!(stage.heard(ALICE).len(), 2);
}

#[test]
fn a_connection_that_ends_before_its_hello_is_tried_again() {
    let stage = Stage::new();
    stage.says(ALICE, "hello");
    for _ in 0..4 {
        stage.broker.attach(ALICE).dropped();
    }
    let worker = stage.worker(ALICE);
    worker.answer(worker.prompt().id, "there");
    stage.wait_for(ALICE, "there");
    assert_eq!(stage.heard(ALICE).len(), 1);
}

#[test]
fn a_worker_that_cannot_be_started_is_said_and_the_next_message_tries_again() {
    let stage = Stage::new();
    stage.says(ALICE, "hello");
    stage
        .broker
        .attach(ALICE)
        .refused(gateway_broker::Refusal::LaunchFailed);
    stage.wait_until(ALICE.private_chat(), |message| {
        message.text().contains("does not come up")
    });
    stage.says(ALICE, "again");
    let worker = stage.worker(ALICE);
    assert_eq!(worker.prompt().text, "again");
}

#[test]
fn a_worker_killed_in_mid_turn_is_told_of_within_two_seconds() {
    let stage = Stage::new();
    stage.says(ALICE, "hello");
    let killed = stage.worker(ALICE);
    let prompt = killed.prompt().id;
    killed.accept(prompt);
    killed.text(prompt, "I will");
    stage.wait_for(ALICE, "I will");
    let start = Instant::now();
    killed.die();

    let next = stage.worker(ALICE);
    assert_eq!(next.prompt().id, prompt);
    next.accept(prompt);
    next.text(prompt, "I will");
    next.finish(prompt, Outcome::Failed(Failure::WorkerEnded));

    stage.wait_until(ALICE.private_chat(), |message| {
        message.text().starts_with("I will\n\nYour agent was ended")
    });
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!(next.told(), Some(ToWorker::Acknowledge(prompt)));
    stage.says(ALICE, "and now?");
    assert_eq!(next.prompt().text, "and now?");
}

#[test]
fn an_idle_worker_that_ends_is_not_spoken_of() {
    let stage = Stage::new();
    stage.says(ALICE, "hello");
    let worker = stage.worker(ALICE);
    let prompt = worker.prompt().id;
    worker.answer(prompt, "there");
    assert_eq!(worker.told(), Some(ToWorker::Acknowledge(prompt)));
    worker.die();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(stage.heard(ALICE), ["there"]);
    assert!(!stage.broker.has_attach(ALICE));
    stage.says(ALICE, "again");
    assert_eq!(stage.worker(ALICE).prompt().text, "again");
}

#[test]
fn without_authd_nothing_reaches_the_worker_and_it_goes_on_by_itself() {
    let mut stage = Stage::dark();
    stage.broker.start();
    stage.start_gateway();
    stage.says(ALICE, "hello");
    stage.wait_until(ALICE.private_chat(), |message| {
        message.text().contains("second factor")
    });
    assert!(!stage.broker.has_attach(ALICE));

    stage.authd.start();

    let worker = stage.worker(ALICE);
    worker.answer(worker.prompt().id, "there");
    stage.wait_for(ALICE, "there");
}

#[test]
fn a_second_poller_is_logged_and_waited_for() {
    let stage = Stage::new();
    let conflict = Refusal::new(
        409,
        "Conflict: terminated by other getUpdates request; make sure that only one bot instance \
         is running",
    );
    let polls = CallFilter::method("getUpdates");
    stage.telegram.inject(polls, 1, Fault::Refuse(conflict));
    stage.says(ALICE, "/help");
    stage.wait_until(ALICE.private_chat(), |_| true);
    stage.says(ALICE, "/start");
    stage.wait_until(ALICE.private_chat(), |message| {
        message.text().contains("Hello")
    });
    assert!(
        stage
            .log()
            .contains("another program receives this bot's messages")
    );
}
