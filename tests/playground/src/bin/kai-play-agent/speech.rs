//! The lines that the agent writes. They are gathered, and leave together with [`Speech::send`].

use std::io::{self, Write};

use kai_proto::ids::SessionId;
use serde_json::{Value, json};

use super::flags::VERSION;

/// What every command of a session costs, in millionths of a US dollar: made up.
pub const PRICE_MICRO_USD: u64 = 1000;

/// Standard output, as the agent of one session.
#[derive(Debug)]
pub struct Speech {
    session: SessionId,
    /// Messages are also written in pieces.
    partial: bool,
    pending: Vec<u8>,
    /// Messages and lines so far, for their ids.
    count: u64,
    /// The message that is being written: its id, model and blocks.
    message: Option<Message>,
}

#[derive(Debug)]
struct Message {
    id: String,
    model: String,
    blocks: u64,
    /// The block of text that is being written.
    text: Option<String>,
}

impl Speech {
    /// Nothing said yet.
    #[must_use]
    pub fn new(session: SessionId, partial: bool) -> Self {
        Self {
            session,
            partial,
            pending: Vec::new(),
            count: 0,
            message: None,
        }
    }

    /// Writes what was gathered.
    ///
    /// # Errors
    /// What write(2) answers: nobody listens any more.
    pub fn send(&mut self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(&self.pending)?;
        self.pending.clear();
        out.flush()
    }

    /// Gathers a line as it is.
    pub fn raw(&mut self, line: &[u8]) {
        self.pending.extend_from_slice(line);
        self.pending.push(b'\n');
    }

    fn line(&mut self, mut line: Value) {
        self.count += 1;
        line["session_id"] = json!(self.session.to_string());
        line["uuid"] = json!(self.unique());
        self.raw(line.to_string().as_bytes());
    }

    fn unique(&self) -> String {
        let session = self.session.to_string();
        format!("{}-{:012x}", &session[..23], self.count)
    }

    /// A line without a place in the session.
    pub fn control(&mut self, line: &Value) {
        self.raw(line.to_string().as_bytes());
    }

    /// A turn begins.
    pub fn init(&mut self, cwd: &str, model: &str) {
        self.line(json!({
            "type": "system", "subtype": "init", "cwd": cwd, "tools": ["AskUserQuestion", "Bash"],
            "mcp_servers": [], "model": model, "permissionMode": "default", "slash_commands": [],
            "apiKeySource": "none", "claude_code_version": VERSION, "output_style": "default",
        }));
    }

    fn event(&mut self, event: &Value) {
        if self.partial {
            self.line(json!({"type": "stream_event", "event": event, "parent_tool_use_id": null}));
        }
    }

    /// A message begins.
    pub fn begin(&mut self, model: &str) {
        self.count += 1;
        let id = format!("msg_{}", self.unique());
        self.event(&json!({"type": "message_start", "message": {
            "id": id, "type": "message", "role": "assistant", "content": [], "model": model,
            "stop_reason": null, "stop_sequence": null,
            "usage": {"input_tokens": 1, "output_tokens": 1},
        }}));
        self.message = Some(Message {
            id,
            model: model.to_owned(),
            blocks: 0,
            text: None,
        });
    }

    /// More text of the message.
    pub fn text(&mut self, piece: &str) {
        let Some(message) = &mut self.message else {
            return;
        };
        let index = message.blocks;
        let begins = message.text.is_none();
        message.text.get_or_insert_default().push_str(piece);
        if begins {
            self.event(&json!({"type": "content_block_start", "index": index,
                "content_block": {"type": "text", "text": ""}}));
        }
        self.event(&json!({"type": "content_block_delta", "index": index,
            "delta": {"type": "text_delta", "text": piece}}));
    }

    fn end_text(&mut self) {
        if let Some(text) = self
            .message
            .as_mut()
            .and_then(|message| message.text.take())
        {
            self.end_block(&json!({"type": "text", "text": text}));
        }
    }

    fn end_block(&mut self, block: &Value) {
        let Some(message) = &mut self.message else {
            return;
        };
        let (index, id, model) = (message.blocks, message.id.clone(), message.model.clone());
        message.blocks += 1;
        self.line(json!({"type": "assistant", "parent_tool_use_id": null, "message": {
            "id": id, "type": "message", "role": "assistant", "content": [block], "model": model,
            "stop_reason": null, "stop_sequence": null,
            "usage": {"input_tokens": 1, "output_tokens": 1},
        }}));
        self.event(&json!({"type": "content_block_stop", "index": index}));
    }

    /// The message calls a tool; the id of the call.
    pub fn tool(&mut self, name: &str, input: &Value) -> String {
        self.end_text();
        self.count += 1;
        let id = format!("toolu_{}", self.unique());
        let index = self.message.as_ref().map_or(0, |message| message.blocks);
        self.event(
            &json!({"type": "content_block_start", "index": index, "content_block": {
                "type": "tool_use", "id": id, "name": name, "input": {},
            }}),
        );
        self.event(
            &json!({"type": "content_block_delta", "index": index, "delta": {
                "type": "input_json_delta", "partial_json": input.to_string(),
            }}),
        );
        self.end_block(&json!({"type": "tool_use", "id": id, "name": name, "input": input}));
        id
    }

    /// The message is whole.
    pub fn end(&mut self, reason: &str) {
        self.end_text();
        if self.message.take().is_some() {
            self.event(
                &json!({"type": "message_delta", "usage": {"output_tokens": 1},
                "delta": {"stop_reason": reason, "stop_sequence": null}}),
            );
            self.event(&json!({"type": "message_stop"}));
        }
    }

    /// A tool is done.
    pub fn tool_result(&mut self, id: &str, content: &str, is_error: bool) {
        self.line(json!({"type": "user", "parent_tool_use_id": null, "message": {
            "role": "user", "content": [{
                "type": "tool_result", "tool_use_id": id, "content": content, "is_error": is_error,
            }],
        }}));
    }

    /// The turn is over.
    pub fn result(&mut self, end: &End<'_>) {
        let mut line = json!({
            "type": "result", "subtype": end.subtype, "is_error": end.subtype != "success",
            "duration_ms": end.duration_ms, "duration_api_ms": 0, "num_turns": 1,
            "total_cost_usd": end.total_micro_usd as f64 / 1e6,
            "usage": {"input_tokens": 1, "output_tokens": 1}, "permission_denials": [],
        });
        match end.error {
            Some(error) => line["errors"] = json!([error]),
            None => line["result"] = json!(end.result),
        }
        self.line(line);
    }
}

/// How a turn ended.
#[derive(Debug)]
pub struct End<'a> {
    /// `success` or another.
    pub subtype: &'static str,
    /// The last message.
    pub result: &'a str,
    /// Or what went wrong.
    pub error: Option<&'a str>,
    /// How long it took.
    pub duration_ms: u128,
    /// What the process has cost so far.
    pub total_micro_usd: u64,
}
