//! What the engine wants done. Frames and lines are written into the very buffers that are sent, so
//! that whatever one wake-up brings leaves in one write.

use kai_proto::{
    codec,
    conversation::{FromWorker, TurnEvent},
    ids::PromptId,
    limits,
};

use crate::agent::command::Start;

/// What is to be done, in this order: frames to the gateway, the end of the agent, its start, lines to
/// it.
#[derive(Debug, Default)]
pub struct Effects {
    /// Frames for the gateway.
    pub frames: Vec<u8>,
    /// End the agent with all that it started; then tell the engine.
    pub end_agent: bool,
    /// Start the agent; then tell the engine.
    pub start_agent: Option<Start>,
    /// Lines for the agent.
    pub lines: Vec<u8>,
}

impl Effects {
    /// Queues a frame.
    pub fn send(&mut self, message: &FromWorker) {
        if let Err(error) = codec::encode_frame(message, &mut self.frames) {
            // Every field is bounded well below a frame's limit before it gets here.
            tracing::error!(%error, "a frame cannot be written");
        }
    }

    /// Queues an event of a prompt.
    pub fn event(&mut self, prompt: PromptId, event: TurnEvent) {
        self.send(&FromWorker::Turn { prompt, event });
    }

    /// Queues a text in pieces.
    pub fn text(&mut self, prompt: PromptId, mut text: &str) {
        while !text.is_empty() {
            let (piece, rest) = text.split_at(fitting(text, limits::TEXT_PIECE));
            self.event(prompt, TurnEvent::Text(piece.to_owned()));
            text = rest;
        }
    }
}

/// How many bytes of `text`, at most `limit`, end with a whole character.
#[must_use]
pub fn fitting(text: &str, limit: usize) -> usize {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    end
}
