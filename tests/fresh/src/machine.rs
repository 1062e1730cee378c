//! The machine that all happens on, as those see it who use it.

use std::{
    cell::Cell,
    fs,
    io::{BufRead, BufReader, Read, Write},
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use kai_emulators::{
    bot_api::{BotApi, BotApiOptions, Message, MessageId, UserId},
    messages_api::{MessagesApi, MessagesApiOptions},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::Given;

/// alice's and bob's Telegram ids.
pub const ALICE: UserId = UserId(1001);
pub const BOB: UserId = UserId(1002);
/// An account of the machine's that may look at kai.
pub const ADMIN: &str = "carol";
/// Where a login's shell looks for commands.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The machine, with what cannot be on it: a Telegram and a model.
#[derive(Debug)]
pub struct Machine {
    pub telegram: BotApi,
    pub model: MessagesApi,
    /// Where commands are typed.
    pub directory: PathBuf,
    patience: u32,
    began: Instant,
    chapters: Cell<u32>,
}

/// What a command said, and how it ended.
#[derive(Debug)]
pub struct Said {
    pub status: Option<i32>,
    /// Both of its outputs.
    pub text: String,
    pub took: Duration,
}

impl Machine {
    pub fn new(given: &Given) -> Self {
        let telegram = BotApi::start(BotApiOptions::default()).unwrap();
        telegram.add_user(ALICE, "Alice", Some("alice"));
        telegram.add_user(BOB, "Bob", Some("bob"));
        let machine = Self {
            telegram,
            model: MessagesApi::start(MessagesApiOptions::default()).unwrap(),
            directory: given.files.clone(),
            patience: given.patience,
            began: Instant::now(),
            chapters: Cell::new(0),
        };
        // What any account may have put where all may write, and npm would obey from there.
        fs::write("/var/tmp/package.json", "{}").unwrap();
        let elsewhere =
            "registry=http://127.0.0.1:1/\n@anthropic-ai:registry=http://127.0.0.1:1/\n";
        fs::write("/var/tmp/.npmrc", elsewhere).unwrap();
        machine.done(&format!("useradd --create-home --shell /bin/bash {ADMIN}"));
        machine
    }

    pub fn chapter(&self, name: &str) {
        self.chapters.set(self.chapters.get() + 1);
        println!("\n== {name} ({} s)", self.began.elapsed().as_secs());
    }

    pub fn chapters(&self) -> u32 {
        self.chapters.get()
    }

    /// True where a measured time means something: not where the processor is emulated.
    pub fn is_timed(&self) -> bool {
        self.patience == 1
    }

    pub fn patience(&self) -> Duration {
        PATIENCE * self.patience
    }

    /// Runs what is typed, without a terminal, in an environment as a login gives it.
    pub fn run(&self, typed: &str) -> Said {
        self.run_typing(typed, &[])
    }

    /// Runs what is typed, which must succeed; gives what it said.
    pub fn done(&self, typed: &str) -> String {
        let said = self.run(typed);
        assert_eq!(said.status, Some(0), "{typed}:\n{}", said.text);
        said.text
    }

    /// Waits for what the machine itself does only once, some of it with files that are there for so long.
    pub fn wait_until_booted(&self) {
        // Its exit status tells whether all of that went well, which is not for kai to say.
        let state = self.run("systemctl is-system-running --wait").text;
        assert!(
            ["running\n", "degraded\n"].contains(&state.as_str()),
            "{state}"
        );
    }

    /// True if what is run ends well; nothing of it is shown.
    pub fn run_quietly(&self, command: &str) -> bool {
        let output = Command::new("sh").args(["-c", command]).output();
        output.unwrap().status.success()
    }

    /// Runs what is typed, at a terminal if `answers` has any: each is typed once its question is there.
    pub fn run_typing(&self, typed: &str, answers: &[(&str, &str)]) -> Said {
        println!("# {typed}");
        let began = Instant::now();
        let mut command = if answers.is_empty() {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("{typed} 2>&1")]);
            command
        } else {
            let mut command = Command::new("script");
            command.args(["--quiet", "--return", "--command", typed, "/dev/null"]);
            command
        };
        let mut child = command
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", "/root")
            .env("TERM", "xterm")
            .env("LC_ALL", "C.UTF-8")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .current_dir(&self.directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut keys = child.stdin.take();
        let mut screen = child.stdout.take().unwrap();
        let mut answers = answers.iter();
        let mut awaited = answers.next();
        if awaited.is_none() {
            keys = None;
        }
        let (mut bytes, mut from) = (Vec::new(), 0);
        let mut piece = [0; 4096];
        loop {
            let length = screen.read(&mut piece).unwrap();
            if length == 0 {
                break;
            }
            bytes.extend_from_slice(&piece[..length]);
            let shown = String::from_utf8_lossy(&bytes[from..]).into_owned();
            if let Some((question, answer)) = awaited
                && shown.contains(question)
            {
                from = bytes.len();
                let keys = keys.as_mut().unwrap();
                writeln!(keys, "{answer}").unwrap();
                awaited = answers.next();
            }
        }
        let status = child.wait().unwrap().code();
        let text = String::from_utf8_lossy(&bytes).replace('\r', "");
        if let Some((question, _)) = awaited {
            panic!("{typed}: never asked {question:?}:\n{text}");
        }
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            // Of a long text both ends are shown.
            match at {
                12 if lines.len() > 24 => println!("  … {} lines …", lines.len() - 24),
                13.. if at + 12 < lines.len() => {}
                // Not what would move the cursor of whoever reads this.
                _ => println!("  {}", line.replace(char::is_control, "")),
            }
        }
        Said {
            status,
            text,
            took: began.elapsed(),
        }
    }

    /// Runs a command of kai-install's again and again, and kills it as soon as it has said a change, until one
    /// run has no more to say; `said` must have been among the changes.
    pub fn run_killed_at_each_change(&self, typed: &str, said: &[&str]) {
        println!("# {typed}   (killed at each change that it says)");
        let words = typed.trim_start_matches("sudo ").split_whitespace();
        let mut command = Command::new("env");
        command.arg("--").args(words);
        command.env_clear().env("PATH", PATH).stdin(Stdio::null());
        let mut changes = Vec::new();
        loop {
            assert!(changes.len() < 200, "it does not end: {changes:#?}");
            let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
            let lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let change = lines
                .map(Result::unwrap)
                .find(|line| line.starts_with("made ") || line.starts_with("changed "));
            if let Some(change) = change {
                child.kill().unwrap();
                child.wait().unwrap();
                changes.push(change);
            } else {
                assert!(child.wait().unwrap().success());
                break;
            }
        }
        println!("  killed {} times", changes.len());
        for said in said {
            assert!(
                changes.iter().any(|line| line.contains(said)),
                "{said}: {changes:#?}"
            );
        }
    }

    /// Waits until `look` finds something.
    pub fn wait<R>(&self, what: &str, mut look: impl FnMut() -> Option<R>) -> R {
        let began = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(began.elapsed() < self.patience(), "{what}: in vain");
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Somebody writes to the bot.
    pub fn says(&self, who: UserId, text: &str) -> MessageId {
        println!("> {text}");
        let sent = self.telegram.send_text(who, who.private_chat(), text);
        sent.unwrap().message
    }

    /// Waits for an answer to somebody, newer than `after`, that fits.
    pub fn answer(
        &self,
        who: UserId,
        after: MessageId,
        fits: impl FnMut(&Message) -> bool,
    ) -> Message {
        let chat = who.private_chat();
        let found = self
            .telegram
            .wait_for_answer(chat, after, self.patience(), fits);
        let message = found.unwrap_or_else(|problem| panic!("{problem}"));
        println!("< {}", message.text());
        message
    }

    /// Somebody writes, and gets an answer that holds `words`.
    pub fn ask(&self, who: UserId, text: &str, words: &str) -> Message {
        let asked = self.says(who, text);
        self.answer(who, asked, |message| message.text().contains(words))
    }

    /// The main process of a service, if it has one.
    pub fn main_process(&self, service: &str) -> Option<i32> {
        let output = Command::new("systemctl")
            .args(["show", "--value", "--property=MainPID", service])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        text.trim().parse().ok().filter(|pid| *pid > 0)
    }

    /// True if systemd takes a unit for active.
    pub fn is_active(&self, unit: &str) -> bool {
        let status = Command::new("systemctl")
            .args(["is-active", "--quiet", unit])
            .status();
        status.unwrap().success()
    }

    /// Ends a service's main process without a chance for it to do anything about it.
    pub fn crash(&self, service: &str) -> i32 {
        let pid = self.main_process(service).unwrap();
        println!("# kill -KILL {pid}, which is {service}");
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        pid
    }
}
