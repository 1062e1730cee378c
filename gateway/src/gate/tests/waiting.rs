//! Messages: which pass, which wait, and which of these run once there is a proof.

use super::*;

#[test]
fn what_passes_is_what_authd_says() {
    use SecondFactor::{Optional, Required};
    let until = 99_999;
    for (rule, standing, passes) in [
        (Optional, Standing::NotEnrolled, true),
        (Required, Standing::NotEnrolled, false),
        (Optional, Standing::Changed, false),
        (Optional, Standing::CodeNeeded, false),
        (Optional, Standing::Locked { until }, false),
        (Optional, Standing::Unavailable, false),
        // No grant was held: nothing can have been proved.
        (Optional, Standing::Proven { until }, false),
        (Required, Standing::Proven { until }, false),
    ] {
        let mut bench = Bench::new(rule);
        bench.says(1, "hello");
        assert!(bench.admitted().is_empty());
        bench.standing(standing);
        let passed = !bench.admitted().is_empty();
        assert_eq!(passed, passes, "{rule:?} {standing:?}");
        assert_eq!(bench.gate.is_open(), passes);
        assert_eq!(bench.gate.pass().is_open(), passes);
    }
}

#[test]
fn nothing_passes_before_authd_has_spoken_but_what_is_free() {
    let mut bench = Bench::new(SecondFactor::Optional);
    bench.says(1, "hello");
    let query = CallbackQueryId("q".to_owned());
    bench.gate.pressed(query, bench.now, &mut bench.out);
    bench
        .gate
        .lock(id(2), chat(HOME), bench.now, &mut bench.out);
    assert!(matches!(
        bench.out[..],
        [Effect::AskStanding { grant: None, .. }]
    ));
    let free = arrival(3, HOME, "/help", false);
    bench.gate.arrived(free, true, bench.now, &mut bench.out);
    assert_eq!(bench.admitted(), [3]);
}

#[test]
fn one_question_to_authd_is_open_at_a_time_and_its_answer_holds_for_all() {
    let mut bench = Bench::new(SecondFactor::Optional);
    for number in 1..4 {
        bench.says(number, "hello");
    }
    assert_eq!(bench.out.len(), 1);
    bench.standing(Standing::NotEnrolled);
    assert_eq!(bench.admitted(), [1, 2, 3]);
}

#[test]
fn five_messages_wait_and_are_quoted_and_the_sixth_is_not_kept() {
    let mut bench = Bench::new(SecondFactor::Optional);
    for number in 1..=6 {
        bench.says(number, &format!("message {number}"));
    }
    bench.standing(Standing::CodeNeeded);
    let asks = bench.asks();
    assert_eq!(asks.len(), 1, "one question for all");
    for number in 1..=5 {
        let line = format!("{number}. message {number}");
        assert!(asks[0].2.contains(&line), "{}", asks[0].2);
    }
    assert!(!asks[0].2.contains("message 6"));
    assert_eq!(bench.over(), [6]);
    assert_eq!(bench.said(words::NOT_KEPT), 1);
}

#[test]
fn what_cannot_be_quoted_whole_is_not_kept() {
    let mut bench = Bench::new(SecondFactor::Optional);
    bench.parks(1, &"x".repeat(QUOTED - 10));
    bench.parks(2, "eleven letters");
    bench.parks(3, "short");
    assert_eq!(bench.over(), [2]);
    assert_eq!(bench.said(words::TOO_LONG), 1);
}

#[test]
fn a_right_code_sends_on_what_was_shown_in_its_order_and_nothing_else() {
    let mut bench = Bench::new(SecondFactor::Optional);
    bench.parks(1, "a");
    bench.parks(2, "b");
    // This one's question is not in the chat yet when the code comes.
    bench.says(3, "from a thief");
    bench.standing(Standing::CodeNeeded);
    bench.code(9);
    bench.verdict(9, granted(1));
    assert!(bench.admitted().is_empty(), "before it was looked at");
    bench.looks(Presence::There);
    assert_eq!(bench.admitted(), [1, 2]);
    assert_eq!(bench.over(), [3]);
    assert_eq!(bench.said("did not come below the question"), 1);
    assert_eq!(bench.said("Thank you"), 0, "it takes the question's place");
    assert_eq!(bench.gate.pass(), Pass::Proven(grant(1)));
}

