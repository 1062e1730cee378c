//! The gate against a table of what authd may say, step by step.

mod codes;
mod proof;
mod waiting;
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
