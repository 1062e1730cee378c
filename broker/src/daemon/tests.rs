//! Attaches and workers under authd's word, with everybody but the broker played.

mod stage;

use std::{
    thread,
    time::{Duration, Instant},
};

use kai_proto::{
    broker_authd::{GrantEnd, Request, Standing},
    gateway_broker::Refusal,
};

use stage::{ALICE, BOB, PROVEN, Stage, checked, ended, eventually, grant};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn authd_is_asked_about_whom_the_gateway_names_with_what_it_presents() {
    let running = Stage::new().run();
    let mut authd = running.authd();

    // A grant of bob's, for alice: it is authd that knows whose it is.
    let mut gateway = running.attach(ALICE, Some(grant(0xb0)));
    authd.asked(ALICE, Some(grant(0xb0)));
    authd.answer(ALICE, Standing::CodeNeeded);

    assert_eq!(gateway.refused(), Refusal::SecondFactor);
    assert!(gateway.is_over());
    let line = &running.lines("attach.refused")[0];
    assert_eq!(line["user"], "alice");
    assert_eq!(line["telegram_id"], ALICE);
    assert_eq!(line["why"], "second_factor");
}

#[test]
fn every_standing_but_the_two_is_refused_with_its_reason() {
    let running = Stage::new().run();
    let mut authd = running.authd();
    for (id, standing, refusal, word) in [
        (
            ALICE,
            Standing::NotEnrolled,
            Refusal::NotEnrolled,
            "not_enrolled",
        ),
        (
            BOB,
            Standing::CodeNeeded,
            Refusal::SecondFactor,
            "second_factor",
        ),
        (
            BOB,
            Standing::Changed,
            Refusal::EnrolmentChanged,
            "enrolment_changed",
        ),
        (
            BOB,
            Standing::Unavailable,
            Refusal::AuthdUnavailable,
            "authd_unavailable",
        ),
    ] {
        let mut gateway = running.attach(id, None);
        authd.asked(id, None);
        authd.answer(id, standing);

        assert_eq!(gateway.refused(), refusal);
        let lines = running.lines("attach.refused");
        assert_eq!(lines.last().unwrap()["why"], word);
    }
    assert!(running.lines("attach.allowed").is_empty());
}

#[test]
fn what_may_be_attached_is_handed_over_after_its_line_is_written() {
    let mut stage = Stage::new();
    let worker = stage.worker(ALICE, Some(grant(1)), PROVEN);
    let running = stage.run();
    let mut authd = running.authd();
    authd.asked(ALICE, Some(grant(1)));
    authd.answer(ALICE, PROVEN);

    let _gateway = running.attach(ALICE, Some(grant(2)));
    authd.asked(ALICE, Some(grant(2)));
    authd.answer(ALICE, PROVEN);

    eventually("nothing is handed over", || worker.takes_a_connection());
    let line = &running.lines("attach.allowed")[0];
    assert_eq!(line["second_factor"], "proven");
    assert_eq!(line["pid"], worker.pid.as_raw());
    assert!(!worker.is_attached(), "the attach before ends");
}

#[test]
fn answers_are_matched_in_their_order_with_ends_between_them() {
    let mut stage = Stage::new();
    let alice = stage.worker(ALICE, Some(grant(1)), PROVEN);
    let bob = stage.worker(BOB, None, Standing::NotEnrolled);
    let running = stage.run();
    let mut authd = running.authd();
    for _ in 0..2 {
        let Request::Check { user, .. } = authd.next() else {
            panic!("not a question");
        };
        let standing = if i64::from(user.id) == ALICE {
            PROVEN
        } else {
            Standing::NotEnrolled
        };
        authd.answer(user.id.into(), standing);
    }

    let mut for_alice = running.attach(ALICE, Some(grant(1)));
    authd.asked(ALICE, Some(grant(1)));
    let _for_bob = running.attach(BOB, None);
    authd.asked(BOB, None);
    authd.say(&[
        checked(ALICE, PROVEN),
        ended(ALICE, GrantEnd::Locked),
        checked(BOB, Standing::NotEnrolled),
    ]);

    eventually("bob is not attached", || bob.takes_a_connection());
    assert!(alice.wait_for_the_end() < SECOND);
    assert_eq!(
        for_alice.refused(),
        Refusal::SecondFactor,
        "what was answered before the end is void after it"
    );
    assert_eq!(running.why_ended(alice.pid), "locked_by_user");
}

