//! A whole kai and the emulated Telegram before it: what the page and the scripts act on.

use std::{fs, path::Path, time::Duration};

use kai_emulators::bot_api::{BotApi, ChatId, FileKind, Message, MessageId, UserId};

use crate::{
    cast::Member,
    ground::{Ground, GroundError},
    script::parse::Target,
};

/// What bob has and alice may not see.
const SECRET: &str = "the blue suitcase is under the stairs\n";

/// Why something did not happen on the stage.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The ground has it not.
    #[error(transparent)]
    Ground(#[from] GroundError),
    /// A person's Telegram would not have let it happen.
    #[error(transparent)]
    Mistake(#[from] kai_emulators::bot_api::Mistake),
    /// There is no such button.
    #[error("no message to {0} has a button {1:?}")]
    NoButton(&'static str, String),
    /// A file to be sent cannot be read.
    #[error("{0}: {1}")]
    File(String, std::io::Error),
}

/// The parts that run.
#[derive(Debug)]
pub struct Stage {
    // First, so that kai ends before the Telegram that it polls.
    ground: Ground,
    telegram: BotApi,
}

impl Stage {
    /// Lets everybody in and starts the daemons.
    ///
    /// # Errors
    /// If one of them does not start.
    pub fn open(ground: Ground, telegram: BotApi) -> Result<Self, StageError> {
        for member in Member::ALL {
            telegram.add_user(user(member), member.first_name(), Some(member.name()));
        }
        ground.write_in_home(Member::Bob.name(), "secret.txt", SECRET)?;
        ground.start()?;
        Ok(Self { ground, telegram })
    }

    /// The second kai.
    #[must_use]
    pub fn ground(&self) -> &Ground {
        &self.ground
    }

    /// The Telegram.
    #[must_use]
    pub fn telegram(&self) -> &BotApi {
        &self.telegram
    }

    /// `member` writes.
    ///
    /// # Errors
    /// As their Telegram would.
    pub fn say(&self, member: Member, text: &str) -> Result<(), StageError> {
        self.telegram.send_text(user(member), chat(member), text)?;
        Ok(())
    }

    /// `member` presses the newest button that is labelled so; gives the message it is under.
    ///
    /// # Errors
    /// If there is none.
    pub fn press(&self, member: Member, label: &str) -> Result<MessageId, StageError> {
        let messages = self.telegram.messages(chat(member));
        let has_it = |message: &&Message| {
            message.is_from_bot() && message.keyboard().buttons().any(|b| b.label == label)
        };
        let found = messages
            .iter()
            .rev()
            .find(has_it)
            .ok_or_else(|| StageError::NoButton(member.name(), label.to_owned()))?;
        self.telegram
            .press(user(member), chat(member), found.id, label)?;
        Ok(found.id)
    }

    /// `member` sends a file.
    ///
    /// # Errors
    /// As their Telegram would.
    pub fn send_file(&self, member: Member, name: &str, bytes: &[u8]) -> Result<(), StageError> {
        let kind = FileKind::Document;
        self.telegram
            .send_file(user(member), chat(member), kind, name, bytes, None)?;
        Ok(())
    }

    /// `member` sends the file at `path`.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn send_file_at(&self, member: Member, path: &Path) -> Result<(), StageError> {
        let bytes =
            fs::read(path).map_err(|error| StageError::File(path.display().to_string(), error))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.send_file(member, &name, &bytes)
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill(&self, target: Target) -> Result<(), StageError> {
        match target {
            Target::Daemon(daemon) => self.ground.kill(daemon)?,
            Target::Worker(member) => self.ground.kill_worker(member.name())?,
            Target::Agent(member) => self.ground.kill_agent(member.name())?,
        }
        Ok(())
    }

    /// As [`kill`](Self::kill), but waits a while for what is just being restarted or begun.
    ///
    /// # Errors
    /// If it does not run even then.
    pub fn kill_soon(&self, target: Target, patience: Duration) -> Result<(), StageError> {
        let due = std::time::Instant::now() + patience;
        loop {
            match self.kill(target) {
                Err(_) if std::time::Instant::now() < due => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                done => return done,
            }
        }
    }
}

/// Who `member` is on Telegram.
#[must_use]
pub fn user(member: Member) -> UserId {
    UserId(member.telegram_id())
}

/// The private chat of `member` with the bot.
#[must_use]
pub fn chat(member: Member) -> ChatId {
    user(member).private_chat()
}
