//! The Bot API's addresses, its tokens, and the form of its answers.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Request, Response, StatusCode};
use serde_json::{Value, json};

use super::Shared;
use super::calls::{Call, Outcome};
use super::faults::Fault;
use super::params::Params;
use super::refusal::Refusal;
use super::{methods, polling};
use crate::server::{Application, CutConnection};

/// Answers requests out of what is shared with the handle.
#[derive(Clone)]
pub(super) struct Api(pub(super) Arc<Shared>);

impl Application for Api {
    async fn answer(&self, request: Request<Body>) -> Result<Response<Body>, CutConnection> {
        let path = percent_decoded(request.uri().path());
        let path = path.strip_prefix('/').unwrap_or(&path);
        if let Some(rest) = path.strip_prefix("file/bot") {
            return Ok(self.download(rest));
        }
        let call = path
            .strip_prefix("bot")
            .and_then(|rest| rest.split_once('/'));
        let Some((token, method)) = call else {
            return Ok(refused(&Refusal::not_found()));
        };
        if let Err(refusal) = self.check(token) {
            return Ok(refused(&refusal));
        }
        match methods::proper_name(method) {
            Some(method) => self.call(method, request).await,
            None => Ok(refused(&Refusal::unknown_method())),
        }
    }
}

impl Api {
    fn check(&self, token: &str) -> Result<(), Refusal> {
        if token == self.0.token {
            return Ok(());
        }
        let well_formed = token.split_once(':').is_some_and(|(id, secret)| {
            id.parse::<u64>().is_ok()
                && !secret.is_empty()
                && secret
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        });
        Err(if well_formed {
            Refusal::unauthorized()
        } else {
            Refusal::not_found()
        })
    }

    fn download(&self, rest: &str) -> Response<Body> {
        let Some((token, path)) = rest.split_once('/') else {
            return refused(&Refusal::not_found());
        };
        if let Err(refusal) = self.check(token) {
            return refused(&refusal);
        }
        match self.0.state.lock().files.at_path(path) {
            Some(bytes) => response(200, "application/octet-stream", bytes.to_vec()),
            None => refused(&Refusal::not_found()),
        }
    }

    async fn call(
        &self,
        method: &'static str,
        request: Request<Body>,
    ) -> Result<Response<Body>, CutConnection> {
        let started = Instant::now();
        let params = Params::read(request).await;
        let chat = params.as_ref().ok().and_then(Params::chat);
        let json = params.as_ref().map_or(Value::Null, Params::json);
        let state = &self.0.state;
        let (number, fault, delay) = state.change(|state| {
            let call = Call {
                method,
                chat,
                params: json,
                started,
                ended: None,
            };
            let number = state.calls.open(call);
            let fault = state.faults.take(method, chat);
            (number, fault, state.faults.delay_of(method, chat))
        });
        let mut open = OpenCall {
            shared: &self.0,
            number,
            outcome: Outcome::Abandoned,
        };
        let lose_answer = fault == Some(Fault::LoseAnswer);
        let result = match fault {
            Some(Fault::RetryAfter(seconds)) => Err(Refusal::retry_after(seconds)),
            Some(Fault::Refuse(refusal)) => Err(refusal),
            Some(Fault::ServerError(status)) => {
                tokio::time::sleep(delay).await;
                open.outcome = Outcome::ServerError(status);
                let page = format!("<html><body><h1>{status}</h1></body></html>");
                return Ok(response(status, "text/html", page));
            }
            Some(Fault::DropConnection) => {
                tokio::time::sleep(delay).await;
                open.outcome = Outcome::Dropped;
                return Err(CutConnection);
            }
            Some(Fault::LoseAnswer) | None => match params {
                Ok(params) if method == "getUpdates" => polling::get_updates(&self.0, params).await,
                Ok(params) => state.change(|state| methods::execute(state, method, params)),
                Err(refusal) => Err(refusal),
            },
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if lose_answer {
            open.outcome = Outcome::AnswerLost;
            return Err(CutConnection);
        }
        open.outcome = match &result {
            Ok(_) => Outcome::Done,
            Err(refusal) => Outcome::Refused(refusal.clone()),
        };
        Ok(match result {
            Ok(result) => respond(200, &json!({"ok": true, "result": result})),
            Err(refusal) => refused(&refusal),
        })
    }
}

/// Closes the record of a call, also of one whose client went away in the middle.
struct OpenCall<'a> {
    shared: &'a Shared,
    number: usize,
    outcome: Outcome,
}

impl Drop for OpenCall<'_> {
    fn drop(&mut self) {
        let outcome = self.outcome.clone();
        self.shared
            .state
            .change(|state| state.calls.close(self.number, Instant::now(), outcome));
    }
}

fn refused(refusal: &Refusal) -> Response<Body> {
    respond(refusal.code, &refusal.body())
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
        .insert(CONTENT_TYPE, axum::http::HeaderValue::from_static(kind));
    response
}

/// Clients write a file's path as one segment, with its slashes encoded.
fn percent_decoded(path: &str) -> String {
    let mut decoded = Vec::with_capacity(path.len());
    let mut bytes = path.as_bytes().iter();
    while let Some(&byte) = bytes.next() {
        let digits = bytes
            .as_slice()
            .get(..2)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let encoded = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match encoded.filter(|_| byte == b'%') {
            Some(value) => {
                decoded.push(value);
                bytes.nth(1);
            }
            None => decoded.push(byte),
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
