//! Who is attached, and who is refused.

use std::time::Instant;

use kai_proto::{
    broker_authd::{GrantEnd, Request, Standing},
    gateway_broker::Refusal,
};

use super::{
    SECOND,
    played::{checked, ended},
    stage::{ALICE, BOB, PROVEN, Stage, eventually, grant},
};

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
