//! What becomes of codes.

use super::*;

#[test]
fn wrong_codes_leave_the_question_and_a_lockout_says_until_when() {
    let mut bench = Bench::new(SecondFactor::Optional);
    bench.parks(1, "a");
    for number in 10..12 {
        bench.code(number);
        bench.verdict(number, Ok(Verdict::Refused));
    }
    assert_eq!(bench.said(words::REFUSED), 2);
    bench.code(12);
    bench.verdict(12, Ok(Verdict::Locked { until: 10_900 }));
    assert_eq!(bench.said("before 03:02 UTC, which is in 15 min"), 1);
    assert!(bench.over().is_empty(), "it lapses by its own time");
    bench.says(2, "b");
    bench.standing(Standing::Locked { until: 10_900 });
    assert_eq!(bench.over(), [2], "no code could come in time");
}

#[test]
fn a_code_whose_answer_is_lost_is_not_asked_about_again() {
    for (verdict, words) in [
        (Err(NoVerdict::Lost), words::LOST),
        (Err(NoVerdict::Away), words::UNCHECKED),
        (Ok(Verdict::Unavailable), words::UNCHECKED),
    ] {
        let mut bench = Bench::new(SecondFactor::Optional);
        bench.parks(1, "a");
        bench.code(9);
        bench.verdict(9, verdict);
        bench.pass_time(Duration::from_secs(60));
        bench.tick();
        assert_eq!(bench.verifies(), 1);
        assert_eq!(bench.said(words), 1);
    }
}

#[test]
fn a_code_that_is_put_off_is_asked_about_again_and_keeps_its_messages() {
    let mut bench = Bench::new(SecondFactor::Optional);
    bench.parks(1, "a");
    bench.pass_time(QUESTION - Duration::from_secs(1));
    bench.code(9);
    let after_ms = 3000;
    bench.verdict(9, Ok(Verdict::Later { after_ms }));
    bench.pass_time(Duration::from_secs(2));
    bench.tick();
    assert_eq!(bench.verifies(), 1);
    assert!(bench.over().is_empty(), "the code came in time");
    bench.pass_time(Duration::from_secs(1));
    bench.tick();
    assert_eq!(bench.verifies(), 2);
    bench.verdict(9, granted(1));
    bench.looks(Presence::There);
    assert_eq!(bench.admitted(), [1]);
}

#[test]
fn a_code_that_comes_first_after_a_proof_has_ended_unnoticed_is_judged() {
    let mut bench = Bench::new(SecondFactor::Optional);
    bench.parks(1, "a");
    bench.code(2);
    bench.verdict(2, granted(1));
    bench.looks(Presence::There);
    let Pass::Proven(held) = bench.gate.pass() else {
        panic!("it is proven");
    };
    // authd was asked about this grant before the code was handed on, and wants a code.
    let presented = Presented {
        id: id(3),
        chat: chat(HOME),
        message: 3,
        in_topic: false,
        sent: bench.now.unix,
        code: Code::parse("271828").unwrap(),
        reading: Reading::Wanted,
        asked_with: Some(held),
    };
    bench.gate.code(presented, bench.now, &mut bench.out);
    assert!(!bench.gate.is_open());
    bench.verdict(3, granted(2));
    assert_eq!(bench.gate.pass(), Pass::Proven(grant(2)));
}

#[test]
fn codes_are_always_deleted_and_those_that_cannot_help_are_not_asked_about() {
    for reading in [
        Reading::Unknown,
        Reading::Changed,
        Reading::Locked(20_000),
        Reading::Proven,
    ] {
        let mut bench = Bench::new(SecondFactor::Optional);
        let presented = Presented {
            id: id(1),
            chat: chat(HOME),
            message: 4,
            in_topic: false,
            sent: 0,
            code: Code::parse("kai-AAAAA-BBBBB").unwrap(),
            reading,
            asked_with: None,
        };
        bench.gate.code(presented, bench.now, &mut bench.out);
        assert_eq!(bench.verifies(), 0);
        assert!(matches!(
            bench.out[0],
            Effect::DeleteCode { message: 4, .. }
        ));
        assert_eq!(bench.out.len(), 2, "one sentence");
    }
}

#[test]
fn a_second_code_beside_the_right_one_is_dropped() {
    let mut bench = Bench::new(SecondFactor::Optional);
    bench.code(9);
    bench.code(10);
    bench.verdict(9, granted(1));
    bench.code(11);
    assert_eq!(bench.verifies(), 1);
}

#[test]
fn a_verdict_on_a_code_from_before_lock_opens_nothing() {
    let mut bench = Bench::new(SecondFactor::Optional);
    bench.parks(1, "a");
    bench.code(9);
    bench
        .gate
        .lock(id(8), chat(HOME), bench.now, &mut bench.out);
    bench.verdict(9, granted(1));
    assert_eq!(bench.gate.pass(), Pass::Shut);
    assert!(bench.admitted().is_empty());
}

#[test]
fn what_reads_like_a_code_is_never_quoted() {
    let mut bench = Bench::new(SecondFactor::Optional);
    bench.says(1, "314159");
    bench.standing(Standing::CodeNeeded);
    assert!(bench.asks().is_empty());
    let deleted = |e: &Effect| matches!(e, Effect::DeleteCode { message: 1, .. });
    assert!(bench.out.iter().any(deleted));
    let held = arrival(2, HOME, "271828", true);
    bench.gate.arrived(held, false, bench.now, &mut bench.out);
    bench.standing(Standing::CodeNeeded);
    for (_, _, text) in bench.asks() {
        assert!(!text.contains("271828"), "{text}");
    }
}
