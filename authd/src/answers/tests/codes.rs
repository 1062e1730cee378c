//! Codes: what is right, what a wrong one costs, and what no clock, restart or failure changes about it.

use super::{super::*, stage::*};

#[test]
fn wrong_used_and_expired_codes_get_the_same_word_and_all_are_charged() {
    let mut bench = Bench::new();
    let alice = bench.enrol("alice", 1);
    let right = bench.right(&alice);
    granted(bench.verify(&alice.user, right.clone()));
    bench.events();
    let old = alice.code(bench.step() - 2);
    for (charged, code) in [(1, right), (2, old)] {
        assert_eq!(bench.verify(&alice.user, code), Verdict::Refused);
        assert_eq!(bench.row(&alice).enrolled.counts.failures, charged);
    }
    assert_eq!(bench.events(), ["code.refused", "code.refused"]);
    // A right one takes the charges back.
    let next = alice.code(bench.step() + 1);
    granted(bench.verify(&alice.user, next));
    assert_eq!(bench.row(&alice).enrolled.counts.failures, 0);
}

#[test]
fn of_two_at_once_with_the_same_code_one_wins() {
    let mut bench = Bench::new();
    let alice = bench.enrol("alice", 1);
    let code = bench.right(&alice);
    let verdicts: Vec<Verdict> = (0..2)
        .map(|_| bench.verify(&alice.user, code.clone()))
        .collect();
    assert!(matches!(verdicts[0], Verdict::Granted { .. }));
    assert_eq!(verdicts[1], Verdict::Refused);
}

#[test]
fn no_earlier_code_is_taken_after_a_later_one() {
    let mut bench = Bench::new();
    let alice = bench.enrol("alice", 1);
    let (before, after) = (bench.right(&alice), alice.code(bench.step() + 1));
    granted(bench.verify(&alice.user, after));
    assert_eq!(bench.verify(&alice.user, before), Verdict::Refused);
}

#[test]
fn three_failures_lock_and_what_comes_meanwhile_is_neither_looked_at_nor_charged() {
    let mut bench = Bench::new();
    let alice = bench.enrol("alice", 1);
    let wrong = bench.wrong(&alice);
    let until = bench.wall + 15 * MINUTE + 1;
    for verdict in [
        Verdict::Refused,
        Verdict::Refused,
        Verdict::Locked { until },
    ] {
        assert_eq!(bench.verify(&alice.user, wrong.clone()), verdict);
    }
    let lines = [
        "code.refused",
        "code.refused",
        "code.refused",
        "code.locked",
    ];
    assert_eq!(bench.events(), lines);
    for code in [bench.right(&alice), wrong.clone()] {
        for _ in 0..100 {
            let verdict = bench.verify(&alice.user, code.clone());
            assert_eq!(verdict, Verdict::Locked { until });
        }
    }
    assert_eq!(bench.events(), [""; 0]);
    let counts = bench.row(&alice).enrolled.counts;
    assert_eq!((counts.failures, counts.lockouts), (0, 1));
    assert_eq!(
        bench.standing(&alice.user, None),
        Standing::Locked { until }
    );
    assert_eq!(bench.check(&alice.user, None), Standing::Locked { until });

    // Its end by boottime, and a second one twice as long.
    bench.pass(15 * MINUTE - 1);
    let verdict = bench.verify(&alice.user, wrong.clone());
    assert_eq!(verdict, Verdict::Locked { until });
    bench.pass(1);
    for _ in 0..2 {
        assert_eq!(bench.verify(&alice.user, wrong.clone()), Verdict::Refused);
    }
    let until = bench.wall + 30 * MINUTE + 1;
    let verdict = bench.verify(&alice.user, wrong);
    assert_eq!(verdict, Verdict::Locked { until });

    // A right code sets everything back.
    bench.pass(30 * MINUTE);
    let code = bench.right(&alice);
    granted(bench.verify(&alice.user, code));
    let row = bench.row(&alice).enrolled;
    assert_eq!((row.counts, row.lockout), (Default::default(), None));
}

