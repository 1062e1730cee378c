//! The second factor with everything real: what runs, what waits, what is held, and who is locked out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use kai_emulators::bot_api::{Message, MessageId};
use kai_playground::ground::{Daemon, Person};
use kai_tests::{ALICE, BOB, Enrolled, Kai, PATIENCE, chat, is_root};
use nix::sys::signal::Signal;

/// A kai in which alice is enrolled.
fn enrolled(second_factor: &[(&str, &str)]) -> (Kai, Enrolled) {
    let kai = Kai::start(|options| {
        let keys = second_factor.iter();
        options.second_factor = keys
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
    });
    let alice = kai.enroll("alice");
    (kai, alice)
}

/// alice writes, and is asked for a code by a question that quotes it.
fn is_asked(kai: &Kai, text: &str) -> MessageId {
    let said = kai.say(ALICE, text);
    kai.answer(ALICE, said, |message| {
        message.text().contains("Send a code") && message.text().contains(text)
    });
    said
}

/// alice sends a code, and it is taken; the question says so in its place.
fn proves(kai: &Kai, code: &str) -> MessageId {
    let thanks = || {
        let said = kai.said_to(ALICE);
        let thanks = said
            .iter()
            .filter(|message| message.text().contains("Thank you"));
        thanks.count()
    };
    let before = thanks();
    let sent = kai.say(ALICE, code);
    wait_until("the code is taken", PATIENCE, || thanks() > before);
    sent
}

/// What alice's agent said, and not kai.
fn agent_said(kai: &Kai, words: &str) -> bool {
    kai.said_to(ALICE)
        .iter()
        .any(|message| is_agents(message, words))
}

fn is_agents(message: &Message, words: &str) -> bool {
    message.text().trim() == words
}

fn message(kai: &Kai, id: MessageId) -> Message {
    let all = kai.telegram.messages(chat(ALICE));
    all.into_iter().find(|message| message.id == id).unwrap()
}

