//! Plays a script and prints what was said.

use std::{
    collections::HashMap,
    io::{self, Write},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use kai_emulators::bot_api::{Message, MessageId};
use regex::Regex;

use super::parse::{Action, Step, Target};
use crate::{
    cast::Member,
    stage::{self, Stage, StageError},
};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a wait looks whether it was told to stop.
const SLICE: Duration = Duration::from_millis(200);
/// A chat that is quiet for so long is printed.
const QUIET: Duration = Duration::from_millis(80);
/// How long a chat may take to be quiet.
const SETTLED: Duration = Duration::from_millis(400);
/// How long what is to be killed may take to run again.
const RESTART: Duration = Duration::from_secs(10);

/// Why a script ended early.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// An expectation failed: the conversation is not what the script says.
    #[error("line {0}: {1} got no answer that matches /{2}/ within {time} s", time = PATIENCE.as_secs())]
    Unexpected(usize, &'static str, String),
    /// A step could not be done.
    #[error("line {0}: {1}")]
    Step(usize, StageError),
    /// It was told to stop.
    #[error("ended by a signal")]
    Told,
    /// The transcript could not be printed.
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

/// Plays `steps`, until `told` to stop; relative paths begin at `directory`.
///
/// # Errors
/// The first step that failed.
pub fn play(
    stage: &Stage,
    steps: &[Step],
    directory: &Path,
    told: &AtomicBool,
    out: &mut impl Write,
) -> Result<(), Stop> {
    let mut player = Player {
        stage,
        told,
        seen: HashMap::new(),
        printed: HashMap::new(),
        out,
    };
    let played = steps
        .iter()
        .try_for_each(|step| player.step(step, directory));
    // What came unasked, or changed since it was printed, belongs to the transcript too.
    for member in Member::ALL {
        player.print_news(member)?;
    }
    played
}

/// What of a chat an expectation has already had.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// The last message that matched.
    matched: i32,
    /// A message whose button was pressed, and how often it had been edited by then: what a button
    /// leads to is often an edit of its message.
    pressed: Option<(i32, usize)>,
}

impl Seen {
    fn is_new(&self, message: &Message) -> bool {
        message.is_from_bot()
            && (message.id.0 > self.matched
                || self
                    .pressed
                    .is_some_and(|(id, edits)| message.id.0 == id && message.edit_count() > edits))
    }

    fn take(&mut self, message: &Message) {
        self.matched = self.matched.max(message.id.0);
        if let Some((id, edits)) = &mut self.pressed
            && *id == message.id.0
        {
            *edits = message.edit_count();
        }
    }
}

struct Player<'a, W> {
    stage: &'a Stage,
    told: &'a AtomicBool,
    seen: HashMap<Member, Seen>,
    printed: HashMap<MessageId, String>,
    out: &'a mut W,
}

impl<W: Write> Player<'_, W> {
    fn step(&mut self, step: &Step, directory: &Path) -> Result<(), Stop> {
        let failed = |error| Stop::Step(step.line, error);
        match &step.action {
            Action::Say(member, text) => {
                writeln!(self.out, "{}: {text}", member.name())?;
                self.stage.say(*member, text).map_err(failed)?;
            }
            Action::Press(member, label) => {
                writeln!(self.out, "{} presses [{label}]", member.name())?;
                let message = self.stage.press(*member, label).map_err(failed)?;
                let edits = self
                    .stage
                    .telegram()
                    .message(stage::chat(*member), message)
                    .map_or(0, |message| message.edit_count());
                self.seen.entry(*member).or_default().pressed = Some((message.0, edits));
            }
            Action::File(member, path) => {
                writeln!(self.out, "{} sends {}", member.name(), path.display())?;
                self.stage
                    .send_file_at(*member, &directory.join(path))
                    .map_err(failed)?;
            }
            Action::Expect(member, regex) => self.expect(step.line, *member, regex)?,
            Action::Sleep(time) => {
                writeln!(self.out, "… {} s", time.as_secs_f64())?;
                let due = Instant::now() + *time;
                while let Some(left) = due.checked_duration_since(Instant::now()) {
                    thread::sleep(left.min(SLICE));
                    self.unless_told()?;
                }
            }
            Action::Kill(target) => {
                self.stage.kill_soon(*target, RESTART).map_err(failed)?;
                writeln!(self.out, "killed {}", describe(*target))?;
            }
        }
        Ok(self.out.flush()?)
    }

    fn expect(&mut self, line: usize, member: Member, regex: &Regex) -> Result<(), Stop> {
        let seen = self.seen.get(&member).copied().unwrap_or_default();
        let since = Instant::now();
        let found = loop {
            self.unless_told()?;
            let telegram = self.stage.telegram();
            let found = telegram.wait_for(stage::chat(member), SLICE, |messages| {
                let mut new = messages.iter().filter(|message| seen.is_new(message));
                new.find(|message| regex.is_match(&message.plain()))
                    .cloned()
            });
            if found.is_ok() || since.elapsed() > PATIENCE {
                break found;
            }
        };
        let time = since.elapsed().as_millis();
        if found.is_ok() {
            self.let_settle(member);
        }
        self.print_news(member)?;
        match found {
            Ok(message) => {
                self.seen.entry(member).or_default().take(&message);
                writeln!(self.out, "  as expected: /{regex}/, {time} ms")?;
                Ok(())
            }
            Err(_) => Err(Stop::Unexpected(
                line,
                member.name(),
                regex.as_str().to_owned(),
            )),
        }
    }

    /// Waits a moment for the rest of an answer of which the beginning matched.
    fn let_settle(&self, member: Member) {
        let due = Instant::now() + SETTLED;
        let versions = |messages: &[Message]| -> usize {
            messages
                .iter()
                .map(|message| 1 + message.edit_count())
                .sum()
        };
        let telegram = self.stage.telegram();
        while Instant::now() < due {
            let chat = stage::chat(member);
            let before = versions(&telegram.messages(chat));
            let changed = telegram.wait_for(chat, QUIET, |messages| {
                (versions(messages) != before).then_some(())
            });
            if changed.is_err() {
                return;
            }
        }
    }

    fn unless_told(&self) -> Result<(), Stop> {
        if self.told.load(Ordering::Relaxed) {
            return Err(Stop::Told);
        }
        Ok(())
    }

    /// Prints what the bot wrote to `member` and is not yet printed as it stands now.
    fn print_news(&mut self, member: Member) -> io::Result<()> {
        for message in self.stage.telegram().messages(stage::chat(member)) {
            let text = message.plain();
            if !message.is_from_bot() || text.is_empty() {
                continue;
            }
            let again = match self.printed.get(&message.id) {
                Some(printed) if *printed == text => continue,
                Some(_) => " (edited)",
                None => "",
            };
            let indented = text.replace('\n', "\n    ");
            writeln!(self.out, "  kai to {}{again}: {indented}", member.name())?;
            self.printed.insert(message.id, text);
        }
        Ok(())
    }
}

fn describe(target: Target) -> String {
    match target {
        Target::Daemon(daemon) => daemon.name().to_owned(),
        Target::Worker(member) => format!("the worker of {}", member.name()),
        Target::Agent(member) => format!("the agent of {}", member.name()),
    }
}