#[test]
fn a_clock_that_is_set_neither_shortens_a_lockout_nor_revives_a_code() {
    let mut bench = Bench::new();
    let alice = bench.enrol("alice", 1);
    let used = bench.right(&alice);
    granted(bench.verify(&alice.user, used.clone()));
    let used_at = bench.wall;
    let wrong = bench.wrong(&alice);
    for _ in 0..3 {
        bench.verify(&alice.user, wrong.clone());
    }
    for wall in [used_at + 1000 * HOUR, used_at - HOUR, 0] {
        bench.wall = wall;
        assert!(matches!(
            bench.verify(&alice.user, wrong.clone()),
            Verdict::Locked { .. }
        ));
    }
    bench.boot += 15 * MINUTE;
    bench.wall = used_at;
    assert_eq!(bench.verify(&alice.user, used), Verdict::Refused);

    // One that nobody sent while it was good.
    bench.pass(HOUR);
    bench.unlock("alice");
    let unsent = alice.code(bench.step());
    bench.wall += 2 * MINUTE;
    assert_eq!(bench.standing(&alice.user, None), Standing::CodeNeeded);
    bench.wall -= 2 * MINUTE;
    // An admin sees why, before anybody has tried.
    let listed = bench.admin(admin_authd::Request::Enrolments);
    let is_ahead = |e: &admin_authd::Enrolment| e.ahead_of_clock;
    assert!(matches!(&listed, admin_authd::Reply::Enrolment(e) if is_ahead(e)));
    assert_eq!(bench.verify(&alice.user, unsent), Verdict::Refused);

    // One that was sent when it was over already, and so never accepted.
    bench.pass(HOUR);
    bench.unlock("alice");
    let over = alice.code(bench.step());
    bench.wall += 2 * MINUTE;
    assert_eq!(bench.verify(&alice.user, over.clone()), Verdict::Refused);
    bench.wall -= 2 * MINUTE;
    assert_eq!(bench.verify(&alice.user, over.clone()), Verdict::Refused);
    assert_eq!(bench.unlock("alice"), admin_authd::Reply::Done);
    // To an admin who says so it is the clock that is right.
    granted(bench.verify(&alice.user, over));

    // A code of a time that has not come was accepted: everything up to it counts as used.
    let ahead = used_at + 10 * HOUR;
    bench.wall = ahead;
    let code = bench.right(&alice);
    granted(bench.verify(&alice.user, code));
    bench.wall = used_at + MINUTE;
    let code = bench.right(&alice);
    assert_eq!(bench.verify(&alice.user, code), Verdict::Refused);
    let listed = match bench.admin(admin_authd::Request::Enrolments) {
        admin_authd::Reply::Enrolment(enrolment) => enrolment,
        other => panic!("{other:?}"),
    };
    assert!(listed.ahead_of_clock);
}

#[test]
fn after_a_restart_counts_and_codes_are_as_before_and_no_grant_stands() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("authd");
    let mut bench = Bench::over(Store::create(&directory).unwrap());
    let (alice, bob) = (bench.enrol("alice", 1), bench.enrol("bob", 2));
    let code = bench.right(&alice);
    let grant = granted(bench.verify(&alice.user, code.clone()));
    let wrong = bench.wrong(&bob);
    for _ in 0..3 {
        bench.verify(&bob.user, wrong.clone());
    }
    let (wall, until) = (bench.wall, bench.wall + 15 * MINUTE + 1);
    drop(bench);

    let mut store = Store::open(&directory).unwrap();
    let mut bench = Bench::over(Store::in_memory().unwrap());
    (bench.wall, bench.boot) = (wall + MINUTE, 5);
    store.anchor_lockouts(bench.now()).unwrap();
    bench.authority.store = store;

    assert_eq!(bench.check(&alice.user, Some(&grant)), Standing::CodeNeeded);
    assert_eq!(bench.verify(&alice.user, code), Verdict::Refused);
    assert_eq!(bench.standing(&bob.user, None), Standing::Locked { until });
    bench.pass(14 * MINUTE + 1);
    assert_eq!(bench.standing(&bob.user, None), Standing::CodeNeeded);
}

