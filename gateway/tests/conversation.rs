//! From a message in the chat to its answer there, through the real kai-gateway.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod stage;

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    time::{Duration, Instant},
};

use kai_emulators::bot_api::{
    CallFilter, CallbackState, EntityKind, Fault, GroupKind, Order, Refusal,
};
use kai_proto::{
    conversation::{Description, Failure, FromWorker, Outcome, ToWorker},
    gateway_broker,
};
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
fn a_broker_that_comes_late_finds_everything_waiting() {
    let mut stage = Stage::dark();
    stage.authd.start();
    stage.start_gateway();
    let sent = stage.says(ALICE, "early");
    std::thread::sleep(Duration::from_millis(300));
    assert!(!stage.telegram.is_confirmed(sent.update.unwrap()));

    stage.broker.start();

    let worker = stage.worker(ALICE);
    worker.answer(worker.prompt().id, "at last");
    stage.wait_for(ALICE, "at last");
}

#[test]
fn a_message_waits_for_a_broker_that_is_away_and_its_user_is_told_once() {
    let stage = Stage::new();
    stage.broker.wait_subscribed();
    stage.says(BOB, "/help");
    stage.wait_until(BOB.private_chat(), |_| true);
    stage.broker.stop();
    stage.says(ALICE, "hello");
    let told = stage.wait_until(ALICE.private_chat(), |_| true);
    assert!(
        told.text().contains("cannot reach your agent"),
        "{}",
        told.text()
    );

    stage.broker.start();

    let worker = stage.worker(ALICE);
    worker.answer(worker.prompt().id, "back");
    stage.wait_for(ALICE, "back");
    assert_eq!(stage.heard(ALICE).len(), 2);
}

#[test]
fn a_connection_that_ends_before_its_hello_is_tried_again() {
    let stage = Stage::new();
    stage.says(ALICE, "hello");
    for _ in 0..4 {
        stage.broker.attach(ALICE).dropped();
    }
    let worker = stage.worker(ALICE);
    worker.answer(worker.prompt().id, "there");
    stage.wait_for(ALICE, "there");
    assert_eq!(stage.heard(ALICE).len(), 1);
}

#[test]
fn a_worker_that_cannot_be_started_is_said_and_the_next_message_tries_again() {
    let stage = Stage::new();
    stage.says(ALICE, "hello");
    stage
        .broker
        .attach(ALICE)
        .refused(gateway_broker::Refusal::LaunchFailed);
    stage.wait_until(ALICE.private_chat(), |message| {
        message.text().contains("does not come up")
    });
    stage.says(ALICE, "again");
    let worker = stage.worker(ALICE);
    assert_eq!(worker.prompt().text, "again");
}

#[test]
fn a_worker_killed_in_mid_turn_is_told_of_within_two_seconds() {
    let stage = Stage::new();
    stage.says(ALICE, "hello");
    let killed = stage.worker(ALICE);
    let prompt = killed.prompt().id;
    killed.accept(prompt);
    killed.text(prompt, "I will");
    stage.wait_for(ALICE, "I will");
    let start = Instant::now();
    killed.die();

    let next = stage.worker(ALICE);
    assert_eq!(next.prompt().id, prompt);
    next.accept(prompt);
    next.text(prompt, "I will");
    next.finish(prompt, Outcome::Failed(Failure::WorkerEnded));

    stage.wait_until(ALICE.private_chat(), |message| {
        message.text().starts_with("I will\n\nYour agent was ended")
    });
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!(next.told(), Some(ToWorker::Acknowledge(prompt)));
    stage.says(ALICE, "and now?");
    assert_eq!(next.prompt().text, "and now?");
}

