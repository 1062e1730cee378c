//! The queue behind `getUpdates`: what is pending, what was confirmed, and what is served wrongly
//! on purpose.
//!
//! An update is forgotten when an offset greater than its id is given, and not before: whoever
//! polls again with the same offset is served it again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Value, json};

use super::ids::UpdateId;

/// In which order updates that were held back are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As they were made.
    AsSent,
    /// The newest first.
    Reversed,
}

/// The kinds of update that a bot can ask for.
const KINDS: [&str; 9] = [
    "message",
    "edited_message",
    "channel_post",
    "edited_channel_post",
    "callback_query",
    "inline_query",
    "my_chat_member",
    "chat_member",
    "poll",
];

/// The state of the queue.
#[derive(Debug)]
pub(super) struct UpdateQueue {
    next: u32,
    pending: VecDeque<(u32, Value)>,
    held: Option<Vec<(u32, Value)>>,
    repeats: Vec<Value>,
    made: BTreeMap<u32, Value>,
    forgotten: BTreeSet<u32>,
    allowed: Option<BTreeSet<String>>,
    poller: u64,
}

impl UpdateQueue {
    pub(super) fn new(first: UpdateId) -> Self {
        Self {
            next: first.0,
            pending: VecDeque::new(),
            held: None,
            repeats: Vec::new(),
            made: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            allowed: None,
            poller: 0,
        }
    }

    /// Queues something that happened, unless the bot does not want to know of such things.
    pub(super) fn push(&mut self, kind: &str, content: Value) -> Option<UpdateId> {
        if self
            .allowed
            .as_ref()
            .is_some_and(|allowed| !allowed.contains(kind))
        {
            return None;
        }
        let id = self.next;
        Some(self.push_raw(json!({"update_id": id, kind: content})))
    }

    /// Queues any JSON. It gets the next id if it brings none of its own.
    pub(super) fn push_raw(&mut self, mut update: Value) -> UpdateId {
        let own = update.get("update_id").and_then(Value::as_u64);
        let id = own
            .and_then(|id| u32::try_from(id).ok())
            .unwrap_or(self.next);
        if let Some(object) = update.as_object_mut() {
            object.entry("update_id").or_insert(json!(id));
        }
        self.next = self.next.max(id.saturating_add(1));
        self.made.insert(id, update.clone());
        match &mut self.held {
            Some(held) => held.push((id, update)),
            None => self.pending.push_back((id, update)),
        }
        UpdateId(id)
    }

    /// Goes on counting from another number, as Telegram does after a week of silence.
    pub(super) fn jump_to(&mut self, next: UpdateId) {
        self.next = next.0;
    }

    /// From now on updates are made but not served.
    pub(super) fn hold(&mut self) {
        self.held.get_or_insert_default();
    }

    /// Serves what was held back.
    pub(super) fn release(&mut self, order: Order) {
        let mut held = self.held.take().unwrap_or_default();
        if order == Order::Reversed {
            held.reverse();
        }
        self.pending.extend(held);
    }

    /// Serves an update once more, whatever was confirmed. False if there never was one.
    pub(super) fn repeat(&mut self, id: UpdateId) -> bool {
        let update = self.made.get(&id.0).cloned();
        let known = update.is_some();
        self.repeats.extend(update);
        known
    }

    /// Whether the bot has said that it needs this update no more.
    pub(super) fn is_forgotten(&self, id: UpdateId) -> bool {
        self.forgotten.contains(&id.0)
    }

    /// Forgets everything that waits.
    pub(super) fn drop_pending(&mut self) {
        self.forgotten
            .extend(self.pending.drain(..).map(|(id, _)| id));
    }

    /// Sets what the bot wants to know of, from now on. An empty list is Telegram's default.
    pub(super) fn allow(&mut self, kinds: Vec<String>) -> Result<(), String> {
        if let Some(unknown) = kinds.iter().find(|kind| !KINDS.contains(&kind.as_str())) {
            return Err(unknown.clone());
        }
        self.allowed = (!kinds.is_empty()).then(|| kinds.into_iter().collect());
        Ok(())
    }

