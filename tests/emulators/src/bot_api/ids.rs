//! The numbers that Telegram gives to people, chats, messages and updates, kept apart by type.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($number:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $number);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// A person, or the bot.
    UserId(i64)
}
id! {
    /// A conversation: positive for a private chat, negative for a group.
    ChatId(i64)
}
id! {
    /// A message. Here no two messages have the same one, whatever their chats.
    MessageId(i32)
}
id! {
    /// A place in the queue that `getUpdates` serves.
    UpdateId(u32)
}

impl UserId {
    /// This person's private chat with the bot, which has the person's own number.
    pub fn private_chat(self) -> ChatId {
        ChatId(self.0)
    }
}
