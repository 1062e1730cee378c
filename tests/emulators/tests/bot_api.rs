//! The Bot API emulator's own strictness, over plain HTTP.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what fails here fails a test, in its helpers too"
)]

use std::time::{Duration, Instant};

use kai_emulators::bot_api::{
    BotApi, BotApiOptions, CallFilter, CallbackState, Fault, FileKind, FloodGuard, GroupKind,
    Order, Outcome, UserId,
};
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

const ALICE: UserId = UserId(1001);
const BOB: UserId = UserId(1002);

/// A Telegram in which alice has already written `/start`.
fn telegram() -> BotApi {
    let api = BotApi::start(BotApiOptions::default()).unwrap();
    api.add_user(ALICE, "Alice", Some("alice"));
    api.add_user(BOB, "Bob", None);
    api.send_text(ALICE, ALICE.private_chat(), "/start")
        .unwrap();
    api
}

struct Bot {
    client: reqwest::Client,
    root: String,
}

impl Bot {
    fn of(api: &BotApi) -> Self {
        let root = format!("{}/bot{}", api.url(), api.token());
        Self {
            client: reqwest::Client::new(),
            root,
        }
    }

    async fn call(&self, method: &str, params: Value) -> Value {
        let request = self
            .client
            .post(format!("{}/{method}", self.root))
            .json(&params);
        request.send().await.unwrap().json().await.unwrap()
    }

    async fn ok(&self, method: &str, params: Value) -> Value {
        let answer = self.call(method, params).await;
        assert_eq!(answer["ok"], true, "{method}: {answer}");
        answer["result"].clone()
    }

    async fn refused(&self, method: &str, params: Value) -> String {
        let answer = self.call(method, params).await;
        assert_eq!(answer["ok"], false, "{method}: {answer}");
        answer["description"].as_str().unwrap().to_owned()
    }

    async fn updates(&self, offset: i64) -> Vec<Value> {
        let result = self.ok("getUpdates", json!({"offset": offset})).await;
        result.as_array().unwrap().clone()
    }

    async fn say(&self, text: &str) -> i64 {
        let message = self
            .ok("sendMessage", json!({"chat_id": ALICE, "text": text}))
            .await;
        message["message_id"].as_i64().unwrap()
    }
}

fn ids(updates: &[Value]) -> Vec<u32> {
    updates
        .iter()
        .map(|update| update["update_id"].as_u64().unwrap() as u32)
        .collect()
}

#[tokio::test]
async fn only_the_right_token_and_known_methods_are_answered() {
    let api = telegram();
    let post = async |path: &str| {
        let answer = reqwest::Client::new()
            .post(format!("{}/{path}", api.url()))
            .send()
            .await;
        let answer = answer.unwrap();
        let status = answer.status().as_u16();
        (
            status,
            answer.json::<Value>().await.unwrap()["description"].clone(),
        )
    };
    assert_eq!(post("bot1:wrong/getMe").await, (401, json!("Unauthorized")));
    assert_eq!(post("botnonsense/getMe").await, (404, json!("Not Found")));
    assert_eq!(post("elsewhere").await, (404, json!("Not Found")));
    let unknown = format!("bot{}/sendGift", api.token());
    assert_eq!(
        post(&unknown).await,
        (404, json!("Not Found: method not found"))
    );
    let any_case = format!("bot{}/GETME", api.token());
    assert_eq!(post(&any_case).await.0, 200);
}

#[tokio::test]
async fn unknown_missing_and_ill_typed_parameters_are_refused() {
    let api = telegram();
    let bot = Bot::of(&api);
    for (params, words) in [
        (
            json!({"chat_id": 1001, "text": "a", "colour": "red"}),
            "unknown field `colour`",
        ),
        (json!({"chat_id": 1001}), "message text is empty"),
        (
            json!({"chat_id": 1001, "text": " \n\t"}),
            "message text is empty",
        ),
        (json!({"chat_id": 1001, "text": 5}), "invalid type"),
        (json!({"text": "a"}), "chat_id is empty"),
        (json!({"chat_id": 1002, "text": "a"}), "chat not found"),
        (
            json!({"chat_id": 1001, "text": "x".repeat(4097)}),
            "message is too long",
        ),
        (
            json!({"chat_id": 1001, "text": "a", "parse_mode": "HTML"}),
            "not supported",
        ),
        (
            json!({"chat_id": 1001, "text": "a", "message_thread_id": 5}),
            "thread not found",
        ),
        (
            json!({"chat_id": 1001, "text": "a", "reply_parameters": {"message_id": 99}}),
            "message to be replied not found",
        ),
    ] {
        let refusal = bot.refused("sendMessage", params).await;
        assert!(
            refusal.starts_with("Bad Request: ") && refusal.contains(words),
            "{refusal}"
        );
    }
    // The limit counts UTF-16 code units, of which this has two each.
    assert!(bot.say(&"😀".repeat(2048)).await > 0);
    let one_more = json!({"chat_id": ALICE, "text": "😀".repeat(2049)});
    assert!(
        bot.refused("sendMessage", one_more)
            .await
            .contains("too long")
    );
}