#[test]
fn a_code_lets_run_what_stood_above_it_in_its_own_chat_alone() {
    let mut bench = Bench::new(SecondFactor::Optional);
    bench.parks(1, "a");
    // By somebody else with the same account, in a chat that the owner does not look at.
    let elsewhere = arrival(2, GROUP, "from a thief", false);
    bench
        .gate
        .arrived(elsewhere, false, bench.now, &mut bench.out);
    bench.standing(Standing::CodeNeeded);
    // And here, after the owner typed the code, whose way here was longer than the question's there.
    bench.says(3, "also from a thief");
    bench.standing(Standing::CodeNeeded);
    for (place, version, _) in bench.asks() {
        let posted = bench.posted(if i64::from(place) < 0 { 5 } else { 12 });
        bench.gate.shown(place, version, posted);
    }
    bench.code(9);
    bench.verdict(9, granted(1));
    bench.looks(Presence::There);
    assert_eq!(bench.admitted(), [1]);
    assert_eq!(bench.over(), [2, 3]);
}

#[test]
fn what_comes_while_the_parked_are_looked_at_goes_after_them() {
    let mut bench = Bench::new(SecondFactor::Optional);
    bench.parks(1, "a");
    bench.code(9);
    bench.verdict(9, granted(1));
    bench.says(2, "b");
    bench.standing(Standing::Proven { until: 99_999 });
    assert!(bench.admitted().is_empty());
    bench.looks(Presence::There);
    bench.standing(Standing::Proven { until: 99_999 });
    assert_eq!(bench.admitted(), [1, 2]);
}

#[test]
fn what_is_gone_or_cannot_be_seen_does_not_run_and_is_said() {
    for (presence, words) in [
        (Presence::Deleted, words::DELETED),
        (Presence::Unquoted, words::UNQUOTED),
        (Presence::Unknown, words::UNSEEN),
    ] {
        let mut bench = Bench::new(SecondFactor::Optional);
        bench.parks(1, "a");
        bench.code(9);
        bench.verdict(9, granted(1));
        bench.looks(presence);
        assert!(bench.admitted().is_empty());
        assert_eq!(bench.over(), [1]);
        assert_eq!(bench.said(words), 1);
    }
}

#[test]
fn an_edit_voids_at_every_stage_before_the_hand_over() {
    let edit = |bench: &mut Bench| bench.gate.edited(chat(HOME), 1, &mut bench.out);
    // Before authd has spoken.
    let mut bench = Bench::new(SecondFactor::Optional);
    bench.says(1, "a");
    assert!(edit(&mut bench));
    bench.standing(Standing::CodeNeeded);
    assert_eq!(bench.over(), [1]);
    assert_eq!(bench.said(words::EDITED), 1);
    // While it waits for the code: the question is edited to say so, and then over.
    let mut bench = Bench::new(SecondFactor::Optional);
    bench.parks(1, "a");
    assert!(edit(&mut bench));
    assert_eq!(bench.over(), [1]);
    assert_eq!(bench.said(words::EDITED), 1);
    bench.code(9);
    bench.verdict(9, granted(1));
    assert!(bench.admitted().is_empty());
    // While it is looked at.
    let mut bench = Bench::new(SecondFactor::Optional);
    bench.parks(1, "a");
    bench.code(9);
    bench.verdict(9, granted(1));
    assert!(edit(&mut bench));
    bench.looks(Presence::There);
    assert!(bench.admitted().is_empty());
    assert_eq!(bench.over(), [1]);
    assert_eq!(bench.said(words::EDITED), 1);
}

#[test]
fn one_edited_of_several_leaves_the_others_in_the_question() {
    let mut bench = Bench::new(SecondFactor::Optional);
    bench.parks(1, "first");
    bench.parks(2, "second");
    bench.gate.edited(chat(HOME), 1, &mut bench.out);
    let (_, _, text) = bench.asks().pop().unwrap();
    assert!(text.starts_with(words::EDITED), "{text}");
    assert!(
        text.contains("1. second") && !text.contains("first"),
        "{text}"
    );
}

#[test]
fn parked_messages_lapse_with_the_question() {
    let mut bench = Bench::new(SecondFactor::Optional);
    bench.parks(1, "a");
    assert_eq!(bench.gate.due(false), Some(bench.now.at + QUESTION));
    bench.pass_time(QUESTION);
    bench.tick();
    assert_eq!(bench.over(), [1]);
    assert_eq!(bench.said(words::LAPSED), 1);
    assert_eq!(bench.gate.due(false), None);
    bench.code(9);
    bench.verdict(9, granted(1));
    assert!(bench.admitted().is_empty());
}

#[test]
fn a_message_that_waits_cannot_be_kept_alive_for_ever() {
    let mut bench = Bench::new(SecondFactor::Optional);
    let start = bench.now.at;
    bench.parks(1, "a");
    let mut number = 1;
    while !bench.over().contains(&1) {
        number += 1;
        bench.pass_time(QUESTION / 2);
        bench.tick();
        bench.parks(number, "b");
        let message = i32::try_from(number).unwrap();
        bench.gate.edited(chat(HOME), message, &mut bench.out);
        assert!(number < 100);
    }
    assert!(bench.now.at <= start + QUESTION * 6);
}

