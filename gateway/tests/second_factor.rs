//! The second factor in the chat, through the real kai-gateway.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod stage;

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use kai_emulators::bot_api::{
    CallFilter, CallbackState, Fault, FileKind, GroupKind, Message, MessageId, Refusal,
};
use kai_proto::{
    conversation::{Outcome, ToWorker},
    gateway_authd::Standing,
    gateway_broker,
};
use stage::{
    ALICE, BOB, LONG, Stage,
    authd::Asked,
    eventually,
    second_factor::{
        CODE, NEXT, assert_nowhere, is_deleted, parks, proves, reads, stage, wait, wait_in,
    },
};

#[test]
fn a_right_code_sends_on_what_was_quoted_in_its_order_and_goes_from_the_chat() {
    let stage = stage();
    parks(&stage, "first thing");
    parks(&stage, "second thing");
    let question = wait(
        &stage,
        &["1. first thing", "2. second thing", "within 2 min"],
    );
    assert_eq!(reads(&stage, ALICE.private_chat()).len(), 1);
    assert!(!stage.broker.has_attach(ALICE));
    stage.authd.expect(ALICE, CODE);
    let code = stage.says(ALICE, CODE);

    let attach = stage.broker.attach(ALICE);
    assert_eq!(attach.grant, stage.authd.grant(ALICE));
    assert!(attach.grant.is_some());
    let worker = attach.accepted();
    assert_eq!(worker.prompt().text, "first thing");
    assert_eq!(worker.prompt().text, "second thing");
    eventually("the code is deleted", || {
        is_deleted(&stage, ALICE, code.message)
    });
    let thanks = wait(&stage, &["Thank you", "after 30 min without a message"]);
    assert_eq!(thanks.id, question.id);
    assert!(stage.telegram.wait_confirmed(code.update.unwrap(), LONG));
}

#[test]
fn a_proven_user_talks_on_and_each_message_renews_the_grant() {
    let stage = stage();
    parks(&stage, "first");
    proves(&stage);
    let worker = stage.worker(ALICE);
    let prompt = worker.prompt().id;
    worker.answer(prompt, "done");
    assert_eq!(worker.told(), Some(ToWorker::Acknowledge(prompt)));
    stage.says(ALICE, "second");
    assert_eq!(worker.prompt().text, "second");
    let grant = stage.authd.grant(ALICE);
    assert_eq!(
        stage.authd.asked(ALICE).last(),
        Some(&Asked::Standing(grant))
    );
    // Six digits are a message like any other now.
    stage.says(ALICE, "654321");
    assert_eq!(worker.prompt().text, "654321");
    assert_eq!(stage.authd.codes(ALICE), 1);
}

#[test]
fn nothing_but_help_start_and_lock_goes_round_it() {
    let stage = stage();
    let chat = ALICE.private_chat();
    stage.says(ALICE, "/help");
    wait(&stage, &["/lock"]);
    stage.says(ALICE, "/start");
    wait(&stage, &["Hello"]);
    for text in ["/model opus", "/status", "/new", "/stop", "/frobnicate"] {
        stage.says(ALICE, text);
    }
    wait(
        &stage,
        &["1. /model opus", "2. /status", "3. /new", "4. /stop"],
    );
    // A file, an edit of an earlier message, a button.
    let file = stage
        .telegram
        .send_file(ALICE, chat, FileKind::Document, "x", b"x", Some(CODE))
        .unwrap();
    assert!(stage.telegram.wait_confirmed(file.update.unwrap(), LONG));
    let old = stage.says(ALICE, "one too many").message;
    eventually("neither is kept", || {
        let told = reads(&stage, chat);
        told.iter().filter(|text| text.contains("Not kept")).count() == 2
    });
    stage
        .telegram
        .edit_text(ALICE, chat, old, "another text")
        .unwrap();
    let update = serde_json::json!({"callback_query": {
        "id": "77", "chat_instance": "1", "data": "old",
        "from": {"id": ALICE.0, "is_bot": false, "first_name": "Alice"},
        "message": {"message_id": 1, "date": 1,
            "chat": {"id": chat.0, "type": "private", "first_name": "Alice"}, "text": "x"},
    }});
    stage.telegram.push_update(update);
    let answer = stage.telegram.wait_for_calls(LONG, |calls| {
        let mut answers = calls
            .iter()
            .filter(|call| call.method == "answerCallbackQuery");
        answers.next().map(|call| call.params["text"].clone())
    });
    assert_eq!(answer.unwrap(), "Send your code first.");
    std::thread::sleep(Duration::from_millis(300));
    assert!(!stage.broker.has_attach(ALICE));
    let transcript = stage.telegram.transcript(chat);
    for private in ["runs with", "No agent", "Nothing is running", "only text"] {
        assert!(!transcript.contains(private), "{transcript}");
    }
    assert!(!transcript.contains("edit"), "{transcript}");
    // The model was not chosen: what waits is only quoted.
    proves(&stage);
    wait(&stage, &["runs with opus"]);
    wait(&stage, &["I do not know this command"]);
}

