//! What becomes of a worker whose user's proof has ended.

use std::{
    thread,
    time::{Duration, Instant},
};

use kai_proto::{
    broker_authd::{GrantEnd, Standing},
    gateway_broker::Refusal,
};

use super::{
    SECOND,
    played::{checked, ended},
    stage::{ALICE, PROVEN, Stage, eventually, grant},
};

#[test]
fn an_idle_worker_ends_at_once_with_its_users_proof() {
    for (end, word) in [
        (GrantEnd::Idle, "grant_idle"),
        (GrantEnd::Absolute, "grant_absolute"),
        (GrantEnd::Locked, "locked_by_user"),
        (GrantEnd::Enrolment, "enrolment_changed"),
    ] {
        let mut stage = Stage::new();
        let alice = stage.worker(ALICE, Some(grant(1)), PROVEN);
        let running = stage.run();
        let mut authd = running.authd();

        authd.ended(ALICE, end);

        assert!(alice.wait_for_the_end() < SECOND);
        assert!(!alice.is_attached());
        assert_eq!(running.why_ended(alice.pid), word);
    }
}

#[test]
fn a_worker_that_is_still_starting_ends_and_its_gateway_hears_why() {
    let mut stage = Stage::new();
    let alice = stage.starting_worker(ALICE, Some(grant(1)), PROVEN);
    let running = stage.run();

    running.authd().ended(ALICE, GrantEnd::Absolute);

    assert!(alice.wait_for_the_end() < SECOND);
    assert_eq!(alice.refused(), Refusal::SecondFactor);
}

#[test]
fn a_turn_finishes_after_an_idle_or_an_absolute_end_and_the_worker_ends_with_it() {
    for end in [GrantEnd::Idle, GrantEnd::Absolute] {
        let mut stage = Stage::new();
        let alice = stage.worker(ALICE, Some(grant(1)), PROVEN);
        alice.report(true, 0);
        let running = stage.run();
        let mut authd = running.authd();

        authd.ended(ALICE, end);
        let began = Instant::now();
        eventually("the connection stays", || !alice.is_attached());
        assert!(began.elapsed() < SECOND);
        thread::sleep(SECOND);
        assert!(alice.is_alive(), "its turn runs");

        alice.report(false, 1);
        assert!(alice.wait_for_the_end() < SECOND);
    }
}

#[test]
fn the_turn_after_the_last_one_does_not_run() {
    let mut stage = Stage::new();
    let alice = stage.worker(ALICE, Some(grant(1)), PROVEN);
    alice.report(true, 0);
    let running = stage.run();
    running.authd().ended(ALICE, GrantEnd::Absolute);
    eventually("the connection stays", || !alice.is_attached());

    alice.report(true, 1);

    assert!(alice.wait_for_the_end() < SECOND);
}

#[test]
fn a_turn_that_goes_on_for_ever_ends_with_the_limit_of_turns() {
    let mut stage = Stage::new();
    let alice = stage.worker(ALICE, Some(grant(1)), PROVEN);
    alice.report(true, 0);
    let running = stage.run();
    let mut authd = running.authd();
    authd.asked(ALICE, Some(grant(1)));
    authd.answer(ALICE, PROVEN);

    authd.ended(ALICE, GrantEnd::Absolute);
    let took = alice.wait_for_the_end();

    assert!(took >= 2 * SECOND && took < 4 * SECOND, "{took:?}");
    assert_eq!(running.why_ended(alice.pid), "grant_absolute");
}

#[test]
fn a_turn_does_not_survive_a_lock_or_an_admin() {
    for end in [GrantEnd::Locked, GrantEnd::Enrolment] {
        let mut stage = Stage::new();
        let alice = stage.worker(ALICE, Some(grant(1)), PROVEN);
        alice.report(true, 0);
        let running = stage.run();

        running.authd().ended(ALICE, end);

        assert!(alice.wait_for_the_end() < SECOND);
    }
}

