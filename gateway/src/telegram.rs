//! The Bot API: the client, how each call may end, and the pace of the calls.
//!
//! Nothing here logs what a call said, nor what Telegram quotes of it. In one chat there is never more
//! than one message being posted or edited at a time.

mod errors;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use kai_proto::ids::{ChatId, UnixSeconds};
use teloxide::{
    ApiError, Bot, RequestError,
    payloads::{
        AnswerCallbackQuerySetters, EditMessageTextSetters, GetUpdatesSetters, SendMessageSetters,
        SetMessageReactionSetters,
    },
    requests::Requester,
    types::{
        AllowedUpdate, BotCommand, CallbackQueryId, ChatAction, LinkPreviewOptions, Message,
        MessageEntity, MessageEntityKind, MessageId, ReactionType, ReplyParameters, Update,
    },
};
use tokio::time::{sleep, sleep_until, timeout};
use tracing::warn;

use crate::{
    calls::Calls,
    limiter::{Bucket, Call, Pace},
    pass::PassView,
    rendered::{Rendered, Style},
    token::BotToken,
};

pub use errors::{PollError, Sight, Trouble};
use errors::{is_about_entities, is_gone, judge, poll_error};

/// How long Telegram holds a poll open when there is nothing, in seconds.
const POLL: u32 = 50;
/// How long any other call may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The shortest and the longest pause of a chat after a call that failed on the way.
const WAITS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// The waits before each try to remove a message.
const ERASE: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(6),
    Duration::from_secs(20),
];
/// What a message is marked with when it goes on to the agent after a code.
const SEEN: &str = "👀";

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// `telegram.api_url` is no address.
    #[error("telegram.api_url is not an address: {0}")]
    Address(String),
    /// The client's parts cannot be set up.
    #[error("the HTTP client cannot be made: {0}")]
    Client(reqwest::Error),
}

/// Where a text is shown.
#[derive(Debug, Clone, Copy)]
enum Showing {
    /// In a new message.
    New { reply_to: Option<i32> },
    /// In an old one.
    Old { message: i32 },
}

/// The bot.
pub struct Telegram {
    bot: Bot,
    calls: Calls,
    overall: Mutex<Bucket>,
    lanes: Mutex<HashMap<ChatId, Arc<Lane>>>,
}

/// One chat: whose turn it is, and how fast turns may follow each other.
struct Lane {
    turn: tokio::sync::Mutex<()>,
    state: Mutex<LaneState>,
}

struct LaneState {
    pace: Pace,
    /// Calls in a row that failed on the way.
    failures: u32,
}

/// A message of the bot's, as Telegram took it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Posted {
    /// Its number in its chat.
    pub message: i32,
    /// Since when it says what it says, by Telegram's clock.
    pub at: UnixSeconds,
}

impl Posted {
    fn of(message: &Message) -> Self {
        Self {
            message: message.id.0,
            at: sent(message).max(message.edit_date().map_or(0, |at| unix(at.timestamp()))),
        }
    }
}

/// When `message` was sent, by Telegram's clock.
#[must_use]
pub fn sent(message: &Message) -> UnixSeconds {
    unix(message.date.timestamp())
}

fn unix(seconds: i64) -> UnixSeconds {
    UnixSeconds::try_from(seconds).unwrap_or(0)
}