#[test]
fn a_message_that_is_edited_does_not_run() {
    let stage = stage();
    let chat = ALICE.private_chat();
    let sent = parks(&stage, "harmless");
    parks(&stage, "other");
    stage
        .telegram
        .edit_text(ALICE, chat, sent.message, "harmful")
        .unwrap();
    wait(&stage, &["You edited", "1. other"]);
    proves(&stage);
    let worker = stage.worker(ALICE);
    assert_eq!(worker.prompt().text, "other");
    assert_eq!(worker.told_soon(), None);
    assert!(!stage.telegram.transcript(chat).contains("bot: harmful"));
}

#[test]
fn a_message_that_is_deleted_does_not_run() {
    let stage = stage();
    let chat = ALICE.private_chat();
    let sent = parks(&stage, "from a thief");
    parks(&stage, "other");
    stage.telegram.delete(ALICE, chat, sent.message).unwrap();
    proves(&stage);
    assert_eq!(stage.worker(ALICE).prompt().text, "other");
    wait(&stage, &["because you deleted it", "from a thief"]);
}

#[test]
fn a_message_that_cannot_be_marked_counts_as_there_and_one_in_doubt_does_not_run() {
    let stage = stage();
    let marks = || CallFilter::method("setMessageReaction");
    let refused = Refusal::new(400, "Bad Request: REACTION_INVALID");
    stage.telegram.inject(marks(), 1, Fault::Refuse(refused));
    parks(&stage, "one");
    proves(&stage);
    let worker = stage.worker(ALICE);
    let prompt = worker.prompt();
    assert_eq!(prompt.text, "one");
    worker.answer(prompt.id, "done");
    wait(&stage, &["done"]);

    stage.authd.ends(ALICE);
    parks(&stage, "two");
    stage.telegram.inject(marks(), 100, Fault::ServerError(502));
    stage.authd.expect(ALICE, NEXT);
    stage.says(ALICE, NEXT);
    wait(&stage, &["could not make sure", "two"]);
    assert_eq!(worker.told(), Some(ToWorker::Acknowledge(prompt.id)));
    assert_eq!(worker.told_soon(), None);
}

#[test]
fn what_a_thief_parked_does_not_run_once_its_question_is_deleted() {
    let stage = stage();
    let chat = ALICE.private_chat();
    parks(&stage, "from a thief");
    let question = wait(&stage, &["from a thief"]);
    // In a private chat everybody can delete everything, also for the other side.
    let deleted = Refusal::new(400, "Bad Request: message to edit not found");
    let edits = CallFilter::method("editMessageText").in_chat(chat);
    stage.telegram.inject(edits, 1, Fault::Refuse(deleted));
    assert!(question.text().contains("from a thief"));
    proves(&stage);
    wait(
        &stage,
        &["the question that showed it is gone", "from a thief"],
    );
    std::thread::sleep(Duration::from_millis(200));
    assert!(!stage.broker.has_attach(ALICE));
}

