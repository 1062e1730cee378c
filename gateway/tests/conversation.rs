//! From a message in the chat to its answer there, through the real kai-gateway.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod stage;

use std::time::{Duration, Instant};

use kai_emulators::bot_api::{
    CallFilter, CallbackState, EntityKind, Fault, GroupKind, Order, Refusal,
};
use kai_proto::conversation::{Description, FromWorker, Outcome, ToWorker};
use stage::{ALICE, BOB, LONG, STRANGER, Stage, eventually, is_root};

#[test]
fn an_answer_streams_into_one_message_and_is_then_acknowledged() {
    let stage = Stage::new();
    let sent = stage.says(ALICE, "hello there");
    let worker = stage.worker(ALICE);
    let prompt = worker.prompt();
    assert_eq!(prompt.text, "hello there");
    assert_eq!(i64::from(prompt.id), i64::from(sent.update.unwrap().0));

    worker.accept(prompt.id);
    worker.text(prompt.id, "First ");
    stage.wait_for(ALICE, "First");
    worker.text(prompt.id, "words, **bold** ones");
    worker.finish(prompt.id, Outcome::Done);

    let message = stage.wait_for(ALICE, "First words, bold ones");
    assert_eq!(message.entities().len(), 1);
    assert_eq!(message.entities()[0].kind, EntityKind::Bold);
    assert_eq!(stage.heard(ALICE).len(), 1);
    assert_eq!(worker.told(), Some(ToWorker::Acknowledge(prompt.id)));
    assert!(stage.telegram.wait_confirmed(sent.update.unwrap(), LONG));
}

#[test]
fn the_first_words_are_posted_at_once_and_edits_follow_once_a_second() {
    let stage = Stage::new();
    stage.says(ALICE, "count");
    let worker = stage.worker(ALICE);
    let prompt = worker.prompt().id;
    worker.accept(prompt);
    let start = Instant::now();
    worker.text(prompt, "0");
    stage.wait_for(ALICE, "0");
    let posted_after = start.elapsed();
    for number in 1..60 {
        worker.text(prompt, &format!(" {number}"));
        std::thread::sleep(Duration::from_millis(50));
    }
    worker.finish(prompt, Outcome::Done);
    assert_eq!(worker.told(), Some(ToWorker::Acknowledge(prompt)));

    let chat = ALICE.private_chat();
    let spacing = stage.telegram.edit_spacing(chat);
    assert!(stage.heard(ALICE)[0].ends_with(" 59"));
    assert!(
        posted_after < Duration::from_millis(200),
        "{posted_after:?}"
    );
    assert!((2..=4).contains(&spacing.len()), "{spacing:?}");
    assert!(
        spacing.iter().all(|gap| *gap >= Duration::from_secs(1)),
        "{spacing:?}"
    );
    assert!(stage.telegram.overlapping_edits(chat).is_empty());
    assert!(
        !stage.telegram.chat_actions(chat).is_empty(),
        "typing was never shown"
    );
}

#[test]
fn a_stranger_hears_nothing_and_is_reported_by_number() {
    let stage = Stage::new();
    let sent = stage.says(STRANGER, "let me in");
    assert!(stage.telegram.wait_confirmed(sent.update.unwrap(), LONG));
    eventually("the stranger is reported", || {
        stage.broker.strangers() == [STRANGER.0]
    });
    assert!(stage.heard(STRANGER).is_empty());
    assert!(!stage.broker.has_attach(STRANGER));
    assert!(!stage.log().contains("let me in"));
}

#[test]
fn an_update_that_comes_again_is_answered_once() {
    let stage = Stage::new();
    let sent = stage.says(ALICE, "once");
    let worker = stage.worker(ALICE);
    let prompt = worker.prompt().id;
    worker.answer(prompt, "done");
    stage.wait_for(ALICE, "done");
    assert_eq!(worker.told(), Some(ToWorker::Acknowledge(prompt)));
    assert!(stage.telegram.wait_confirmed(sent.update.unwrap(), LONG));

    assert!(stage.telegram.repeat_update(sent.update.unwrap()));

    assert_eq!(worker.told_soon(), None);
    assert_eq!(stage.heard(ALICE), ["done"]);
}

#[test]
fn updates_out_of_order_are_all_answered() {
    let stage = Stage::new();
    stage.telegram.hold_updates();
    for text in ["a", "b", "c"] {
        stage.says(ALICE, text);
    }
    stage.telegram.release_updates(Order::Reversed);
    let worker = stage.worker(ALICE);
    let mut texts: Vec<String> = (0..3).map(|_| worker.prompt().text).collect();
    texts.sort();
    assert_eq!(texts, ["a", "b", "c"]);
}

