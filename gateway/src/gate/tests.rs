//! The gate against a table of what authd may say, and against everything that can happen in any order.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use kai_proto::{
    code::Code,
    gateway_authd::{Standing, Verdict},
    gateway_broker::{Refusal, SecondFactor},
    grant::Grant,
    ids::{ChatId, PromptId, TelegramId},
};
use proptest::prelude::*;
use teloxide::types::CallbackQueryId;

use super::*;
use crate::inbox::{Received, Unanswered};

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
        let times = Times {
            idle: IDLE,
            question: QUESTION,
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
            self.gate.shown(place, version);
        }
    }

    fn code(&mut self, number: i64) {
        let presented = Presented {
            id: id(number),
            chat: chat(HOME),
            message: 1,
            code: Code::parse("314159").unwrap(),
            reading: Reading::Wanted,
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
            .map(|(id, ..)| (id, presence))
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
    assert!(matches!(bench.out[..], [Effect::AskStanding(None)]));
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
    assert_eq!(bench.said("came before I could show it"), 1);
    assert_eq!(bench.said("Thank you"), 0, "it takes the question's place");
    assert_eq!(bench.gate.pass(), Pass::Proven(grant(1)));
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
fn codes_are_always_deleted_and_those_that_cannot_help_are_not_asked_about() {
    for reading in [Reading::Unknown, Reading::Changed, Reading::Locked(20_000)] {
        let mut bench = Bench::new(SecondFactor::Optional);
        let presented = Presented {
            id: id(1),
            chat: chat(HOME),
            message: 4,
            code: Code::parse("kai-AAAAA-BBBBB").unwrap(),
            reading,
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
    bench.gate.shown(place, version);
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
    bench.says(1, "hello");
    bench.verdict(9, granted(1));
    // To the question that was asked without it.
    bench.standing(Standing::CodeNeeded);
    assert!(bench.gate.is_open());
    assert!(bench.asks().is_empty());
    assert!(matches!(
        bench.out.last(),
        Some(Effect::AskStanding(Some(held))) if *held == grant(1)
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
    assert!(bench.gate.due(false) > Some(bench.now.at + IDLE));
    bench.pass_time(every);
    bench.gate.tick(true, bench.now, &mut bench.out);
    assert!(matches!(
        bench.out.last(),
        Some(Effect::AskStanding(Some(_)))
    ));
    bench.standing(Standing::CodeNeeded);
    assert!(!bench.gate.is_open());
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
    assert_eq!(bench.over(), [1]);
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

/// Something that happens.
#[derive(Debug, Clone)]
enum Happens {
    Message {
        group: bool,
        cleared: bool,
    },
    Button,
    Code {
        right: bool,
    },
    Edit {
        which: usize,
    },
    Lock,
    /// authd answers its oldest question; for a code, if it does not put it off or lose it.
    Answer {
        what: u8,
    },
    /// Telegram shows the newest questions.
    Shown,
    /// Telegram says whether messages are there.
    Looked {
        presence: u8,
    },
    /// The proof ends at authd.
    Ends,
    /// The broker refuses an attach.
    Refused,
    Time {
        seconds: u16,
    },
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        6 => (prop::bool::weighted(0.2), prop::bool::weighted(0.1))
            .prop_map(|(group, cleared)| Happens::Message { group, cleared }),
        1 => Just(Happens::Button),
        4 => prop::bool::weighted(0.8).prop_map(|right| Happens::Code { right }),
        3 => (0..6_usize).prop_map(|which| Happens::Edit { which }),
        1 => Just(Happens::Lock),
        12 => any::<u8>().prop_map(|what| Happens::Answer { what }),
        5 => Just(Happens::Shown),
        5 => (0..6_u8).prop_map(|presence| Happens::Looked { presence }),
        1 => Just(Happens::Ends),
        1 => Just(Happens::Refused),
        2 => (0..150_u16).prop_map(|seconds| Happens::Time { seconds }),
    ]
}

/// What authd was asked and has not answered.
enum Question {
    Standing(Option<Grant>),
    Verify(PromptId),
    Lock,
}

/// A gate among an authd, a Telegram and people who do anything at any time, with the rules that hold
/// whatever they do.
struct World {
    bench: Bench,
    /// Nobody is enrolled.
    free: bool,
    next: i64,
    questions: VecDeque<Question>,
    live: Option<Grant>,
    grants: u8,
    right: HashMap<PromptId, bool>,
    /// How often each code was asked about without having been put off.
    verified: HashMap<PromptId, u32>,
    /// Messages that came, without those that were let through by an earlier run.
    came: HashSet<PromptId>,
    in_order: Vec<PromptId>,
    cleared: HashSet<PromptId>,
    over: HashSet<PromptId>,
    /// Messages that were ever quoted; whose quote Telegram has shown; which a right code covers.
    quoted: HashSet<PromptId>,
    shown: HashSet<PromptId>,
    at_code: HashMap<PromptId, HashSet<PromptId>>,
    covered: HashSet<PromptId>,
    there: HashSet<PromptId>,
    edited: HashSet<PromptId>,
    texts: HashMap<ChatId, (u64, String)>,
    unshown: Vec<(ChatId, u64, String)>,
    looks: VecDeque<Vec<PromptId>>,
}

impl World {
    fn new(free: bool) -> Self {
        Self {
            bench: Bench::new(SecondFactor::Optional),
            free,
            next: 0,
            questions: VecDeque::new(),
            live: None,
            grants: 0,
            right: HashMap::new(),
            verified: HashMap::new(),
            came: HashSet::new(),
            in_order: Vec::new(),
            cleared: HashSet::new(),
            over: HashSet::new(),
            quoted: HashSet::new(),
            shown: HashSet::new(),
            at_code: HashMap::new(),
            covered: HashSet::new(),
            there: HashSet::new(),
            edited: HashSet::new(),
            texts: HashMap::new(),
            unshown: Vec::new(),
            looks: VecDeque::new(),
        }
    }

    fn number(&mut self) -> i64 {
        self.next += 1;
        self.next
    }

    fn quote_of(number: i64) -> String {
        format!("message<{number}>")
    }

    fn step(&mut self, what: &Happens) {
        let now = self.bench.now;
        let number = self.number();
        let out = &mut self.bench.out;
        match *what {
            Happens::Message { group, cleared } => {
                let place = if group { GROUP } else { HOME };
                let arrival = arrival(number, place, &Self::quote_of(number), cleared);
                self.came.insert(id(number));
                self.in_order.push(id(number));
                if cleared {
                    self.cleared.insert(id(number));
                }
                self.bench.gate.arrived(arrival, false, now, out);
            }
            Happens::Button => {
                let query = CallbackQueryId(number.to_string());
                self.bench.gate.pressed(query, now, out);
            }
            Happens::Code { right } => {
                self.right.insert(id(number), right && !self.free);
                self.at_code.insert(id(number), self.shown.clone());
                self.bench.code(number);
            }
            Happens::Edit { which } => {
                // One of the newest.
                if let Some(message) = self.in_order.iter().rev().nth(which) {
                    self.edited.insert(*message);
                    let message = i32::try_from(i64::from(*message)).unwrap();
                    for place in [HOME, GROUP] {
                        self.bench.gate.edited(chat(place), message, out);
                    }
                }
            }
            Happens::Lock => self.bench.gate.lock(id(number), chat(HOME), now, out),
            Happens::Answer { what } => self.answer(what),
            Happens::Shown => {
                for (place, version, text) in std::mem::take(&mut self.unshown) {
                    let quotes = |id: &&PromptId| text.contains(&Self::quote_of((**id).into()));
                    self.shown.extend(self.came.iter().filter(quotes));
                    self.bench.gate.shown(place, version);
                }
            }
            Happens::Looked { presence } => {
                if let Some(messages) = self.looks.pop_front() {
                    let presence = match presence {
                        0 => Presence::Deleted,
                        1 => Presence::Unquoted,
                        2 => Presence::Unknown,
                        _ => Presence::There,
                    };
                    let seen: Vec<_> = messages.iter().map(|id| (*id, presence)).collect();
                    if presence == Presence::There {
                        self.there.extend(&messages);
                    }
                    self.bench.gate.looked(&seen, now, out);
                }
            }
            Happens::Ends => self.live = None,
            Happens::Refused if self.live.is_none() && !self.free => {
                self.bench.gate.refused(Refusal::SecondFactor, out);
            }
            Happens::Refused => {}
            Happens::Time { seconds } => {
                self.bench.pass_time(Duration::from_secs(seconds.into()));
                let now = self.bench.now;
                self.bench.gate.tick(false, now, &mut self.bench.out);
            }
        }
        self.look_at_effects();
    }

    fn answer(&mut self, what: u8) {
        let now = self.bench.now;
        match self.questions.pop_front() {
            None => {}
            Some(Question::Standing(grant)) => {
                let until = now.unix + 3600;
                let standing = match what {
                    0..20 => Standing::Unavailable,
                    _ if self.free => Standing::NotEnrolled,
                    _ if grant.is_some() && grant == self.live => Standing::Proven { until },
                    20..40 => Standing::Locked { until },
                    _ => Standing::CodeNeeded,
                };
                self.bench.standing(standing);
            }
            Some(Question::Verify(code)) => {
                let verdict = match what {
                    0..30 => Ok(Verdict::Later { after_ms: 900 }),
                    30..40 => Err(NoVerdict::Lost),
                    40..50 => Ok(Verdict::Locked {
                        until: now.unix + 900,
                    }),
                    _ if self.right[&code] => {
                        self.grants = self.grants.wrapping_add(1);
                        self.live = Some(grant(self.grants));
                        // None after /lock forgot the code.
                        self.covered.extend(&self.at_code[&code]);
                        granted(self.grants)
                    }
                    _ => Ok(Verdict::Refused),
                };
                if matches!(verdict, Ok(Verdict::Later { .. })) {
                    *self.verified.entry(code).or_default() -= 1;
                }
                self.bench.verdict(code.into(), verdict);
            }
            Some(Question::Lock) => {
                self.live = None;
                let done = what > 30;
                self.bench.gate.locked(done, now, &mut self.bench.out);
            }
        }
    }

    fn look_at_effects(&mut self) {
        let mut effects: VecDeque<Effect> = std::mem::take(&mut self.bench.out).into();
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::AskStanding(grant) => {
                    let open = |question: &&Question| matches!(question, Question::Standing(_));
                    assert_eq!(self.questions.iter().filter(open).count(), 0);
                    self.questions.push_back(Question::Standing(grant));
                }
                Effect::Verify(code, _) => {
                    let times = self.verified.entry(code).or_default();
                    *times += 1;
                    assert_eq!(*times, 1, "a code is asked about twice");
                    self.questions.push_back(Question::Verify(code));
                }
                Effect::Lock => self.questions.push_back(Question::Lock),
                Effect::Admit { arrival, mark } => {
                    let locks = effects.iter().any(|e| matches!(e, Effect::Interrupt));
                    self.admitted(&arrival, mark, locks);
                }
                Effect::Settle(id)
                | Effect::Say {
                    answers: Some(id), ..
                } => assert!(self.over.insert(id), "{id} is over twice"),
                Effect::Ask {
                    chat,
                    version,
                    text,
                    ..
                } => {
                    let shows = |id: &&PromptId| text.text.contains(&Self::quote_of((**id).into()));
                    self.quoted.extend(self.came.iter().filter(shows));
                    self.texts.insert(chat, (version, text.text.clone()));
                    self.unshown.push((chat, version, text.text));
                }
                Effect::Close { chat, .. } => drop(self.texts.remove(&chat)),
                Effect::Look {
                    messages,
                    questions,
                } => {
                    for (chat, _) in questions {
                        self.texts.remove(&chat);
                    }
                    self.looks
                        .push_back(messages.into_iter().map(|(id, ..)| id).collect());
                }
                Effect::Shut => {
                    assert!(!self.bench.gate.is_open());
                    let mut more = Vec::new();
                    self.bench.gate.hold(Vec::new(), &mut more);
                    effects.extend(more);
                }
                Effect::AnswerButton { .. }
                | Effect::DeleteCode { .. }
                | Effect::Interrupt
                | Effect::Say { answers: None, .. } => {}
            }
        }
        let waits: usize = self
            .came
            .difference(&self.cleared)
            .filter(|id| !self.over.contains(id))
            .map(|id| Self::quote_of((*id).into()))
            .map(|quote| {
                self.texts
                    .values()
                    .filter(|(_, t)| t.contains(&quote))
                    .count()
            })
            .sum();
        assert!(waits <= KEPT, "{waits} wait");
    }

    /// The rule: what came without a proof runs only if its sender could see it quoted before the right
    /// code, and it was neither edited nor deleted.
    fn admitted(&mut self, arrival: &Arrival, mark: bool, locks: bool) {
        let id = arrival.id();
        assert!(self.over.insert(id), "{id} is over twice");
        // What comes through just before a /lock is stopped by it.
        assert!(self.bench.gate.is_open() || locks);
        assert!(self.free || self.grants > 0);
        assert_eq!(mark, !self.free && !arrival.message.cleared);
        if self.quoted.contains(&id) && !self.cleared.contains(&id) {
            assert!(self.covered.contains(&id), "{id} was not shown");
            assert!(self.there.contains(&id), "{id} was not looked at");
            assert!(!self.edited.contains(&id), "{id} was edited");
        }
    }

    /// Everything is answered, and a long time passes.
    fn ends(mut self) {
        for _ in 0..50 {
            self.step(&Happens::Looked { presence: 5 });
            self.step(&Happens::Answer { what: 100 });
            self.step(&Happens::Time { seconds: 130 });
        }
        let lost: Vec<_> = self
            .came
            .iter()
            .filter(|id| !self.over.contains(id) && !self.cleared.contains(id))
            .collect();
        assert!(lost.is_empty(), "neither run nor answered: {lost:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn whatever_happens_the_rules_hold(
        free in prop::bool::weighted(0.2),
        all in prop::collection::vec(happens(), 0..150),
    ) {
        let mut world = World::new(free);
        for what in &all {
            world.step(what);
        }
        world.ends();
    }
}
