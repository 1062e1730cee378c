//! What came with a call: a JSON body, or a form with files.

use std::collections::BTreeMap;

use axum::RequestExt;
use axum::body::{self, Body};
use axum::extract::{DefaultBodyLimit, Multipart};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, Request};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::files::UPLOAD_LIMIT;
use super::ids::ChatId;
use super::refusal::Refusal;

/// Room for the rest of a form around the largest file.
const FORM_LIMIT: usize = UPLOAD_LIMIT + (1 << 20);
/// A JSON body carries a text and a keyboard at most.
const JSON_LIMIT: usize = 1 << 20;

/// Parameters that a form can only carry as digits.
const INTEGERS: [&str; 9] = [
    "chat_id",
    "message_id",
    "message_thread_id",
    "offset",
    "limit",
    "timeout",
    "cache_time",
    "width",
    "height",
];
/// Parameters that a form can only carry as a word.
const BOOLEANS: [&str; 5] = [
    "disable_notification",
    "protect_content",
    "disable_content_type_detection",
    "show_alert",
    "drop_pending_updates",
];
/// Parameters that a form carries as JSON.
const JSON: [&str; 7] = [
    "entities",
    "caption_entities",
    "reply_markup",
    "reply_parameters",
    "link_preview_options",
    "allowed_updates",
    "commands",
];

/// A file within a form.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

/// The parameters of one call.
#[derive(Debug, Default)]
pub(super) struct Params {
    values: Map<String, Value>,
    uploads: BTreeMap<String, Upload>,
}

impl Params {
    /// Reads a request's body. Telegram also takes parameters from the address; no client of ours
    /// sends them there, so that is a mistake.
    pub(super) async fn read(request: Request<Body>) -> Result<Self, Refusal> {
        if request.uri().query().is_some() {
            return Err(Refusal::bad_request("parameters belong into the body"));
        }
        let kind = request.headers().get(CONTENT_TYPE);
        let kind = kind
            .and_then(|kind| kind.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        if kind.starts_with("multipart/form-data") {
            return Self::from_form(request).await;
        }
        let bytes = body::to_bytes(request.into_body(), JSON_LIMIT)
            .await
            .map_err(|_| Refusal::new(413, "Request Entity Too Large"))?;
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        if !kind.starts_with("application/json") {
            let what = format_args!("content type {kind:?} is not supported here");
            return Err(Refusal::bad_request(what));
        }
        let values = serde_json::from_slice(&bytes)
            .map_err(|error| Refusal::bad_request(format_args!("can't parse JSON: {error}")))?;
        Ok(Self {
            values,
            uploads: BTreeMap::new(),
        })
    }

    async fn from_form(mut request: Request<Body>) -> Result<Self, Refusal> {
        let broken =
            |what: &dyn std::fmt::Display| Refusal::bad_request(format_args!("bad form: {what}"));
        if request.method() != Method::POST {
            return Err(broken(&"a form is posted"));
        }
        DefaultBodyLimit::max(FORM_LIMIT).apply(&mut request);
        let mut form: Multipart = request.extract().await.map_err(|error| broken(&error))?;
        let mut params = Self::default();
        while let Some(part) = form.next_field().await.map_err(|error| broken(&error))? {
            let name = part.name().unwrap_or_default().to_owned();
            let file_name = part.file_name().map(str::to_owned);
            let bytes = part
                .bytes()
                .await
                .map_err(|error| match error.status().as_u16() {
                    413 => Refusal::new(413, "Request Entity Too Large"),
                    _ => broken(&error),
                })?;
            if let Some(file_name) = file_name {
                if bytes.len() > UPLOAD_LIMIT {
                    return Err(Refusal::new(413, "Request Entity Too Large"));
                }
                params.uploads.insert(
                    name,
                    Upload {
                        name: file_name,
                        bytes: bytes.to_vec(),
                    },
                );
            } else {
                let text = std::str::from_utf8(&bytes)
                    .map_err(|_| Refusal::bad_request("strings must be encoded in UTF-8"))?;
                params
                    .values
                    .insert(name.clone(), from_form_text(&name, text)?);
            }
        }
        Ok(params)
    }

    /// The chat that the call is about.
    pub(super) fn chat(&self) -> Option<ChatId> {
        self.values
            .get("chat_id")
            .and_then(Value::as_i64)
            .map(ChatId)
    }

    /// What the record keeps.
    pub(super) fn json(&self) -> Value {
        Value::Object(self.values.clone())
    }

    /// The parameters as a method's own type, and the files. A parameter that the method does not
    /// have, or one of the wrong type, is refused.
    pub(super) fn typed<T: DeserializeOwned>(
        self,
    ) -> Result<(T, BTreeMap<String, Upload>), Refusal> {
        let typed =
            serde_json::from_value(Value::Object(self.values)).map_err(Refusal::bad_request)?;
        Ok((typed, self.uploads))
    }

    /// The same for a method that takes no files.
    pub(super) fn only<T: DeserializeOwned>(self) -> Result<T, Refusal> {
        let (typed, uploads) = self.typed()?;
        match uploads.keys().next() {
            None => Ok(typed),
            Some(name) => Err(Refusal::bad_request(format_args!(
                "nobody needs the file {name:?}"
            ))),
        }
    }
}

fn from_form_text(name: &str, text: &str) -> Result<Value, Refusal> {
    let wrong = |what: &str| Refusal::bad_request(format_args!("parameter {name} is not {what}"));
    if INTEGERS.contains(&name) {
        return text
            .parse::<i64>()
            .map(|number| json!(number))
            .map_err(|_| wrong("an integer"));
    }
    if BOOLEANS.contains(&name) {
        return text
            .parse::<bool>()
            .map(|word| json!(word))
            .map_err(|_| wrong("a boolean"));
    }
    if JSON.contains(&name) {
        return serde_json::from_str(text).map_err(|_| wrong("JSON"));
    }
    Ok(json!(text))
}