#[test]
fn what_came_too_late_to_be_shown_does_not_run() {
    let stage = stage();
    parks(&stage, "mine");
    // From now on the question reaches the chat with a delay.
    let posts = CallFilter::method("sendMessage").in_chat(ALICE.private_chat());
    stage.telegram.delay(posts, Duration::from_millis(1500));
    let late = stage.says(ALICE, "from a thief");
    assert!(stage.telegram.wait_confirmed(late.update.unwrap(), LONG));
    stage.authd.expect(ALICE, CODE);
    stage.says(ALICE, CODE);
    let worker = stage.worker(ALICE);
    assert_eq!(worker.prompt().text, "mine");
    wait(&stage, &["did not come below the question", "from a thief"]);
    assert_eq!(worker.told_soon(), None);
}

#[test]
fn parked_messages_lapse_with_the_question() {
    let stage = Stage::with_second_factor("question: 1s");
    let question = stage.says(ALICE, "hello");
    assert!(
        stage
            .telegram
            .wait_confirmed(question.update.unwrap(), LONG)
    );
    wait(&stage, &["No code came in time"]);
    stage.authd.expect(ALICE, CODE);
    stage.says(ALICE, CODE);
    wait(&stage, &["Thank you"]);
    std::thread::sleep(Duration::from_millis(200));
    assert!(!stage.broker.has_attach(ALICE));
    for (path, bytes) in stage.files() {
        let found = bytes.windows(5).any(|part| part == b"hello");
        // The wiped text goes from the log of the database when that is folded.
        assert!(
            !found || path.to_string_lossy().ends_with("-wal"),
            "{path:?}"
        );
    }
}

#[test]
fn lock_stops_what_runs_and_the_next_message_asks_again() {
    let stage = stage();
    parks(&stage, "work");
    proves(&stage);
    let worker = stage.worker(ALICE);
    let prompt = worker.prompt().id;
    worker.accept(prompt);
    worker.text(prompt, "I begin");
    wait(&stage, &["I begin"]);
    stage.says(ALICE, "/lock");
    assert_eq!(worker.told(), Some(ToWorker::Interrupt));
    assert_eq!(worker.told(), None, "the connection ends");
    wait(&stage, &["Locked: what ran or waited is stopped"]);
    assert!(stage.authd.asked(ALICE).contains(&Asked::Lock));
    assert!(!stage.broker.has_attach(ALICE));
    parks(&stage, "more");
    stage.authd.expect(ALICE, NEXT);
    stage.says(ALICE, NEXT);
    let worker = stage.worker(ALICE);
    // What was locked away is not told again.
    assert_eq!(worker.prompt().text, "more");
    assert_eq!(worker.told(), Some(ToWorker::Acknowledge(prompt)));
    assert!(!reads(&stage, ALICE.private_chat()).contains(&"Stopped.".to_owned()));
}

#[test]
fn lock_without_a_second_factor_has_nothing_to_lock() {
    let stage = stage();
    stage.says(BOB, "/lock");
    wait_in(&stage, BOB.private_chat(), &["nothing to lock"]);
    assert!(!stage.authd.asked(BOB).contains(&Asked::Lock));
}

#[test]
fn a_turn_that_outlives_the_grant_is_answered_after_the_next_code() {
    let stage = stage();
    parks(&stage, "long work");
    proves(&stage);
    let worker = stage.worker(ALICE);
    let prompt = worker.prompt().id;
    worker.accept(prompt);
    worker.text(prompt, "half");
    wait(&stage, &["half"]);
    // The absolute end: authd forgets the grant, and the broker shuts the connection.
    stage.authd.ends(ALICE);
    worker.die();
    wait(&stage, &["An answer waits: send your code", "long work"]);
    std::thread::sleep(Duration::from_millis(300));
    assert!(
        !stage.broker.has_attach(ALICE),
        "nothing is tried without a proof"
    );
    stage.authd.expect(ALICE, NEXT);
    stage.says(ALICE, NEXT);
    let worker = stage.worker(ALICE);
    assert_eq!(worker.prompt().id, prompt);
    worker.answer(prompt, "half and half");
    wait(&stage, &["half and half"]);
}

