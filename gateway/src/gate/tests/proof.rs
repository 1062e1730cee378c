//! A proof: what renews it, and what its end and /lock do.

use super::*;

#[test]
fn what_passed_before_a_restart_is_held_without_lapsing_and_goes_on_first() {
    let mut bench = Bench::new(SecondFactor::Optional);
    let held = arrival(1, HOME, "running", true);
    bench.gate.arrived(held, false, bench.now, &mut bench.out);
    bench.says(2, "new");
    bench.standing(Standing::CodeNeeded);
    let (place, version, text) = bench.asks().pop().unwrap();
    assert!(
        text.contains("1. new") && text.contains("1. running"),
        "{text}"
    );
    let posted = bench.posted(0);
    bench.gate.shown(place, version, posted);
    bench.pass_time(QUESTION);
    bench.tick();
    assert_eq!(bench.over(), [2]);
    let (_, _, text) = bench.asks().pop().unwrap();
    assert!(text.contains("An answer waits"), "{text}");
    bench.code(9);
    bench.verdict(9, granted(1));
    assert_eq!(bench.admitted(), [1]);
}

#[test]
fn what_is_at_work_when_the_proof_ends_is_asked_about() {
    let mut bench = Bench::new(SecondFactor::Optional);
    bench.code(9);
    bench.verdict(9, granted(1));
    bench.gate.refused(Refusal::SecondFactor, &mut bench.out);
    assert!(matches!(bench.out.last(), Some(Effect::Shut)));
    assert_eq!(bench.gate.pass(), Pass::Shut);
    let work = vec![(chat(HOME), "the work".to_owned())];
    bench.gate.hold(work, &mut bench.out);
    let (_, _, text) = bench.asks().pop().unwrap();
    assert!(
        text.starts_with("An answer waits: send your code"),
        "{text}"
    );
    assert!(text.contains("the work"), "{text}");
}

#[test]
fn an_answer_that_was_asked_for_with_another_grant_says_nothing() {
    let mut bench = Bench::new(SecondFactor::Optional);
    bench.code(9);
    bench.pass_time(Duration::from_millis(1));
    bench.says(1, "hello");
    bench.verdict(9, granted(1));
    // To the question that was asked without it.
    bench.standing(Standing::CodeNeeded);
    assert!(bench.gate.is_open());
    assert!(bench.asks().is_empty());
    assert!(matches!(
        bench.out.last(),
        Some(Effect::AskStanding { grant: Some(held), renew: true }) if *held == grant(1)
    ));
    bench.standing(Standing::Proven { until: 99_999 });
    assert_eq!(bench.admitted(), [1]);
}

#[test]
fn while_something_runs_the_grant_is_renewed_and_otherwise_not() {
    let mut bench = Bench::new(SecondFactor::Optional);
    bench.code(9);
    bench.verdict(9, granted(1));
    let every = Duration::from_secs(60);
    assert_eq!(bench.gate.due(true), Some(bench.now.at + every));
    assert_eq!(bench.gate.due(false), Some(bench.now.at + IDLE));
    bench.pass_time(every);
    bench.gate.tick(true, bench.now, &mut bench.out);
    assert!(matches!(
        bench.out.last(),
        Some(Effect::AskStanding { renew: true, .. })
    ));
    bench.standing(Standing::CodeNeeded);
    assert!(!bench.gate.is_open());
}

/// How often authd was asked how the user stands, and how often with a renewal.
fn asked(bench: &Bench) -> (usize, usize) {
    let asks = |wanted: &[bool]| {
        let is_one =
            |e: &&Effect| matches!(e, Effect::AskStanding { renew, .. } if wanted.contains(renew));
        bench.out.iter().filter(is_one).count()
    };
    (asks(&[true, false]), asks(&[true]))
}

