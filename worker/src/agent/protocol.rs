//! The lines that an agent writes: one JSON object a line, as Claude Code 2.1 writes them with
//! `--output-format=stream-json --verbose --include-partial-messages`.
//!
//! Versions differ, so unknown kinds of lines and unknown fields are passed over; only what is not a
//! JSON object with a `type` is an error.

use std::{borrow::Cow, fmt};

use kai_proto::ids::SessionId;
use serde::{Deserialize, Deserializer, de};
use serde_json::value::RawValue;

/// What a line means to a worker.
#[derive(Debug)]
pub enum Line<'a> {
    /// `system`/`init`: a turn begins.
    Begins(Begins),
    /// `system`/`api_retry`.
    Retrying {
        /// From 1.
        attempt: u32,
    },
    /// `stream_event`: a piece of a message that is being written.
    Stream {
        /// The tool call of the subagent that writes it; none is the main answer.
        parent: Option<String>,
        /// What piece.
        event: Event,
    },
    /// `assistant`: a whole message, or one block of it.
    Message {
        /// As for `Stream`.
        parent: Option<String>,
        /// The message.
        message: Message,
        /// What kind of failure the message tells of, if it is not the model's.
        error: Option<String>,
    },
    /// `user`: results of tools.
    Results {
        /// As for `Stream`.
        parent: Option<String>,
        /// The tool calls that are done.
        tools: Vec<String>,
    },
    /// `control_request`: waits for an answer with this id.
    Request {
        /// The id.
        id: String,
        /// What is asked.
        request: Request<'a>,
    },
    /// `control_response`: the answer to a request of ours.
    Response {
        /// The request's id.
        id: String,
    },
    /// `result`: the turn is over.
    Result(TurnResult),
    /// Anything else.
    Other,
}

/// A line, and the session that it names itself.
#[derive(Debug)]
pub struct Said<'a> {
    /// As it is written; none if the line names no session.
    pub session: Option<&'a str>,
    /// What it means.
    pub line: Line<'a>,
}

/// A line that is not of the protocol.
#[derive(Debug, PartialEq, Eq)]
pub struct Garbage;

/// What an agent says of itself at the beginning of each turn.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Begins {
    session_id: String,
    /// The model.
    pub model: String,
    #[serde(alias = "version")]
    claude_code_version: String,
}

impl Begins {
    /// The session, if it is one.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        self.session_id.parse().ok()
    }

    /// The agent's version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.claude_code_version
    }
}

/// A piece of a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A message begins.
    Message {
        /// The id by which the whole message will come again.
        id: String,
    },
    /// A block of text begins, with this text.
    TextBegins(String),
    /// A tool call begins.
    Tool {
        /// Its id.
        id: String,
        /// The tool.
        name: String,
    },
    /// More text.
    Text(String),
    /// Anything else.
    Other,
}

/// A message.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Message {
    /// Its id.
    pub id: String,
    /// `<synthetic>` if the agent made it itself.
    pub model: String,
    /// Its blocks.
    #[serde(deserialize_with = "blocks")]
    pub content: Vec<Block>,
}

/// A block of a message.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Block {
    #[serde(rename = "type")]
    kind: String,
    text: Lossy,
    id: String,
    name: String,
    tool_use_id: String,
}

impl Block {
    /// Its text, if it is text.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        (self.kind == "text").then_some(self.text.0.as_str())
    }

    /// Its id and the tool's name, if it is a tool call.
    #[must_use]
    pub fn tool(&self) -> Option<(&str, &str)> {
        (self.kind == "tool_use").then_some((&self.id, &self.name))
    }
}

/// What an agent asks of its host.
#[derive(Debug)]
pub enum Request<'a> {
    /// Whether a tool may run.
    CanUseTool {
        /// The tool.
        name: String,
        /// What it is to do, as it came.
        input: &'a RawValue,
    },
    /// Anything else.
    Other {
        /// Its kind.
        subtype: String,
    },
}

/// The end of a turn.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct TurnResult {
    /// `success`, or how it ended instead.
    pub subtype: String,
    /// True if the last message tells of a failure.
    pub is_error: bool,
    /// The last message.
    pub result: Option<Lossy>,
    /// What went wrong, if not in the last message.
    pub errors: Vec<Lossy>,
    /// The process's whole cost so far.
    pub total_cost_usd: f64,
}

impl TurnResult {
    /// The process's whole cost so far, in millionths of a US dollar.
    #[must_use]
    pub fn total_micro_usd(&self) -> u64 {
        // A cast from f64 saturates, and makes 0 of what is no number.
        (self.total_cost_usd * 1e6).round() as u64
    }
}