#[test]
fn authd_that_says_nothing_for_two_seconds_refuses_every_attach() {
    let running = Stage::new().run();
    let mut authd = running.authd();
    let asked = Instant::now();

    let mut alice = running.attach(ALICE, Some(grant(1)));
    let mut bob = running.attach(BOB, None);
    authd.asked(ALICE, Some(grant(1)));
    authd.asked(BOB, None);

    assert_eq!(alice.refused(), Refusal::AuthdUnavailable);
    assert_eq!(bob.refused(), Refusal::AuthdUnavailable);
    let took = asked.elapsed();
    assert!(took >= 2 * SECOND && took < 3 * SECOND, "{took:?}");
    assert_eq!(running.lines("attach.refused").len(), 2);
}

#[test]
fn authd_that_is_away_ends_who_lives_by_a_proof_and_nobody_else() {
    let mut stage = Stage::new();
    let alice = stage.worker(ALICE, Some(grant(1)), PROVEN);
    let bob = stage.worker(BOB, None, Standing::NotEnrolled);
    let mut running = stage.run();
    let authd = running.authd();

    running.without_authd();
    drop(authd);
    thread::sleep(SECOND);
    assert!(alice.is_alive() && alice.is_attached());
    let took = SECOND + alice.wait_for_the_end();

    assert!(took >= 2 * SECOND && took < 3 * SECOND, "{took:?}");
    assert!(!alice.is_attached());
    assert_eq!(running.why_ended(alice.pid), "authd_away");
    assert!(bob.is_alive() && bob.is_attached());
}

#[test]
fn authd_that_is_there_and_silent_ends_who_lives_by_a_proof_and_nobody_else() {
    let mut stage = Stage::new();
    let alice = stage.worker(ALICE, Some(grant(1)), PROVEN);
    let bob = stage.worker(BOB, None, Standing::NotEnrolled);
    let running = stage.run();

    let _silent = running.authd();
    let took = alice.wait_for_the_end();

    assert!(
        took >= 2 * SECOND - SECOND / 10 && took < 3 * SECOND,
        "{took:?}"
    );
    assert_eq!(running.why_ended(alice.pid), "authd_away");
    assert!(bob.is_alive() && bob.is_attached());
}

#[test]
fn authd_that_comes_back_is_asked_about_every_worker() {
    let mut stage = Stage::new();
    let alice = stage.worker(ALICE, Some(grant(1)), PROVEN);
    let bob = stage.worker(BOB, None, Standing::NotEnrolled);
    let running = stage.run();
    let mut authd = running.authd();
    let questions = [authd.next(), authd.next()];
    drop(authd);

    let mut authd = running.authd();
    let again = [authd.next(), authd.next()];
    for question in &again {
        assert!(questions.contains(question), "{question:?}");
        let Request::Check { user, grant: shown } = question else {
            panic!("not a question");
        };
        // A restarted authd has forgotten all grants, and knows who is enrolled.
        let standing = if i64::from(user.id) == ALICE {
            assert_eq!(*shown, Some(grant(1)));
            Standing::CodeNeeded
        } else {
            Standing::NotEnrolled
        };
        authd.answer(user.id.into(), standing);
    }

    assert!(alice.wait_for_the_end() < SECOND);
    assert!(!alice.is_attached());
    assert_eq!(running.why_ended(alice.pid), "grant_unknown");
    assert!(bob.is_alive() && bob.is_attached());
}

