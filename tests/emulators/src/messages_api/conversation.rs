//! What a request says, and the turn in it that the script is asked about.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

/// The result of a tool that the script let the agent use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolResult {
    /// Which use of a tool it is the result of.
    pub tool_use_id: String,
    /// What came out.
    pub text: String,
    /// Whether it failed, or was not allowed.
    pub is_error: bool,
}

/// What the script is to answer.
#[derive(Clone, Debug)]
pub struct Turn {
    /// The last thing that the user said.
    pub prompt: String,
    /// The results of tools, if it is they that are to be answered and not the prompt.
    pub tool_results: Vec<ToolResult>,
    /// The name of the model that was asked.
    pub model: String,
    /// The request's headers, by their names in small letters.
    pub headers: BTreeMap<String, String>,
    /// The whole request.
    pub body: Arc<Value>,
}

impl Turn {
    pub(super) fn new(headers: BTreeMap<String, String>, body: Arc<Value>) -> Self {
        let last = messages(&body)
            .iter()
            .rfind(|message| role(message) == "user");
        let blocks = last.map(blocks).unwrap_or_default();
        let spoke = blocks.iter().any(|block| user_text(block).is_some());
        let results = blocks.iter().filter_map(Block::tool_result);
        Self {
            prompt: prompts(&body).pop().unwrap_or_default(),
            tool_results: if spoke { Vec::new() } else { results.collect() },
            model: body["model"].as_str().unwrap_or_default().to_owned(),
            headers,
            body,
        }
    }
}

/// What the user said, the oldest first, without what the agent's program put in between.
pub(super) fn prompts(body: &Value) -> Vec<String> {
    let from_user = messages(body)
        .iter()
        .filter(|message| role(message) == "user");
    from_user
        .flat_map(blocks)
        .filter_map(|block| user_text(&block))
        .collect()
}

/// What was answered, the oldest first.
pub(super) fn answers(body: &Value) -> Vec<String> {
    let answered = messages(body)
        .iter()
        .filter(|message| role(message) == "assistant");
    answered
        .flat_map(blocks)
        .filter_map(|block| block.text())
        .collect()
}

fn user_text(block: &Block) -> Option<String> {
    let put_in = ["<system-reminder>", "[Request interrupted"];
    block.text().filter(|text| {
        !put_in
            .iter()
            .any(|start| text.trim_start().starts_with(start))
    })
}

/// A part of a message; a string is a message of one text.
pub(super) enum Block<'a> {
    Bare(&'a str),
    Typed(&'a Value),
}

impl Block<'_> {
    pub(super) fn kind(&self) -> &str {
        match self {
            Self::Bare(_) => "text",
            Self::Typed(block) => block["type"].as_str().unwrap_or_default(),
        }
    }

    pub(super) fn text(&self) -> Option<String> {
        match self {
            Self::Bare(text) => Some((*text).to_owned()),
            Self::Typed(block) if self.kind() == "text" => {
                block["text"].as_str().map(str::to_owned)
            }
            Self::Typed(_) => None,
        }
    }

    pub(super) fn field(&self, name: &str) -> Option<&str> {
        match self {
            Self::Bare(_) => None,
            Self::Typed(block) => block[name].as_str(),
        }
    }

    fn tool_result(&self) -> Option<ToolResult> {
        let Self::Typed(block) = self else {
            return None;
        };
        if self.kind() != "tool_result" {
            return None;
        }
        let content = &block["content"];
        let text = match content.as_array() {
            None => content.as_str().unwrap_or_default().to_owned(),
            Some(parts) => parts
                .iter()
                .filter_map(|part| part["text"].as_str())
                .collect(),
        };
        Some(ToolResult {
            tool_use_id: self.field("tool_use_id")?.to_owned(),
            text,
            is_error: block["is_error"] == true,
        })
    }
}

pub(super) fn messages(body: &Value) -> &[Value] {
    body["messages"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
}

pub(super) fn role(message: &Value) -> &str {
    message["role"].as_str().unwrap_or_default()
}

pub(super) fn blocks(message: &Value) -> Vec<Block<'_>> {
    match &message["content"] {
        Value::String(text) => vec![Block::Bare(text)],
        Value::Array(list) => list.iter().map(Block::Typed).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_turn_is_the_last_prompt_or_the_results_after_it() {
        let body = json!({"model": "m", "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "<system-reminder>today</system-reminder>"},
                {"type": "text", "text": "hello"},
            ]},
            {"role": "system", "content": "news"},
        ]});
        let turn = Turn::new(BTreeMap::new(), body.into());
        assert_eq!(
            (turn.prompt.as_str(), turn.tool_results.len()),
            ("hello", 0)
        );

        let body = json!({"model": "m", "messages": [
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": [
                {"type": "tool_use", "id": "t1", "name": "Bash", "input": {}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "1000", "is_error": false},
            ]},
        ]});
        let turn = Turn::new(BTreeMap::new(), body.into());
        assert_eq!(turn.prompt, "hello");
        let result = ToolResult {
            tool_use_id: "t1".into(),
            text: "1000".into(),
            is_error: false,
        };
        assert_eq!(turn.tool_results, [result]);
    }
}