fn wait_until(what: &str, patience: Duration, mut fits: impl FnMut() -> bool) {
    let due = Instant::now() + patience;
    while !fits() {
        assert!(Instant::now() < due, "not within {patience:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn worker_pid(kai: &Kai, name: &str) -> Option<u32> {
    let status = kai.ground.status().unwrap();
    status.worker(name).map(|worker| worker.pid)
}

#[test]
fn a_right_code_sends_on_what_waited_and_leaves_the_chat() {
    if !is_root() {
        return;
    }
    let (kai, alice) = enrolled(&[]);
    let asked = is_asked(&kai, "echo it-ran");
    assert!(worker_pid(&kai, "alice").is_none());

    let code = proves(&kai, &alice.authenticator.code());

    kai.answer(ALICE, asked, |message| is_agents(message, "it-ran"));
    wait_until("the code is deleted", PATIENCE, || {
        message(&kai, code).deleted.is_some()
    });
    // And nobody is asked again, nor is anybody asked who is not enrolled.
    let said = kai.say(ALICE, "echo again");
    kai.answer(ALICE, said, |message| is_agents(message, "again"));
    kai.ask(BOB, "echo bob", "bob");
    let status = kai.ground.auth_command(&["status"]).unwrap();
    assert!(
        status.contains("alice") && !status.contains("bob"),
        "{status}"
    );
}

#[test]
fn wrong_and_used_codes_get_the_same_words_and_three_of_them_lock_one_user_alone() {
    if !is_root() {
        return;
    }
    let (kai, alice) = enrolled(&[]);
    let bob = kai.enroll("bob");
    is_asked(&kai, "echo it-ran");
    for code in [alice.authenticator.wrong(), alice.authenticator.used()] {
        let sent = kai.say(ALICE, &code);
        kai.answer(ALICE, sent, |message| {
            message.text().contains("was not accepted")
        });
    }
    let third = kai.say(ALICE, &alice.authenticator.wrong());
    let locked = kai.answer(ALICE, third, |message| {
        message.text().contains("Too many wrong codes")
    });
    assert!(locked.text().contains("UTC"), "{}", locked.text());
    // A right one is not even looked at.
    let right = alice.authenticator.code();
    let sent = kai.say(ALICE, &right);
    kai.answer(ALICE, sent, |message| {
        message.text().contains("Too many wrong codes")
    });
    assert!(!agent_said(&kai, "it-ran"));

    // bob goes on.
    let said = kai.say(BOB, "echo bob-ran");
    kai.answer(BOB, said, |message| message.text().contains("Send a code"));
    kai.say(BOB, &bob.authenticator.code());
    kai.answer(BOB, said, |message| message.text().trim() == "bob-ran");

    kai.ground.auth_command(&["unlock", "alice"]).unwrap();
    let said = kai.say(ALICE, "echo unlocked");
    kai.answer(ALICE, said, |message| {
        message.text().contains("Send a code")
    });
    proves(&kai, &right);
    kai.answer(ALICE, said, |message| is_agents(message, "unlocked"));
}

#[test]
fn who_sends_nothing_for_long_is_asked_again_and_has_no_worker() {
    if !is_root() {
        return;
    }
    let (kai, alice) = enrolled(&[("idle", "3s")]);
    is_asked(&kai, "echo first");
    proves(&kai, &alice.authenticator.code());
    wait_until("the first runs", PATIENCE, || agent_said(&kai, "first"));
    // A turn is no idleness.
    let slow = kai.say(ALICE, "slow 6 it takes a while");
    kai.answer(ALICE, slow, |message| message.text().contains("while"));
    let done = Instant::now();
    assert!(worker_pid(&kai, "alice").is_some());

    wait_until("the worker ends", Duration::from_secs(10), || {
        worker_pid(&kai, "alice").is_none()
    });

    let idle = done.elapsed();
    assert!(idle < Duration::from_secs(5), "{idle:?}");
    is_asked(&kai, "echo second");
    proves(&kai, &alice.authenticator.code());
    wait_until("the second runs", PATIENCE, || agent_said(&kai, "second"));
}

#[test]
fn at_the_absolute_end_a_turn_finishes_and_its_answer_waits_for_the_next_code() {
    if !is_root() {
        return;
    }
    let (kai, alice) = enrolled(&[("absolute", "4s")]);
    is_asked(&kai, "slow 8 alpha beta gamma delta omega");
    let code = proves(&kai, &alice.authenticator.code());
    kai.answer(ALICE, code, |message| message.text().starts_with("alpha"));
    wait_until("the worker ends after its turn", PATIENCE, || {
        worker_pid(&kai, "alice").is_none()
    });
    // The answer is there, and nobody sees it.
    let question = kai.answer(ALICE, code, |message| {
        message.text().contains("An answer waits")
    });
    let omega =
        |message: &Message| message.text().starts_with("alpha") && message.text().contains("omega");
    assert!(!kai.said_to(ALICE).iter().any(omega));

    kai.say(ALICE, &alice.recovery[0]);

    kai.answer(ALICE, code, omega);
    let whole = kai.said_to(ALICE).into_iter().filter(omega).count();
    assert_eq!(whole, 1, "{}", kai.telegram.transcript(chat(ALICE)));
    assert!(question.id.0 > code.0);
}

#[test]
fn lock_stops_what_runs_and_the_next_message_asks() {
    if !is_root() {
        return;
    }
    let (kai, alice) = enrolled(&[]);
    is_asked(&kai, "slow 20 alpha beta gamma delta omega");
    let code = proves(&kai, &alice.authenticator.code());
    kai.answer(ALICE, code, |message| message.text().starts_with("alpha"));

    let lock = kai.say(ALICE, "/lock");
    kai.answer(ALICE, lock, |message| message.text().contains("Locked"));

    wait_until("the worker ends", Duration::from_secs(2), || {
        worker_pid(&kai, "alice").is_none()
    });
    is_asked(&kai, "echo after");
    proves(&kai, &alice.authenticator.code());
    wait_until("the next runs", PATIENCE, || agent_said(&kai, "after"));
    let whole =
        |message: &Message| message.text().starts_with("alpha") && message.text().contains("omega");
    assert!(!kai.said_to(ALICE).iter().any(whole));
}

#[test]
fn a_gateway_that_was_killed_asks_again_before_it_shows_a_finished_answer() {
    if !is_root() {
        return;
    }
    let (kai, alice) = enrolled(&[]);
    is_asked(&kai, "slow 3 alpha beta gamma delta omega");
    let code = proves(&kai, &alice.authenticator.code());
    kai.answer(ALICE, code, |message| message.text().starts_with("alpha"));
    kai.ground.kill(Daemon::Gateway).unwrap();

    kai.answer(ALICE, code, |message| {
        message.text().contains("An answer waits")
    });
    thread::sleep(Duration::from_secs(4));
    let omega =
        |message: &Message| message.text().starts_with("alpha") && message.text().contains("omega");
    assert!(!kai.said_to(ALICE).iter().any(omega));

    kai.say(ALICE, &alice.recovery[0]);

    kai.answer(ALICE, code, omega);
    let whole = kai.said_to(ALICE).into_iter().filter(omega).count();
    assert_eq!(whole, 1, "{}", kai.telegram.transcript(chat(ALICE)));
}

#[test]
fn what_waited_when_the_gateway_was_killed_is_asked_about_again_and_not_run() {
    if !is_root() {
        return;
    }
    let (kai, alice) = enrolled(&[]);
    let said = is_asked(&kai, "echo waited");
    kai.ground.kill(Daemon::Gateway).unwrap();
    let before = kai.said_to(ALICE).last().unwrap().id;
    kai.answer(ALICE, before, |message| {
        message.text().contains("echo waited")
    });
    assert!(!agent_said(&kai, "waited"));

    kai.say(ALICE, &alice.authenticator.code());

    kai.answer(ALICE, said, |message| is_agents(message, "waited"));
}

#[test]
fn an_authd_that_was_killed_forgot_every_grant() {
    if !is_root() {
        return;
    }
    let (kai, alice) = enrolled(&[]);
    is_asked(&kai, "echo first");
    proves(&kai, &alice.authenticator.code());
    wait_until("the first runs", PATIENCE, || agent_said(&kai, "first"));
    kai.ask(BOB, "echo bob", "bob");
    let bobs = worker_pid(&kai, "bob");

    kai.ground.kill(Daemon::Authd).unwrap();

    wait_until("the worker ends", Duration::from_secs(3), || {
        worker_pid(&kai, "alice").is_none()
    });
    kai.ground.wait_until_ready(Daemon::Authd).unwrap();
    is_asked(&kai, "echo second");
    proves(&kai, &alice.authenticator.code());
    wait_until("the second runs", PATIENCE, || agent_said(&kai, "second"));
    // Who has no second factor did not notice.
    assert_eq!(worker_pid(&kai, "bob"), bobs);
}

#[test]
fn nobody_who_needs_a_proof_is_let_in_while_authd_is_away() {
    if !is_root() {
        return;
    }
    let (kai, alice) = enrolled(&[]);
    is_asked(&kai, "echo first");
    proves(&kai, &alice.authenticator.code());
    wait_until("the first runs", PATIENCE, || agent_said(&kai, "first"));

    kai.ground.stop_one(Daemon::Authd).unwrap();

    wait_until("the worker ends", Duration::from_secs(4), || {
        worker_pid(&kai, "alice").is_none()
    });
    kai.say(ALICE, "echo nobody-asked");
    thread::sleep(Duration::from_secs(3));
    assert!(worker_pid(&kai, "alice").is_none());
    assert!(!agent_said(&kai, "nobody-asked"));
}

#[test]
fn who_must_have_a_second_factor_and_has_none_runs_nothing() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|options| {
        options.people[0]
            .keys
            .push("second_factor: required".to_owned());
    });
    for text in ["echo it-ran", "/new", "/model opus", "/status"] {
        let said = kai.say(ALICE, text);
        kai.answer(ALICE, said, |message| {
            message.text().contains("kai-auth enroll")
        });
    }
    assert!(worker_pid(&kai, "alice").is_none());

    let alice = kai.enroll("alice");
    let said = is_asked(&kai, "echo it-ran");
    proves(&kai, &alice.authenticator.code());
    kai.answer(ALICE, said, |message| is_agents(message, "it-ran"));
}

