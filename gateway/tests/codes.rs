//! What becomes of a code that is sent in the chat, through the real kai-gateway.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod stage;

use std::time::{Duration, Instant};

use kai_emulators::bot_api::{CallFilter, Fault, FileKind, Message};
use kai_proto::gateway_authd::{Standing, Verdict};
use stage::{
    ALICE, BOB, LONG,
    authd::unix_now,
    eventually,
    second_factor::{CODE, NEXT, assert_nowhere, is_deleted, parks, proves, stage, wait, wait_in},
};

#[test]
fn wrong_codes_and_lockouts_have_their_words_and_the_question_stays() {
    let stage = stage();
    parks(&stage, "hello");
    stage.says(ALICE, "000000");
    wait(&stage, &["was not accepted"]);
    let until = unix_now() + 900;
    stage.authd.judges(ALICE, Verdict::Locked { until });
    stage.says(ALICE, "000001");
    wait(&stage, &["Too many wrong codes", "UTC", "15 min"]);
    stage.authd.says(ALICE, Some(Standing::Locked { until }));
    let code = stage.says(ALICE, "000002");
    eventually("it is deleted, too", || {
        is_deleted(&stage, ALICE, code.message)
    });
    assert_eq!(stage.authd.codes(ALICE), 2, "it is not looked at");
    wait(&stage, &["1. hello"]);
    // bob is not concerned.
    stage.says(BOB, "hello");
    assert_eq!(stage.worker(BOB).prompt().text, "hello");
    stage.authd.says(ALICE, None);
    proves(&stage);
    assert_eq!(stage.worker(ALICE).prompt().text, "hello");
}

#[test]
fn a_code_that_is_put_off_is_asked_about_again_by_itself() {
    let stage = stage();
    parks(&stage, "hello");
    stage.authd.judges(ALICE, Verdict::Later { after_ms: 300 });
    let start = Instant::now();
    proves(&stage);
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert_eq!(stage.authd.codes(ALICE), 2);
    assert_eq!(stage.worker(ALICE).prompt().text, "hello");
}

#[test]
fn a_code_whose_verdict_is_lost_is_not_asked_about_again() {
    let stage = stage();
    parks(&stage, "hello");
    stage.authd.drops_codes(true);
    stage.authd.expect(ALICE, CODE);
    stage.says(ALICE, CODE);
    wait(&stage, &["The answer to your code was lost"]);
    stage.authd.is_itself();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(stage.authd.codes(ALICE), 1);
    stage.authd.expect(ALICE, NEXT);
    stage.says(ALICE, NEXT);
    assert_eq!(stage.worker(ALICE).prompt().text, "hello");
}

#[test]
fn a_code_while_authd_is_away_is_not_kept_and_said() {
    let stage = stage();
    stage.says(BOB, "/help");
    wait_in(&stage, BOB.private_chat(), &["/lock"]);
    stage.authd.stop();
    let start = Instant::now();
    let code = stage.says(ALICE, CODE);
    wait(&stage, &["could not be checked"]);
    assert!(start.elapsed() < Duration::from_secs(2));
    eventually("it is deleted", || is_deleted(&stage, ALICE, code.message));
    stage.authd.expect(ALICE, CODE);
    stage.authd.start();
    assert!(stage.telegram.repeat_update(code.update.unwrap()));
    parks(&stage, "hello");
    assert_eq!(stage.authd.codes(ALICE), 0);
    assert_nowhere(&stage, CODE);
}

#[test]
fn an_authd_that_says_nothing_delays_codes_by_no_more_than_its_deadline() {
    let stage = stage();
    parks(&stage, "hello");
    stage.authd.is_silent(true);
    let start = Instant::now();
    for number in 0..50 {
        stage.says(ALICE, &format!("9000{number:02}"));
    }
    // Nobody else waits for each of them.
    stage.says(BOB, "/help");
    wait_in(&stage, BOB.private_chat(), &["/lock"]);
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    wait(&stage, &["could not be checked"]);
    stage.authd.is_itself();
    eventually("authd is back", || stage.log().contains("authd is back"));
    assert_eq!(stage.authd.codes(ALICE), 0);
    proves(&stage);
}

#[test]
fn the_text_of_a_code_is_nowhere_on_disk_or_in_the_log() {
    let mut stage = stage();
    let codes = ["902417", "KAI-0123z-VWXYZ", "730952"];
    parks(&stage, "hello");
    for code in codes {
        let sent = stage.says(ALICE, code);
        eventually("it is deleted", || is_deleted(&stage, ALICE, sent.message));
    }
    stage.authd.wait_codes(ALICE, 3);
    // Nor that of a file's caption or of an edit that reads like one.
    let chat = ALICE.private_chat();
    let file = stage
        .telegram
        .send_file(ALICE, chat, FileKind::Photo, "p", b"p", Some("555666"))
        .unwrap();
    assert!(stage.telegram.wait_confirmed(file.update.unwrap(), LONG));
    let sent = parks(&stage, "to be edited").message;
    let edit = stage
        .telegram
        .edit_text(ALICE, chat, sent, "111222")
        .unwrap();
    assert!(stage.telegram.wait_confirmed(edit.update.unwrap(), LONG));
    for code in codes.into_iter().chain(["555666", "111222"]) {
        assert_nowhere(&stage, code);
        assert_nowhere(&stage, &code.to_uppercase());
    }
    assert_eq!(stage.authd.codes(ALICE), 3, "an edit is never a code");
    stage.kill_gateway();
    for code in codes {
        assert_nowhere(&stage, code);
    }
}