#[test]
fn only_a_message_renews_the_grant_also_one_that_comes_while_something_else_is_asked() {
    let mut bench = Bench::new(SecondFactor::Optional);
    bench.code(9);
    bench.verdict(9, granted(1));
    let proven = Standing::Proven { until: 99_999 };
    let query = CallbackQueryId("1".to_owned());
    bench.gate.pressed(query, bench.now, &mut bench.out);
    bench.standing(proven);
    bench
        .gate
        .entry(SecondFactor::Required, bench.now, &mut bench.out);
    assert_eq!(asked(&bench), (2, 0));
    bench.says(1, "hello");
    bench.standing(proven);
    bench.standing(proven);
    // The answer to the question of before was one to the message, too.
    assert_eq!(bench.admitted(), [1]);
    assert_eq!(asked(&bench).1, 1);
    bench.standing(proven);
    let before = asked(&bench);
    bench.says(2, "and");
    assert_eq!(asked(&bench), (before.0 + 1, before.1 + 1));
}

#[test]
fn the_idle_end_is_noticed_although_nothing_comes() {
    let mut bench = Bench::new(SecondFactor::Optional);
    bench.code(9);
    bench.verdict(9, granted(1));
    bench.pass_time(IDLE);
    bench.tick();
    assert!(matches!(
        bench.out.last(),
        Some(Effect::AskStanding { renew: false, .. })
    ));
    // authd's clock began a little later.
    bench.standing(Standing::Proven { until: 99_999 });
    assert_eq!(bench.gate.due(false), Some(bench.now.at + AGAIN));
    bench.pass_time(AGAIN);
    bench.tick();
    bench.standing(Standing::CodeNeeded);
    assert!(!bench.gate.is_open());
    assert!(matches!(bench.out.last(), Some(Effect::Shut)));
}

#[test]
fn lock_ends_what_waits_for_authd_too() {
    let mut bench = Bench::new(SecondFactor::Optional);
    bench.code(9);
    bench.verdict(9, granted(1));
    bench.says(1, "a");
    bench
        .gate
        .lock(id(8), chat(HOME), bench.now, &mut bench.out);
    assert_eq!(bench.over(), [1]);
    bench.standing(Standing::Proven { until: 99_999 });
    bench.standing(Standing::CodeNeeded);
    assert!(bench.asks().is_empty() && bench.admitted().is_empty());
}

#[test]
fn what_an_earlier_proof_let_through_goes_on_and_does_not_begin() {
    for (standing, resumes) in [(Standing::NotEnrolled, false), (Standing::CodeNeeded, true)] {
        let mut bench = Bench::new(SecondFactor::Optional);
        let held = arrival(1, HOME, "a", true);
        bench.gate.arrived(held, false, bench.now, &mut bench.out);
        bench.standing(standing);
        if resumes {
            bench.code(9);
            bench.verdict(9, granted(1));
        }
        let resume = bench.out.iter().find_map(|effect| match effect {
            Effect::Admit { resume, .. } => Some(*resume),
            _ => None,
        });
        assert_eq!(resume, Some(resumes));
    }
}

#[test]
fn lock_takes_everything_back_and_is_confirmed_by_authd() {
    let mut bench = Bench::new(SecondFactor::Optional);
    bench.parks(1, "a");
    bench
        .gate
        .lock(id(8), chat(HOME), bench.now, &mut bench.out);
    assert_eq!(bench.over(), [1]);
    assert_eq!(bench.said(words::QUESTION_LOCKED), 1);
    let told = |effect: &&Effect| matches!(effect, Effect::Lock);
    assert_eq!(bench.out.iter().filter(told).count(), 1);
    // authd does not answer, could not be told, and then does it.
    bench.pass_time(PATIENCE);
    bench.tick();
    assert_eq!(bench.said(words::LOCKED_SOON), 1);
    bench.gate.locked(false, bench.now, &mut bench.out);
    bench.pass_time(AGAIN);
    bench.tick();
    assert_eq!(bench.out.iter().filter(told).count(), 2);
    bench.gate.locked(true, bench.now, &mut bench.out);
    assert_eq!(bench.over(), [1, 8]);
    assert_eq!(bench.said(words::LOCKED), 1);
}

#[test]
fn lock_without_a_second_factor_says_that_there_is_nothing_to_lock() {
    for rule in [SecondFactor::Optional, SecondFactor::Required] {
        let mut bench = Bench::new(rule);
        bench
            .gate
            .lock(id(8), chat(HOME), bench.now, &mut bench.out);
        bench.standing(Standing::NotEnrolled);
        assert_eq!(bench.said(words::NOTHING_TO_LOCK), 1);
        assert!(!bench.out.iter().any(|e| matches!(e, Effect::Lock)));
    }
}