#[test]
fn the_ceiling_delays_the_rest_and_not_the_first_attempt_of_another() {
    let mut bench = Bench::new();
    let members: Vec<Member> = (1..=9)
        .map(|id| bench.enrol(&format!("user{id}"), id))
        .collect();
    let mut later = 0;
    for member in &members[..8] {
        let wrong = bench.wrong(member);
        for _ in 0..3 {
            if let Verdict::Later { after_ms } = bench.verify(&member.user, wrong.clone()) {
                assert_eq!(after_ms, 1000);
                later += 1;
            }
        }
    }
    // Of 24, 8 are first ones and 10 are let pass.
    assert_eq!(later, 6);
    let uncounted: u32 = members[..8]
        .iter()
        .map(|member| {
            let counts = bench.row(member).enrolled.counts;
            3 - counts.failures - 3 * counts.lockouts
        })
        .sum();
    assert_eq!(uncounted, 6);
    let ninth = &members[8];
    let code = bench.right(ninth);
    granted(bench.verify(&ninth.user, code));
}

#[test]
fn a_recovery_code_is_taken_once_and_charged_like_others() {
    let mut bench = Bench::new();
    let (alice, bob) = (bench.enrol("alice", 1), bench.enrol("bob", 2));
    let of = |member: &Member, at: usize| Code::Recovery(member.recovery[at].clone());
    assert_eq!(bench.verify(&alice.user, of(&bob, 0)), Verdict::Refused);
    assert_eq!(bench.row(&alice).enrolled.counts.failures, 1);

    let verdict = bench.verify(&alice.user, of(&alice, 0));

    assert!(matches!(
        verdict,
        Verdict::Granted {
            recovery_left: Some(9),
            ..
        }
    ));
    assert_eq!(bench.row(&alice).enrolled.counts.failures, 0);
    assert_eq!(bench.verify(&alice.user, of(&alice, 0)), Verdict::Refused);
    assert_eq!(bench.row(&alice).recovery_left, 9);
    assert_eq!(bench.row(&bob).recovery_left, 10);
    let lines = [
        "code.refused",
        "recovery.accepted",
        "grant.made",
        "code.refused",
    ];
    assert_eq!(bench.events(), lines);
}

#[test]
fn without_its_line_in_the_audit_log_no_code_is_decided() {
    let mut bench = Bench::new();
    let alice = bench.enrol("alice", 1);
    let (right, wrong) = (bench.right(&alice), bench.wrong(&alice));
    let before = bench.row(&alice);
    for code in [&wrong, &right, &wrong] {
        bench.room(Some(0));
        let verdict = bench.verify(&alice.user, code.clone());
        assert_eq!(verdict, Verdict::Unavailable);
        assert_eq!(bench.row(&alice), before);
        assert_eq!(bench.authority.next_end(), None, "there is a grant");
    }
    // Room for what the compared one cost, and not for a grant.
    bench.room(Some(1));
    assert_eq!(
        bench.verify(&alice.user, right.clone()),
        Verdict::Unavailable
    );
    assert_eq!(bench.row(&alice).enrolled.counts.failures, 1);
    bench.room(None);
    granted(bench.verify(&alice.user, right));
}

#[test]
fn a_log_that_takes_nothing_gives_no_free_guesses() {
    let mut bench = Bench::new();
    let alice = bench.enrol("alice", 1);
    let (right, wrong) = (bench.right(&alice), bench.wrong(&alice));
    for counted in 1..=2 {
        bench.room(Some(0));
        for _ in 0..5 {
            bench.boot += 2;
            let verdict = bench.verify(&alice.user, wrong.clone());
            assert_eq!(verdict, Verdict::Unavailable);
        }
        // The one that was compared is counted before the next one is.
        bench.room(Some(1));
        assert_eq!(
            bench.verify(&alice.user, wrong.clone()),
            Verdict::Unavailable
        );
        assert_eq!(bench.row(&alice).enrolled.counts.failures, counted);
    }
    // The third locks, and what comes with it is not looked at.
    bench.room(None);
    let verdict = bench.verify(&alice.user, right);
    assert!(matches!(verdict, Verdict::Locked { .. }), "{verdict:?}");
}
