//! What becomes of workers while authd is away, and when it is back.

use std::{thread, time::Instant};

use kai_proto::broker_authd::{Request, Standing};

use super::{
    SECOND,
    played::checked,
    stage::{ALICE, BOB, PROVEN, Stage, eventually, grant},
};

#[test]
fn authd_that_is_away_ends_who_lives_by_a_proof_and_nobody_else() {
    let mut stage = Stage::new();
    let alice = stage.worker(ALICE, Some(grant(1)), PROVEN);
    let bob = stage.worker(BOB, None, Standing::NotEnrolled);
    let mut running = stage.run();
    let authd = running.authd();

    running.without_authd();
    let left = Instant::now();
    drop(authd);
    thread::sleep(SECOND);
    assert!(alice.is_alive() && alice.is_attached());
    alice.wait_for_the_end();
    let took = left.elapsed();

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

    let began = Instant::now();
    let _silent = running.authd();
    alice.wait_for_the_end();
    let took = began.elapsed();

    assert!(took >= 2 * SECOND && took < 3 * SECOND, "{took:?}");
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