#[test]
fn whoever_was_enrolled_meanwhile_is_ended_when_authd_comes_back() {
    let mut stage = Stage::new();
    let bob = stage.worker(BOB, None, Standing::NotEnrolled);
    let running = stage.run();
    let mut authd = running.authd();

    authd.asked(BOB, None);
    authd.answer(BOB, Standing::CodeNeeded);

    assert!(bob.wait_for_the_end() < SECOND);
}

#[test]
fn an_answer_about_an_older_grant_does_not_end_who_was_attached_with_a_new_one() {
    let mut stage = Stage::new();
    let alice = stage.worker(ALICE, Some(grant(1)), PROVEN);
    let running = stage.run();
    let mut authd = running.authd();
    authd.asked(ALICE, Some(grant(1)));
    let _gateway = running.attach(ALICE, Some(grant(2)));
    authd.asked(ALICE, Some(grant(2)));
    drop(authd);

    let mut authd = running.authd();
    authd.asked(ALICE, Some(grant(2)));
    authd.asked(ALICE, Some(grant(1)));
    authd.say(&[checked(ALICE, PROVEN), checked(ALICE, Standing::CodeNeeded)]);

    eventually("nothing is handed over", || alice.takes_a_connection());
    thread::sleep(SECOND / 2);
    assert!(alice.is_alive());
}

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

#[test]
fn without_its_audit_log_nobody_is_attached_and_ends_go_on() {
    let mut stage = Stage::new().without_audit();
    let alice = stage.worker(ALICE, Some(grant(1)), PROVEN);
    let bob = stage.worker(BOB, None, Standing::NotEnrolled);
    let running = stage.run();
    let mut authd = running.authd();
    authd.next();
    authd.next();
    authd.say(&[ended(ALICE, GrantEnd::Locked)]);
    assert!(alice.wait_for_the_end() < SECOND);
    drop(authd);

    let mut authd = running.authd();
    authd.asked(BOB, None);
    authd.answer(BOB, Standing::NotEnrolled);
    let mut gateway = running.attach(BOB, None);
    authd.asked(BOB, None);
    authd.answer(BOB, Standing::NotEnrolled);

    assert_eq!(gateway.refused(), Refusal::LaunchFailed);
    assert!(!bob.takes_a_connection());
    assert!(bob.is_alive() && bob.is_attached());
}

#[test]
fn a_gateway_that_attaches_without_end_fills_no_log() {
    let running = Stage::new().run();
    let _authd = running.authd();

    let refusals: Vec<Refusal> = (0..100)
        .map(|_| running.attach(6666, None).refused())
        .collect();

    assert_eq!(refusals[0], Refusal::UnknownUser);
    assert_eq!(refusals[99], Refusal::TooManyConnections);
    let lines = running.lines("attach.refused").len();
    assert!(lines <= 20, "{lines}");
}

#[test]
fn the_end_of_a_proof_does_not_wait_behind_a_flood_of_attaches() {
    let mut stage = Stage::new();
    let alice = stage.worker(ALICE, Some(grant(1)), PROVEN);
    let running = stage.run();
    let mut authd = running.authd();
    authd.asked(ALICE, Some(grant(1)));
    authd.answer(ALICE, PROVEN);

    let mut flood: Vec<_> = (0..100)
        .map(|_| running.attach(ALICE, Some(grant(1))))
        .collect();
    let mut replies = vec![checked(ALICE, PROVEN); flood.len()];
    replies.push(ended(ALICE, GrantEnd::Locked));
    for _ in 0..flood.len() {
        authd.asked(ALICE, Some(grant(1)));
    }
    authd.say(&replies);

    assert!(alice.wait_for_the_end() < SECOND);
    assert!(
        !alice.takes_a_connection(),
        "not one was handed over after the end"
    );
    for gateway in &mut flood {
        assert_eq!(gateway.refused(), Refusal::SecondFactor);
    }
}