#[test]
fn a_turn_that_was_allowed_to_finish_does_not_survive_a_lock_either() {
    let mut stage = Stage::new();
    let alice = stage.worker(ALICE, Some(grant(1)), PROVEN);
    alice.report(true, 0);
    let running = stage.run();
    let mut authd = running.authd();
    authd.ended(ALICE, GrantEnd::Absolute);
    eventually("the connection stays", || !alice.is_attached());
    assert!(alice.is_alive());

    authd.ended(ALICE, GrantEnd::Locked);

    assert!(alice.wait_for_the_end() < SECOND);
}

#[test]
fn a_turn_that_has_just_begun_is_not_taken_for_idleness() {
    let mut stage = Stage::new();
    let alice = stage.worker(ALICE, Some(grant(1)), PROVEN);
    let running = stage.run();
    let mut authd = running.authd();
    authd.asked(ALICE, Some(grant(1)));
    authd.answer(ALICE, PROVEN);
    let _gateway = running.attach(ALICE, Some(grant(1)));
    authd.asked(ALICE, Some(grant(1)));

    // The prompt is on its way, and the worker has not reported its turn yet.
    authd.say(&[checked(ALICE, PROVEN)]);
    eventually("nothing is handed over", || alice.takes_a_connection());
    authd.ended(ALICE, GrantEnd::Idle);
    thread::sleep(Duration::from_millis(100));
    alice.report(true, 0);
    thread::sleep(SECOND);
    assert!(alice.is_alive(), "its turn runs");

    alice.report(false, 1);
    assert!(alice.wait_for_the_end() < SECOND);
}

#[test]
fn a_turn_that_is_reported_and_not_yet_read_is_not_taken_for_idleness() {
    let mut stage = Stage::new();
    let alice = stage.worker(ALICE, Some(grant(1)), PROVEN);
    let running = stage.run();
    let mut authd = running.authd();
    authd.asked(ALICE, Some(grant(1)));

    alice.report(true, 0);
    authd.ended(ALICE, GrantEnd::Idle);
    thread::sleep(SECOND / 2);
    assert!(alice.is_alive(), "its turn runs");
}

#[test]
fn a_worker_lives_on_with_the_proof_that_took_the_place_of_another_and_not_without() {
    let mut stage = Stage::new();
    let alice = stage.worker(ALICE, Some(grant(1)), PROVEN);
    alice.report(true, 0);
    let running = stage.run();
    let mut authd = running.authd();
    authd.asked(ALICE, Some(grant(1)));
    authd.answer(ALICE, PROVEN);

    authd.ended(ALICE, GrantEnd::Replaced);
    let began = Instant::now();
    eventually("the connection stays", || !alice.is_attached());
    assert!(began.elapsed() < SECOND / 2);
    let _gateway = running.attach(ALICE, Some(grant(2)));
    authd.asked(ALICE, Some(grant(2)));
    authd.say(&[checked(ALICE, PROVEN)]);
    eventually("nothing is handed over", || alice.takes_a_connection());
    thread::sleep(SECOND);
    assert!(alice.is_alive(), "its user has proved it once more");

    authd.ended(ALICE, GrantEnd::Replaced);
    assert!(alice.wait_for_the_end() < SECOND);
    assert_eq!(running.why_ended(alice.pid), "grant_replaced");
}

#[test]
fn a_new_proof_keeps_the_worker_and_a_missing_one_does_not() {
    let mut stage = Stage::new();
    let alice = stage.worker(ALICE, Some(grant(1)), PROVEN);
    alice.report(true, 0);
    let running = stage.run();
    let mut authd = running.authd();
    authd.asked(ALICE, Some(grant(1)));
    authd.say(&[checked(ALICE, PROVEN), ended(ALICE, GrantEnd::Absolute)]);
    eventually("the connection stays", || !alice.is_attached());

    let mut refused = running.attach(ALICE, Some(grant(1)));
    authd.asked(ALICE, Some(grant(1)));
    authd.answer(ALICE, Standing::CodeNeeded);
    assert_eq!(refused.refused(), Refusal::SecondFactor);
    assert!(!alice.takes_a_connection());

    let _proven = running.attach(ALICE, Some(grant(2)));
    authd.asked(ALICE, Some(grant(2)));
    authd.answer(ALICE, PROVEN);
    eventually("nothing is handed over", || alice.takes_a_connection());
    alice.report(false, 1);
    thread::sleep(SECOND / 2);

    assert!(alice.is_alive());
}