impl Telegram {
    /// A client for the bot with this token at a Bot API server.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn new(api_url: &str, token: &BotToken) -> Result<Self, ClientError> {
        let address = reqwest::Url::parse(api_url)
            .map_err(|error| ClientError::Address(error.to_string()))?;
        // A connection that is kept saves the greeting of TLS on the first words of an answer.
        // Redirects and proxies would show the token to somebody else.
        let client = reqwest::Client::builder()
            .http1_only()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(5))
            .tcp_nodelay(true)
            .tcp_keepalive(Duration::from_secs(30))
            .pool_idle_timeout(Duration::from_secs(300))
            .tls_built_in_root_certs(address.scheme() == "https")
            .build()
            .map_err(ClientError::Client)?;
        Ok(Self {
            bot: Bot::with_client(token.reveal(), client).set_api_url(address),
            calls: Calls::default(),
            overall: Mutex::new(Bucket::new(30, Duration::from_millis(34))),
            lanes: Mutex::default(),
        })
    }

    /// The bot's own name.
    ///
    /// # Errors
    /// [`PollError`].
    pub async fn name(&self) -> Result<String, PollError> {
        let me = timeout(PATIENCE, self.bot.get_me()).await;
        let me = me
            .map_err(|_| PollError::Network)?
            .map_err(|error| poll_error(&error))?;
        Ok(me.username().to_owned())
    }

    /// Puts the commands into the chats' menu.
    ///
    /// # Errors
    /// [`PollError`].
    pub async fn set_menu(&self, menu: &[(&str, &str)]) -> Result<(), PollError> {
        let commands = menu
            .iter()
            .map(|(name, purpose)| BotCommand::new(*name, *purpose));
        let set = timeout(PATIENCE, self.bot.set_my_commands(commands)).await;
        set.map_err(|_| PollError::Network)?
            .map_err(|error| poll_error(&error))?;
        Ok(())
    }

    /// Waits for updates from `offset` on; those before it are forgotten by Telegram.
    ///
    /// # Errors
    /// [`PollError`].
    pub async fn updates(&self, offset: Option<i32>) -> Result<Vec<Update>, PollError> {
        let mut request = self.bot.get_updates().timeout(POLL).allowed_updates([
            AllowedUpdate::Message,
            AllowedUpdate::EditedMessage,
            AllowedUpdate::CallbackQuery,
        ]);
        request.offset = offset;
        let patience = Duration::from_secs(u64::from(POLL)) + PATIENCE;
        let polled = timeout(patience, request).await;
        polled
            .map_err(|_| PollError::Network)?
            .map_err(|error| poll_error(&error))
    }

    /// When a call in this chat may be made; `now` or earlier if at once.
    #[must_use]
    pub fn ready_at(&self, chat: ChatId, call: Call, now: Instant) -> Instant {
        self.lane(chat).with(|state| state.pace.ready_at(call, now))
    }

    /// Posts a message, as a reply to another if one is named. Once, when the chat's pace allows it.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn post(
        &self,
        chat: ChatId,
        text: &Rendered,
        reply_to: Option<i32>,
    ) -> Result<Posted, Trouble> {
        self.show(chat, Showing::New { reply_to }, text, None).await
    }

    /// Posts a message of what is somebody's own, unless their gate is shut when it comes to the call:
    /// that counts as [`Trouble::Later`].
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn post_own(
        &self,
        chat: ChatId,
        text: &Rendered,
        reply_to: Option<i32>,
        pass: &PassView,
    ) -> Result<i32, Trouble> {
        let showing = Showing::New { reply_to };
        let posted = self.show(chat, showing, text, Some(pass)).await?;
        Ok(posted.message)
    }

    /// Posts a message and does not rest until it is there, or never will be.
    pub async fn post_until_done(&self, chat: ChatId, text: &Rendered, reply_to: Option<i32>) {
        while self.post(chat, text, reply_to).await == Err(Trouble::Later) {}
    }

    /// Gives an earlier message another text. Once, when the chat's pace allows it.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn edit(
        &self,
        chat: ChatId,
        message: i32,
        text: &Rendered,
    ) -> Result<Posted, Trouble> {
        let showing = Showing::Old { message };
        self.show(chat, showing, text, None).await
    }

    /// Gives an earlier message another text as [`post_own`](Self::post_own) posts one.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn edit_own(
        &self,
        chat: ChatId,
        message: i32,
        text: &Rendered,
        pass: &PassView,
    ) -> Result<(), Trouble> {
        let showing = Showing::Old { message };
        self.show(chat, showing, text, Some(pass)).await.map(drop)
    }

    /// Removes an earlier message; one that is not there any more counts as removed.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn delete(&self, chat: ChatId, message: i32) -> Result<(), Trouble> {
        let to = teloxide::types::ChatId(chat.into());
        let _call = self.calls.begin().await;
        match timeout(PATIENCE, self.bot.delete_message(to, MessageId(message))).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RequestError::Api(error))) if is_gone(&error) => Ok(()),
            Ok(Err(error)) => Err(judge(&error).0),
            Err(_) => Err(Trouble::Later),
        }
    }

    /// Removes an earlier message, and tries a few times; false if it stays.
    pub async fn erase(&self, chat: ChatId, message: i32) -> bool {
        for wait in ERASE {
            sleep(wait).await;
            match self.delete(chat, message).await {
                Ok(()) => return true,
                Err(Trouble::Never) => return false,
                Err(Trouble::Later) => {}
            }
        }
        false
    }

    /// Marks a message of a user's as seen. A bot is not told of deletions, but a message that was
    /// deleted cannot be marked.
    pub async fn mark(&self, chat: ChatId, message: i32) -> Sight {
        self.wait_for_overall().await;
        let to = teloxide::types::ChatId(chat.into());
        let _call = self.calls.begin().await;
        let mark = ReactionType::Emoji {
            emoji: SEEN.to_owned(),
        };
        let marked = self.bot.set_message_reaction(to, MessageId(message));
        match timeout(PATIENCE, marked.reaction([mark])).await {
            Ok(Ok(_)) => Sight::There,
            Ok(Err(error)) => Sight::of(&error),
            Err(_) => Sight::Unclear,
        }
    }

    /// Shows that an answer is being written, unless calls are short at the moment.
    pub async fn typing(&self, chat: ChatId) {
        let now = Instant::now();
        if self.ready_at(chat, Call::Post, now) > now || self.overall_ready_at(now) > now {
            return;
        }
        self.take_overall(now);
        let to = teloxide::types::ChatId(chat.into());
        let _call = self.calls.begin().await;
        let _ = timeout(PATIENCE, self.bot.send_chat_action(to, ChatAction::Typing)).await;
    }

    /// Answers the press of a button with a line above the chat.
    pub async fn answer_button(&self, query: CallbackQueryId, text: &str) {
        let _call = self.calls.begin().await;
        let _ = timeout(PATIENCE, self.bot.answer_callback_query(query).text(text)).await;
    }

    /// Begins no further call, and waits at most `patience` for those under way.
    pub async fn close(&self, patience: Duration) {
        self.calls.close(patience).await;
    }

    /// One call that shows `text`, without its styles if Telegram does not take them.
    async fn show(
        &self,
        chat: ChatId,
        showing: Showing,
        text: &Rendered,
        pass: Option<&PassView>,
    ) -> Result<Posted, Trouble> {
        let kind = match showing {
            Showing::New { .. } => Call::Post,
            Showing::Old { .. } => Call::Edit,
        };
        let lane = self.lane(chat);
        let _turn = loop {
            let ready_at = lane.with(|state| state.pace.ready_at(kind, Instant::now()));
            // A timer has a grain of a millisecond; what is due now does not wait for it.
            if ready_at > Instant::now() {
                sleep_until(ready_at.into()).await;
            }
            let turn = lane.turn.lock().await;
            let now = Instant::now();
            if lane.with(|state| state.pace.ready_at(kind, now)) <= now {
                break turn;
            }
        };
        self.wait_for_overall().await;
        let _call = self.calls.begin().await;
        if pass.is_some_and(|pass| !pass.borrow().is_open()) {
            return Err(Trouble::Later);
        }
        let now = Instant::now();
        lane.with(|state| state.pace.take(kind, now));
        let mut result = timeout(PATIENCE, self.call(chat, showing, text)).await;
        if let Ok(Err(RequestError::Api(error))) = &result
            && is_about_entities(error)
        {
            warn!("Telegram does not take the styles of a text; it is shown without");
            let plain = Rendered::plain(&text.text);
            result = timeout(PATIENCE, self.call(chat, showing, &plain)).await;
        }
        let (trouble, pause) = match result {
            Ok(Ok(value)) => {
                lane.with(|state| state.failures = 0);
                return Ok(value);
            }
            Ok(Err(error)) => judge(&error),
            Err(_) => (Trouble::Later, None),
        };
        if trouble == Trouble::Later {
            lane.with(|state| {
                let wait = pause.unwrap_or_else(|| {
                    let doubled = WAITS.0 * (1 << state.failures.min(10));
                    state.failures += 1;
                    doubled.min(WAITS.1)
                });
                state.pace.pause(Instant::now() + wait);
            });
        }
        Err(trouble)
    }

    /// The call itself; gives the message that shows the text.
    async fn call(
        &self,
        chat: ChatId,
        showing: Showing,
        text: &Rendered,
    ) -> Result<Posted, RequestError> {
        let chat = teloxide::types::ChatId(chat.into());
        match showing {
            Showing::New { reply_to } => {
                let mut request = self
                    .bot
                    .send_message(chat, &text.text)
                    .link_preview_options(no_preview());
                request.entities = entities(text);
                if let Some(message) = reply_to {
                    let reply = ReplyParameters::new(MessageId(message));
                    request = request.reply_parameters(reply.allow_sending_without_reply());
                }
                request.await.map(|message| Posted::of(&message))
            }
            Showing::Old { message } => {
                let mut request = self
                    .bot
                    .edit_message_text(chat, MessageId(message), &text.text)
                    .link_preview_options(no_preview());
                request.entities = entities(text);
                match request.await {
                    // What is there is what was wanted, and since when is known to whoever put it there.
                    Err(RequestError::Api(ApiError::MessageNotModified)) => {
                        Ok(Posted { message, at: 0 })
                    }
                    other => other.map(|message| Posted::of(&message)),
                }
            }
        }
    }

    fn lane(&self, chat: ChatId) -> Arc<Lane> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let lane = lanes.entry(chat).or_insert_with(|| {
            let is_group = i64::from(chat) < 0;
            Arc::new(Lane {
                turn: tokio::sync::Mutex::new(()),
                state: Mutex::new(LaneState {
                    pace: Pace::new(is_group),
                    failures: 0,
                }),
            })
        });
        Arc::clone(lane)
    }

    fn overall_ready_at(&self, now: Instant) -> Instant {
        let overall = self.overall.lock().unwrap_or_else(PoisonError::into_inner);
        overall.ready_at(now)
    }

    fn take_overall(&self, now: Instant) {
        let mut overall = self.overall.lock().unwrap_or_else(PoisonError::into_inner);
        overall.take(now);
    }

    async fn wait_for_overall(&self) {
        loop {
            let now = Instant::now();
            let ready_at = self.overall_ready_at(now);
            if ready_at <= now {
                return self.take_overall(now);
            }
            sleep_until(ready_at.into()).await;
        }
    }
}

impl Lane {
    fn with<T>(&self, work: impl FnOnce(&mut LaneState) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn no_preview() -> LinkPreviewOptions {
    LinkPreviewOptions {
        is_disabled: true,
        url: None,
        prefer_small_media: false,
        prefer_large_media: false,
        show_above_text: false,
    }
}

/// The styles as teloxide sends them.
fn entities(text: &Rendered) -> Option<Vec<MessageEntity>> {
    let convert = |entity: &crate::rendered::Entity| {
        let kind = match &entity.style {
            Style::Bold => MessageEntityKind::Bold,
            Style::Italic => MessageEntityKind::Italic,
            Style::Strike => MessageEntityKind::Strikethrough,
            Style::Code => MessageEntityKind::Code,
            Style::Pre(language) => MessageEntityKind::Pre {
                language: language.clone(),
            },
            Style::Link(address) => MessageEntityKind::TextLink {
                url: reqwest::Url::parse(address).ok()?,
            },
            Style::Quote => MessageEntityKind::Blockquote,
        };
        Some(MessageEntity::new(
            kind,
            entity.range.start,
            entity.range.len(),
        ))
    };
    (!text.entities.is_empty()).then(|| text.entities.iter().filter_map(convert).collect())
}
