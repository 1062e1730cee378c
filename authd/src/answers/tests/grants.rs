//! Grants: for whom they stand, and how they end.

use super::{super::*, stage::*};

#[test]
fn a_right_code_gives_a_grant_that_stands_for_its_user_alone() {
    let mut bench = Bench::new();
    let (alice, bob) = (bench.enrol("alice", 1), bench.enrol("bob", 2));
    let code = bench.right(&alice);

    let verdict = bench.verify(&alice.user, code);

    let until = bench.wall + 12 * HOUR;
    let grant = match verdict {
        Verdict::Granted {
            grant,
            until: told,
            recovery_left: None,
        } => {
            assert_eq!(told, until);
            grant
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(bench.events(), ["code.accepted", "grant.made"]);
    for _ in 0..2 {
        let proven = Standing::Proven { until };
        assert_eq!(bench.standing(&alice.user, Some(&grant)), proven);
        assert_eq!(bench.check(&alice.user, Some(&grant)), proven);
    }
    let forged = Grant::from_random([1; 32]);
    for (who, grant) in [
        (&alice.user, None),
        (&alice.user, Some(&forged)),
        (&bob.user, Some(&grant)),
    ] {
        assert_eq!(bench.check(who, grant), Standing::CodeNeeded);
        assert_eq!(bench.standing(who, grant), Standing::CodeNeeded);
    }
    let changed = user("alice", 9);
    assert_eq!(bench.check(&changed, Some(&grant)), Standing::Changed);
}

#[test]
fn a_grant_ends_when_it_is_idle_and_a_message_puts_that_off_and_a_check_does_not() {
    let mut bench = Bench::new();
    let alice = bench.enrol("alice", 1);
    let code = bench.right(&alice);
    let grant = granted(bench.verify(&alice.user, code));
    let proven = |standing| matches!(standing, Standing::Proven { .. });
    for _ in 0..3 {
        bench.pass(29 * MINUTE);
        assert!(proven(bench.check(&alice.user, Some(&grant))));
        assert!(proven(bench.standing(&alice.user, Some(&grant))));
    }
    bench.pass(29 * MINUTE);
    assert!(proven(bench.check(&alice.user, Some(&grant))));
    // Nor does a question of the gateway that is about no message.
    assert!(proven(bench.asked(&alice.user, Some(&grant), false)));
    bench.pass(MINUTE);
    assert_eq!(
        bench.standing(&alice.user, Some(&grant)),
        Standing::CodeNeeded
    );
    assert_eq!(bench.ended(), [(1, GrantEnd::Idle)]);
    assert_eq!(bench.events()[2..], ["grant.ended"]);
}

#[test]
fn a_grant_ends_after_twelve_hours_in_any_case() {
    let mut bench = Bench::new();
    let alice = bench.enrol("alice", 1);
    let code = bench.right(&alice);
    let grant = granted(bench.verify(&alice.user, code));
    for _ in 0..12 * 3 - 1 {
        bench.pass(20 * MINUTE);
        let standing = bench.standing(&alice.user, Some(&grant));
        assert!(matches!(standing, Standing::Proven { .. }));
    }
    bench.pass(20 * MINUTE - 1);
    assert!(matches!(
        bench.standing(&alice.user, Some(&grant)),
        Standing::Proven { .. }
    ));
    bench.pass(1);
    assert_eq!(bench.authority.next_end(), Some(bench.now().boot));
    let now = bench.now();
    bench.authority.expire(now);
    assert_eq!(bench.ended(), [(1, GrantEnd::Absolute)]);
    assert_eq!(bench.check(&alice.user, Some(&grant)), Standing::CodeNeeded);
    assert_eq!(bench.authority.next_end(), None);
}

#[test]
fn no_clock_that_is_set_stretches_or_ends_a_grant() {
    let mut bench = Bench::new();
    let alice = bench.enrol("alice", 1);
    let code = bench.right(&alice);
    let grant = granted(bench.verify(&alice.user, code));
    for wall in [0, bench.wall - HOUR, bench.wall + 1000 * HOUR] {
        bench.wall = wall;
        let standing = bench.check(&alice.user, Some(&grant));
        let until = wall + 12 * HOUR;
        assert_eq!(standing, Standing::Proven { until });
    }
    bench.wall = 0;
    bench.boot += 30 * MINUTE;
    assert_eq!(bench.check(&alice.user, Some(&grant)), Standing::CodeNeeded);
}

#[test]
fn a_second_right_code_replaces_the_grant_and_the_broker_is_told() {
    let mut bench = Bench::new();
    let alice = bench.enrol("alice", 1);
    let code = bench.right(&alice);
    let first = granted(bench.verify(&alice.user, code));
    bench.pass(30);
    let code = bench.right(&alice);
    bench.events();

    let second = granted(bench.verify(&alice.user, code));

    assert_eq!(bench.check(&alice.user, Some(&first)), Standing::CodeNeeded);
    assert!(matches!(
        bench.check(&alice.user, Some(&second)),
        Standing::Proven { .. }
    ));
    assert_eq!(bench.ended(), [(1, GrantEnd::Replaced)]);
    assert_eq!(
        bench.events(),
        ["code.accepted", "grant.ended", "grant.made"]
    );
}

#[test]
fn a_daemon_that_stops_says_of_each_grant_that_it_ended() {
    let mut bench = Bench::new();
    for (name, id) in [("alice", 1), ("bob", 2)] {
        let member = bench.enrol(name, id);
        let code = bench.right(&member);
        granted(bench.verify(&member.user, code));
    }
    bench.events();
    let (now, lines) = (bench.now(), bench.lines.clone());

    drop(bench.authority.into_parts(now));

    let written = lines.0.borrow().written.clone();
    assert_eq!(written.len(), 2);
    for line in written {
        assert!(
            line.contains("grant.ended") && line.contains("stopped"),
            "{line}"
        );
    }
}

#[test]
fn lock_ends_the_grant_whoever_holds_it() {
    let mut bench = Bench::new();
    let (alice, bob) = (bench.enrol("alice", 1), bench.enrol("bob", 2));
    let [grant, of_bob] = [&alice, &bob].map(|member| {
        let code = bench.right(member);
        granted(bench.verify(&member.user, code))
    });

    bench.lock(&alice.user);
    bench.lock(&alice.user);
    bench.lock(&user("nobody", 99));

    assert_eq!(bench.ended(), [(1, GrantEnd::Locked)]);
    assert_eq!(
        bench.standing(&alice.user, Some(&grant)),
        Standing::CodeNeeded
    );
    assert!(matches!(
        bench.standing(&bob.user, Some(&of_bob)),
        Standing::Proven { .. }
    ));
}

#[test]
fn somebody_elses_wrong_codes_do_not_touch_a_user_who_has_proved_it() {
    let mut bench = Bench::new();
    let alice = bench.enrol("alice", 1);
    let code = bench.right(&alice);
    let grant = granted(bench.verify(&alice.user, code));
    let wrong = bench.wrong(&alice);
    for _ in 0..3 {
        bench.verify(&alice.user, wrong.clone());
    }
    assert!(matches!(
        bench.standing(&alice.user, None),
        Standing::Locked { .. }
    ));
    for standing in [
        bench.standing(&alice.user, Some(&grant)),
        bench.check(&alice.user, Some(&grant)),
    ] {
        assert!(matches!(standing, Standing::Proven { .. }));
    }
}

#[test]
fn lock_is_told_also_when_the_grant_has_ended_by_itself() {
    let mut bench = Bench::new();
    let alice = bench.enrol("alice", 1);
    let code = bench.right(&alice);
    granted(bench.verify(&alice.user, code));
    bench.pass(HOUR);
    let now = bench.now();
    bench.authority.expire(now);
    assert_eq!(bench.ended(), [(1, GrantEnd::Idle)]);

    bench.lock(&alice.user);
    bench.lock(&user("nobody", 99));

    assert_eq!(bench.ended(), [(1, GrantEnd::Locked)]);
}