/// A text that may hold halves of surrogate pairs, as JavaScript's strings may.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lossy(pub String);

impl<'de> Deserialize<'de> for Lossy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = Lossy;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Lossy, E> {
                Ok(Lossy(String::from_utf8_lossy(bytes).into_owned()))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Lossy, E> {
                Ok(Lossy(text.to_owned()))
            }

            fn visit_unit<E: de::Error>(self) -> Result<Lossy, E> {
                Ok(Lossy::default())
            }
        }
        deserializer.deserialize_bytes(Text)
    }
}

/// Every kind of line; what differs between kinds stays raw until the kind is known.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    subtype: Option<&'a RawValue>,
    #[serde(borrow, default)]
    parent_tool_use_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    event: Option<&'a RawValue>,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    request_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    request: Option<&'a RawValue>,
    #[serde(borrow, default)]
    response: Option<&'a RawValue>,
    #[serde(borrow, default)]
    session_id: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawResponse {
    request_id: String,
}

#[derive(Deserialize)]
struct RawEvent<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(default)]
    message: Message,
    #[serde(default)]
    content_block: Block,
    #[serde(default)]
    delta: Delta,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Delta {
    #[serde(rename = "type")]
    kind: String,
    text: Lossy,
}

#[derive(Deserialize)]
struct RawRequest<'a> {
    #[serde(default)]
    subtype: String,
    #[serde(default)]
    tool_name: String,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
}

/// Reads one line.
///
/// # Errors
/// [`Garbage`] if it is not a JSON object with a `type`.
pub fn read(line: &[u8]) -> Result<Said<'_>, Garbage> {
    let envelope: Envelope<'_> = serde_json::from_slice(line).map_err(|_| Garbage)?;
    let session = envelope.session_id.map(|raw| raw.get().trim_matches('"'));
    Ok(Said {
        session,
        line: meaning(line, envelope),
    })
}

fn meaning<'a>(line: &'a [u8], envelope: Envelope<'a>) -> Line<'a> {
    let parent = envelope.parent_tool_use_id.and_then(text);
    match &*envelope.kind {
        "stream_event" => Line::Stream {
            parent,
            event: event(envelope.event),
        },
        "assistant" => Line::Message {
            parent,
            message: parse(envelope.message).unwrap_or_default(),
            error: envelope.error.and_then(text),
        },
        "user" => Line::Results {
            parent,
            tools: parse::<Message>(envelope.message)
                .unwrap_or_default()
                .content
                .into_iter()
                .filter(|block| block.kind == "tool_result")
                .map(|block| block.tool_use_id)
                .collect(),
        },
        "result" => Line::Result(serde_json::from_slice(line).unwrap_or_default()),
        "control_request" => request(envelope.request_id, envelope.request),
        "control_response" => Line::Response {
            id: parse::<RawResponse>(envelope.response)
                .unwrap_or_default()
                .request_id,
        },
        "system" => match envelope.subtype.and_then(text).as_deref() {
            Some("init") => Line::Begins(serde_json::from_slice(line).unwrap_or_default()),
            Some("api_retry") => Line::Retrying {
                attempt: attempt(line),
            },
            _ => Line::Other,
        },
        _ => Line::Other,
    }
}

fn event(raw: Option<&RawValue>) -> Event {
    let Some(raw) = raw.and_then(|raw| serde_json::from_str::<RawEvent<'_>>(raw.get()).ok()) else {
        return Event::Other;
    };
    match &*raw.kind {
        "message_start" => Event::Message { id: raw.message.id },
        "content_block_delta" if raw.delta.kind == "text_delta" => Event::Text(raw.delta.text.0),
        "content_block_start" => match raw.content_block.kind.as_str() {
            "text" => Event::TextBegins(raw.content_block.text.0),
            "tool_use" => Event::Tool {
                id: raw.content_block.id,
                name: raw.content_block.name,
            },
            _ => Event::Other,
        },
        _ => Event::Other,
    }
}