#[test]
fn an_enrolment_that_begins_ends_what_ran_without_one() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|_| {});
    kai.ask(ALICE, "echo before", "before");
    assert!(worker_pid(&kai, "alice").is_some());
    kai.enroll("alice");
    wait_until("the worker ends", Duration::from_secs(2), || {
        worker_pid(&kai, "alice").is_none()
    });
    is_asked(&kai, "echo after");
}

#[test]
fn a_changed_telegram_id_is_refused_until_the_user_is_enrolled_again() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|_| {});
    // As if alice had another account when she was enrolled.
    kai.enroll_with(&["enroll", "alice", "--telegram-id", "4242"]);
    let said = kai.say(ALICE, "echo it-ran");
    kai.answer(ALICE, said, |message| message.text().contains("again"));
    let code = kai.say(ALICE, "000000");
    kai.answer(ALICE, code, |message| message.text().contains("again"));
    assert!(worker_pid(&kai, "alice").is_none());

    let alice = kai.enroll_with(&["enroll", "alice", "--replace"]);
    let said = is_asked(&kai, "echo it-ran");
    proves(&kai, &alice.authenticator.code());
    kai.answer(ALICE, said, |message| is_agents(message, "it-ran"));
}

#[test]
fn what_a_thief_sent_does_not_run_unseen() {
    if !is_root() {
        return;
    }
    let (kai, alice) = enrolled(&[]);
    let wanted = is_asked(&kai, "echo wanted");
    let edited = is_asked(&kai, "echo harmless");
    let deleted = is_asked(&kai, "echo deleted");
    // What was quoted is not what would run.
    kai.telegram
        .edit_text(ALICE, chat(ALICE), edited, "echo harmful")
        .unwrap();
    kai.answer(ALICE, deleted, |message| {
        message.text().contains("You edited a message")
    });
    kai.telegram.delete(ALICE, chat(ALICE), deleted).unwrap();

    kai.say(ALICE, &alice.authenticator.code());

    kai.answer(ALICE, wanted, |message| is_agents(message, "wanted"));
    kai.answer(ALICE, deleted, |message| {
        message.text().contains("because you deleted it")
    });
    let said = kai.say(ALICE, "echo last");
    kai.answer(ALICE, said, |message| is_agents(message, "last"));
    for words in ["harmless", "harmful", "deleted"] {
        assert!(!agent_said(&kai, words), "{words}");
    }
}