#[test]
fn an_answer_stops_growing_in_the_chat_when_the_proof_ends() {
    let stage = Stage::with_second_factor("idle: 4s");
    parks(&stage, "long work");
    proves(&stage);
    let worker = stage.worker(ALICE);
    let prompt = worker.prompt().id;
    worker.accept(prompt);
    worker.text(prompt, "shown");
    wait(&stage, &["shown"]);
    // Renewed every second while it runs.
    eventually("it is renewed", || stage.authd.asked_at(ALICE).len() > 5);
    let asked = stage.authd.asked_at(ALICE);
    let last: Vec<_> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(
        last[last.len() - 1] >= Duration::from_millis(900),
        "{last:?}"
    );
    stage.authd.ends(ALICE);
    wait(&stage, &["An answer waits: send your code"]);
    worker.text(prompt, " and hidden");
    worker.finish(prompt, Outcome::Done);
    std::thread::sleep(Duration::from_millis(1500));
    let transcript = stage.telegram.transcript(ALICE.private_chat());
    assert!(!transcript.contains("hidden"), "{transcript}");
    stage.authd.expect(ALICE, NEXT);
    stage.says(ALICE, NEXT);
    wait(&stage, &["shown and hidden"]);
}

#[test]
fn a_restarted_gateway_holds_the_answer_and_asks_anew_about_the_parked() {
    let mut stage = Stage::with_second_factor("question: 3s");
    parks(&stage, "let through");
    proves(&stage);
    let worker = stage.worker(ALICE);
    let prompt = worker.prompt().id;
    worker.accept(prompt);
    stage.authd.ends(ALICE);
    let parked = stage.says(ALICE, "without proof");
    assert!(stage.telegram.wait_confirmed(parked.update.unwrap(), LONG));
    wait(&stage, &["1. without proof"]);
    std::thread::sleep(Duration::from_millis(200));
    stage.kill_gateway();
    let before = stage.telegram.messages(ALICE.private_chat()).len();

    stage.start_gateway();

    let anew = |messages: &[Message]| {
        let new = &messages[before..];
        let is_it = |message: &&Message| {
            message.text().contains("1. without proof") && message.text().contains("let through")
        };
        new.iter().find(is_it).cloned()
    };
    let asked = stage.telegram.wait_for(ALICE.private_chat(), LONG, anew);
    assert!(asked.is_ok(), "{}", asked.unwrap_err());
    assert!(!stage.broker.has_attach(ALICE));
    // The parked one lapses, the other does not.
    wait(
        &stage,
        &["No code came in time", "An answer waits", "let through"],
    );
    assert!(!stage.broker.has_attach(ALICE));
    stage.authd.expect(ALICE, NEXT);
    stage.says(ALICE, NEXT);
    let worker = stage.worker(ALICE);
    let again = worker.prompt();
    assert_eq!((again.id, again.text.as_str()), (prompt, "let through"));
    worker.answer(prompt, "the answer");
    wait(&stage, &["the answer"]);
    assert_eq!(worker.told(), Some(ToWorker::Acknowledge(prompt)));
    assert_eq!(worker.told_soon(), None);
}

#[test]
fn who_must_have_a_second_factor_and_has_none_is_told_whom_to_ask() {
    let mut stage = Stage::dark();
    stage.authd.start();
    stage.broker.require_second_factor();
    stage.broker.start();
    stage.start_gateway();
    for text in ["hello", "/status", "/model opus", CODE] {
        stage.says(BOB, text);
    }
    let chat = BOB.private_chat();
    eventually("each is answered", || {
        let told = reads(&stage, chat);
        told.iter()
            .filter(|t| t.contains("kai-auth enroll"))
            .count()
            == 4
    });
    assert!(!stage.broker.has_attach(BOB));
    stage.says(BOB, "/help");
    wait_in(&stage, chat, &["/lock"]);
}

#[test]
fn a_changed_enrolment_is_said_and_its_codes_are_not_asked_about() {
    let stage = stage();
    stage.authd.says(ALICE, Some(Standing::Changed));
    stage.says(ALICE, "hello");
    wait(&stage, &["enrol you again"]);
    let code = stage.says(ALICE, CODE);
    eventually("it is deleted", || is_deleted(&stage, ALICE, code.message));
    assert_eq!(stage.authd.codes(ALICE), 0);
    assert_nowhere(&stage, CODE);
}

