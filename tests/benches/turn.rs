//! How long a whole turn takes, from the update written to the poller to the final text in the chat,
//! beside a bare program that does the same hops; fails where a bound of the README is not held.
//!
//! Kai and the bare program are measured alternately, so that a slow moment of the machine hits both.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bare;

use std::{
    env, thread,
    time::{Duration, Instant},
};

use kai_emulators::bot_api::{BotApi, BotApiOptions, Message, UserId};
use kai_playground::ground::{Ground, Names, Options, Person, programs};

/// The prompt at which the embedded agent answers at once, and the end of what it answers.
const PROMPT: &str = "bench";
const END: &str = "and the rest.";
/// At the median, a turn through kai takes at most so many times the bare program's.
const BOUND: f64 = 3.0;
/// The first words of a long answer are in the chat so soon after the prompt.
const FIRST_WORDS: Duration = Duration::from_millis(20);
/// Turns of each user that are counted.
const TURNS: usize = 30;
/// Time between two turns of a user: kai edits a message at most once a second in one chat, as
/// Telegram asks, and the bare program does not care.
const PAUSE: Duration = Duration::from_millis(1100);

fn main() {
    // `cargo test --benches` runs this too, with an argument that cargo bench does not give.
    if !env::args().any(|argument| argument == "--bench") {
        return;
    }
    if !kai_tests::is_root() {
        return;
    }
    programs::build_if_run_by_cargo().unwrap();
    let users: Vec<UserId> = (0..10).map(|n| UserId(2001 + n)).collect();
    let kai_telegram = telegram(&users);
    let bare_telegram = telegram(&users);
    let ground = kai(&kai_telegram, &users);
    let home = tempfile::tempdir().unwrap();
    start_bare(&bare_telegram, home.path());

    let mut held = true;
    for count in [1, 10] {
        let some = &users[..count];
        // Starts the workers and agents, which no figure counts.
        turn(&kai_telegram, some);
        turn(&bare_telegram, some);
        let mut figures: [Vec<Duration>; 2] = [Vec::new(), Vec::new()];
        for _ in 0..TURNS {
            thread::sleep(PAUSE);
            figures[0].extend(turn(&kai_telegram, some));
            figures[1].extend(turn(&bare_telegram, some));
        }
        let ratio = median(&figures[0]).as_secs_f64() / median(&figures[1]).as_secs_f64();
        println!(
            "turn, {count:>2} at once: kai {:.3} ms, bare {:.3} ms at the median: {ratio:.2} times \
             (at most {BOUND})",
            milliseconds(median(&figures[0])),
            milliseconds(median(&figures[1])),
        );
        held &= ratio <= BOUND;
    }

    let first: Vec<Duration> = (0..5)
        .map(|_| first_words(&kai_telegram, users[0]))
        .collect();
    println!(
        "first words of an answer of two seconds: {:.2} ms after the prompt at the median \
         (at most {} ms)",
        milliseconds(median(&first)),
        FIRST_WORDS.as_millis()
    );
    held &= median(&first) <= FIRST_WORDS;
    drop(ground);
    assert!(held, "a bound was not held");
}

fn telegram(users: &[UserId]) -> BotApi {
    let telegram = BotApi::start(BotApiOptions::default()).unwrap();
    for user in users {
        telegram.add_user(*user, "Somebody", None);
    }
    telegram
}

fn kai(telegram: &BotApi, users: &[UserId]) -> Ground {
    let people = users
        .iter()
        .map(|user| Person::new(&format!("u{}", user.0), user.0))
        .collect();
    let options = Options::new(Names::Unique, people, &telegram.url(), telegram.token());
    let ground = Ground::new(&options).unwrap();
    ground.start().unwrap();
    ground
}

fn start_bare(telegram: &BotApi, home: &std::path::Path) {
    let address = telegram.url().trim_start_matches("http://").to_owned();
    let token = telegram.token().to_owned();
    let agent = programs::Programs::locate().unwrap().path("kai-play-agent");
    let home = home.to_owned();
    thread::spawn(move || bare::serve(address, token, &agent, &home));
}

/// Lets every user have a turn, all at the same moment, and gives how long each took.
fn turn(telegram: &BotApi, users: &[UserId]) -> Vec<Duration> {
    let sent: Vec<_> = users
        .iter()
        .map(|user| {
            let now = Instant::now();
            let sent = telegram
                .send_text(*user, user.private_chat(), PROMPT)
                .unwrap();
            (*user, sent.message, now)
        })
        .collect();
    let patience = Duration::from_secs(20);
    let took = sent.into_iter().map(|(user, asked, began)| {
        let chat = user.private_chat();
        let whole = |message: &Message| message.text().ends_with(END);
        let answer = telegram
            .wait_for_answer(chat, asked, patience, whole)
            .unwrap();
        answer.now().at.duration_since(began)
    });
    let took = took.collect();
    telegram.forget_calls();
    took
}

fn first_words(telegram: &BotApi, user: UserId) -> Duration {
    let chat = user.private_chat();
    let began = Instant::now();
    let asked = telegram
        .send_text(user, chat, "slow 2 alpha beta gamma omega")
        .unwrap()
        .message;
    let patience = Duration::from_secs(20);
    let whole = telegram
        .wait_for_answer(chat, asked, patience, |message| {
            message.text().contains("omega")
        })
        .unwrap();
    whole.first().at.duration_since(began)
}

fn median(figures: &[Duration]) -> Duration {
    let mut sorted = figures.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
