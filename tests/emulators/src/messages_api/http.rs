//! The Messages API's addresses, who is let in, and the form of its answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::body::{self, Body};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::conversation::Turn;
use super::received::{Ending, Kind, Received};
use super::script::{Content, Step};
use super::stream::Answer;
use super::{Shared, rules};
use crate::server::{Application, CutConnection};

/// The real API's limit.
const BODY_LIMIT: usize = 32 << 20;
/// The versions that there are.
const VERSIONS: [&str; 2] = ["2023-06-01", "2023-01-01"];
/// What is offered; the agent may ask for any other one all the same.
const MODELS: [&str; 3] = ["claude-opus-4-8", "claude-sonnet-4-6", "claude-haiku-4-5"];

/// Answers requests out of what is shared with the handle.
#[derive(Clone)]
pub(super) struct Api(pub(super) Arc<Shared>);

/// An error answer.
struct Failure {
    status: u16,
    kind: String,
    message: String,
}

impl Failure {
    fn new(status: u16, kind: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind: kind.to_owned(),
            message: message.into(),
        }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, "invalid_request_error", message)
    }
}

impl Application for Api {
    async fn answer(&self, request: Request<Body>) -> Result<Response<Body>, CutConnection> {
        let (head, body) = request.into_parts();
        let bytes = body::to_bytes(body, BODY_LIMIT)
            .await
            .map_err(|_| CutConnection)?;
        let headers: BTreeMap<String, String> = head
            .headers
            .iter()
            .map(|(name, value)| {
                (
                    name.to_string(),
                    String::from_utf8_lossy(value.as_bytes()).into_owned(),
                )
            })
            .collect();
        let received = Received {
            at: Instant::now(),
            method: head.method.to_string(),
            path: head.uri.to_string(),
            headers,
            body: Arc::new(serde_json::from_slice(&bytes).unwrap_or_default()),
            kind: Kind::Unknown,
            status: 0,
            words: Vec::new(),
            ended: None,
        };
        let number = self.0.state.change(|state| {
            state.received.push(received.clone());
            state.received.len() - 1
        });
        let mut open = OpenAnswer {
            shared: &self.0,
            number,
            streaming: false,
            complete: false,
        };
        let (kind, response) = self
            .route(&head.method, head.uri.path(), received, number)
            .await;
        open.streaming = response
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|t| t == EVENT_STREAM);
        open.complete = true;
        let status = response.status().as_u16();
        self.0.note(number, kind, status);
        Ok(response)
    }
}

const EVENT_STREAM: &str = "text/event-stream";

/// Ends the record of an answer, also of one whose agent went away while it was waited for. What
/// is streamed ends its own.
struct OpenAnswer<'a> {
    shared: &'a Shared,
    number: usize,
    streaming: bool,
    complete: bool,
}

impl Drop for OpenAnswer<'_> {
    fn drop(&mut self) {
        if !self.streaming {
            let ending = if self.complete {
                Ending::Complete
            } else {
                Ending::Abandoned
            };
            self.shared.end(self.number, ending);
        }
    }
}

impl Shared {
    fn note(&self, number: usize, kind: Kind, status: u16) {
        self.state.change(|state| {
            if let Some(request) = state.received.get_mut(number) {
                (request.kind, request.status) = (kind, status);
            }
        });
    }
}

impl Api {
    async fn route(
        &self,
        method: &Method,
        path: &str,
        received: Received,
        number: usize,
    ) -> (Kind, Response<Body>) {
        // The agent asks for the root, without a key, to see whether anybody is there.
        if path == "/" && matches!(*method, Method::HEAD | Method::GET) {
            return (Kind::Service, Response::new(Body::empty()));
        }
        let known = matches!(
            (method, path),
            (&Method::POST, "/v1/messages" | "/v1/messages/count_tokens")
                | (&Method::GET, "/v1/models")
        );
        if !known {
            let failure = Failure::new(404, "not_found_error", format!("Not found: {path}"));
            return (Kind::Unknown, failed(&failure));
        }
        if let Err(failure) = self.admit(&received) {
            return (Kind::Refused, failed(&failure));
        }
        if path == "/v1/models" {
            return (Kind::Service, respond(200, &models()));
        }
        let betas = received
            .headers
            .get("anthropic-beta")
            .map(String::as_str)
            .unwrap_or_default();
        let needs_limit = path == "/v1/messages";
        if let Err(message) = rules::check(&received.body, betas, needs_limit) {
            return (Kind::Refused, failed(&Failure::invalid(message)));
        }
        if !needs_limit {
            let tokens = received.body["messages"].to_string().len() / 4;
            return (
                Kind::Service,
                respond(200, &json!({"input_tokens": tokens})),
            );
        }
        let has_tools = received.body["tools"]
            .as_array()
            .is_some_and(|tools| !tools.is_empty());
        if has_tools {
            // Noted before the answer, for whoever waits for a turn that will hang.
            self.0.note(number, Kind::Turn, 0);
            (Kind::Turn, self.turn(received, number).await)
        } else {
            let step = Step::Say(side_answer(&received.body));
            let answer = Answer::new(&received.body, vec![step], unique);
            (Kind::Side, self.send(&received.body, answer, number).await)
        }
    }