#[test]
fn at_most_five_messages_wait_and_they_lapse_with_the_question() {
    if !is_root() {
        return;
    }
    let (kai, alice) = enrolled(&[("question", "4s")]);
    let mut last = MessageId(0);
    for number in 1..=5 {
        last = is_asked(&kai, &format!("echo number-{number}"));
    }
    let sixth = kai.say(ALICE, "echo number-6");
    kai.answer(ALICE, sixth, |message| message.text().contains("Not kept"));
    kai.answer(ALICE, last, |message| {
        message.text().contains("No code came in time")
    });

    proves(&kai, &alice.authenticator.code());

    let said = kai.say(ALICE, "echo fresh");
    kai.answer(ALICE, said, |message| is_agents(message, "fresh"));
    for number in 1..=6 {
        assert!(!agent_said(&kai, &format!("number-{number}")));
    }
}

#[test]
fn a_recovery_code_is_taken_once() {
    if !is_root() {
        return;
    }
    let (kai, alice) = enrolled(&[]);
    assert_eq!(alice.recovery.len(), 10);
    is_asked(&kai, "echo first");
    proves(&kai, &alice.recovery[3].to_lowercase());
    let left = |message: &Message| message.text().contains("Left: 9");
    assert!(kai.said_to(ALICE).iter().any(left));
    wait_until("it runs", PATIENCE, || agent_said(&kai, "first"));
    let lock = kai.say(ALICE, "/lock");
    kai.answer(ALICE, lock, |message| message.text().contains("Locked"));
    is_asked(&kai, "echo second");

    let sent = kai.say(ALICE, &alice.recovery[3]);
    kai.answer(ALICE, sent, |message| {
        message.text().contains("was not accepted")
    });

    assert!(!agent_said(&kai, "second"));
}