#[test]
fn a_redelivered_code_is_not_asked_about_twice() {
    let mut stage = stage();
    parks(&stage, "hello");
    stage.authd.drops_codes(true);
    let code = stage.says(ALICE, CODE);
    stage.authd.wait_codes(ALICE, 1);
    wait(&stage, &["The answer to your code was lost"]);
    stage.authd.is_itself();
    stage.authd.expect(ALICE, CODE);
    assert!(stage.telegram.repeat_update(code.update.unwrap()));
    let after = stage.says(ALICE, "/help");
    assert!(stage.telegram.wait_confirmed(after.update.unwrap(), LONG));
    stage.kill_gateway();
    stage.start_gateway();
    assert!(stage.telegram.repeat_update(code.update.unwrap()));
    wait(&stage, &["Send a code", "1. hello"]);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(stage.authd.codes(ALICE), 1);
    assert!(!stage.broker.has_attach(ALICE));
    assert_nowhere(&stage, CODE);
}

#[test]
fn a_gateway_killed_between_the_number_and_the_question_never_asks_about_that_code() {
    let mut stage = stage();
    parks(&stage, "hello");
    let before = stage.telegram.messages(ALICE.private_chat()).len();
    stage.authd.leaves_after_standing();
    let code = stage.says(ALICE, CODE);
    // The number is on disk as soon as Telegram may forget the update; authd cannot be asked yet.
    assert!(stage.telegram.wait_confirmed(code.update.unwrap(), LONG));
    stage.kill_gateway();
    assert_eq!(stage.authd.codes(ALICE), 0);
    stage.authd.is_itself();
    stage.authd.expect(ALICE, CODE);

    stage.start_gateway();
    assert!(stage.telegram.repeat_update(code.update.unwrap()));

    let anew = |messages: &[Message]| {
        let asks = |message: &&Message| message.text().contains("1. hello");
        messages[before..].iter().find(asks).map(drop)
    };
    let asked = stage.telegram.wait_for(ALICE.private_chat(), LONG, anew);
    assert!(asked.is_ok(), "{}", asked.unwrap_err());
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(stage.authd.codes(ALICE), 0);
    assert!(!stage.broker.has_attach(ALICE));
    assert_nowhere(&stage, CODE);
}

#[test]
fn a_code_that_telegram_does_not_delete_is_left_to_its_sender() {
    let stage = stage();
    let deletes = CallFilter::method("deleteMessage");
    stage.telegram.inject(deletes, 1, Fault::refuse_deletion());
    proves(&stage);
    wait(&stage, &["please delete it yourself"]);
}

#[test]
fn a_deletion_that_fails_on_the_way_is_tried_again() {
    let stage = stage();
    let deletes = CallFilter::method("deleteMessage");
    stage.telegram.inject(deletes, 2, Fault::DropConnection);
    stage.authd.expect(ALICE, CODE);
    let code = stage.says(ALICE, CODE);
    eventually("it is deleted", || is_deleted(&stage, ALICE, code.message));
    assert!(
        !stage
            .telegram
            .transcript(ALICE.private_chat())
            .contains("yourself")
    );
}

#[test]
fn a_recovery_code_is_taken_and_says_how_many_are_left() {
    let stage = stage();
    parks(&stage, "hello");
    stage.authd.expect(ALICE, "kai-ABCDE-12345");
    stage.authd.recovery_left(ALICE, 7);
    stage.says(ALICE, "kai-abcde-12345");
    wait(&stage, &["Thank you", "recovery code", "Left: 7"]);
    assert_eq!(stage.worker(ALICE).prompt().text, "hello");
}

#[test]
fn a_code_goes_from_the_chat_also_when_the_gateway_was_killed_over_it() {
    let mut stage = stage();
    let deletes = CallFilter::method("deleteMessage");
    stage.telegram.inject(deletes, 3, Fault::DropConnection);
    stage.authd.is_silent(true);
    let code = stage.says(ALICE, CODE);
    assert!(stage.telegram.wait_confirmed(code.update.unwrap(), LONG));
    std::thread::sleep(Duration::from_millis(700));
    stage.kill_gateway();
    assert!(!is_deleted(&stage, ALICE, code.message));
    stage.authd.is_itself();

    stage.start_gateway();

    eventually("it is deleted", || is_deleted(&stage, ALICE, code.message));
    wait(&stage, &["I was restarted while I had a code of yours"]);
    // And it is dealt with: the next run says nothing more.
    std::thread::sleep(Duration::from_millis(300));
    stage.kill_gateway();
    let before = stage.telegram.messages(ALICE.private_chat()).len();
    stage.start_gateway();
    stage.says(ALICE, "/help");
    wait(&stage, &["/lock"]);
    let said: Vec<Message> = stage.telegram.messages(ALICE.private_chat());
    let again = said[before..]
        .iter()
        .any(|message| message.text().contains("restarted"));
    assert!(!again);
}

#[test]
fn what_reads_like_a_code_is_never_written_down_also_while_none_is_wanted() {
    let stage = stage();
    parks(&stage, "hello");
    proves(&stage);
    let worker = stage.worker(ALICE);
    assert_eq!(worker.prompt().text, "hello");
    let digits = stage.says(ALICE, "902417");
    assert_eq!(worker.prompt().text, "902417");
    assert!(stage.telegram.wait_confirmed(digits.update.unwrap(), LONG));
    assert_nowhere(&stage, "902417");
    // A recovery code is nothing that an agent should read.
    let recovery = stage.says(ALICE, "kai-ABCDE-12345");
    wait(&stage, &["was not used", "kai-auth enroll --replace"]);
    eventually("it is deleted", || {
        is_deleted(&stage, ALICE, recovery.message)
    });
    assert_eq!(worker.told_soon(), None);
    assert_eq!(stage.authd.codes(ALICE), 1);
    assert_nowhere(&stage, "ABCDE-12345");
}