#[tokio::test]
async fn an_update_is_served_until_a_greater_offset_confirms_it() {
    let api = telegram();
    let bot = Bot::of(&api);
    let sent = api.send_text(ALICE, ALICE.private_chat(), "hello").unwrap();
    let first = bot.updates(0).await;
    assert_eq!(ids(&first).len(), 2);
    assert_eq!(ids(&bot.updates(0).await), ids(&first));
    assert_eq!(first[0]["message"]["entities"][0]["type"], "bot_command");
    let last = ids(&first)[1];
    assert_eq!(ids(&bot.updates(last.into()).await), [last]);
    assert!(!api.is_confirmed(sent.update.unwrap()));
    assert!(bot.updates(i64::from(last) + 1).await.is_empty());
    assert!(api.is_confirmed(sent.update.unwrap()));
}

#[tokio::test]
async fn a_waiting_poller_is_woken_by_the_first_update() {
    let api = telegram();
    let bot = Bot::of(&api);
    let offset = i64::from(ids(&bot.updates(0).await)[0]) + 1;
    let poll = bot.ok("getUpdates", json!({"offset": offset, "timeout": 30}));
    let send = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        api.send_text(ALICE, ALICE.private_chat(), "wake up")
            .unwrap();
        Instant::now()
    };
    let (updates, sent) = tokio::join!(poll, send);
    assert!(sent.elapsed() < Duration::from_secs(5));
    assert_eq!(updates[0]["message"]["text"], "wake up");
}

#[tokio::test]
async fn a_second_poller_ends_the_first() {
    let api = telegram();
    let bot = Bot::of(&api);
    let offset = i64::from(ids(&bot.updates(0).await)[0]) + 1;
    let poll = json!({"offset": offset, "timeout": 30});
    let second = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        bot.call("getUpdates", json!({"offset": offset, "timeout": 0}))
            .await
    };
    let (first, second) = tokio::join!(bot.call("getUpdates", poll), second);
    assert_eq!(first["error_code"], 409);
    assert!(
        first["description"]
            .as_str()
            .unwrap()
            .starts_with("Conflict: terminated by other")
    );
    assert_eq!(second["ok"], true);
}

#[tokio::test]
async fn updates_come_twice_and_out_of_order_on_demand() {
    let api = telegram();
    let bot = Bot::of(&api);
    let start = ids(&bot.updates(0).await)[0];
    let offset = i64::from(start) + 1;
    api.hold_updates();
    let chat = ALICE.private_chat();
    let one = api.send_text(ALICE, chat, "one").unwrap().update.unwrap();
    let two = api.send_text(ALICE, chat, "two").unwrap().update.unwrap();
    assert!(bot.updates(offset).await.is_empty());
    api.release_updates(Order::Reversed);
    assert_eq!(ids(&bot.updates(offset).await), [two.0, one.0]);
    assert!(bot.updates(i64::from(two.0) + 1).await.is_empty());
    assert!(api.repeat_update(one));
    assert_eq!(ids(&bot.updates(i64::from(two.0) + 1).await), [one.0]);
}