#[test]
fn no_command_button_file_or_edit_goes_round_it() {
    if !is_root() {
        return;
    }
    let (kai, _alice) = enrolled(&[]);
    let first = kai.say(ALICE, "/new");
    kai.answer(ALICE, first, |message| {
        message.text().contains("Send a code")
    });
    for text in ["/model opus", "/status", "/stop"] {
        kai.say(ALICE, text);
    }
    let file = kai_emulators::bot_api::FileKind::Document;
    kai.telegram
        .send_file(
            ALICE,
            chat(ALICE),
            file,
            "a.txt",
            b"x",
            Some("echo by-caption"),
        )
        .unwrap();
    kai.telegram
        .edit_text(ALICE, chat(ALICE), first, "echo by-edit")
        .unwrap();
    thread::sleep(Duration::from_secs(2));

    assert!(worker_pid(&kai, "alice").is_none());
    assert!(!agent_said(&kai, "by-caption") && !agent_said(&kai, "by-edit"));
    let said = kai.said_to(ALICE);
    let told = said.iter().any(|message| message.text().contains("opus"));
    assert!(!told || said.iter().all(|m| !m.text().starts_with("Your model")));
}

#[test]
fn no_code_is_in_any_file() {
    if !is_root() {
        return;
    }
    let (kai, alice) = enrolled(&[]);
    is_asked(&kai, "echo first");
    let wrong = alice.authenticator.wrong();
    let sent = kai.say(ALICE, &wrong);
    kai.answer(ALICE, sent, |message| {
        message.text().contains("was not accepted")
    });
    let right = alice.authenticator.code();
    proves(&kai, &right);
    wait_until("it runs", PATIENCE, || agent_said(&kai, "first"));
    let lock = kai.say(ALICE, "/lock");
    kai.answer(ALICE, lock, |message| message.text().contains("Locked"));
    proves(&kai, &alice.recovery[0]);

    let letters = alice.recovery[0]
        .trim_start_matches("kai-")
        .replace('-', "");
    for part in ["state", "log", "run"] {
        search(&kai.ground.root().join(part), &|file, bytes| {
            for code in [&wrong, &right] {
                assert!(!stands_alone(bytes, code.as_bytes()), "{}", file.display());
            }
            for code in [alice.recovery[0].as_bytes(), letters.as_bytes()] {
                assert!(
                    !bytes.windows(code.len()).any(|w| w == code),
                    "{}",
                    file.display()
                );
            }
        });
    }
}

fn search(directory: &Path, judge: &impl Fn(&Path, &[u8])) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            search(&entry.path(), judge);
        } else if kind.is_file() {
            judge(&entry.path(), &fs::read(entry.path()).unwrap());
        }
    }
}

/// Whether these digits stand somewhere without a letter or a digit beside them: part of a time or of
/// a hash they may be by chance.
fn stands_alone(bytes: &[u8], digits: &[u8]) -> bool {
    let alone = |byte: Option<&u8>| byte.is_none_or(|byte| !byte.is_ascii_alphanumeric());
    bytes.windows(digits.len()).enumerate().any(|(at, found)| {
        let before = at.checked_sub(1).and_then(|before| bytes.get(before));
        found == digits && alone(before) && alone(bytes.get(at + digits.len()))
    })
}

