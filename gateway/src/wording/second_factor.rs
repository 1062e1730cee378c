//! What kai says about the second factor.

use std::{fmt::Write, time::Duration};

use kai_proto::ids::UnixSeconds;

use super::span;
use crate::{
    quote,
    rendered::{self, Entity, Rendered, Style},
};

/// How much of a message that went on before is quoted, in characters.
pub const BEGINNING: usize = 60;
/// How many of those are quoted.
const HELD: usize = 5;

/// To a code that was wrong, used before or too old: nobody is told which.
pub const REFUSED: &str = "This code was not accepted: send the next one that your authenticator \
    shows.";
/// To a code while authd is away or cannot tell.
pub const UNCHECKED: &str = "Your code could not be checked right now, and was not kept: send it \
    again in a moment; if it stays so, tell the admin.";
/// To a code whose answer was lost.
pub const LOST: &str = "The answer to your code was lost on its way: send the next one that your \
    authenticator shows.";
/// To a code that was put off too often.
pub const BUSY: &str = "Too many codes arrive at the moment, from everybody together: send the next \
    one in a while.";
/// To a code of somebody who is not enrolled any more.
pub const NOTHING_TO_PROVE: &str = "No second factor is enrolled for you any more: ask the admin.";
/// To a code of somebody whose name or id is another one now.
pub const CHANGED: &str = "Your second factor was made for another name or Telegram id, so no code is \
    taken: ask the admin to enrol you again with `kai-auth enroll`.";
/// To a recovery code of somebody who is asked for none.
pub const NOT_NEEDED: &str = "You are not asked for a code at the moment, so this recovery code was not \
    used, and was not kept. Whoever may have read it here could use it later: ask the admin for new ones \
    with `kai-auth enroll --replace`.";
/// To a code that was being judged when the gateway ended.
pub const RESTARTED: &str = "I was restarted while I had a code of yours: if you are asked again, send \
    the next one that your authenticator shows.";
/// To a message in a topic of a forum.
pub const NOT_IN_A_TOPIC: &str = "Not kept: in a topic I do not ask for codes. Send your code here or in \
    our private chat first, and then this message again.";
/// To /status, if the proof ended before the answer came.
pub const SHUT_MEANWHILE: &str = "You are asked for a code again before this can be answered.";
/// Above what a code lets run.
pub const RUNS: &str = "This runs now; /stop ends it:";
/// Why something does not go on.
const NOT_BEGUN: &str = "Not run, because it had not begun when what you had proved ended. Send it again \
    if it is yours:";
/// To something that reads like a code and came just as the proof ended.
pub const SEND_AGAIN: &str = "You are asked for a code again: send the next one that your \
    authenticator shows.";
/// When a code cannot be deleted.
pub const DELETE_YOURSELF: &str =
    "I could not delete your code from this chat: please delete it yourself.";
/// To a message beside five that wait.
pub const NOT_KEPT: &str = "Not kept: as many messages as can wait for your code do. Send the code, \
    and then this message again.";
/// To a message that does not fit the question.
pub const TOO_LONG: &str = "Not kept: this is too long to be shown in the question, and what is not \
    shown does not run. Send your code first, and then this message again.";
/// To a message while too many wait for authd.
pub const TOO_MANY_WAIT: &str = "Not kept: too many of your messages wait already. Send it again when \
    those before it are answered.";
/// To the press of a button without a proof.
pub const BUTTON: &str = "Send your code first.";
/// To /lock by somebody who has no second factor.
pub const NOTHING_TO_LOCK: &str = "You have no second factor, so there is nothing to lock.";
/// To /lock.
pub const LOCKED: &str = "Locked: what ran or waited is stopped, and your next message asks for a \
    code.";
/// To /lock while authd does not answer.
pub const LOCKED_SOON: &str = "Locked in this chat, and what ran is stopped. The second factor itself \
    cannot be reached right now: it is locked, too, as soon as it can; if it takes longer, tell the \
    admin.";