#[test]
fn a_gateway_killed_before_the_answer_gives_it_once_after_its_restart() {
    let mut stage = Stage::new();
    let sent = stage.says(ALICE, "hello");
    let before = stage.worker(ALICE);
    let prompt = before.prompt();
    assert!(stage.telegram.wait_confirmed(sent.update.unwrap(), LONG));
    stage.kill_gateway();

    stage.start_gateway();
    let worker = stage.worker(ALICE);
    assert_eq!(worker.prompt(), prompt);
    worker.answer(prompt.id, "the answer");

    stage.wait_for(ALICE, "the answer");
    assert_eq!(worker.told(), Some(ToWorker::Acknowledge(prompt.id)));
    assert_eq!(stage.heard(ALICE), ["the answer"]);
}

#[test]
fn a_gateway_killed_in_mid_answer_goes_on_in_the_same_message() {
    let mut stage = Stage::new();
    stage.says(ALICE, "hello");
    let before = stage.worker(ALICE);
    let prompt = before.prompt().id;
    before.accept(prompt);
    before.text(prompt, "half");
    stage.wait_for(ALICE, "half");
    // The number of the message is written down beside the stream.
    std::thread::sleep(Duration::from_millis(200));
    stage.kill_gateway();

    stage.start_gateway();
    let worker = stage.worker(ALICE);
    assert_eq!(worker.prompt().id, prompt);
    worker.answer(prompt, "half and half");

    stage.wait_for(ALICE, "half and half");
    assert_eq!(stage.heard(ALICE).len(), 1);
}

#[test]
fn a_chat_that_telegram_pauses_waits_and_no_other_does() {
    let stage = Stage::new();
    let alices = CallFilter::method("sendMessage").in_chat(ALICE.private_chat());
    stage.telegram.inject(alices, 1, Fault::RetryAfter(2));
    let start = Instant::now();
    stage.says(ALICE, "hello");
    let alice = stage.worker(ALICE);
    alice.answer(alice.prompt().id, "to alice");
    stage.says(BOB, "hello");
    let bob = stage.worker(BOB);
    bob.answer(bob.prompt().id, "to bob");

    stage.wait_for(BOB, "to bob");
    assert!(start.elapsed() < Duration::from_secs(2));
    stage.wait_for(ALICE, "to alice");
    assert!(start.elapsed() >= Duration::from_secs(2));
    assert_eq!(stage.heard(ALICE).len(), 1);
}

#[test]
fn a_call_that_fails_on_the_way_is_made_again() {
    let stage = Stage::new();
    let posts = || CallFilter::method("sendMessage");
    stage.telegram.inject(posts(), 2, Fault::DropConnection);
    stage
        .telegram
        .inject(CallFilter::method("getUpdates"), 1, Fault::DropConnection);
    stage.says(ALICE, "hello");
    let worker = stage.worker(ALICE);
    worker.answer(worker.prompt().id, "there");
    stage.wait_for(ALICE, "there");
}

#[test]
fn styles_that_telegram_does_not_take_are_left_out() {
    let stage = Stage::new();
    let refused = Refusal::new(400, "Bad Request: can't parse entities: no");
    let posts = CallFilter::method("sendMessage");
    stage.telegram.inject(posts, 1, Fault::Refuse(refused));
    stage.says(ALICE, "hello");
    let worker = stage.worker(ALICE);
    worker.answer(worker.prompt().id, "**there**");
    assert!(stage.wait_for(ALICE, "there").entities().is_empty());
}

#[test]
fn an_answer_for_somebody_who_blocked_the_bot_counts_as_delivered() {
    let stage = Stage::new();
    stage.says(ALICE, "hello");
    let worker = stage.worker(ALICE);
    let prompt = worker.prompt().id;
    stage.telegram.block_bot(ALICE, true).unwrap();
    worker.answer(prompt, "there");
    assert_eq!(worker.told(), Some(ToWorker::Acknowledge(prompt)));
}

#[test]
fn stop_interrupts_at_once_and_every_prompt_says_that_it_was_stopped() {
    let stage = Stage::new();
    stage.says(ALICE, "first");
    let worker = stage.worker(ALICE);
    let first = worker.prompt().id;
    worker.accept(first);
    stage.says(ALICE, "second");
    let second = worker.prompt().id;
    stage.says(ALICE, "/stop");
    assert_eq!(worker.told(), Some(ToWorker::Interrupt));
    worker.finish(first, Outcome::Interrupted);
    worker.finish(second, Outcome::Interrupted);
    eventually("both are stopped", || {
        stage.heard(ALICE) == ["Stopped.", "Stopped."]
    });
}

