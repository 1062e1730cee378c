//! What the tests over several processes share: a whole kai with two people, and the word on skipping.

mod account;
mod cgroup;
pub mod login;
mod screen;
mod second_factor;

use std::time::Duration;

use kai_emulators::bot_api::{BotApi, BotApiOptions, ChatId, Message, MessageId, UserId};
use kai_playground::ground::{Daemon, Ground, Names, Options, Person};

pub use account::as_account;
use cgroup::OwnCgroup;
pub use cgroup::limits_memory;
pub use screen::{HungUp, Screen};
pub use second_factor::{Authenticator, Enrolled};

/// alice's Telegram id.
pub const ALICE: UserId = UserId(1001);
/// bob's.
pub const BOB: UserId = UserId(1002);
/// Somebody who is not in users.yaml.
pub const STRANGER: UserId = UserId(6666);

/// How long an answer may take on a busy machine before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// True if this run may make accounts. If not, says that the test is skipped, and fails where
/// `KAI_TESTS_MUST_RUN` is set, as in continuous integration.
#[must_use]
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root() || skipped("needs root, to make accounts")
}

/// Says that a test is skipped and why; always false.
///
/// # Panics
/// Where `KAI_TESTS_MUST_RUN` is set.
#[must_use]
#[allow(clippy::panic)]
pub fn skipped(why: &str) -> bool {
    if std::env::var_os("KAI_TESTS_MUST_RUN").is_some() {
        panic!("must not be skipped here, but {why}");
    }
    eprintln!("skipped: {why}");
    false
}

/// A whole kai with alice and bob in it, before an emulated Telegram.
#[derive(Debug)]
pub struct Kai {
    // First, so that it ends before the Telegram that it polls.
    /// The programs, accounts and files.
    pub ground: Ground,
    /// The Telegram.
    pub telegram: BotApi,
    // Last: nothing is in it any more.
    _cgroup: Option<OwnCgroup>,
}

impl Kai {
    /// Starts one; `change` may change what it is like.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    #[allow(clippy::unwrap_used)]
    pub fn start(change: impl FnOnce(&mut Options)) -> Self {
        let telegram = BotApi::start(BotApiOptions::default()).unwrap();
        telegram.add_user(ALICE, "Alice", Some("alice"));
        telegram.add_user(BOB, "Bob", Some("bob"));
        telegram.add_user(STRANGER, "Stranger", None);
        let people = vec![Person::new("alice", ALICE.0), Person::new("bob", BOB.0)];
        let mut options = Options::new(Names::Unique, people, &telegram.url(), telegram.token());
        let cgroup = OwnCgroup::make();
        options.cgroup = cgroup.as_ref().map(|cgroup| cgroup.path().to_owned());
        change(&mut options);
        // Nobody here has to read a question first, unless a test says so.
        let says = options
            .second_factor
            .iter()
            .any(|(key, _)| key == "reading");
        if !says {
            let none = ("reading".to_owned(), "0".to_owned());
            options.second_factor.push(none);
        }
        let ground = Ground::new(&options).unwrap();
        ground.start().unwrap();
        Self {
            ground,
            telegram,
            _cgroup: cgroup,
        }
    }

    /// Somebody writes to the bot; gives their message's number.
    ///
    /// # Panics
    /// If their Telegram does not let them.
    #[allow(clippy::unwrap_used)]
    pub fn say(&self, who: UserId, text: &str) -> MessageId {
        self.telegram
            .send_text(who, who.private_chat(), text)
            .unwrap()
            .message
    }

    /// Waits for an answer to somebody, newer than `after`, that fits.
    ///
    /// # Panics
    /// If there is none in [`PATIENCE`]; shows the chat and the logs.
    #[allow(clippy::panic)]
    pub fn answer(
        &self,
        who: UserId,
        after: MessageId,
        fits: impl FnMut(&Message) -> bool,
    ) -> Message {
        match self
            .telegram
            .wait_for_answer(who.private_chat(), after, PATIENCE, fits)
        {
            Ok(message) => message,
            Err(problem) => {
                let logs = Daemon::ALL
                    .map(|daemon| self.ground.log_tail(daemon))
                    .join("\n");
                panic!("{problem}\nlast in the logs:\n{logs}")
            }
        }
    }

    /// Somebody writes, and gets an answer that holds `words`.
    ///
    /// # Panics
    /// If there is none in [`PATIENCE`]; shows the chat and the logs.
    pub fn ask(&self, who: UserId, text: &str, words: &str) -> Message {
        let asked = self.say(who, text);
        self.answer(who, asked, |message| message.text().contains(words))
    }

    /// What the bot said in somebody's private chat.
    #[must_use]
    pub fn said_to(&self, who: UserId) -> Vec<Message> {
        let messages = self.telegram.messages(who.private_chat());
        messages.into_iter().filter(Message::is_from_bot).collect()
    }
}

/// The private chat of somebody with the bot.
#[must_use]
pub fn chat(who: UserId) -> ChatId {
    who.private_chat()
}
