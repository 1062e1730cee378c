//! People, chats and messages, as the emulator keeps them and as the Bot API shows them.

use std::collections::BTreeSet;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::entities::Entity;
use super::files::Attachment;
use super::formatted::Formatted;
use super::ids::{ChatId, MessageId, UserId};
use super::keyboard::Keyboard;

/// Someone with a Telegram account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// The number that never changes.
    pub id: UserId,
    /// The name that is shown.
    pub first_name: String,
    /// The name behind the @, if there is one.
    pub username: Option<String>,
}

impl Person {
    pub(super) fn json(&self, is_bot: bool) -> Value {
        let mut json = json!({"id": self.id, "is_bot": is_bot, "first_name": self.first_name});
        if let Some(username) = &self.username {
            json["username"] = json!(username);
        }
        json
    }
}

/// The two sorts of group that a bot can be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupKind {
    /// A small one.
    Basic,
    /// What most groups become.
    Supergroup,
}

/// Who takes part in a chat.
#[derive(Clone, Debug)]
pub(super) enum ChatKind {
    Private {
        blocked: bool,
    },
    Group {
        kind: GroupKind,
        title: String,
        members: BTreeSet<UserId>,
    },
}

/// One conversation.
#[derive(Clone, Debug)]
pub(super) struct Chat {
    pub(super) kind: ChatKind,
    pub(super) messages: Vec<Message>,
    pub(super) actions: Vec<ChatAction>,
}

impl Chat {
    pub(super) fn new(kind: ChatKind) -> Self {
        Self {
            kind,
            messages: Vec::new(),
            actions: Vec::new(),
        }
    }

    /// A message that has not been deleted.
    pub(super) fn message(&self, id: MessageId) -> Option<&Message> {
        self.messages
            .iter()
            .find(|message| message.id == id && message.deleted.is_none())
    }

    pub(super) fn message_mut(&mut self, id: MessageId) -> Option<&mut Message> {
        // From the end: what is edited is nearly always the newest.
        let mut newest_first = self.messages.iter_mut().rev();
        newest_first.find(|message| message.id == id && message.deleted.is_none())
    }
}

/// "typing" and the like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatAction {
    /// As the bot named it.
    pub action: String,
    /// When.
    pub at: Instant,
}

/// Who wrote a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    /// The bot.
    Bot,
    /// A person.
    Person(UserId),
}

/// What a message said from one moment to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// When it appeared.
    pub at: Instant,
    /// Its text, or the caption of its file.
    pub content: Formatted,
    /// The buttons under it.
    pub keyboard: Keyboard,
}

/// A message with its whole history.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its number.
    pub id: MessageId,
    /// Where it stands.
    pub chat: ChatId,
    /// Who wrote it.
    pub author: Author,
    /// What it answers.
    pub reply_to: Option<MessageId>,
    /// The file that it carries.
    pub attachment: Option<Attachment>,
    /// What the bot thinks of it.
    pub reaction: Option<String>,
    /// When somebody deleted it.
    pub deleted: Option<Instant>,
    /// What it said at first.
    pub(super) first: Version,
    /// What became of it, the newest last.
    pub(super) edits: Vec<Version>,
    /// Fields of a raw message that was sent with them.
    pub(super) extra: Map<String, Value>,
    pub(super) date: u64,
    pub(super) edit_date: Option<u64>,
}

impl Message {
    pub(super) fn new(id: MessageId, chat: ChatId, author: Author, content: Formatted) -> Self {
        let first = Version {
            at: Instant::now(),
            content,
            keyboard: Keyboard::default(),
        };
        Self {
            id,
            chat,
            author,
            reply_to: None,
            attachment: None,
            reaction: None,
            deleted: None,
            first,
            edits: Vec::new(),
            extra: Map::new(),
            date: unix_now(),
            edit_date: None,
        }
    }

    /// Every version, the first one first.
    pub fn versions(&self) -> impl Iterator<Item = &Version> {
        std::iter::once(&self.first).chain(&self.edits)
    }

    /// What it says now.
    pub fn now(&self) -> &Version {
        self.edits.last().unwrap_or(&self.first)
    }

    /// What it said at first.
    pub fn first(&self) -> &Version {
        &self.first
    }

    /// Its text now.
    pub fn text(&self) -> &str {
        &self.now().content.text
    }

    /// Its entities now.
    pub fn entities(&self) -> &[Entity] {
        &self.now().content.entities
    }

    /// Its buttons now.
    pub fn keyboard(&self) -> &Keyboard {
        &self.now().keyboard
    }

    /// How often it was changed.
    pub fn edit_count(&self) -> usize {
        self.edits.len()
    }

    /// Whether it is the bot's and still there.
    pub fn is_from_bot(&self) -> bool {
        self.author == Author::Bot && self.deleted.is_none()
    }

    /// When its text first had these words in it.
    pub fn first_with(&self, words: &str) -> Option<Instant> {
        self.versions()
            .find(|version| version.content.text.contains(words))
            .map(|v| v.at)
    }

    pub(super) fn change(&mut self, content: Formatted, keyboard: Keyboard) {
        self.edits.push(Version {
            at: Instant::now(),
            content,
            keyboard,
        });
        self.edit_date = Some(unix_now());
    }
}

pub(super) fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