#[test]
fn stop_with_nothing_to_stop_says_so() {
    let stage = Stage::new();
    stage.says(ALICE, "/stop");
    stage.wait_for(ALICE, "Nothing is running.");
    assert!(!stage.broker.has_attach(ALICE));
}

#[test]
fn status_describes_the_worker_and_starts_none() {
    let stage = Stage::new();
    stage.says(ALICE, "/status");
    stage.wait_until(ALICE.private_chat(), |message| {
        message.text().contains("No agent is running") && message.text().contains("without asking")
    });
    assert!(!stage.broker.has_attach(ALICE));

    stage.says(ALICE, "hello");
    let worker = stage.worker(ALICE);
    worker.prompt();
    stage.says(ALICE, "/status");
    assert_eq!(worker.told(), Some(ToWorker::Describe));
    worker.say(&FromWorker::Description(description()));
    stage.wait_until(ALICE.private_chat(), |message| {
        message.text().contains("Model: opus") && message.text().contains("Idle, 2 queued")
    });
}

fn description() -> Description {
    Description {
        started: 0,
        session: None,
        agent_version: "2.1".to_owned(),
        model: "opus".to_owned(),
        turns: 3,
        cost_micro_usd: 10_000,
        budget_micro_usd: None,
        running: None,
        queued: 2,
        needs_login: false,
    }
}

#[test]
fn what_follows_new_waits_until_the_worker_has_begun_anew() {
    let stage = Stage::new();
    stage.says(ALICE, "/new");
    stage.says(ALICE, "hello");
    let worker = stage.worker(ALICE);
    assert_eq!(worker.told(), Some(ToWorker::NewSession));
    assert_eq!(worker.told_soon(), None);
    worker.say(&FromWorker::Description(description()));
    assert_eq!(worker.prompt().text, "hello");
    stage.wait_until(ALICE.private_chat(), |message| {
        message.text().contains("new conversation")
    });
}

#[test]
fn a_chosen_model_goes_with_each_prompt_and_outlives_the_gateway() {
    let mut stage = Stage::new();
    stage.says(ALICE, "/model opus");
    stage.wait_until(ALICE.private_chat(), |message| {
        message.text().contains("opus")
    });
    std::thread::sleep(Duration::from_millis(200));
    stage.kill_gateway();
    stage.start_gateway();
    stage.says(ALICE, "hello");
    let prompt = stage.worker(ALICE).prompt();
    assert_eq!(prompt.model.map(String::from).as_deref(), Some("opus"));
}

#[test]
fn unknown_commands_pictures_and_edits_each_get_a_sentence() {
    let stage = Stage::new();
    let chat = ALICE.private_chat();
    stage.says(ALICE, "/frobnicate");
    stage.wait_until(chat, |message| message.text().contains("/status"));
    let fields = serde_json::json!({"dice": {"emoji": "🎲", "value": 3}});
    let fields = fields.as_object().unwrap().clone();
    stage.telegram.send_fields(ALICE, chat, fields).unwrap();
    stage.wait_until(chat, |message| message.text().contains("only text"));
    let sent = stage.says(ALICE, "hello");
    stage.worker(ALICE).prompt();
    for _ in 0..2 {
        stage
            .telegram
            .edit_text(ALICE, chat, sent.message, "hullo")
            .unwrap();
    }
    stage.wait_until(chat, |message| {
        message.text().contains("does not see this edit")
    });
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(stage.heard(ALICE).len(), 3);
}

#[test]
fn a_button_that_nobody_waits_for_says_so() {
    let stage = Stage::new();
    let chat = ALICE.private_chat();
    let sent = stage.says(ALICE, "/help");
    let update = serde_json::json!({"callback_query": {
        "id": "77", "chat_instance": "1", "data": "old",
        "from": {"id": ALICE.0, "is_bot": false, "first_name": "Alice"},
        "message": {"message_id": sent.message.0, "date": 1,
            "chat": {"id": chat.0, "type": "private", "first_name": "Alice"}, "text": "x"},
    }});
    stage.telegram.push_update(update);
    let answered = stage.telegram.wait_for_calls(LONG, |calls| {
        calls
            .iter()
            .any(|call| call.method == "answerCallbackQuery")
            .then_some(())
    });
    assert!(answered.is_some());
    assert_eq!(stage.telegram.callback("77"), None::<CallbackState>);
}