    fn admit(&self, received: &Received) -> Result<(), Failure> {
        let denied = |message| Failure::new(401, "authentication_error", message);
        let key = received.key().filter(|key| !key.is_empty());
        let key = key.ok_or_else(|| denied("x-api-key header is required"))?;
        if !self.0.keys.is_empty() && !self.0.keys.contains(key) {
            return Err(denied("invalid x-api-key"));
        }
        match received.headers.get("anthropic-version") {
            None => Err(Failure::invalid("anthropic-version: header is required")),
            Some(version) if VERSIONS.contains(&version.as_str()) => Ok(()),
            Some(version) => {
                let message = format!("anthropic-version: {version:?} is not a valid version");
                Err(Failure::invalid(message))
            }
        }
    }

    async fn turn(&self, received: Received, number: usize) -> Response<Body> {
        let body = Arc::clone(&received.body);
        let turn = Turn::new(received.headers, received.body);
        let Some(reply) = self.0.state.change(|state| state.script.reply(&turn)) else {
            let message = format!("the script has no answer to {:?}", turn.prompt);
            return failed(&Failure::invalid(message));
        };
        match reply.0 {
            Content::Hang => std::future::pending().await,
            Content::Error {
                status,
                kind,
                message,
            } => failed(&Failure {
                status,
                kind,
                message,
            }),
            Content::Answer { steps, follow_up } => {
                let answer = Answer::new(&body, steps, unique);
                if let Some(follow_up) = follow_up {
                    self.0.state.change(|state| {
                        for id in answer.tool_use_ids() {
                            state.script.follow_up(id, Arc::clone(&follow_up));
                        }
                    });
                }
                self.send(&body, answer, number).await
            }
        }
    }

    async fn send(&self, body: &Value, answer: Answer, number: usize) -> Response<Body> {
        if body["stream"] == true {
            let stream = answer.stream(Arc::clone(&self.0), number);
            return response(200, EVENT_STREAM, stream);
        }
        match answer.whole().await {
            Some(message) => respond(200, &message),
            None => std::future::pending().await,
        }
    }
}

/// What the agent's own questions get: an object if it asks for one, a word if not.
fn side_answer(body: &Value) -> String {
    let schema = &body["output_config"]["format"]["schema"];
    let Some(properties) = schema["properties"].as_object() else {
        return "ok".to_owned();
    };
    let value = |schema: &Value| match schema["type"].as_str() {
        Some("boolean") => json!(false),
        Some("integer" | "number") => json!(0),
        Some("array") => json!([]),
        Some("object") => json!({}),
        _ => schema["enum"].get(0).cloned().unwrap_or(json!("Emulated")),
    };
    let object: serde_json::Map<_, _> = properties
        .iter()
        .map(|(name, schema)| (name.clone(), value(schema)))
        .collect();
    Value::Object(object).to_string()
}

fn models() -> Value {
    let one = |id: &&str| json!({"type": "model", "id": id, "display_name": id, "created_at": "2026-01-01T00:00:00Z"});
    let data: Vec<Value> = MODELS.iter().map(one).collect();
    json!({"data": data, "has_more": false, "first_id": MODELS[0], "last_id": MODELS[2]})
}

/// An id that no other process has made either: an agent that is resumed has older ones.
fn unique(prefix: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let time = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos());
    format!("{prefix}_01{time:018x}{count:06x}")
}

fn failed(failure: &Failure) -> Response<Body> {
    let error = json!({"type": failure.kind, "message": failure.message});
    let body = json!({"type": "error", "error": error, "request_id": unique("req")});
    let mut response = respond(failure.status, &body);
    // As the real API does: without this the agent tries again for minutes, whatever is wrong.
    let again = matches!(failure.status, 408 | 409 | 429 | 500..);
    let again = HeaderValue::from_static(if again { "true" } else { "false" });
    response.headers_mut().insert("x-should-retry", again);
    response
}

fn respond(status: u16, body: &Value) -> Response<Body> {
    response(status, "application/json", body.to_string())
}

fn response(status: u16, kind: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