#[tokio::test]
async fn edits_have_to_change_something_of_the_bots_own() {
    let api = telegram();
    let bot = Bot::of(&api);
    let chat = ALICE.private_chat();
    let id = bot.say("one").await;
    let edit = |text: &str, extra: Value| {
        let mut params = json!({"chat_id": ALICE, "message_id": id, "text": text});
        params
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        params
    };
    let unchanged = bot
        .refused("editMessageText", edit("one ", json!({})))
        .await;
    assert!(unchanged.starts_with("Bad Request: message is not modified: specified"));
    let bold = json!({"entities": [{"type": "bold", "offset": 0, "length": 3}]});
    bot.ok("editMessageText", edit("one", bold.clone())).await;
    assert!(
        bot.refused("editMessageText", edit("one", bold))
            .await
            .contains("not modified")
    );
    let keyboard =
        json!({"reply_markup": {"inline_keyboard": [[{"text": "go", "callback_data": "g"}]]}});
    bot.ok("editMessageText", edit("two", keyboard.clone()))
        .await;
    let same = json!({
        "chat_id": ALICE, "message_id": id, "reply_markup": keyboard["reply_markup"],
    });
    assert!(
        bot.refused("editMessageReplyMarkup", same)
            .await
            .contains("not modified")
    );
    assert_eq!(
        bot.refused("editMessageText", edit(" ", json!({}))).await,
        "Bad Request: message text is empty"
    );
    let long = bot
        .refused("editMessageText", edit(&"x".repeat(4097), json!({})))
        .await;
    assert_eq!(long, "Bad Request: MESSAGE_TOO_LONG");

    let versions = api.messages(chat).pop().unwrap();
    assert_eq!((versions.text(), versions.edit_count()), ("two", 2));
    assert!(versions.first_with("two") > versions.first_with("one"));

    let alices = api.messages(chat)[0].id;
    let others = json!({"chat_id": ALICE, "message_id": alices, "text": "x"});
    assert_eq!(
        bot.refused("editMessageText", others).await,
        "Bad Request: message can't be edited"
    );
    let none = json!({"chat_id": ALICE, "message_id": 9999, "text": "x"});
    assert_eq!(
        bot.refused("editMessageText", none).await,
        "Bad Request: message to edit not found"
    );
}

#[tokio::test]
async fn a_pressed_button_is_answered_once() {
    let api = telegram();
    let bot = Bot::of(&api);
    let chat = ALICE.private_chat();
    let markup = json!({"inline_keyboard": [[{"text": "Allow", "callback_data": "a:1"}]]});
    bot.ok(
        "sendMessage",
        json!({"chat_id": ALICE, "text": "?", "reply_markup": markup}),
    )
    .await;
    let message = api.messages(chat).pop().unwrap().id;
    assert!(api.press(ALICE, chat, message, "Deny").is_err());
    let id = api.press(ALICE, chat, message, "Allow").unwrap();
    let update = bot.updates(-1).await.remove(0);
    assert_eq!(update["callback_query"]["data"], "a:1");
    assert_eq!(update["callback_query"]["from"]["id"], 1001);
    assert_eq!(update["callback_query"]["id"], json!(id));
    let answer = json!({"callback_query_id": id, "text": "done"});
    bot.ok("answerCallbackQuery", answer.clone()).await;
    let answered = CallbackState::Answered {
        text: Some("done".to_owned()),
        alert: false,
    };
    assert_eq!(api.callback(&id), Some(answered));
    assert!(
        bot.refused("answerCallbackQuery", answer)
            .await
            .contains("query is too old")
    );
    let late = api.press(ALICE, chat, message, "Allow").unwrap();
    api.expire_callback(&late);
    let answer = json!({"callback_query_id": late});
    assert!(
        bot.refused("answerCallbackQuery", answer)
            .await
            .contains("query is too old")
    );
}

#[tokio::test]
async fn too_many_requests_on_demand_and_by_the_flood_guard() {
    let api = telegram();
    let bot = Bot::of(&api);
    api.inject(CallFilter::method("sendMessage"), 1, Fault::RetryAfter(7));
    let answer = bot
        .call("sendMessage", json!({"chat_id": ALICE, "text": "a"}))
        .await;
    assert_eq!(
        (&answer["error_code"], &answer["parameters"]["retry_after"]),
        (&json!(429), &json!(7))
    );
    assert_eq!(answer["description"], "Too Many Requests: retry after 7");
    let id = bot.say("a").await;
    api.set_flood_guard(Some(FloodGuard {
        calls: 2,
        per: Duration::from_secs(10),
    }));
    let edit = |text: &str| json!({"chat_id": ALICE, "message_id": id, "text": text});
    bot.ok("editMessageText", edit("b")).await;
    bot.ok("editMessageText", edit("c")).await;
    assert_eq!(
        bot.refused("editMessageText", edit("d")).await,
        "Too Many Requests: retry after 10"
    );
}