/// In place of a question, after /lock.
pub const QUESTION_LOCKED: &str = "Locked: nothing of what waited runs.";
/// In place of a question, when its time is over.
pub const LAPSED: &str =
    "No code came in time: nothing of what waited runs. Send it again if you still want it.";
/// When a message that waits was edited.
pub const EDITED: &str = "You edited a message that waited for your code, so it does not run: send it \
    again as you want it.";
/// In place of a question about nothing.
pub const NOTHING_WAITS: &str = "Nothing waits for a code any more.";
/// Why messages do not run: they are not there any more.
pub const DELETED: &str = "Not run, because you deleted it:";
/// Why messages do not run: nobody could see what they say.
pub const UNQUOTED: &str = "Not run, because the question that showed it is gone. Send it again if it \
    is yours:";
/// Why messages do not run: Telegram could not be asked.
pub const UNSEEN: &str = "Not run, because I could not make sure that it is still in this chat. Send \
    it again:";
/// Why messages do not run: they came while the code was on its way.
pub const TOO_LATE: &str = "Not run, because your code did not come below the question that shows it. Send \
    it again if it is yours:";

/// What a question for a code says.
#[derive(Debug)]
pub struct Question<'a> {
    /// What a right code lets run, each on one line.
    pub quotes: &'a [&'a str],
    /// The beginnings of what goes on or is answered with it.
    pub held: &'a [String],
    /// How long there is.
    pub patience: Duration,
    /// True where others read along.
    pub is_group: bool,
    /// What happened to the question before.
    pub note: Option<&'a str>,
}

/// The question for a code.
#[must_use]
pub fn question(question: &Question<'_>) -> Rendered {
    let mut text = Rendered::plain(question.note.unwrap_or_default());
    if question.quotes.is_empty() {
        text.append(Rendered::plain(
            "An answer waits: send your code to see it.",
        ));
    } else {
        text.append(Rendered::plain(&format!(
            "Send a code of six digits from your authenticator, or a recovery code, within {}. A \
             right one lets this run:",
            span(question.patience.as_secs())
        )));
        text.append(numbered(question.quotes));
    }
    if !question.held.is_empty() {
        let shown: Vec<&str> = question.held.iter().map(String::as_str).collect();
        let (shown, more) = shown.split_at(shown.len().min(HELD));
        text.append(Rendered::plain(if question.quotes.is_empty() {
            "This was let through before and is answered, or goes on, with it:"
        } else {
            "This was let through before, and is answered or goes on with the same code:"
        }));
        text.append(numbered(shown));
        if !more.is_empty() {
            text.append(Rendered::plain(&format!("And {} more.", more.len())));
        }
    }
    text.append(Rendered::plain(
        "Is this not yours? Then somebody else is in your Telegram account: send no code, and tell \
         the admin.",
    ));
    if question.is_group {
        text.append(Rendered::plain(
            "Others read along here. A code works once, and I delete it if I may.",
        ));
    }
    text
}

/// Says of messages that they do not run, and why.
#[must_use]
pub fn not_run(why: &str, quotes: &[String]) -> String {
    let mut text = format!("{why}\n");
    for quote in quotes {
        let _ = write!(text, "\n{}", quote::beginning(quote, BEGINNING));
    }
    text
}

/// Says of something that was let through that it did not begin in time.
#[must_use]
pub fn not_begun(text: &str) -> String {
    not_run(NOT_BEGUN, &[quote::visible(text)])
}

/// Says what a code lets run, in whole.
#[must_use]
pub fn runs_now(quotes: &[&str]) -> Rendered {
    let mut text = Rendered::plain(RUNS);
    text.append(numbered(quotes));
    text
}

