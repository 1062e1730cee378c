//! The Messages API emulator over plain HTTP.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what fails here fails a test, in its helpers too"
)]

use std::time::Duration;

use kai_emulators::messages_api::{Ending, Kind, Match, MessagesApi, MessagesApiOptions, Reply};
use serde_json::{Value, json};

fn api() -> MessagesApi {
    MessagesApi::start(MessagesApiOptions::default()).unwrap()
}

fn prompt(text: &str) -> Value {
    json!({
        "model": "claude-opus-4-8", "max_tokens": 100,
        "messages": [{"role": "user", "content": text}],
        "tools": [{"name": "Bash", "input_schema": {"type": "object"}}],
    })
}

async fn post(api: &MessagesApi, body: &Value, headers: &[(&str, &str)]) -> (u16, String) {
    let mut request = reqwest::Client::new()
        .post(format!("{}/v1/messages", api.url()))
        .json(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

const HEADERS: [(&str, &str); 2] = [("x-api-key", "sk-x"), ("anthropic-version", "2023-06-01")];

#[tokio::test]
async fn keys_and_versions_are_asked_for() {
    let api = api();
    api.when(Match::any(), Reply::text("hi"));
    assert_eq!(post(&api, &prompt("a"), &HEADERS).await.0, 200);
    let bearer = [("authorization", "Bearer sk-y"), HEADERS[1]];
    assert_eq!(post(&api, &prompt("a"), &bearer).await.0, 200);
    let (status, body) = post(&api, &prompt("a"), &HEADERS[1..]).await;
    assert!(
        status == 401 && body.contains("authentication_error"),
        "{body}"
    );
    let (status, body) = post(&api, &prompt("a"), &HEADERS[..1]).await;
    assert!(
        status == 400 && body.contains("anthropic-version"),
        "{body}"
    );
    let (status, _) = post(&api, &json!({"model": "m"}), &HEADERS).await;
    assert_eq!(status, 400);
    let keys: Vec<_> = api
        .turns()
        .iter()
        .map(|t| t.key().map(str::to_owned))
        .collect();
    assert_eq!(keys, [Some("sk-x".to_owned()), Some("sk-y".to_owned())]);
}

#[tokio::test]
async fn a_streamed_answer_has_the_events_in_order() {
    let api = api();
    api.when(
        Match::any(),
        Reply::streamed(["one ", "two"], Duration::from_millis(30))
            .use_tool("Bash", json!({"command": "id"})),
    );
    let mut body = prompt("count");
    body["stream"] = json!(true);
    let (_, text) = post(&api, &body, &HEADERS).await;
    let names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("event: "))
        .collect();
    assert_eq!(
        names,
        [
            "message_start",
            "content_block_start",
            "content_block_delta",
            "content_block_delta",
            "content_block_stop",
            "content_block_start",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
    );
    assert!(text.contains(r#""stop_reason":"tool_use""#));
    let turn = api.turns().remove(0);
    assert!(turn.words[1].duration_since(turn.words[0]) >= Duration::from_millis(30));
    assert!(matches!(turn.ended, Some((_, Ending::Complete))));
}

#[tokio::test]
async fn no_two_messages_have_the_same_id() {
    let api = api();
    api.when(Match::any(), Reply::text("hi"));
    let mut ids = std::collections::BTreeSet::new();
    for _ in 0..50 {
        let (_, body) = post(&api, &prompt("a"), &HEADERS).await;
        let body: Value = serde_json::from_str(&body).unwrap();
        assert!(ids.insert(body["id"].as_str().unwrap().to_owned()));
    }
}

#[tokio::test]
async fn side_requests_leave_the_script_alone() {
    let api = api();
    api.once(Match::any(), Reply::text("for the prompt"));
    let mut title = prompt("<session>a</session>");
    title["tools"] = json!([]);
    let properties = json!({"title": {"type": "string"}});
    title["output_config"] =
        json!({"format": {"type": "json_schema", "schema": {"properties": properties}}});
    let (_, body) = post(&api, &title, &HEADERS).await;
    assert!(body.contains(r#"{\"title\":\"Emulated\"}"#), "{body}");
    let (_, body) = post(&api, &prompt("a"), &HEADERS).await;
    assert!(body.contains("for the prompt"), "{body}");
    let (status, body) = post(&api, &prompt("a"), &HEADERS).await;
    assert!(
        status == 400 && body.contains("the script has no answer"),
        "{body}"
    );
    let elsewhere = reqwest::get(format!("{}/v1/files", api.url()))
        .await
        .unwrap();
    assert_eq!(elsewhere.status(), 404);
    let kinds: Vec<Kind> = api.received().iter().map(|request| request.kind).collect();
    assert_eq!(kinds, [Kind::Side, Kind::Turn, Kind::Turn, Kind::Unknown]);
}

#[tokio::test]
async fn errors_come_as_the_script_says() {
    let api = api();
    api.when(
        Match::any(),
        Reply::error(529, "overloaded_error", "Overloaded"),
    );
    let (status, body) = post(&api, &prompt("a"), &HEADERS).await;
    assert!(status == 529 && body.contains("overloaded_error"), "{body}");
}
