//! The gate against a table of what authd may say, step by step.

mod world;

use std::time::{Duration, Instant};

use kai_proto::{
    code::Code,
    gateway_authd::{Standing, Verdict},
    gateway_broker::{Refusal, SecondFactor},
    grant::Grant,
    ids::{ChatId, PromptId, TelegramId},
};
use teloxide::types::CallbackQueryId;

use super::*;
use crate::{
    inbox::{Received, Unanswered},
    telegram::Posted,
    wording,
};

const QUESTION: Duration = Duration::from_secs(120);
const IDLE: Duration = Duration::from_secs(1800);

fn id(number: i64) -> PromptId {
    PromptId::try_from(number).unwrap()
}

fn chat(number: i64) -> ChatId {
    ChatId::try_from(number).unwrap()
}

const HOME: i64 = 7;
const GROUP: i64 = -5;

/// A message whose number in its chat is that of its update.
fn arrival(number: i64, place: i64, text: &str, cleared: bool) -> Arrival {
    Arrival {
        message: Unanswered {
            received: Received {
                id: id(number),
                user: TelegramId::try_from(HOME).unwrap(),
                chat: chat(place),
                message: i32::try_from(number).unwrap(),
                text: Some(text.to_owned()),
                at: 0,
            },
            parts: Vec::new(),
            cleared,
        },
        replayed: cleared,
        like_a_code: Code::parse(text).is_some(),
        in_topic: false,
    }
}

fn grant(number: u8) -> Grant {
    Grant::from_random([number; 32])
}

fn granted(number: u8) -> Result<Verdict, NoVerdict> {
    Ok(Verdict::Granted {
        grant: grant(number),
        until: 100_000,
        recovery_left: None,
    })
}

/// A gate with a clock, and what it wanted so far.
struct Bench {
    gate: Gate,
    now: Now,
    out: Vec<Effect>,
}

impl Bench {
    fn new(rule: SecondFactor) -> Self {
        Self::with_reading(rule, Duration::ZERO)
    }

    fn with_reading(rule: SecondFactor, reading: Duration) -> Self {
        let times = Times {
            idle: IDLE,
            question: QUESTION,
            reading,
        };
        Self {
            gate: Gate::new(times, rule),
            now: Now {
                at: Instant::now(),
                unix: 10_000,
            },
            out: Vec::new(),
        }
    }

    fn pass_time(&mut self, time: Duration) {
        self.now.at += time;
        self.now.unix += time.as_secs();
    }

    fn says(&mut self, number: i64, text: &str) {
        let arrival = arrival(number, HOME, text, false);
        self.gate.arrived(arrival, false, self.now, &mut self.out);
    }

    fn standing(&mut self, standing: Standing) {
        self.gate.standing(standing, self.now, &mut self.out);
    }

    /// A message, and authd's word that a code is needed; its question is shown.
    fn parks(&mut self, number: i64, text: &str) {
        self.says(number, text);
        self.standing(Standing::CodeNeeded);
        for (place, version, _) in self.asks() {
            self.gate.shown(place, version, self.posted(0));
        }
    }

    /// A message of the bot's that was posted now.
    fn posted(&self, message: i32) -> Posted {
        let at = self.now.unix;
        Posted { message, at }
    }

    fn code(&mut self, number: i64) {
        self.code_in(number, number);
    }

    /// A code that came with the update `number`, in the message of this number.
    fn code_in(&mut self, number: i64, message: i64) {
        let presented = Presented {
            id: id(number),
            chat: chat(HOME),
            message: i32::try_from(message).unwrap(),
            in_topic: false,
            sent: self.now.unix,
            code: Code::parse("314159").unwrap(),
            reading: Reading::Wanted,
            asked_with: None,
        };
        self.gate.code(presented, self.now, &mut self.out);
    }

    fn verdict(&mut self, number: i64, verdict: Result<Verdict, NoVerdict>) {
        self.gate
            .verdict(id(number), verdict, self.now, &mut self.out);
    }

    /// What was asked to be looked at is there.
    fn looks(&mut self, presence: Presence) {
        let asked: Vec<_> = self
            .out
            .iter()
            .rev()
            .find_map(|effect| match effect {
                Effect::Look { messages, .. } => Some(messages.clone()),
                _ => None,
            })
            .into_iter()
            .flatten()
            .map(|sought| (sought.id, presence))
            .collect();
        self.gate.looked(&asked, self.now, &mut self.out);
    }

    fn tick(&mut self) {
        self.gate.tick(false, self.now, &mut self.out);
    }

    fn asks(&self) -> Vec<(ChatId, u64, String)> {
        self.out
            .iter()
            .filter_map(|effect| match effect {
                Effect::Ask {
                    chat,
                    version,
                    text,
                    ..
                } => Some((*chat, *version, text.text.clone())),
                _ => None,
            })
            .collect()
    }

    /// The numbers of what was let through.
    fn admitted(&self) -> Vec<i64> {
        let admitted = self.out.iter().filter_map(|effect| match effect {
            Effect::Admit { arrival, .. } => Some(i64::from(arrival.id())),
            _ => None,
        });
        admitted.collect()
    }

    /// The numbers of what was answered or settled.
    fn over(&self) -> Vec<i64> {
        let over = self.out.iter().filter_map(|effect| match effect {
            Effect::Settle(id)
            | Effect::Say {
                answers: Some(id), ..
            } => Some(i64::from(*id)),
            _ => None,
        });
        over.collect()
    }

    fn said(&self, words: &str) -> usize {
        let said = self.out.iter().filter(|effect| match effect {
            Effect::Say { words: said, .. } => said.contains(words),
            Effect::Close { text, .. } => text.text.contains(words),
            _ => false,
        });
        said.count()
    }

    fn verifies(&self) -> usize {
        let verifies = |effect: &&Effect| matches!(effect, Effect::Verify(..));
        self.out.iter().filter(verifies).count()
    }
}

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
