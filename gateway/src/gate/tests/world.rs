//! The gate against everything that can happen, in any order.

use std::collections::{HashMap, HashSet, VecDeque};

use proptest::prelude::*;

use super::*;

/// How long a question must have stood.
const READING: Duration = Duration::from_secs(3);

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
        slow: bool,
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
        4 => (prop::bool::weighted(0.8), prop::bool::weighted(0.2))
            .prop_map(|(right, slow)| Happens::Code { right, slow }),
        3 => (0..6_usize).prop_map(|which| Happens::Edit { which }),
        1 => Just(Happens::Lock),
        12 => any::<u8>().prop_map(|what| Happens::Answer { what }),
        5 => Just(Happens::Shown),
        5 => (0..6_u8).prop_map(|presence| Happens::Looked { presence }),
        1 => Just(Happens::Ends),
        1 => Just(Happens::Refused),
        2 => prop_oneof![0..6_u16, 0..150_u16].prop_map(|seconds| Happens::Time { seconds }),
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
    shown: HashMap<PromptId, u64>,
    at_code: HashMap<PromptId, HashSet<PromptId>>,
    covered: HashSet<PromptId>,
    /// What had come when each code did, and what had when a right one did and no earlier proof let through.
    came_before: HashMap<PromptId, HashSet<PromptId>>,
    unproven: HashSet<PromptId>,
    there: HashSet<PromptId>,
    edited: HashSet<PromptId>,
    texts: HashMap<ChatId, (u64, String)>,
    unshown: Vec<(ChatId, u64, String)>,
    looks: VecDeque<Vec<PromptId>>,
}

impl World {
    fn new(free: bool) -> Self {
        Self {
            bench: Bench::with_reading(SecondFactor::Optional, READING),
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
            shown: HashMap::new(),
            at_code: HashMap::new(),
            covered: HashSet::new(),
            came_before: HashMap::new(),
            unproven: HashSet::new(),
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
            Happens::Code { right, slow } => {
                self.right.insert(id(number), right && !self.free);
                // One that took long was sent before any question that stands.
                let (seen, message) = match slow {
                    true => (HashSet::new(), 0),
                    false => {
                        let read = now.unix - READING.as_secs();
                        let seen = self.shown.iter().filter(|(_, at)| **at <= read);
                        (seen.map(|(id, _)| *id).collect(), number)
                    }
                };
                self.at_code.insert(id(number), seen);
                self.came_before.insert(id(number), self.came.clone());
                self.bench.code_in(number, message);
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
                    // Codes are sent there.
                    if place == chat(HOME) {
                        for id in self.came.iter().filter(quotes) {
                            self.shown.entry(*id).or_insert(now.unix);
                        }
                    }
                    let posted = self.bench.posted(i32::try_from(number).unwrap());
                    self.bench.gate.shown(place, version, posted);
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
                        let before = self.came_before[&code].difference(&self.over);
                        self.unproven.extend(before.copied().collect::<Vec<_>>());
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
                Effect::AskStanding { grant, .. } => {
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
                Effect::Admit {
                    arrival,
                    mark,
                    resume,
                } => {
                    let locks = effects.iter().any(|e| matches!(e, Effect::Interrupt));
                    assert_eq!(resume, !self.free && arrival.message.cleared);
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
                        .push_back(messages.into_iter().map(|sought| sought.id).collect());
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
        if (self.quoted.contains(&id) || self.unproven.contains(&id)) && !self.cleared.contains(&id)
        {
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