#[test]
fn an_idle_worker_that_ends_is_not_spoken_of() {
    let stage = Stage::new();
    stage.says(ALICE, "hello");
    let worker = stage.worker(ALICE);
    let prompt = worker.prompt().id;
    worker.answer(prompt, "there");
    assert_eq!(worker.told(), Some(ToWorker::Acknowledge(prompt)));
    worker.die();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(stage.heard(ALICE), ["there"]);
    assert!(!stage.broker.has_attach(ALICE));
    stage.says(ALICE, "again");
    assert_eq!(stage.worker(ALICE).prompt().text, "again");
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
fn without_authd_nothing_reaches_the_worker_and_it_goes_on_by_itself() {
    let mut stage = Stage::dark();
    stage.broker.start();
    stage.start_gateway();
    stage.says(ALICE, "hello");
    stage.wait_until(ALICE.private_chat(), |message| {
        message.text().contains("second factor")
    });
    assert!(!stage.broker.has_attach(ALICE));

    stage.authd.start();

    let worker = stage.worker(ALICE);
    worker.answer(worker.prompt().id, "there");
    stage.wait_for(ALICE, "there");
}

#[test]
fn a_gateway_that_is_told_to_stop_ends_well() {
    let mut stage = Stage::new();
    stage.says(ALICE, "hello");
    let worker = stage.worker(ALICE);
    worker.answer(worker.prompt().id, "there");
    stage.wait_for(ALICE, "there");
    let start = Instant::now();
    assert!(stage.stop_gateway().success());
    assert!(start.elapsed() < Duration::from_secs(6));
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

#[test]
fn a_second_poller_is_logged_and_waited_for() {
    let stage = Stage::new();
    let conflict = Refusal::new(
        409,
        "Conflict: terminated by other getUpdates request; make sure that only one bot instance \
         is running",
    );
    let polls = CallFilter::method("getUpdates");
    stage.telegram.inject(polls, 1, Fault::Refuse(conflict));
    stage.says(ALICE, "/help");
    stage.wait_until(ALICE.private_chat(), |_| true);
    stage.says(ALICE, "/start");
    stage.wait_until(ALICE.private_chat(), |message| {
        message.text().contains("Hello")
    });
    assert!(
        stage
            .log()
            .contains("another program receives this bot's messages")
    );
}

#[test]
fn the_service_manager_hears_that_it_is_ready_alive_and_stopping() {
    let mut stage = Stage::dark();
    stage.authd.start();
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let name = place.path().join("notify");
    let manager = UnixDatagram::bind(&name).unwrap();
    fs::set_permissions(&name, PermissionsExt::from_mode(0o777)).unwrap();
    let says = |patience| {
        manager.set_read_timeout(Some(patience)).unwrap();
        let mut word = [0; 64];
        let length = manager.recv(&mut word).ok()?;
        Some(String::from_utf8_lossy(&word[..length]).into_owned())
    };
    stage.start_gateway_with(&[
        ("NOTIFY_SOCKET", &name.display().to_string()),
        ("WATCHDOG_USEC", "900000"),
    ]);
    // It lives, and is not ready before the broker has told it who its users are.
    for _ in 0..2 {
        assert_eq!(says(LONG).as_deref(), Some("WATCHDOG=1"));
    }
    stage.broker.start();
    while let Some(word) = says(LONG) {
        if word == "READY=1" {
            break;
        }
        assert_eq!(word, "WATCHDOG=1");
    }
    stage.stop_gateway();
    let mut last = None;
    while let Some(word) = says(Duration::from_millis(100)) {
        last = Some(word);
    }
    let last = last.unwrap();
    assert!(
        last.starts_with("STOPPING=1\nEXTEND_TIMEOUT_USEC="),
        "{last}"
    );
}

#[test]
fn a_gateway_that_stops_lets_a_turn_finish_and_begins_none() {
    let mut stage = Stage::new();
    stage.says(ALICE, "long work");
    let worker = stage.worker(ALICE);
    let prompt = worker.prompt().id;
    worker.accept(prompt);
    worker.text(prompt, "half");
    stage.wait_for(ALICE, "half");

    stage.terminate_gateway();
    let late = stage.says(ALICE, "and then this");
    stage.wait_until(ALICE.private_chat(), |m| {
        m.text().contains("your message waits")
    });
    assert!(stage.telegram.wait_confirmed(late.update.unwrap(), LONG));
    assert_eq!(worker.told_soon(), None);
    worker.text(prompt, " and half");
    worker.finish(prompt, Outcome::Done);

    let began = Instant::now();
    assert!(stage.wait_for_gateway().success());
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(stage.heard(ALICE).contains(&"half and half".to_owned()));
    stage.start_gateway();
    let worker = stage.worker(ALICE);
    assert_eq!(worker.prompt().text, "and then this");
}

#[test]
fn a_turn_that_does_not_finish_in_time_is_stopped_and_its_user_told() {
    let mut stage = Stage::dark_with("limits: {stop: 1s}\n");
    stage.authd.start();
    stage.broker.start();
    stage.start_gateway();
    stage.says(ALICE, "long work");
    let worker = stage.worker(ALICE);
    let prompt = worker.prompt().id;
    worker.accept(prompt);
    worker.text(prompt, "half");
    stage.wait_for(ALICE, "half");

    let began = Instant::now();
    stage.terminate_gateway();
    assert_eq!(worker.told(), Some(ToWorker::Interrupt));
    assert!(began.elapsed() >= Duration::from_secs(1));
    stage.wait_until(ALICE.private_chat(), |m| {
        m.text()
            .contains("Stopped here, because kai is being restarted")
    });
    assert!(stage.wait_for_gateway().success());
    assert!(began.elapsed() < Duration::from_secs(6));

    // It is over: the next gateway does not ask for it again.
    stage.start_gateway();
    stage.says(ALICE, "next");
    let worker = stage.worker(ALICE);
    assert_eq!(worker.prompt().text, "next");
}

#[test]
fn a_turn_that_a_stopping_gateway_waits_for_can_be_stopped() {
    let mut stage = Stage::new();
    stage.says(ALICE, "long work");
    let worker = stage.worker(ALICE);
    let prompt = worker.prompt().id;
    worker.accept(prompt);
    worker.text(prompt, "half");
    stage.wait_for(ALICE, "half");
    stage.terminate_gateway();
    std::thread::sleep(Duration::from_millis(300));
    stage.says(ALICE, "/stop");
    assert_eq!(worker.told(), Some(ToWorker::Interrupt));
    worker.finish(prompt, Outcome::Interrupted);
    assert!(stage.wait_for_gateway().success());
    assert!(
        stage
            .heard(ALICE)
            .iter()
            .any(|text| text.contains("Stopped."))
    );
}

#[test]
fn a_gateway_that_is_told_twice_does_not_wait() {
    let mut stage = Stage::new();
    stage.says(ALICE, "long work");
    let worker = stage.worker(ALICE);
    let prompt = worker.prompt().id;
    worker.accept(prompt);
    std::thread::sleep(Duration::from_millis(200));
    stage.terminate_gateway();
    std::thread::sleep(Duration::from_millis(300));
    let began = Instant::now();
    stage.terminate_gateway();
    assert!(stage.wait_for_gateway().success());
    assert!(began.elapsed() < Duration::from_secs(6));
}