    /// A new poller arrives: whoever polled before is superseded.
    pub(super) fn begin_poll(&mut self) -> u64 {
        self.poller += 1;
        self.poller
    }

    /// Whether no other poller has come since.
    pub(super) fn is_latest(&self, poller: u64) -> bool {
        self.poller == poller
    }

    /// Takes an offset: a positive one forgets what is before it, a negative one all but the last
    /// so many. One that lies beyond everything ever made belongs to ids before a jump, and
    /// confirms nothing.
    pub(super) fn confirm(&mut self, offset: i64) {
        let keep_from = if offset < 0 {
            let last = usize::try_from(offset.unsigned_abs()).unwrap_or(usize::MAX);
            let forgotten = self.pending.len().saturating_sub(last);
            self.forgotten
                .extend(self.pending.drain(..forgotten).map(|(id, _)| id));
            return;
        } else if offset > i64::from(self.next) {
            return;
        } else {
            offset
        };
        self.pending.retain(|(id, _)| {
            let kept = i64::from(*id) >= keep_from;
            if !kept {
                self.forgotten.insert(*id);
            }
            kept
        });
    }

    /// What to serve now.
    pub(super) fn batch(&mut self, limit: usize) -> Vec<Value> {
        let mut batch = std::mem::take(&mut self.repeats);
        let room = limit.saturating_sub(batch.len());
        batch.extend(
            self.pending
                .iter()
                .take(room)
                .map(|(_, update)| update.clone()),
        );
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue_of(count: u32) -> UpdateQueue {
        let mut queue = UpdateQueue::new(UpdateId(10));
        for _ in 0..count {
            queue.push("message", json!({}));
        }
        queue
    }

    fn served(queue: &mut UpdateQueue) -> Vec<u64> {
        queue
            .batch(100)
            .iter()
            .filter_map(|update| update["update_id"].as_u64())
            .collect()
    }

    #[test]
    fn only_a_greater_offset_forgets() {
        let mut queue = queue_of(3);
        queue.confirm(10);
        assert_eq!(served(&mut queue), [10, 11, 12]);
        assert_eq!(served(&mut queue), [10, 11, 12]);
        queue.confirm(12);
        assert_eq!(served(&mut queue), [12]);
        assert!(queue.is_forgotten(UpdateId(11)) && !queue.is_forgotten(UpdateId(12)));
    }

    #[test]
    fn a_negative_offset_keeps_the_last_ones() {
        let mut queue = queue_of(5);
        queue.confirm(-2);
        assert_eq!(served(&mut queue), [13, 14]);
        queue.confirm(-100);
        assert_eq!(served(&mut queue), [13, 14]);
    }

    #[test]
    fn held_updates_come_in_the_order_asked_for() {
        let mut queue = queue_of(1);
        queue.hold();
        queue.push("message", json!({}));
        queue.push("message", json!({}));
        assert_eq!(served(&mut queue), [10]);
        queue.release(Order::Reversed);
        assert_eq!(served(&mut queue), [10, 12, 11]);
    }

    #[test]
    fn a_repeat_ignores_the_offset_and_is_served_once() {
        let mut queue = queue_of(2);
        queue.confirm(12);
        assert!(queue.repeat(UpdateId(10)) && !queue.repeat(UpdateId(99)));
        assert_eq!(served(&mut queue), [10]);
        assert!(served(&mut queue).is_empty());
    }

    #[test]
    fn ids_that_jump_back_are_served_in_spite_of_the_old_offset() {
        let mut queue = queue_of(2);
        queue.confirm(12);
        queue.jump_to(UpdateId(5));
        queue.push("message", json!({}));
        queue.confirm(12);
        assert_eq!(served(&mut queue), [5]);
    }

    #[test]
    fn kinds_that_were_not_asked_for_are_not_queued() {
        let mut queue = queue_of(0);
        queue.allow(vec!["callback_query".to_owned()]).unwrap();
        assert_eq!(queue.push("message", json!({})), None);
        assert!(queue.push("callback_query", json!({})).is_some());
        assert!(queue.allow(vec!["gossip".to_owned()]).is_err());
    }
}
