//! A stage for the real kai-gateway: the emulated Telegram on one side, a broker, an authd and workers
//! played by the test on the other.
#![allow(dead_code, reason = "each test program uses its part")]

pub mod authd;
pub mod peers;
mod program;
pub mod second_factor;

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use authd::Authd;
use kai_emulators::bot_api::{BotApi, BotApiOptions, ChatId, Message, Sent, UserId};
use peers::{Broker, Worker};
use program::Program;
use tempfile::TempDir;

/// An account without any privilege, which Linux reserves for that (`nobody`).
const NOBODY: u32 = 65534;
/// Longer than anything here takes.
pub const LONG: Duration = Duration::from_secs(15);

pub const ALICE: UserId = UserId(1001);
pub const BOB: UserId = UserId(1002);
pub const STRANGER: UserId = UserId(9009);

pub struct Stage {
    pub telegram: BotApi,
    pub broker: Broker,
    pub authd: Authd,
    directory: TempDir,
    program: Program,
    gateway: Option<Child>,
}

impl Stage {
    /// Everything is up; alice and bob are users.
    pub fn new() -> Self {
        let stage = Self::dark();
        stage.authd.start();
        stage.broker.start();
        let mut stage = stage;
        stage.start_gateway();
        stage
    }

    /// Everything is up, alice has a second factor, and kai.yaml says this about it.
    pub fn with_second_factor(times: &str) -> Self {
        // Nobody here has to read a question first, unless that is what a test is about.
        let reading = match times.contains("reading") {
            true => "",
            false => ", reading: 0",
        };
        let lines = format!("second_factor: {{{times}{reading}}}\n");
        let mut stage = Self::dark_with(&lines);
        stage.authd.enrol(ALICE);
        stage.authd.start();
        stage.broker.start();
        stage.start_gateway();
        stage
    }

    /// Nothing is up but Telegram.
    pub fn dark() -> Self {
        Self::dark_with("")
    }

    /// The same, with these lines more in kai.yaml.
    pub fn dark_with(more: &str) -> Self {
        let telegram = BotApi::start(BotApiOptions::default()).unwrap();
        for (id, name) in [(ALICE, "Alice"), (BOB, "Bob"), (STRANGER, "Mallory")] {
            telegram.add_user(id, name, None);
        }
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path();
        fs::set_permissions(place, PermissionsExt::from_mode(0o755)).unwrap();
        for name in ["run/gateway", "state"] {
            fs::create_dir_all(place.join(name)).unwrap();
        }
        let token = place.join("token");
        fs::write(&token, telegram.token()).unwrap();
        fs::set_permissions(&token, PermissionsExt::from_mode(0o600)).unwrap();
        let config = format!(
            "telegram: {{api_url: '{}', token_file: '{}'}}\nagent: {{command: /bin/true}}\n\
             paths: {{run: '{}', state: '{}'}}\nlog: debug\n{more}",
            telegram.url(),
            token.display(),
            place.join("run").display(),
            place.join("state").display(),
        );
        fs::write(place.join("kai.yaml"), config).unwrap();
        if is_root() {
            for name in ["token", "state", "kai.yaml"] {
                std::os::unix::fs::chown(place.join(name), Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        Self {
            broker: Broker::new(place.join("run/gateway/broker.sock"), &[ALICE, BOB]),
            authd: Authd::new(place.join("run/gateway/authd.sock")),
            telegram,
            directory,
            program: Program::reachable(),
            gateway: None,
        }
    }

    /// Starts the gateway, as an account without privileges.
    pub fn start_gateway(&mut self) {
        self.start_gateway_with(&[]);
    }

    /// The same with this environment.
    pub fn start_gateway_with(&mut self, environment: &[(&str, &str)]) {
        let mut command = self.command();
        command.envs(environment.iter().copied());
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        self.gateway = Some(command.spawn().unwrap());
    }

    /// The gateway's command line, as the test's own account.
    pub fn command(&self) -> Command {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.log_file())
            .unwrap();
        let mut command = Command::new(self.program.path());
        command
            .arg("--config")
            .arg(self.directory.path().join("kai.yaml"))
            .env_clear()
            .stdin(Stdio::null())
            .stderr(log);
        command
    }

    pub fn gateway_pid(&self) -> u32 {
        self.gateway.as_ref().unwrap().id()
    }

    /// kill -9.
    pub fn kill_gateway(&mut self) {
        let mut gateway = self.gateway.take().unwrap();
        gateway.kill().unwrap();
        gateway.wait().unwrap();
    }

    /// SIGTERM; gives the exit status.
    pub fn stop_gateway(&mut self) -> ExitStatus {
        self.terminate_gateway();
        self.wait_for_gateway()
    }

    /// SIGTERM.
    pub fn terminate_gateway(&self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.gateway_pid()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    }

    /// The exit status of a gateway that ends.
    pub fn wait_for_gateway(&mut self) -> ExitStatus {
        self.gateway.take().unwrap().wait().unwrap()
    }

    fn log_file(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// Every file that the gateway wrote or could have, as bytes.
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        let mut places = vec![self.directory.path().to_owned()];
        while let Some(place) = places.pop() {
            for entry in fs::read_dir(place).unwrap() {
                let path = entry.unwrap().path();
                let kind = fs::symlink_metadata(&path).unwrap().file_type();
                if kind.is_dir() {
                    places.push(path);
                } else if kind.is_file()
                    && let Ok(bytes) = fs::read(&path)
                {
                    found.push((path, bytes));
                }
            }
        }
        found
    }

    /// What the gateway logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap()
    }

    pub fn says(&self, user: UserId, text: &str) -> Sent {
        self.telegram
            .send_text(user, user.private_chat(), text)
            .unwrap()
    }

    /// The worker of a user as soon as the gateway wants it, its Hello said.
    pub fn worker(&self, user: UserId) -> Worker {
        self.broker.attach(user).accepted()
    }

    /// Waits until the newest message of the bot to `user` reads `text`.
    pub fn wait_for(&self, user: UserId, text: &str) -> Message {
        self.wait_until(user.private_chat(), |message| message.text() == text)
    }

    /// Waits until the newest message of the bot in `chat` fits.
    pub fn wait_until(&self, chat: ChatId, fits: impl Fn(&Message) -> bool) -> Message {
        let newest = |messages: &[Message]| {
            let newest = messages.iter().rev().find(|message| message.is_from_bot());
            newest.filter(|message| fits(message)).cloned()
        };
        match self.telegram.wait_for(chat, LONG, newest) {
            Ok(message) => message,
            Err(timed_out) => panic!("{timed_out}\n{}", self.log()),
        }
    }

    /// What the bot said to `user`.
    pub fn heard(&self, user: UserId) -> Vec<String> {
        let messages = self.telegram.messages(user.private_chat());
        let from_bot = messages.iter().filter(|message| message.is_from_bot());
        from_bot.map(|message| message.text().to_owned()).collect()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(mut gateway) = self.gateway.take() {
            let _ = gateway.kill();
            let _ = gateway.wait();
        }
        if std::thread::panicking() {
            eprintln!("the gateway's log:\n{}", self.log());
        }
    }
}

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Waits until `look` holds.
pub fn eventually(what: &str, look: impl Fn() -> bool) {
    let start = Instant::now();
    while !look() {
        assert!(start.elapsed() < LONG, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
