//! Enrolments: how they take effect, give way and end.

use super::{super::*, stage::*};

#[test]
fn without_its_line_in_the_audit_log_no_enrolment_changes_and_every_grant_ends_all_the_same() {
    let mut bench = Bench::new();
    let alice = bench.enrol("alice", 1);
    let code = bench.right(&alice);
    let grant = granted(bench.verify(&alice.user, code));
    let secret = bench.begin(&alice.user, true).unwrap();
    let before = bench.row(&alice);
    bench.room(Some(0));

    let unavailable = admin_authd::Reply::NotDone(NotDone::Unavailable);
    assert_eq!(bench.remove("alice"), unavailable);
    assert_eq!(bench.unlock("alice"), unavailable);
    let confirming = digits(&secret, bench.step());
    assert_eq!(bench.confirm(confirming.clone()), Err(NotDone::Unavailable));
    assert_eq!(bench.row(&alice), before);
    assert_eq!(
        bench.begin(&user("bob", 2), false),
        Err(NotDone::Unavailable)
    );
    assert!(matches!(
        bench.check(&alice.user, Some(&grant)),
        Standing::Proven { .. }
    ));
    bench.lock(&alice.user);
    assert_eq!(bench.check(&alice.user, Some(&grant)), Standing::CodeNeeded);
    assert_eq!(bench.ended(), [(1, GrantEnd::Locked)]);
}

#[test]
fn an_enrolment_takes_effect_with_a_code_of_its_own_and_not_before() {
    let mut bench = Bench::new();
    let alice = user("alice", 1);
    assert_eq!(
        bench.confirm(digits(&[1; 20], 5)),
        Err(NotDone::NothingToConfirm)
    );
    let secret = bench.begin(&alice, false).unwrap();
    assert_eq!(bench.standing(&alice, None), Standing::NotEnrolled);
    let other = digits(&[1; 20], bench.step());
    assert_eq!(bench.confirm(other), Err(NotDone::WrongCode));
    assert_eq!(bench.standing(&alice, None), Standing::NotEnrolled);
    let code = digits(&secret, bench.step());

    let recovery = bench.confirm(code.clone()).unwrap();

    assert_eq!(recovery.len(), 10);
    let events = [
        "enrolment.began",
        "enrolment.refused",
        "enrolment.confirmed",
    ];
    assert_eq!(bench.events(), events);
    assert_eq!(bench.ended(), [(1, GrantEnd::Enrolment)]);
    let confirmed = Code::Totp(code.clone());
    assert_eq!(bench.verify(&alice, confirmed), Verdict::Refused);
    assert_eq!(bench.confirm(code), Err(NotDone::NothingToConfirm));
}

#[test]
fn five_wrong_codes_end_an_enrolment() {
    let mut bench = Bench::new();
    let secret = bench.begin(&user("alice", 1), false).unwrap();
    let other = digits(&[1; 20], bench.step());
    for _ in 0..5 {
        assert_eq!(bench.confirm(other.clone()), Err(NotDone::WrongCode));
    }
    let code = digits(&secret, bench.step());
    assert_eq!(bench.confirm(code), Err(NotDone::NothingToConfirm));
    let events = bench.events();
    assert_eq!(events[0], "enrolment.began");
    assert_eq!(events[1..], ["enrolment.refused"; 5]);
}

#[test]
fn an_enrolment_needs_name_and_id_free_or_replaces_both() {
    let mut bench = Bench::new();
    let (alice, bob) = (bench.enrol("alice", 1), bench.enrol("bob", 2));
    let code = bench.right(&alice);
    let grant = granted(bench.verify(&alice.user, code));
    for taken in [user("alice", 1), user("alice", 9), user("carol", 1)] {
        assert_eq!(bench.begin(&taken, false), Err(NotDone::EnrolledAlready));
    }

    // The name of one and the id of the other: both give way, when it is confirmed and not before.
    let both = user("alice", 2);
    let secret = bench.begin(&both, true).unwrap();
    assert!(matches!(
        bench.check(&alice.user, Some(&grant)),
        Standing::Proven { .. }
    ));
    bench.events();
    let code = digits(&secret, bench.step());
    bench.confirm(code).unwrap();

    for gone in [&alice.user, &bob.user] {
        assert_eq!(bench.check(gone, Some(&grant)), Standing::Changed);
    }
    assert_eq!(bench.check(&both, None), Standing::CodeNeeded);
    let removed = "enrolment.removed";
    let lines = [removed, removed, "enrolment.confirmed", "grant.ended"];
    assert_eq!(bench.events(), lines);
    let end = GrantEnd::Enrolment;
    let mut ended = bench.ended();
    ended.sort_by_key(|(id, _)| *id);
    assert_eq!(ended, [(1, end), (2, end)]);
    assert_eq!(bench.authority.store.list().unwrap().len(), 1);
}

