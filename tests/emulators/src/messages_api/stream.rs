//! An answer on its way: as server-sent events, or as one message.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, Bytes};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Shared;
use super::received::Ending;
use super::script::Step;

type Events = mpsc::Sender<Result<Bytes, Infallible>>;

/// An answer with the ids that it will have.
#[derive(Debug)]
pub(super) struct Answer {
    message: String,
    model: String,
    input_tokens: usize,
    steps: Vec<NumberedStep>,
}

/// A step with the id that the tool use gets.
type NumberedStep = (Step, Option<String>);

/// The agent went away.
struct Gone;

impl Answer {
    /// `unique` makes an id out of a prefix. Two messages with one id would be merged by the agent.
    pub(super) fn new(
        body: &Value,
        steps: Vec<Step>,
        mut unique: impl FnMut(&str) -> String,
    ) -> Self {
        let message = unique("msg");
        let numbered = |step| match step {
            Step::UseTool { .. } => (step, Some(unique("toolu"))),
            other => (other, None),
        };
        Self {
            message,
            model: body["model"].as_str().unwrap_or_default().to_owned(),
            // Four bytes a token is near enough for costs to be seen to add up.
            input_tokens: body["messages"].to_string().len() / 4,
            steps: steps.into_iter().map(numbered).collect(),
        }
    }

    /// The ids of the tool uses in it.
    pub(super) fn tool_use_ids(&self) -> impl Iterator<Item = &String> {
        self.steps.iter().filter_map(|(_, id)| id.as_ref())
    }

    fn stop_reason(&self) -> &'static str {
        if self.tool_use_ids().next().is_some() {
            "tool_use"
        } else {
            "end_turn"
        }
    }

    fn output_tokens(&self) -> usize {
        let bytes = |step: &Step| match step {
            Step::Say(words) => words.len(),
            Step::UseTool { input, .. } => input.to_string().len(),
            Step::Pause(_) | Step::FallSilent => 0,
        };
        1 + self
            .steps
            .iter()
            .map(|(step, _)| bytes(step))
            .sum::<usize>()
            / 4
    }

    fn envelope(&self) -> Value {
        json!({
            "id": self.message, "type": "message", "role": "assistant", "model": self.model,
            "content": [], "stop_reason": null, "stop_sequence": null,
            "usage": {
                "input_tokens": self.input_tokens, "output_tokens": 1,
                "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
            },
        })
    }

    /// The body of a streamed answer. The record with this number is kept up to date.
    pub(super) fn stream(self, shared: Arc<Shared>, number: usize) -> Body {
        // One event in the pipe: what is recorded as written is on its way.
        let (events, body) = mpsc::channel(1);
        tokio::spawn(async move {
            let ending = match self.write(&shared, number, &events).await {
                Ok(()) => Ending::Complete,
                Err(Gone) => Ending::Abandoned,
            };
            shared.end(number, ending);
        });
        Body::from_stream(ReceiverStream::new(body))
    }

    async fn write(&self, shared: &Shared, number: usize, events: &Events) -> Result<(), Gone> {
        send(events, "message_start", json!({"message": self.envelope()})).await?;
        let mut index = 0;
        let mut in_text = false;
        for (step, id) in &self.steps {
            if in_text && matches!(step, Step::UseTool { .. }) {
                send(events, "content_block_stop", json!({"index": index})).await?;
                (in_text, index) = (false, index + 1);
            }
            match step {
                Step::Say(words) => {
                    if !in_text {
                        let block = json!({"type": "text", "text": ""});
                        start_block(events, index, block).await?;
                        in_text = true;
                    }
                    shared.said(number);
                    let delta = json!({"type": "text_delta", "text": words});
                    let delta = json!({"index": index, "delta": delta});
                    send(events, "content_block_delta", delta).await?;
                }
                Step::Pause(pause) => tokio::select! {
                    () = tokio::time::sleep(*pause) => {}
                    () = events.closed() => return Err(Gone),
                },
                Step::UseTool { name, input } => {
                    let block = json!({"type": "tool_use", "id": id, "name": name, "input": {}});
                    start_block(events, index, block).await?;
                    let part =
                        json!({"type": "input_json_delta", "partial_json": input.to_string()});
                    let delta = json!({"index": index, "delta": part});
                    send(events, "content_block_delta", delta).await?;
                    send(events, "content_block_stop", json!({"index": index})).await?;
                    index += 1;
                }
                Step::FallSilent => {
                    events.closed().await;
                    return Err(Gone);
                }
            }
        }
        if in_text {
            send(events, "content_block_stop", json!({"index": index})).await?;
        }
        let end = json!({
            "delta": {"stop_reason": self.stop_reason(), "stop_sequence": null},
            "usage": {"input_tokens": self.input_tokens, "output_tokens": self.output_tokens()},
        });
        send(events, "message_delta", end).await?;
        send(events, "message_stop", json!({})).await
    }

    /// The whole answer as one message, after all its pauses. `None` if it never ends.
    pub(super) async fn whole(&self) -> Option<Value> {
        let mut content: Vec<Value> = Vec::new();
        for (step, id) in &self.steps {
            match step {
                Step::Say(words) => {
                    match content.last_mut().filter(|block| block["type"] == "text") {
                        Some(block) => {
                            let longer =
                                block["text"].as_str().unwrap_or_default().to_owned() + words;
                            block["text"] = json!(longer);
                        }
                        None => content.push(json!({"type": "text", "text": words})),
                    }
                }
                Step::Pause(pause) => tokio::time::sleep(*pause).await,
                Step::UseTool { name, input } => {
                    content
                        .push(json!({"type": "tool_use", "id": id, "name": name, "input": input}));
                }
                Step::FallSilent => return None,
            }
        }
        let mut message = self.envelope();
        message["content"] = json!(content);
        message["stop_reason"] = json!(self.stop_reason());
        message["usage"]["output_tokens"] = json!(self.output_tokens());
        Some(message)
    }
}

async fn start_block(events: &Events, index: usize, block: Value) -> Result<(), Gone> {
    send(
        events,
        "content_block_start",
        json!({"index": index, "content_block": block}),
    )
    .await
}

async fn send(events: &Events, name: &str, mut data: Value) -> Result<(), Gone> {
    data["type"] = json!(name);
    let event = format!("event: {name}\ndata: {data}\n\n");
    events.send(Ok(Bytes::from(event))).await.map_err(|_| Gone)
}

impl Shared {
    /// Notes that words were written.
    fn said(&self, number: usize) {
        self.state.change(|state| {
            if let Some(request) = state.received.get_mut(number) {
                request.words.push(Instant::now());
            }
        });
    }

    /// Notes that an answer is over.
    pub(super) fn end(&self, number: usize, ending: Ending) {
        self.state.change(|state| {
            if let Some(request) = state.received.get_mut(number) {
                request.ended.get_or_insert((Instant::now(), ending));
            }
        });
    }
}