#[test]
fn a_code_runs_only_what_its_question_has_shown_for_long_enough_to_be_read() {
    let reading = Duration::from_secs(3);
    let mut bench = Bench::with_reading(SecondFactor::Optional, reading);
    bench.parks(1, "mine");
    bench.pass_time(Duration::from_secs(20));
    // While the owner types the code somebody else sends something.
    bench.parks(2, "from a thief");
    bench.pass_time(reading - Duration::from_secs(1));
    bench.code(9);
    bench.verdict(9, granted(1));
    bench.looks(Presence::There);
    assert_eq!(bench.admitted(), [1]);
    assert_eq!(bench.over(), [2]);
    assert_eq!(bench.said(words::TOO_LATE), 1);
}

#[test]
fn what_waits_for_authd_when_a_code_comes_does_not_run_by_it() {
    let mut bench = Bench::new(SecondFactor::Optional);
    bench.says(1, "from a thief");
    bench.standing(Standing::Unavailable);
    bench.says(2, "271828");
    bench.pass_time(Duration::from_millis(1));
    bench.code(9);
    bench.pass_time(Duration::from_millis(1));
    bench.says(3, "after the code");
    bench.verdict(9, granted(1));
    assert_eq!(bench.over(), [1]);
    let told =
        |e: &Effect| matches!(e, Effect::Say { words, .. } if words.contains("from a thief"));
    assert!(bench.out.iter().any(told));
    let spelt = |e: &Effect| matches!(e, Effect::Say { words, .. } if words.contains("271828"));
    assert!(!bench.out.iter().any(spelt));
    for _ in 0..3 {
        bench.pass_time(AGAIN);
        bench.tick();
        bench.standing(Standing::Proven { until: 99_999 });
    }
    assert_eq!(bench.admitted(), [3]);
}

#[test]
fn nothing_is_asked_about_in_a_topic_and_a_code_sent_there_runs_nothing() {
    let mut bench = Bench::new(SecondFactor::Optional);
    let mut in_topic = arrival(1, GROUP, "a", false);
    in_topic.in_topic = true;
    bench
        .gate
        .arrived(in_topic, false, bench.now, &mut bench.out);
    bench.standing(Standing::CodeNeeded);
    assert_eq!(bench.said(words::NOT_IN_A_TOPIC), 1);
    assert_eq!(bench.over(), [1]);
    let elsewhere = arrival(2, GROUP, "from a thief", false);
    bench
        .gate
        .arrived(elsewhere, false, bench.now, &mut bench.out);
    bench.standing(Standing::CodeNeeded);
    for (place, version, _) in bench.asks() {
        let posted = bench.posted(3);
        bench.gate.shown(place, version, posted);
    }
    let presented = Presented {
        id: id(9),
        chat: chat(GROUP),
        message: 9,
        in_topic: true,
        sent: bench.now.unix,
        code: Code::parse("314159").unwrap(),
        reading: Reading::Wanted,
        asked_with: None,
    };
    bench.gate.code(presented, bench.now, &mut bench.out);
    bench.verdict(9, granted(1));
    assert!(bench.gate.is_open());
    assert!(bench.admitted().is_empty());
}

#[test]
fn while_authd_is_away_messages_wait_and_the_user_is_told_once() {
    let mut bench = Bench::new(SecondFactor::Optional);
    bench.says(1, "a");
    bench.says(2, "b");
    assert_eq!(bench.gate.due(false), Some(bench.now.at + PATIENCE));
    for _ in 0..5 {
        bench.pass_time(PATIENCE);
        bench.tick();
    }
    assert_eq!(bench.said(wording::AUTHD_AWAY), 1);
    bench.standing(Standing::Unavailable);
    assert_eq!(bench.gate.due(false), Some(bench.now.at + AGAIN));
    bench.pass_time(AGAIN);
    bench.tick();
    bench.standing(Standing::NotEnrolled);
    assert_eq!(bench.admitted(), [1, 2]);
    assert_eq!(bench.gate.due(false), None);
}

#[test]
fn what_comes_from_a_chat_that_is_gone_is_settled_wherever_it_waits() {
    let mut bench = Bench::new(SecondFactor::Optional);
    for (number, cleared) in [(1, false), (2, true)] {
        let arrival = arrival(number, GROUP, "x", cleared);
        bench
            .gate
            .arrived(arrival, false, bench.now, &mut bench.out);
    }
    bench.standing(Standing::CodeNeeded);
    let late = arrival(3, GROUP, "x", false);
    bench.gate.arrived(late, false, bench.now, &mut bench.out);
    bench
        .gate
        .forget(|place| place == chat(HOME), &mut bench.out);
    let mut over = bench.over();
    over.sort_unstable();
    assert_eq!(over, [1, 2, 3]);
}
