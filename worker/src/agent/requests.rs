//! The lines that an agent reads, each appended to the bytes that go to it.

use serde::Serialize;
use serde_json::value::RawValue;

/// What the user wrote; it begins a turn.
pub fn user(out: &mut Vec<u8>, text: &str) {
    #[derive(Serialize)]
    struct Line<'a> {
        r#type: &'static str,
        message: Message<'a>,
    }
    #[derive(Serialize)]
    struct Message<'a> {
        role: &'static str,
        content: &'a str,
    }
    write(
        out,
        &Line {
            r#type: "user",
            message: Message {
                role: "user",
                content: text,
            },
        },
    );
}

/// What the host asks of the agent.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(tag = "subtype", rename_all = "snake_case")]
pub enum Control<'a> {
    /// First of all.
    Initialize {
        /// What the system prompt ends with.
        #[serde(rename = "appendSystemPrompt", skip_serializing_if = "Option::is_none")]
        append: Option<&'a str>,
    },
    /// End the turn.
    Interrupt,
    /// Use this model from now on.
    SetModel {
        /// A model, or `default`.
        model: &'a str,
    },
}

/// Asks something of the agent.
pub fn control(out: &mut Vec<u8>, number: u32, request: Control<'_>) {
    #[derive(Serialize)]
    struct Line<'a> {
        r#type: &'static str,
        request_id: String,
        request: Control<'a>,
    }
    let line = Line {
        r#type: "control_request",
        request_id: format!("kai-{number}"),
        request,
    };
    write(out, &line);
}

#[derive(Serialize)]
struct Answer<'a, T> {
    r#type: &'static str,
    response: Response<'a, T>,
}

#[derive(Serialize)]
#[serde(tag = "subtype", rename_all = "lowercase")]
enum Response<'a, T> {
    Success { request_id: &'a str, response: T },
    Error { request_id: &'a str, error: &'a str },
}

/// Lets a tool run with the input that it asked for.
pub fn allow(out: &mut Vec<u8>, request: &str, input: &RawValue) {
    #[derive(Serialize)]
    struct Allow<'a> {
        behavior: &'static str,
        #[serde(rename = "updatedInput")]
        input: &'a RawValue,
    }
    let response = Allow {
        behavior: "allow",
        input,
    };
    answer(
        out,
        Response::Success {
            request_id: request,
            response,
        },
    );
}

/// Refuses a tool, with what the agent is to know of it.
pub fn deny(out: &mut Vec<u8>, request: &str, message: &str) {
    #[derive(Serialize)]
    struct Deny<'a> {
        behavior: &'static str,
        message: &'a str,
    }
    let response = Deny {
        behavior: "deny",
        message,
    };
    answer(
        out,
        Response::Success {
            request_id: request,
            response,
        },
    );
}

/// Answers what the host does not know; without an answer the turn would wait for ever.
pub fn fail(out: &mut Vec<u8>, request: &str, error: &str) {
    let response: Response<'_, ()> = Response::Error {
        request_id: request,
        error,
    };
    answer(out, response);
}

fn answer<T: Serialize>(out: &mut Vec<u8>, response: Response<'_, T>) {
    write(
        out,
        &Answer {
            r#type: "control_response",
            response,
        },
    );
}

fn write(out: &mut Vec<u8>, line: &impl Serialize) {
    // Cannot fail: every key is a text, and a Vec takes all bytes.
    if serde_json::to_writer(&mut *out, line).is_ok() {
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_what_the_agent_reads() {
        let input = RawValue::from_string(r#"{"a":1.0}"#.to_owned()).unwrap();
        let mut out = Vec::new();
        user(&mut out, "a\n\"b\"");
        control(&mut out, 1, Control::Initialize { append: Some("x") });
        control(&mut out, 2, Control::Initialize { append: None });
        control(&mut out, 3, Control::Interrupt);
        control(&mut out, 4, Control::SetModel { model: "m" });
        allow(&mut out, "r", &input);
        deny(&mut out, "r", "no");
        fail(&mut out, "r", "unknown");

        let lines: Vec<&str> = std::str::from_utf8(&out).unwrap().lines().collect();
        assert_eq!(
            lines,
            [
                r#"{"type":"user","message":{"role":"user","content":"a\n\"b\""}}"#,
                r#"{"type":"control_request","request_id":"kai-1","request":{"subtype":"initialize","appendSystemPrompt":"x"}}"#,
                r#"{"type":"control_request","request_id":"kai-2","request":{"subtype":"initialize"}}"#,
                r#"{"type":"control_request","request_id":"kai-3","request":{"subtype":"interrupt"}}"#,
                r#"{"type":"control_request","request_id":"kai-4","request":{"subtype":"set_model","model":"m"}}"#,
                r#"{"type":"control_response","response":{"subtype":"success","request_id":"r","response":{"behavior":"allow","updatedInput":{"a":1.0}}}}"#,
                r#"{"type":"control_response","response":{"subtype":"success","request_id":"r","response":{"behavior":"deny","message":"no"}}}"#,
                r#"{"type":"control_response","response":{"subtype":"error","request_id":"r","error":"unknown"}}"#,
            ]
        );
    }
}