#[test]
fn what_the_broker_wants_a_code_for_is_held_until_there_is_one() {
    let stage = stage();
    stage.says(BOB, "work");
    let worker = stage.worker(BOB);
    let prompt = worker.prompt().id;
    worker.accept(prompt);
    // bob is enrolled, which the broker hears first.
    worker.die();
    stage
        .broker
        .attach(BOB)
        .refused(gateway_broker::Refusal::SecondFactor);
    wait_in(&stage, BOB.private_chat(), &["An answer waits"]);
    stage.authd.enrol(BOB);
    stage.authd.expect(BOB, CODE);
    stage.says(BOB, CODE);
    let worker = stage.worker(BOB);
    assert_eq!(worker.prompt().id, prompt);
}

#[test]
fn a_code_lets_run_what_its_own_chat_shows_and_its_grant_serves_all_chats() {
    let stage = stage();
    let group = stage
        .telegram
        .add_group(GroupKind::Supergroup, "team", &[ALICE]);
    stage.broker.wait_subscribed();
    stage.broker.reload(&[(ALICE, &[group]), (BOB, &[])]);
    eventually("the new table is there", || {
        stage.log().matches("table of users").count() > 1
    });
    stage
        .telegram
        .send_text(ALICE, group, "in the group")
        .unwrap();
    wait_in(&stage, group, &["1. in the group", "Others read along"]);
    parks(&stage, "at home");
    proves(&stage);
    let worker = stage.worker(ALICE);
    // Whoever sends a code at home may not have looked at the group: it could be a thief's.
    assert_eq!(worker.prompt().text, "at home");
    wait_in(
        &stage,
        group,
        &["did not come below the question", "in the group"],
    );
    stage
        .telegram
        .send_text(ALICE, group, "in the group again")
        .unwrap();
    assert_eq!(worker.prompt().text, "in the group again");

    // A code is taken in the group as well; there a bot may not delete it.
    stage.authd.ends(ALICE);
    stage.telegram.send_text(ALICE, group, "again").unwrap();
    wait_in(&stage, group, &["1. again"]);
    std::thread::sleep(Duration::from_millis(100));
    stage.authd.expect(ALICE, NEXT);
    stage.telegram.send_text(ALICE, group, NEXT).unwrap();
    wait_in(&stage, group, &["please delete it yourself"]);
    assert_eq!(worker.prompt().text, "again");
}

#[test]
fn a_user_without_a_second_factor_is_asked_about_once_a_message() {
    let stage = stage();
    stage.says(BOB, "hello");
    let worker = stage.worker(BOB);
    let prompt = worker.prompt().id;
    worker.answer(prompt, "there");
    wait_in(&stage, BOB.private_chat(), &["there"]);
    assert_eq!(stage.authd.asked(BOB), [Asked::Standing(None)]);
}

#[test]
fn what_a_code_lets_run_is_named_below_the_code_before_it_runs() {
    let stage = stage();
    let chat = ALICE.private_chat();
    parks(&stage, "first thing");
    parks(&stage, "second thing");
    // Telegram takes its time over that, and nothing runs meanwhile.
    let posts = CallFilter::method("sendMessage").in_chat(chat);
    stage.telegram.delay(posts, Duration::from_millis(700));
    stage.authd.expect(ALICE, CODE);
    let code = stage.says(ALICE, CODE);
    stage.authd.wait_codes(ALICE, 1);
    std::thread::sleep(Duration::from_millis(300));
    assert!(!stage.broker.has_attach(ALICE));

    let named = wait(&stage, &["runs now", "1. first thing", "2. second thing"]);

    assert!(named.id > code.message);
    assert_eq!(stage.worker(ALICE).prompt().text, "first thing");
}

#[test]
fn what_cannot_be_named_does_not_run() {
    let stage = stage();
    let chat = ALICE.private_chat();
    parks(&stage, "first thing");
    let posts = CallFilter::method("sendMessage").in_chat(chat);
    let refused = Refusal::new(400, "Bad Request: message text is empty");
    stage.telegram.inject(posts, 1, Fault::Refuse(refused));
    proves(&stage);
    wait(&stage, &["I could not make sure", "first thing"]);
    assert!(!stage.broker.has_attach(ALICE));
}