/// To a right code.
#[must_use]
pub fn thanks(longest: Duration, idle: Duration, recovery_left: Option<u8>) -> String {
    let mut text = format!(
        "Thank you. You are asked again after {} without a message, and after {} in any case; /lock \
         ends it sooner.",
        span(idle.as_secs()),
        span(longest.as_secs()),
    );
    match recovery_left {
        None => {}
        Some(0) => text.push_str(
            "\n\nThat was your last recovery code: ask the admin to enrol you again for new ones.",
        ),
        Some(left) => {
            let _ = write!(
                text,
                "\n\nThat was a recovery code, and it is used up now. Left: {left}."
            );
        }
    }
    text
}

/// To a code, while none is taken.
#[must_use]
pub fn locked_until(until: UnixSeconds, now: UnixSeconds) -> String {
    format!(
        "Too many wrong codes: none is taken {}.",
        before(until, now)
    )
}

/// To a message that cannot wait for a code, because none is taken for so long.
#[must_use]
pub fn not_kept_until(until: UnixSeconds, now: UnixSeconds) -> String {
    format!(
        "Not kept: after too many wrong codes none is taken {}. Send it again then.",
        before(until, now)
    )
}

fn before(until: UnixSeconds, now: UnixSeconds) -> String {
    let minutes = until.div_ceil(60);
    format!(
        "before {:02}:{:02} UTC, which is in {}",
        minutes / 60 % 24,
        minutes % 60,
        span(until.saturating_sub(now).next_multiple_of(60))
    )
}

/// Lines with numbers, each marked as a quotation.
fn numbered(lines: &[&str]) -> Rendered {
    let mut whole = Rendered::default();
    for (number, line) in (1..).zip(lines) {
        let before = format!("{number}. ");
        let start = whole.length() + usize::from(number > 1);
        if number > 1 {
            whole.text.push('\n');
        }
        let line = if line.is_empty() { "(nothing)" } else { line };
        whole.text.push_str(&before);
        whole.text.push_str(line);
        let start = start + before.len();
        whole.entities.push(Entity {
            range: start..start + rendered::length(line),
            style: Style::Code,
        });
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rendered::tests::assert_well_formed;

    fn ask(quotes: &[&str], held: &[String]) -> Rendered {
        question(&Question {
            quotes,
            held,
            patience: Duration::from_secs(120),
            is_group: true,
            note: Some(EDITED),
        })
    }

    #[test]
    fn the_longest_question_fits_one_message_and_is_well_formed() {
        let long = "x".repeat(crate::gate::QUOTED - 20);
        let held = vec![format!("{}…", "😀".repeat(BEGINNING)); 70];
        let whole = ask(&[&long, "b", "c", "d", ""], &held);
        assert!(
            whole.length() <= crate::split::LONGEST,
            "{}",
            whole.length()
        );
        assert_well_formed(&whole);
        assert!(whole.text.contains("And 65 more."));
    }

    #[test]
    fn each_quote_is_marked_and_numbered() {
        let whole = ask(&["ls", "rm -rf ~"], &[]);
        assert!(whole.text.contains("within 2 min"));
        assert!(whole.text.contains("1. ls\n2. rm -rf ~"), "{}", whole.text);
        let units: Vec<u16> = whole.text.encode_utf16().collect();
        let marked: Vec<String> = whole
            .entities
            .iter()
            .map(|entity| String::from_utf16(&units[entity.range.clone()]).unwrap())
            .collect();
        assert_eq!(marked, ["ls", "rm -rf ~"]);
    }

    #[test]
    fn a_lockout_is_said_with_its_end_and_never_too_early() {
        let text = locked_until(14 * 3600 + 30, 14 * 3600 - 840);
        assert!(
            text.contains("14:01 UTC") && text.contains("15 min"),
            "{text}"
        );
    }

    #[test]
    fn a_recovery_code_says_how_many_are_left() {
        let hour = Duration::from_secs(3600);
        assert!(thanks(hour, hour, Some(7)).contains("Left: 7"));
        assert!(thanks(hour, hour, Some(0)).contains("last"));
        assert!(!thanks(hour, hour, None).contains("recovery"));
    }
}