#[test]
fn long_answers_are_split_and_their_code_blocks_opened_again() {
    let stage = Stage::new();
    stage.says(ALICE, "long");
    let worker = stage.worker(ALICE);
    let prompt = worker.prompt().id;
    let code: String = (0..600).map(|n| format!("let line_{n} = 😀;\n")).collect();
    worker.answer(
        prompt,
        &format!("Here:\n\n```rust\n{code}```\n\nThat is all."),
    );

    stage.wait_until(ALICE.private_chat(), |message| {
        message.text().ends_with("That is all.")
    });

    let messages = stage.telegram.messages(ALICE.private_chat());
    let parts: Vec<_> = messages
        .iter()
        .filter(|message| message.is_from_bot())
        .collect();
    assert!(parts.len() >= 3);
    for part in &parts {
        assert!(part.text().encode_utf16().count() <= 4096);
        let language = Some("rust".to_owned());
        assert!(part.entities().iter().any(|e| e.kind
            == EntityKind::Pre {
                language: language.clone()
            }));
    }
    let lines: usize = parts
        .iter()
        .map(|part| part.text().matches("let line_").count())
        .sum();
    assert_eq!(lines, 600);
    assert_eq!(worker.told(), Some(ToWorker::Acknowledge(prompt)));
}

#[test]
fn users_do_not_wait_for_each_other_and_one_users_messages_queue() {
    let stage = Stage::new();
    stage.says(ALICE, "slow");
    let alice = stage.worker(ALICE);
    let slow = alice.prompt().id;
    alice.accept(slow);
    stage.says(ALICE, "next");
    assert_eq!(alice.prompt().text, "next");
    stage.says(BOB, "quick");
    let bob = stage.worker(BOB);
    bob.answer(bob.prompt().id, "for bob");
    stage.wait_for(BOB, "for bob");
    assert!(stage.heard(ALICE).is_empty());
}

#[test]
fn a_group_is_answered_only_where_the_table_names_it_and_in_reply() {
    let stage = Stage::new();
    let group = stage
        .telegram
        .add_group(GroupKind::Supergroup, "team", &[ALICE, STRANGER]);
    let unheard = stage.telegram.send_text(ALICE, group, "not yet").unwrap();
    assert!(stage.telegram.wait_confirmed(unheard.update.unwrap(), LONG));
    stage.broker.reload(&[(ALICE, &[group])]);
    eventually("the new table is there", || {
        stage.log().matches("table of users").count() > 1
    });

    stage.telegram.send_text(STRANGER, group, "me too").unwrap();
    let sent = stage.telegram.send_text(ALICE, group, "hello").unwrap();
    let worker = stage.worker(ALICE);
    let prompt = worker.prompt();
    assert_eq!(prompt.text, "hello");
    worker.answer(prompt.id, "there");

    let message = stage.wait_until(group, |message| message.text() == "there");
    assert_eq!(message.reply_to, Some(sent.message));
}

#[test]
fn a_user_who_is_removed_is_a_stranger_from_then_on() {
    let stage = Stage::new();
    stage.says(ALICE, "hello");
    let worker = stage.worker(ALICE);
    worker.prompt();
    stage.broker.reload(&[(BOB, &[])]);
    assert_eq!(worker.told(), None);
    let sent = stage.says(ALICE, "still here?");
    assert!(stage.telegram.wait_confirmed(sent.update.unwrap(), LONG));
    eventually("alice is reported", || {
        stage.broker.strangers() == [ALICE.0]
    });
    assert!(stage.heard(ALICE).is_empty());
}

#[test]
fn the_menu_of_commands_is_set() {
    let stage = Stage::new();
    eventually("the menu", || stage.telegram.commands().len() == 7);
}

#[test]
fn the_log_holds_neither_the_token_nor_what_anybody_said() {
    let stage = Stage::new();
    stage.says(ALICE, "words-of-alice");
    let worker = stage.worker(ALICE);
    worker.answer(worker.prompt().id, "words-of-the-agent");
    stage.wait_for(ALICE, "words-of-the-agent");
    stage
        .telegram
        .inject(CallFilter::method("getUpdates"), 1, Fault::DropConnection);
    stage.says(ALICE, "more-of-alice");
    worker.told();
    let log = stage.log();
    assert!(log.contains("started"));
    for secret in ["words-of", "more-of", stage.telegram.token()] {
        assert!(!log.contains(secret));
    }
}

#[test]
fn root_is_refused_with_one_sentence() {
    if !is_root() {
        // Only root can start it as root; the rule itself is tested in the library.
        return;
    }
    let stage = Stage::dark();
    let status = stage.command().status().unwrap();
    assert!(!status.success());
    assert!(stage.log().contains("refuses to run as root"));
}