#[test]
fn a_code_runs_only_what_could_be_read_before_it() {
    let stage = Stage::with_second_factor("reading: 2");
    parks(&stage, "mine");
    std::thread::sleep(Duration::from_millis(3100));
    parks(&stage, "from a thief");
    stage.authd.expect(ALICE, CODE);
    stage.says(ALICE, CODE);
    let worker = stage.worker(ALICE);
    assert_eq!(worker.prompt().text, "mine");
    wait(&stage, &["did not come below the question", "from a thief"]);
    assert_eq!(worker.told_soon(), None);
}

#[test]
fn what_had_not_begun_when_the_proof_ended_does_not_run() {
    let stage = stage();
    parks(&stage, "long work");
    proves(&stage);
    let worker = stage.worker(ALICE);
    let first = worker.prompt().id;
    worker.accept(first);
    stage.says(ALICE, "from a thief");
    let second = worker.prompt();
    assert!(!second.only_if_begun);
    stage.says(ALICE, "/new");
    assert_eq!(worker.told(), Some(ToWorker::NewSession));
    stage.authd.ends(ALICE);
    worker.die();
    wait(&stage, &["Not run, because it had not begun", "/new"]);
    wait(&stage, &["An answer waits", "long work", "from a thief"]);
    stage.authd.expect(ALICE, NEXT);
    stage.says(ALICE, NEXT);

    let worker = stage.worker(ALICE);

    let [again, unseen] = [worker.prompt(), worker.prompt()];
    assert_eq!((again.id, unseen.id), (first, second.id));
    assert!(again.only_if_begun && unseen.only_if_begun);
    worker.answer(first, "the answer");
    worker.turn(unseen.id, kai_proto::conversation::TurnEvent::Accepted);
    worker.finish(unseen.id, Outcome::NotBegun);
    wait(
        &stage,
        &["Not run, because it had not begun", "from a thief"],
    );
    assert_eq!(worker.told(), Some(ToWorker::Acknowledge(first)));
    assert_eq!(worker.told(), Some(ToWorker::Acknowledge(unseen.id)));
    // What comes now is a message like any other.
    stage.says(ALICE, "and now");
    assert!(!worker.prompt().only_if_begun);
}

/// Posts a message with a button as the bot, as another version of kai may have; gives its number.
fn posts_a_button(stage: &Stage, label: &str) -> MessageId {
    let keyboard =
        format!(r#"{{"inline_keyboard":[[{{"text":"{label}","callback_data":"{label}"}}]]}}"#);
    let chat = ALICE.private_chat();
    let body = format!(
        r#"{{"chat_id":{},"text":"Shall it run?","reply_markup":{keyboard}}}"#,
        chat.0
    );
    let url = stage.telegram.url();
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    let mut connection = TcpStream::connect(address).unwrap();
    write!(
        connection,
        "POST /bot{}/sendMessage HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        stage.telegram.token(),
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("\"ok\":true"), "{answer}");
    wait(stage, &["Shall it run?"]).id
}

#[test]
fn a_button_is_answered_and_does_nothing_with_a_proof_or_without() {
    let stage = stage();
    let chat = ALICE.private_chat();
    stage.says(ALICE, "/help");
    wait(&stage, &["/lock"]);
    let message = posts_a_button(&stage, "run");
    let press = || stage.telegram.press(ALICE, chat, message, "run").unwrap();
    let answered = |query: &str| {
        let words = || match stage.telegram.callback(query) {
            Some(CallbackState::Answered { text, .. }) => text,
            _ => None,
        };
        eventually("the press is answered", || words().is_some());
        words().unwrap()
    };
    assert!(answered(&press()).contains("Send your code first"));
    assert!(!stage.broker.has_attach(ALICE));
    proves(&stage);
    let before = stage.authd.asked(ALICE).len();
    assert!(!answered(&press()).contains("Send your code first"));
    assert!(stage.authd.asked(ALICE).len() > before);
    assert!(!stage.broker.has_attach(ALICE));
}
