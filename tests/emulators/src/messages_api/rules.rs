//! What the real API refuses, in its words.

use std::collections::BTreeSet;

use serde_json::Value;

use super::conversation::{blocks, messages, role};

/// The kinds of block that a conversation may hold.
const BLOCKS: [&str; 11] = [
    "text",
    "image",
    "document",
    "search_result",
    "thinking",
    "redacted_thinking",
    "tool_use",
    "tool_result",
    "server_tool_use",
    "web_search_tool_result",
    "container_upload",
];

/// Holds a request's body against the rules. The error is what the API says.
pub(super) fn check(body: &Value, betas: &str, needs_limit: bool) -> Result<(), String> {
    let required = |field: &str, there: bool| match there {
        true => Ok(()),
        false => Err(format!("{field}: Field required")),
    };
    required(
        "model",
        body["model"]
            .as_str()
            .is_some_and(|model| !model.is_empty()),
    )?;
    required("messages", body["messages"].is_array())?;
    if needs_limit {
        required("max_tokens", !body["max_tokens"].is_null())?;
        if body["max_tokens"].as_u64().is_none_or(|limit| limit == 0) {
            return Err("max_tokens: Input should be greater than or equal to 1".to_owned());
        }
    }
    let messages = messages(body);
    if messages.is_empty() {
        return Err("messages: at least one message is required".to_owned());
    }
    for (index, message) in messages.iter().enumerate() {
        check_message(index, message, betas)?;
    }
    if role(&messages[0]) != "user" {
        return Err("messages: first message must use the \"user\" role".to_owned());
    }
    check_tools(body)?;
    check_pairs(messages)
}

fn check_message(index: usize, message: &Value, betas: &str) -> Result<(), String> {
    match role(message) {
        "user" | "assistant" => {}
        "system" if betas.contains("mid-conversation-system") => {}
        other => return Err(format!("messages.{index}: Unexpected role {other:?}")),
    }
    let blocks = blocks(message);
    if blocks.is_empty() {
        return Err(format!(
            "messages.{index}: all messages must have non-empty content"
        ));
    }
    for (place, block) in blocks.iter().enumerate() {
        let here = format!("messages.{index}.content.{place}");
        if !BLOCKS.contains(&block.kind()) {
            return Err(format!("{here}: unknown type {:?}", block.kind()));
        }
        if block.kind() == "text" && block.text().is_none_or(|text| text.is_empty()) {
            return Err("messages: text content blocks must be non-empty".to_owned());
        }
        let sender = match block.kind() {
            "tool_use" | "thinking" | "redacted_thinking" => "assistant",
            "tool_result" | "image" | "document" => "user",
            _ => continue,
        };
        if role(message) != sender {
            let kind = block.kind();
            return Err(format!(
                "{here}: `{kind}` blocks can only be in `{sender}` messages"
            ));
        }
    }
    Ok(())
}

fn check_tools(body: &Value) -> Result<(), String> {
    let tools = body["tools"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let mut names = BTreeSet::new();
    for (index, tool) in tools.iter().enumerate() {
        let name = tool["name"].as_str();
        let name = name.ok_or_else(|| format!("tools.{index}.name: Field required"))?;
        if !names.insert(name) {
            return Err("tools: Tool names must be unique.".to_owned());
        }
    }
    Ok(())
}

/// Every use of a tool is followed at once by its result, and there are no other results.
fn check_pairs(messages: &[Value]) -> Result<(), String> {
    let mut open: BTreeSet<String> = BTreeSet::new();
    let mut answering = false;
    // What a system message says in between belongs to neither side.
    let sides = messages
        .iter()
        .enumerate()
        .filter(|(_, message)| role(message) != "system");
    for (index, message) in sides {
        let from_user = role(message) == "user";
        if !from_user && answering {
            unanswered(index, &open)?;
        }
        for (place, block) in blocks(message).iter().enumerate() {
            match block.kind() {
                "tool_use" => {
                    open.insert(block.field("id").unwrap_or_default().to_owned());
                }
                "tool_result" => {
                    let id = block.field("tool_use_id").unwrap_or_default();
                    if !open.remove(id) {
                        return Err(format!(
                            "messages.{index}.content.{place}: unexpected `tool_use_id` found in \
                             `tool_result` blocks: {id}. Each `tool_result` block must have a \
                             corresponding `tool_use` block in the previous message."
                        ));
                    }
                }
                _ => {}
            }
        }
        answering = from_user;
    }
    unanswered(messages.len(), &open)
}

fn unanswered(index: usize, open: &BTreeSet<String>) -> Result<(), String> {
    match open.first() {
        None => Ok(()),
        Some(id) => Err(format!(
            "messages.{}: `tool_use` ids were found without `tool_result` blocks immediately \
             after: {id}. Each `tool_use` block must have a corresponding `tool_result` block in \
             the next message.",
            index.saturating_sub(1)
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn checked(messages: Value) -> Result<(), String> {
        check(
            &json!({"model": "m", "max_tokens": 5, "messages": messages}),
            "",
            true,
        )
    }

    #[test]
    fn what_the_api_requires_is_required() {
        let whole = json!({
            "model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}],
        });
        assert_eq!(check(&whole, "", true), Ok(()));
        for field in ["model", "max_tokens", "messages"] {
            let mut body = whole.clone();
            body.as_object_mut().unwrap().remove(field);
            assert_eq!(
                check(&body, "", true),
                Err(format!("{field}: Field required"))
            );
        }
        assert!(checked(json!([])).is_err());
        assert!(checked(json!([{"role": "user", "content": ""}])).is_err());
        assert!(checked(json!([{"role": "user", "content": []}])).is_err());
        assert!(checked(json!([{"role": "user", "content": [{"type": "smell"}]}])).is_err());
    }

    #[test]
    fn roles_are_known_and_the_user_begins() {
        assert!(checked(json!([{"role": "robot", "content": "hi"}])).is_err());
        assert!(checked(json!([{"role": "assistant", "content": "hi"}])).is_err());
        let with_system = json!({"model": "m", "max_tokens": 5, "messages": [
            {"role": "user", "content": "hi"}, {"role": "system", "content": "news"},
        ]});
        assert!(check(&with_system, "", true).is_err());
        assert!(check(&with_system, "a,mid-conversation-system-2026-04-07", true).is_ok());
    }

    #[test]
    fn tool_results_belong_to_tool_uses() {
        let used = json!({"type": "tool_use", "id": "t1", "name": "Bash", "input": {}});
        let result = |id: &str| json!({"type": "tool_result", "tool_use_id": id, "content": "0"});
        let talk = |result: Value| {
            checked(json!([
                {"role": "user", "content": "hi"},
                {"role": "assistant", "content": [used]},
                {"role": "user", "content": [result]},
            ]))
        };
        assert_eq!(talk(result("t1")), Ok(()));
        assert!(
            talk(result("t2"))
                .unwrap_err()
                .contains("unexpected `tool_use_id`")
        );
        let ignored = talk(json!({"type": "text", "text": "never mind"}));
        assert!(ignored.unwrap_err().contains("without `tool_result`"));
    }
}