#[test]
fn a_code_that_comes_first_is_taken_also_after_authd_began_anew_or_a_lockout_was_lifted() {
    if !is_root() {
        return;
    }
    let (kai, alice) = enrolled(&[]);
    proves(&kai, &alice.authenticator.code());
    kai.ground.kill(Daemon::Authd).unwrap();
    thread::sleep(Duration::from_millis(300));
    kai.ground.wait_until_ready(Daemon::Authd).unwrap();
    proves(&kai, &alice.authenticator.code());
    let lock = kai.say(ALICE, "/lock");
    kai.answer(ALICE, lock, |message| message.text().contains("Locked"));
    for _ in 0..3 {
        kai.say(ALICE, &alice.authenticator.wrong());
    }
    kai.answer(ALICE, lock, |message| {
        message.text().contains("Too many wrong codes")
    });
    // A recovery code is none that is taken now, and stays what it is.
    let recovery = kai.say(ALICE, &alice.recovery[0]);
    kai.answer(ALICE, recovery, |message| {
        message.text().contains("Too many wrong codes")
    });
    kai.ground.auth_command(&["unlock", "alice"]).unwrap();

    proves(&kai, &alice.recovery[0]);

    kai.ask(ALICE, "echo it-runs", "it-runs");
}

#[test]
fn a_rule_that_becomes_stricter_ends_what_ran_under_the_other() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|_| {});
    kai.ask(ALICE, "echo first", "first");
    kai.ask(BOB, "echo bob", "bob");
    let (alices, bobs) = (worker_pid(&kai, "alice"), worker_pid(&kai, "bob"));
    assert!(alices.is_some());
    let mut people = [Person::new("alice", ALICE.0), Person::new("bob", BOB.0)];
    people[0].keys.push("second_factor: required".to_owned());
    kai.ground.write_users(&people).unwrap();

    kai.ground.broker_command(&["reload"]).unwrap();

    wait_until("her worker ends", Duration::from_secs(2), || {
        worker_pid(&kai, "alice").is_none()
    });
    let said = kai.say(ALICE, "echo second");
    kai.answer(ALICE, said, |message| {
        message.text().contains("kai-auth enroll")
    });
    assert_eq!(worker_pid(&kai, "bob"), bobs);
}

#[test]
fn who_is_removed_and_comes_back_has_to_prove_it_again() {
    if !is_root() {
        return;
    }
    let (kai, alice) = enrolled(&[]);
    is_asked(&kai, "echo first");
    proves(&kai, &alice.authenticator.code());
    wait_until("the first runs", PATIENCE, || agent_said(&kai, "first"));
    let bob = Person::new("bob", BOB.0);
    kai.ground.write_users(std::slice::from_ref(&bob)).unwrap();
    kai.ground.broker_command(&["reload"]).unwrap();
    wait_until("the worker ends", Duration::from_secs(2), || {
        worker_pid(&kai, "alice").is_none()
    });
    kai.say(ALICE, "echo while-gone");
    let people = [Person::new("alice", ALICE.0), bob];
    kai.ground.write_users(&people).unwrap();
    kai.ground.broker_command(&["reload"]).unwrap();
    // The gateway has the new table a little later.
    thread::sleep(Duration::from_millis(500));

    is_asked(&kai, "echo second");

    assert!(worker_pid(&kai, "alice").is_none());
    proves(&kai, &alice.authenticator.code());
    wait_until("the second runs", PATIENCE, || agent_said(&kai, "second"));
    assert!(!agent_said(&kai, "while-gone"));
}

#[test]
fn an_authd_that_hangs_ends_who_lives_by_a_proof_in_seconds() {
    if !is_root() {
        return;
    }
    let (kai, alice) = enrolled(&[]);
    is_asked(&kai, "echo first");
    proves(&kai, &alice.authenticator.code());
    wait_until("the first runs", PATIENCE, || agent_said(&kai, "first"));

    kai.ground.signal(Daemon::Authd, Signal::SIGSTOP).unwrap();

    // It is asked every five seconds, and has two for its answer.
    wait_until("the worker ends", Duration::from_secs(10), || {
        worker_pid(&kai, "alice").is_none()
    });
    kai.ground.signal(Daemon::Authd, Signal::SIGCONT).unwrap();
    // It forgot nothing.
    kai.ask(ALICE, "echo second", "second");
}