#[tokio::test]
async fn connections_break_and_answers_get_lost_on_demand() {
    let api = telegram();
    let bot = Bot::of(&api);
    let chat = ALICE.private_chat();
    let send = |text: &str| {
        let request = bot.client.post(format!("{}/sendMessage", bot.root));
        request
            .json(&json!({"chat_id": ALICE, "text": text}))
            .send()
    };
    api.inject(CallFilter::chat(chat), 1, Fault::DropConnection);
    assert!(send("dropped").await.is_err());
    api.inject(CallFilter::chat(chat), 1, Fault::LoseAnswer);
    assert!(send("lost").await.is_err());
    api.inject(CallFilter::any(), 1, Fault::ServerError(502));
    assert_eq!(send("bad gateway").await.unwrap().status(), 502);
    api.inject(
        CallFilter::method("deleteMessage"),
        1,
        Fault::refuse_deletion(),
    );
    let message = api.messages(chat)[0].id;
    let delete = json!({"chat_id": ALICE, "message_id": message});
    assert_eq!(
        bot.refused("deleteMessage", delete.clone()).await,
        "Bad Request: message can't be deleted"
    );
    bot.ok("deleteMessage", delete).await;

    let texts: Vec<String> = api
        .messages(chat)
        .iter()
        .map(|m| m.text().to_owned())
        .collect();
    assert_eq!(texts, ["/start", "lost"]);
    assert!(api.messages(chat)[0].deleted.is_some());
    let outcomes: Vec<Outcome> = api
        .calls()
        .into_iter()
        .filter_map(|call| call.ended)
        .map(|(_, outcome)| outcome)
        .collect();
    assert_eq!(
        outcomes[..3],
        [
            Outcome::Dropped,
            Outcome::AnswerLost,
            Outcome::ServerError(502)
        ]
    );
}

#[tokio::test]
async fn edits_in_flight_at_once_are_noticed() {
    let api = telegram();
    let bot = Bot::of(&api);
    let id = bot.say("a").await;
    api.delay(
        CallFilter::method("editMessageText"),
        Duration::from_millis(100),
    );
    let edit = |text: &str| {
        bot.ok(
            "editMessageText",
            json!({"chat_id": ALICE, "message_id": id, "text": text}),
        )
    };
    edit("b").await;
    edit("c").await;
    assert!(api.overlapping_edits(ALICE.private_chat()).is_empty());
    assert!(api.edit_spacing(ALICE.private_chat())[0] >= Duration::from_millis(100));
    tokio::join!(edit("d"), edit("e"));
    assert_eq!(api.overlapping_edits(ALICE.private_chat()).len(), 1);
}

#[tokio::test]
async fn a_poller_that_goes_away_is_recorded_and_loses_nothing() {
    let api = telegram();
    let bot = Bot::of(&api);
    let offset = i64::from(ids(&bot.updates(0).await)[0]) + 1;
    let poll = bot.call("getUpdates", json!({"offset": offset, "timeout": 30}));
    assert!(
        tokio::time::timeout(Duration::from_millis(50), poll)
            .await
            .is_err()
    );
    let abandoned = tokio::task::spawn_blocking(move || {
        let found = api.wait_for_calls(Duration::from_secs(5), |calls| {
            let gone = |call: &&_| {
                matches!(
                    call,
                    kai_emulators::bot_api::Call {
                        ended: Some((_, Outcome::Abandoned)),
                        ..
                    }
                )
            };
            calls.iter().find(gone).map(|_| ())
        });
        (api, found)
    });
    let (api, found) = abandoned.await.unwrap();
    assert!(found.is_some());
    api.send_text(ALICE, ALICE.private_chat(), "kept").unwrap();
    assert_eq!(bot.updates(offset).await.len(), 1);
}

