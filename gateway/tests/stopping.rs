//! The end of the real kai-gateway: what the service manager hears, and what becomes of turns that run.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod stage;

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    time::{Duration, Instant},
};

use kai_proto::{
    conversation::{Outcome, ToWorker},
    ids::PromptId,
};
use stage::{ALICE, LONG, Stage, peers::Worker};

#[test]
fn a_gateway_that_is_told_to_stop_ends_well() {
    let mut stage = Stage::new();
    stage.says(ALICE, "hello");
    let worker = stage.worker(ALICE);
    worker.answer(worker.prompt().id, "there");
    stage.wait_for(ALICE, "there");
    let start = Instant::now();
    assert!(stage.stop_gateway().success());
    assert!(start.elapsed() < Duration::from_secs(6));
}

#[test]
fn the_service_manager_hears_that_it_is_ready_alive_and_stopping() {
    let mut stage = Stage::dark();
    stage.authd.start();
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let name = place.path().join("notify");
    let manager = UnixDatagram::bind(&name).unwrap();
    fs::set_permissions(&name, PermissionsExt::from_mode(0o777)).unwrap();
    let says = |patience| {
        manager.set_read_timeout(Some(patience)).unwrap();
        let mut word = [0; 64];
        let length = manager.recv(&mut word).ok()?;
        Some(String::from_utf8_lossy(&word[..length]).into_owned())
    };
    stage.start_gateway_with(&[
        ("NOTIFY_SOCKET", &name.display().to_string()),
        ("WATCHDOG_USEC", "900000"),
    ]);
    // It lives, and is not ready before the broker has told it who its users are.
    for _ in 0..2 {
        assert_eq!(says(LONG).as_deref(), Some("WATCHDOG=1"));
    }
    stage.broker.start();
    while let Some(word) = says(LONG) {
        if word == "READY=1" {
            break;
        }
        assert_eq!(word, "WATCHDOG=1");
    }
    stage.stop_gateway();
    // It is alive until it has stopped, and may say so once more.
    let words: Vec<String> = std::iter::from_fn(|| says(Duration::from_millis(100))).collect();
    let stopping = "STOPPING=1\nEXTEND_TIMEOUT_USEC=";
    assert!(
        words.iter().any(|word| word.starts_with(stopping)),
        "{words:?}"
    );
}

/// A turn of alice's of which half is said.
fn half_said(stage: &Stage) -> (Worker, PromptId) {
    stage.says(ALICE, "long work");
    let worker = stage.worker(ALICE);
    let prompt = worker.prompt().id;
    worker.accept(prompt);
    worker.text(prompt, "half");
    stage.wait_for(ALICE, "half");
    (worker, prompt)
}

#[test]
fn a_gateway_that_stops_lets_a_turn_finish_and_begins_none() {
    let mut stage = Stage::new();
    let (worker, prompt) = half_said(&stage);

    stage.terminate_gateway();
    let late = stage.says(ALICE, "and then this");
    stage.wait_until(ALICE.private_chat(), |m| {
        m.text().contains("your message waits")
    });
    assert!(stage.telegram.wait_confirmed(late.update.unwrap(), LONG));
    assert_eq!(worker.told_soon(), None);
    worker.text(prompt, " and half");
    worker.finish(prompt, Outcome::Done);

    let began = Instant::now();
    assert!(stage.wait_for_gateway().success());
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(stage.heard(ALICE).contains(&"half and half".to_owned()));
    stage.start_gateway();
    let worker = stage.worker(ALICE);
    assert_eq!(worker.prompt().text, "and then this");
}

#[test]
fn a_turn_that_does_not_finish_in_time_is_stopped_and_its_user_told() {
    let mut stage = Stage::dark_with("limits: {stop: 1s}\n");
    stage.authd.start();
    stage.broker.start();
    stage.start_gateway();
    let (worker, _) = half_said(&stage);

    let began = Instant::now();
    stage.terminate_gateway();
    assert_eq!(worker.told(), Some(ToWorker::Interrupt));
    assert!(began.elapsed() >= Duration::from_secs(1));
    stage.wait_until(ALICE.private_chat(), |m| {
        m.text()
            .contains("Stopped here, because kai is being restarted")
    });
    assert!(stage.wait_for_gateway().success());
    assert!(began.elapsed() < Duration::from_secs(6));

    // It is over: the next gateway does not ask for it again.
    stage.start_gateway();
    stage.says(ALICE, "next");
    let worker = stage.worker(ALICE);
    assert_eq!(worker.prompt().text, "next");
}

#[test]
fn a_turn_that_a_stopping_gateway_waits_for_can_be_stopped() {
    let mut stage = Stage::new();
    let (worker, prompt) = half_said(&stage);
    stage.terminate_gateway();
    std::thread::sleep(Duration::from_millis(300));
    stage.says(ALICE, "/stop");
    assert_eq!(worker.told(), Some(ToWorker::Interrupt));
    worker.finish(prompt, Outcome::Interrupted);
    assert!(stage.wait_for_gateway().success());
    assert!(
        stage
            .heard(ALICE)
            .iter()
            .any(|text| text.contains("Stopped."))
    );
}

#[test]
fn a_gateway_that_is_told_twice_does_not_wait() {
    let mut stage = Stage::new();
    stage.says(ALICE, "long work");
    let worker = stage.worker(ALICE);
    let prompt = worker.prompt().id;
    worker.accept(prompt);
    std::thread::sleep(Duration::from_millis(200));
    stage.terminate_gateway();
    std::thread::sleep(Duration::from_millis(300));
    let began = Instant::now();
    stage.terminate_gateway();
    assert!(stage.wait_for_gateway().success());
    assert!(began.elapsed() < Duration::from_secs(6));
}
