//! What kai itself answers, beside the agents' answers.

use std::{path::PathBuf, sync::Arc, sync::OnceLock, time::Duration};

use kai_proto::ids::{ChatId, PromptId};

use crate::{
    authd::Authd, closing::Closing, gate::Times, inbox::Inbox, rendered::Rendered,
    telegram::Telegram,
};

/// Between two tries to write an answer down.
const AGAIN: Duration = Duration::from_secs(1);

/// What every user's task works with.
pub struct Means {
    /// The bot.
    pub telegram: Arc<Telegram>,
    /// The inbox.
    pub inbox: Inbox,
    /// authd.
    pub authd: Authd,
    /// How long a proof of the second factor holds, and a question for one.
    pub times: Times,
    /// The broker's socket.
    pub broker: PathBuf,
    /// How far the gateway's end has come.
    pub closing: Closing,
    /// The bot's own name, once Telegram has said it.
    pub me: OnceLock<String>,
}

impl Means {
    /// Says something in a chat and, if it answers a message, marks that one as answered. It is said
    /// beside everything else that goes on.
    pub fn reply(&self, chat: ChatId, answers: Option<PromptId>, text: &str) {
        let telegram = Arc::clone(&self.telegram);
        let inbox = self.inbox.clone();
        let text = Rendered::plain(text);
        tokio::spawn(async move {
            telegram.post_until_done(chat, &text, None).await;
            if let Some(id) = answers {
                answered(&inbox, id).await;
            }
        });
    }

    /// Marks a message as answered without a word.
    pub fn settle(&self, id: PromptId) {
        let inbox = self.inbox.clone();
        tokio::spawn(async move { answered(&inbox, id).await });
    }
}

/// Marks a message as answered, however often it takes.
pub async fn answered(inbox: &Inbox, id: PromptId) {
    while inbox.answered(id).await.is_err() {
        tokio::time::sleep(AGAIN).await;
    }
}