#[tokio::test]
async fn files_go_both_ways() {
    let api = telegram();
    let bot = Bot::of(&api);
    let chat = ALICE.private_chat();
    api.send_file(
        ALICE,
        chat,
        FileKind::Document,
        "notes.txt",
        b"from alice",
        Some("read this"),
    )
    .unwrap();
    let message = bot.updates(-1).await.remove(0)["message"].clone();
    assert_eq!(message["document"]["file_name"], "notes.txt");
    assert_eq!(message["caption"], "read this");
    let file = bot
        .ok(
            "getFile",
            json!({"file_id": message["document"]["file_id"]}),
        )
        .await;
    let path = file["file_path"].as_str().unwrap();
    let address = |path: &str| format!("{}/file/bot{}/{path}", api.url(), api.token());
    for path in [path.to_owned(), path.replace('/', "%2F")] {
        let bytes = reqwest::get(address(&path))
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap();
        assert_eq!(bytes.as_ref(), b"from alice");
    }
    assert_eq!(
        reqwest::get(address("documents/none"))
            .await
            .unwrap()
            .status(),
        404
    );

    let file = Part::bytes(b"from the bot".to_vec()).file_name("answer.pdf");
    let form = Form::new()
        .text("chat_id", "1001")
        .text("document", "attach://part")
        .text("caption", "bold")
        .text(
            "caption_entities",
            r#"[{"type":"bold","offset":0,"length":4}]"#,
        )
        .part("part", file);
    let request = bot
        .client
        .post(format!("{}/sendDocument", bot.root))
        .multipart(form);
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!(
        answer["result"]["document"]["mime_type"], "application/pdf",
        "{answer}"
    );
    let message = api.messages(chat).pop().unwrap();
    assert_eq!(message.html(), "<b>bold</b>");
    let attachment = message.attachment.unwrap();
    assert_eq!(attachment.name, "answer.pdf");
    assert_eq!(api.file(&attachment.file_id).unwrap(), b"from the bot");

    let missing = json!({"chat_id": ALICE, "document": "attach://part"});
    assert!(
        bot.refused("sendDocument", missing)
            .await
            .contains("there is no document")
    );
    let wrong = json!({"chat_id": ALICE, "document": "BQAC0", "colour": 1});
    assert!(
        bot.refused("sendDocument", wrong)
            .await
            .contains("unknown field `colour`")
    );
}

#[tokio::test]
async fn people_act_only_where_they_are_and_on_what_is_theirs() {
    let api = telegram();
    let bot = Bot::of(&api);
    let group = api.add_group(GroupKind::Supergroup, "Team", &[ALICE]);
    assert!(api.send_text(BOB, group, "let me in").is_err());
    assert!(api.send_text(BOB, ALICE.private_chat(), "boo").is_err());
    let sent = api.send_text(ALICE, group, "hello").unwrap();
    api.edit_text(ALICE, group, sent.message, "hello all")
        .unwrap();
    let update = bot.updates(-1).await.remove(0);
    assert_eq!(update["edited_message"]["text"], "hello all");
    assert_eq!(update["edited_message"]["chat"]["type"], "supergroup");
    assert!(update["edited_message"]["edit_date"].is_number());
    api.delete(ALICE, group, sent.message).unwrap();
    assert!(api.edit_text(ALICE, group, sent.message, "again").is_err());

    api.block_bot(ALICE, true).unwrap();
    let blocked = bot
        .refused("sendMessage", json!({"chat_id": ALICE, "text": "a"}))
        .await;
    assert_eq!(blocked, "Forbidden: bot was blocked by the user");
    api.push_update(json!({"surprise": [1, 2, 3]}));
    assert_eq!(bot.updates(-1).await[0]["surprise"], json!([1, 2, 3]));
}

#[test]
fn a_synchronous_test_can_wait_for_what_the_bot_does() {
    let api = telegram();
    let chat = ALICE.private_chat();
    let asked = api.send_text(ALICE, chat, "ping").unwrap();
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime
                .unwrap()
                .block_on(async { Bot::of(&api).say("pong").await });
        });
        let fits = |message: &kai_emulators::bot_api::Message| message.text() == "pong";
        let answer = api.wait_for_answer(chat, asked.message, Duration::from_secs(10), fits);
        assert_eq!(answer.unwrap().text(), "pong");
    });
    let timed_out = api.wait_for_answer(chat, asked.message, Duration::ZERO, |_| false);
    assert!(timed_out.unwrap_err().to_string().contains("bot: pong"));
    assert_eq!(
        api.transcript(chat),
        "Alice: /start\nAlice: ping\nbot: pong\n"
    );
}
