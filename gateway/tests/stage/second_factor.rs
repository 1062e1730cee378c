//! alice with a second factor: what the tests about it share.

use std::time::Duration;

use kai_emulators::bot_api::{ChatId, Message, MessageId, Sent, UserId};

use super::{ALICE, LONG, Stage};

pub const CODE: &str = "314159";
pub const NEXT: &str = "271828";

/// A stage on which alice has a second factor, with times that no test reaches.
pub fn stage() -> Stage {
    Stage::with_second_factor("idle: 30m, question: 120s")
}

/// What the bot's messages in a chat read that are not deleted.
pub fn reads(stage: &Stage, chat: ChatId) -> Vec<String> {
    let messages = stage.telegram.messages(chat);
    let there = |message: &&Message| message.is_from_bot() && message.deleted.is_none();
    let there = messages.iter().filter(there);
    there.map(|message| message.text().to_owned()).collect()
}

/// Waits until a message of the bot's in alice's chat that is not deleted has all of `words`.
pub fn wait(stage: &Stage, words: &[&str]) -> Message {
    wait_in(stage, ALICE.private_chat(), words)
}

pub fn wait_in(stage: &Stage, chat: ChatId, words: &[&str]) -> Message {
    let has = |message: &&Message| {
        message.is_from_bot()
            && message.deleted.is_none()
            && words.iter().all(|word| message.text().contains(word))
    };
    let look = |messages: &[Message]| messages.iter().rev().find(has).cloned();
    match stage.telegram.wait_for(chat, LONG, look) {
        Ok(message) => message,
        Err(timed_out) => panic!("{words:?}: {timed_out}\n{}", stage.log()),
    }
}

/// alice writes, and the question quotes it.
pub fn parks(stage: &Stage, text: &str) -> Sent {
    let sent = stage.says(ALICE, text);
    wait(stage, &["Send a code", text]);
    // The gateway has Telegram's answer a little after the chat has the message.
    std::thread::sleep(Duration::from_millis(100));
    sent
}

/// alice sends a right code, which lets her in.
pub fn proves(stage: &Stage) {
    stage.authd.expect(ALICE, CODE);
    stage.says(ALICE, CODE);
    wait(stage, &["Thank you"]);
}

pub fn is_deleted(stage: &Stage, user: UserId, message: MessageId) -> bool {
    let found = stage.telegram.message(user.private_chat(), message);
    found.is_some_and(|message| message.deleted.is_some())
}

/// The text of a code is in no file that the gateway wrote, nor in its log.
pub fn assert_nowhere(stage: &Stage, code: &str) {
    for (path, bytes) in stage.files() {
        let found = bytes.windows(code.len()).any(|p| p == code.as_bytes());
        assert!(!found, "{code} is in {}", path.display());
    }
    assert!(!stage.log().contains(code));
}