fn request<'a>(id: Option<&'a RawValue>, request: Option<&'a RawValue>) -> Line<'a> {
    // Without an id there is nothing to answer to.
    let Some(id) = id.and_then(text) else {
        return Line::Other;
    };
    let raw = request.and_then(|raw| serde_json::from_str::<RawRequest<'_>>(raw.get()).ok());
    let request = match raw {
        Some(RawRequest {
            subtype,
            tool_name: name,
            input: Some(input),
        }) if subtype == "can_use_tool" => Request::CanUseTool { name, input },
        Some(RawRequest { subtype, .. }) => Request::Other { subtype },
        None => Request::Other {
            subtype: String::new(),
        },
    };
    Line::Request { id, request }
}

fn attempt(line: &[u8]) -> u32 {
    #[derive(Deserialize)]
    struct Retry {
        attempt: u32,
    }
    serde_json::from_slice::<Retry>(line).map_or(1, |retry| retry.attempt)
}

fn text(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

fn parse<'a, T: Deserialize<'a>>(raw: Option<&'a RawValue>) -> Option<T> {
    serde_json::from_str(raw?.get()).ok()
}

/// Content is a list of blocks, or a bare text.
fn blocks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Block>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Content {
        Blocks(Vec<Block>),
        Text(String),
    }
    Ok(match Content::deserialize(deserializer)? {
        Content::Blocks(blocks) => blocks,
        Content::Text(text) => {
            vec![Block {
                kind: "text".to_owned(),
                text: Lossy(text),
                ..Block::default()
            }]
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_an_object_with_a_type_is_garbage() {
        for line in [
            "",
            "hello",
            "[]",
            "{}",
            "{\"type\":1}",
            "{\"type\":\"x\"} y",
            "\u{1}",
        ] {
            assert!(matches!(read(line.as_bytes()), Err(Garbage)), "{line}");
        }
        assert!(matches!(read(b"{\"type\":\"x\xff\"}"), Err(Garbage)));
    }

    #[test]
    fn unknown_kinds_and_strange_insides_are_passed_over() {
        for line in [
            r#"{"type":"rate_limit_event","rate_limit_info":{}}"#,
            r#"{"type":"stream_event","event":7,"parent_tool_use_id":null}"#,
            r#"{"type":"stream_event","event":{"type":"new_thing"}}"#,
            r#"{"type":"assistant","message":"text"}"#,
            r#"{"type":"user","message":{"role":"user","content":"<local>"}}"#,
            r#"{"type":"result","subtype":7}"#,
            r#"{"type":"system","subtype":{}}"#,
            r#"{"type":"control_request","request_id":7}"#,
        ] {
            assert!(read(line.as_bytes()).is_ok(), "{line}");
        }
    }

    #[test]
    fn a_line_names_its_session_and_an_answer_its_request() {
        let said = read(
            br#"{"type":"control_response","response":{"request_id":"kai-1"},"session_id":"s"}"#,
        );
        let Ok(Said {
            session: Some("s"),
            line: Line::Response { id },
        }) = said
        else {
            panic!("is an answer");
        };
        assert_eq!(id, "kai-1");
        assert!(matches!(
            read(b"{\"type\":\"x\"}"),
            Ok(Said { session: None, .. })
        ));
    }

    #[test]
    fn a_delta_of_the_main_answer_is_text_also_with_half_a_surrogate_pair() {
        let line = br#"{"type":"stream_event","event":{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a\ud83d"}},"session_id":"x","parent_tool_use_id":null,"uuid":"y"}"#;

        let Ok(Line::Stream {
            parent: None,
            event: Event::Text(text),
        }) = read(line).map(|said| said.line)
        else {
            panic!("is text");
        };

        assert!(text.starts_with('a') && text.contains('\u{fffd}'));
    }

    #[test]
    fn a_tools_input_stays_as_it_came() {
        let line = br#"{"type":"control_request","request_id":"r1","request":{"subtype":"can_use_tool","tool_name":"Bash","input":{"command":"echo \u00e9 1.0","n":1.0e3}}}"#;

        let Ok(Line::Request {
            id,
            request: Request::CanUseTool { name, input },
        }) = read(line).map(|said| said.line)
        else {
            panic!("is a request");
        };

        assert_eq!((id.as_str(), name.as_str()), ("r1", "Bash"));
        assert_eq!(input.get(), r#"{"command":"echo \u00e9 1.0","n":1.0e3}"#);
    }

    #[test]
    fn results_name_their_tools_and_costs_are_whole_micros() {
        let line = br#"{"type":"user","message":{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":[{"type":"text","text":"x"}]},{"type":"text","text":"y"}]}}"#;
        assert!(
            matches!(read(line).map(|said| said.line), Ok(Line::Results { tools, .. }) if tools == ["t1"])
        );

        for (cost, micros) in [("0.000275", 275), ("-1", 0), ("1e300", u64::MAX)] {
            let line = format!(r#"{{"type":"result","total_cost_usd":{cost}}}"#);
            let Ok(Line::Result(result)) = read(line.as_bytes()).map(|said| said.line) else {
                panic!("is a result")
            };
            assert_eq!(result.total_micro_usd(), micros);
        }
    }
}
