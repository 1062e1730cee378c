//! A Telegram with one bot in it: the Bot API over HTTP on one side, people on the other.
//!
//! [`BotApi::start`] gives a handle. A test lets people act through it ([`BotApi::send_text`],
//! [`BotApi::press`], ...), points the bot at [`BotApi::url`], and looks at what came of it
//! ([`BotApi::wait_for`], [`BotApi::calls`], ...). All of it is synchronous; in async code put
//! waiting into `spawn_blocking`, or await [`BotApi::changes`].
//!
//! It is stricter than Telegram: parameters that a method does not have are refused rather than
//! ignored, and so are entities that Telegram would repair. Left out are `parse_mode`, inline
//! messages, topics, channels, webhooks, and what Telegram finds in a bot's text by itself.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{Notify, watch};

use crate::server::Server;
use crate::watched::Watched;

pub use calls::{Call, Outcome};
pub use chat::{Author, ChatAction, GroupKind, Message, Person, Version};
pub use entities::{Entity, EntityKind};
pub use faults::{CallFilter, Fault, FloodGuard};
pub use files::{Attachment, FileKind};
pub use formatted::Formatted;
pub use ids::{ChatId, MessageId, UpdateId, UserId};
pub use keyboard::{Button, ButtonAction, Keyboard};
pub use observe::TimedOut;
pub use people::{Mistake, Sent};
pub use refusal::Refusal;
pub use render::escape;
pub use state::{BotCommand, CallbackState};
pub use updates::Order;

mod calls;
mod chat;
mod entities;
mod faults;
mod files;
mod formatted;
mod http;
mod ids;
mod keyboard;
mod methods;
mod observe;
mod params;
mod people;
mod polling;
mod refusal;
mod render;
mod state;
mod updates;

/// How an emulated Telegram begins.
#[derive(Clone, Debug)]
pub struct BotApiOptions {
    /// The port on loopback; 0 takes any that is free.
    pub port: u16,
    /// The one token that is let in.
    pub token: String,
    /// The bot's name behind the @.
    pub username: String,
    /// The first update's id.
    pub first_update: UpdateId,
}

impl Default for BotApiOptions {
    fn default() -> Self {
        Self {
            port: 0,
            token: "7000000001:emulated-token-for-tests-0123456789".to_owned(),
            username: "kai_emulated_bot".to_owned(),
            first_update: UpdateId(100_000),
        }
    }
}

/// What the handle and the server both see.
#[derive(Debug)]
struct Shared {
    token: String,
    state: Watched<state::State>,
    pollers: Notify,
}

/// A running emulator of Telegram; it stops when this is dropped.
#[derive(Debug)]
pub struct BotApi {
    shared: Arc<Shared>,
    server: Server,
}

impl BotApi {
    /// Starts one. The bot's own user id is the number at the beginning of the token.
    pub fn start(options: BotApiOptions) -> io::Result<Self> {
        let number = options
            .token
            .split(':')
            .next()
            .and_then(|id| id.parse().ok());
        let number = number.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "a token begins with the bot's number",
            )
        })?;
        let bot = Person {
            id: UserId(number),
            first_name: "Kai".to_owned(),
            username: Some(options.username),
        };
        let queue = updates::UpdateQueue::new(options.first_update);
        let shared = Arc::new(Shared {
            token: options.token,
            state: Watched::new(state::State::new(bot, queue)),
            pollers: Notify::new(),
        });
        let server = Server::start("bot-api", options.port, http::Api(Arc::clone(&shared)))?;
        Ok(Self { shared, server })
    }

    /// What a bot has to use instead of `https://api.telegram.org`, without a slash at its end.
    pub fn url(&self) -> String {
        format!("http://{}", self.server.address())
    }

    /// The token that the bot has to use.
    pub fn token(&self) -> &str {
        &self.shared.token
    }

    /// A number that rises with every change of anything, for a page to await.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.state.changes()
    }

    /// Lets the next `times` calls that fit go wrong. Plans add up; the oldest is used up first.
    pub fn inject(&self, filter: CallFilter, times: usize, fault: Fault) {
        self.shared
            .state
            .change(|state| state.faults.plan(filter, times, fault));
    }

    /// Holds back the answers to all calls that fit. What they ask for is done at once.
    pub fn delay(&self, filter: CallFilter, by: Duration) {
        self.shared
            .state
            .change(|state| state.faults.delay(filter, by));
    }

    /// Forgets all planned faults and delays.
    pub fn clear_faults(&self) {
        self.shared.state.change(|state| state.faults.clear());
    }

    /// Sets or removes the limit on messages and edits of a chat. There is none at first.
    pub fn set_flood_guard(&self, guard: Option<FloodGuard>) {
        self.shared.state.change(|state| state.faults.guard(guard));
    }

    /// Queues any update, well-formed or not, as a hostile or a newer Telegram might. Without an
    /// `update_id` of its own it gets the next one.
    pub fn push_update(&self, update: Value) -> UpdateId {
        self.queue(|queue| queue.push_raw(update))
    }

    /// Serves an update once more, though it may be confirmed. False if there never was one.
    pub fn repeat_update(&self, update: UpdateId) -> bool {
        self.queue(|queue| queue.repeat(update))
    }

    /// From now on updates are made but not served.
    pub fn hold_updates(&self) {
        self.queue(updates::UpdateQueue::hold);
    }

    /// Serves what was held back, in order or not.
    pub fn release_updates(&self, order: Order) {
        self.queue(|queue| queue.release(order));
    }

    /// Goes on counting updates from another number, lower ones included, as Telegram does after
    /// a week of silence.
    pub fn jump_updates_to(&self, next: UpdateId) {
        self.queue(|queue| queue.jump_to(next));
    }

    /// Whether the bot has confirmed an update, so that Telegram will not serve it again.
    pub fn is_confirmed(&self, update: UpdateId) -> bool {
        self.shared.state.lock().queue.is_forgotten(update)
    }

    fn queue<R>(&self, change: impl FnOnce(&mut updates::UpdateQueue) -> R) -> R {
        let result = self.shared.state.change(|state| change(&mut state.queue));
        self.shared.pollers.notify_waiters();
        result
    }
}