#[test]
fn an_enrolment_that_somebody_else_made_meanwhile_is_not_replaced_unasked() {
    let mut bench = Bench::new();
    let alice = user("alice", 1);
    let secret = bench.begin(&alice, false).unwrap();
    let mut other = std::mem::take(&mut bench.session);
    let first = bench.enrol("alice", 1);

    std::mem::swap(&mut bench.session, &mut other);
    let code = digits(&secret, bench.step());
    assert_eq!(bench.confirm(code), Err(NotDone::EnrolledAlready));
    let code = bench.right(&first);
    granted(bench.verify(&alice, code));
}

#[test]
fn a_secret_that_was_not_confirmed_is_gone_with_its_connection() {
    let mut bench = Bench::new();
    let secret = bench.begin(&user("alice", 1), false).unwrap();
    bench.session = Session::default();
    let code = digits(&secret, bench.step());
    assert_eq!(bench.confirm(code), Err(NotDone::NothingToConfirm));
}

#[test]
fn a_removal_takes_the_grant_with_it() {
    let mut bench = Bench::new();
    let alice = bench.enrol("alice", 1);
    let code = bench.right(&alice);
    let grant = granted(bench.verify(&alice.user, code));
    bench.events();

    assert_eq!(bench.remove("alice"), admin_authd::Reply::Done);

    assert_eq!(bench.events(), ["enrolment.removed", "grant.ended"]);
    assert_eq!(bench.ended(), [(1, GrantEnd::Enrolment)]);
    assert_eq!(
        bench.check(&alice.user, Some(&grant)),
        Standing::NotEnrolled
    );
    let not = admin_authd::Reply::NotDone(NotDone::NotEnrolled);
    assert_eq!(bench.remove("alice"), not);
    assert_eq!(bench.unlock("alice"), not);
}

#[test]
fn unlock_takes_codes_again_and_counts_from_nothing() {
    let mut bench = Bench::new();
    let alice = bench.enrol("alice", 1);
    let wrong = bench.wrong(&alice);
    for _ in 0..3 {
        bench.verify(&alice.user, wrong.clone());
    }
    bench.events();

    assert_eq!(bench.unlock("alice"), admin_authd::Reply::Done);

    assert_eq!(bench.events(), ["enrolment.unlocked"]);
    let row = bench.row(&alice).enrolled;
    assert_eq!((row.counts, row.lockout), (Default::default(), None));
    let code = bench.right(&alice);
    granted(bench.verify(&alice.user, code));
}

#[test]
fn everybody_is_listed_as_they_stand() {
    let mut bench = Bench::new();
    let (bob, alice) = (bench.enrol("bob", 2), bench.enrol("alice", 1));
    let code = bench.right(&alice);
    granted(bench.verify(&alice.user, code));
    let wrong = bench.wrong(&bob);
    for _ in 0..3 {
        bench.verify(&bob.user, wrong.clone());
    }
    let now = bench.now();
    let request = admin_authd::Request::Enrolments;
    let answer =
        bench
            .authority
            .to_admin(State::Greeted, &mut bench.session, request, status(), now);

    assert_eq!(bench.events().last().unwrap(), "admin.status");
    let replies: Vec<_> = [answer.reply].into_iter().chain(answer.more).collect();
    let [
        admin_authd::Reply::Enrolment(first),
        admin_authd::Reply::Enrolment(second),
        admin_authd::Reply::EnrolmentsEnd,
    ] = &replies[..]
    else {
        panic!("{replies:?}");
    };
    assert_eq!((&first.user, &second.user), (&alice.user, &bob.user));
    assert_eq!(first.authenticated_until, Some(bench.wall + 12 * HOUR));
    assert_eq!((first.locked_until, first.recovery_left), (None, 10));
    assert_eq!(second.locked_until, Some(bench.wall + 15 * MINUTE + 1));
    assert_eq!((second.authenticated_until, second.failures), (None, 0));
    assert!(!first.ahead_of_clock && !second.ahead_of_clock);
}
