//! A place of a test's own with a real `kai-authd` and a real `kai-auth` in it. Needs root.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod accounts;
pub mod authenticator;
pub mod members;
pub mod peers;
pub mod programs;
pub mod strace;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use authenticator::Authenticator;
use kai_audit::chain::Hash;
use kai_proto::sockets;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How long anything may take on a busy machine before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The place. The daemon ends, and all that is in the place goes, when it is dropped.
pub struct Ground {
    daemon: Option<Child>,
    place: tempfile::TempDir,
}

/// What an enrolment gave the user.
pub struct Enrolled {
    pub authenticator: Authenticator,
    pub recovery: Vec<String>,
    /// The step of the code that confirmed it.
    pub step: u64,
}

impl Ground {
    /// Directories and a configuration with these further lines, and no database yet.
    pub fn bare(more: &str) -> Self {
        let place = tempfile::Builder::new()
            .prefix("kai-authd-")
            .tempdir()
            .unwrap();
        // Other accounts get as far as to what is closed to them.
        fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let ground = Self {
            daemon: None,
            place,
        };
        ground.configure(more);
        ground
    }

    /// The same with an empty database, as `kai-auth init` makes it.
    pub fn new(more: &str) -> Self {
        let ground = Self::bare(more);
        ground.done(&["init"]);
        ground
    }

    /// The same with the daemon running.
    pub fn started(more: &str) -> Self {
        let mut ground = Self::new(more);
        ground.start();
        ground
    }

    /// Writes the configuration anew.
    pub fn configure(&self, more: &str) {
        let at = |name: &str| self.path(name).display().to_string();
        let text = format!(
            "agent: {{command: /bin/true}}\naccounts: {{gateway: {}}}\n\
             paths: {{run: {}, state: {}, log: {}}}\nlog: debug\n{more}\n",
            accounts::GATEWAY,
            at("run"),
            at("state"),
            at("log"),
        );
        fs::write(self.config(), text).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    pub fn config(&self) -> PathBuf {
        self.path("kai.yaml")
    }

    pub fn run(&self) -> PathBuf {
        self.path("run")
    }

    /// The directory of the database.
    pub fn state(&self) -> PathBuf {
        self.path("state/authd")
    }

    pub fn database(&self) -> PathBuf {
        self.state().join("authd.sqlite")
    }

    /// Keeps what is in the directories of database and log.
    pub fn keep(&self) {
        self.copy("", "kept-");
    }

    /// Brings them back as they were when they were kept.
    pub fn bring_back(&self) {
        self.copy("kept-", "");
    }

    fn copy(&self, from: &str, to: &str) {
        for directory in ["state", "log"] {
            let target = self.path(&format!("{to}{directory}"));
            let _ = fs::remove_dir_all(&target);
            let source = self.path(&format!("{from}{directory}"));
            let mut copy = Command::new("cp");
            copy.arg("-a").arg(&source).arg(&target);
            assert!(copy.status().unwrap().success());
        }
    }

    /// Every line of the audit log, the oldest first. Each must follow the one before.
    pub fn audit(&self) -> Vec<serde_json::Value> {
        let directory = self.path("log/authd");
        let full = kai_audit::writer::rotated(&directory).unwrap();
        let current = directory.join("audit.jsonl");
        let files = full.into_iter().map(|(_, path)| path).chain([current]);
        let text: String = files
            .map(|file| fs::read_to_string(file).unwrap())
            .collect();
        let mut before = Hash::NONE;
        let mut lines = Vec::new();
        for (line, seq) in text.lines().zip(1..) {
            let read: serde_json::Value = serde_json::from_str(line).expect(line);
            assert_eq!(read["seq"], seq, "{text}");
            assert_eq!(read["prev"], before.to_string(), "{text}");
            before = Hash::of(line);
            lines.push(read);
        }
        lines
    }

    /// How many lines of the audit log are of this event.
    pub fn audited(&self, event: &str) -> usize {
        self.audit()
            .iter()
            .filter(|line| line["event"] == event)
            .count()
    }

    /// The daemon's own log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("authd.log")).unwrap_or_default()
    }

    /// Starts the daemon and waits until it answers.
    pub fn start(&mut self) {
        if let Err(status) = self.try_start(&[]) {
            panic!("kai-authd ended with {status}:\n{}", self.log());
        }
    }

    /// Starts the daemon, as the last argument of `before` if there are any, and waits until it
    /// answers or has ended.
    pub fn try_start(&mut self, before: &[&str]) -> Result<(), ExitStatus> {
        assert!(self.daemon.is_none());
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("authd.log"))
            .unwrap();
        let authd = env!("CARGO_BIN_EXE_kai-authd");
        let mut command = match before {
            [] => Command::new(authd),
            [tool, arguments @ ..] => {
                let mut command = Command::new(tool);
                command.args(arguments).arg(authd);
                command
            }
        };
        let mut child = command
            .arg("--config")
            .arg(self.config())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let socket = sockets::admin_authd(&self.run());
        let due = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return Err(status);
            }
            if peers::Admin::connect(&socket).is_ok() {
                self.daemon = Some(child);
                return Ok(());
            }
            assert!(
                Instant::now() < due,
                "kai-authd does not answer:\n{}",
                self.log()
            );
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// The daemon's own process, also if a tool runs it.
    pub fn pid(&self) -> Pid {
        self.living().expect("no daemon runs")
    }

    /// The same, unless it has ended.
    pub fn living(&self) -> Option<Pid> {
        let authd = fs::canonicalize(env!("CARGO_BIN_EXE_kai-authd")).unwrap();
        let is_authd =
            |pid: &Pid| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == authd);
        self.processes().into_iter().find(is_authd)
    }

    /// Ends the daemon as systemd does.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    pub fn signal(&self, signal: Signal) {
        let child = self.daemon.as_ref().expect("no daemon runs");
        let _ = kill(Pid::from_raw(child.id().try_into().unwrap()), signal);
    }

    /// Waits for the daemon's end.
    pub fn wait(&mut self) -> ExitStatus {
        let mut child = self.daemon.take().expect("no daemon runs");
        let due = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if Instant::now() > due {
                let _ = child.kill();
                panic!("kai-authd does not end:\n{}", self.log());
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// `kai-auth`, not yet started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(programs::kai_auth());
        command
            .args(arguments)
            .arg("--config")
            .arg(self.config())
            .env_remove("SUDO_UID");
        command
    }

    /// Runs `kai-auth` without any input.
    pub fn auth(&self, arguments: &[&str]) -> Output {
        self.command(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// The same, which must do what it is told; gives what it says.
    pub fn done(&self, arguments: &[&str]) -> String {
        let output = self.auth(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{arguments:?}: {said}\n{}",
            self.log()
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same, which must not be done; gives the exit status and the one line that it says.
    pub fn not_done(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.auth(arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{arguments:?} was done");
        assert_eq!(said.lines().count(), 1, "{said}");
        (output.status.code().unwrap(), said)
    }

    /// Enrolls a user with the real command, and confirms with the code of the step before this one:
    /// those of this step and the next are left for the test.
    pub fn enroll(&self, name: &str, id: i64) -> Enrolled {
        self.enroll_with(name, id, &[])
    }

    pub fn enroll_with(&self, name: &str, id: i64, more: &[&str]) -> Enrolled {
        let id = id.to_string();
        let arguments = [&["enroll", name, "--telegram-id", &id], more].concat();
        let mut child = self
            .command(&arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        let mut uri = String::new();
        while !uri.starts_with("otpauth://") {
            uri.clear();
            if answers.read_line(&mut uri).unwrap() == 0 {
                let mut said = String::new();
                child.stderr.unwrap().read_to_string(&mut said).unwrap();
                panic!("no URI: {said}\n{}", self.log());
            }
        }
        let authenticator = Authenticator::of(uri.trim_end());
        let step = authenticator::settled_step() - 1;
        writeln!(child.stdin.take().unwrap(), "{}", authenticator.code(step)).unwrap();
        let mut rest = String::new();
        answers.read_to_string(&mut rest).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let recovery = rest
            .lines()
            .map(str::trim)
            .filter(|line| line.starts_with("kai-"))
            .map(str::to_owned)
            .collect();
        Enrolled {
            authenticator,
            recovery,
            step,
        }
    }

    /// `kai-auth status --json`.
    pub fn status(&self) -> serde_json::Value {
        serde_json::from_str(&self.done(&["status", "--json"])).unwrap()
    }

    /// What `kai-auth status` says of one user.
    pub fn status_of(&self, name: &str) -> serde_json::Value {
        let status = self.status();
        let all = status["enrolments"].as_array().unwrap();
        let found = all.iter().find(|enrolment| enrolment["name"] == name);
        found.cloned().unwrap_or(serde_json::Value::Null)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            // First the daemon: a tool that runs it would let it go on without the tool.
            for pid in self.processes() {
                let _ = kill(pid, Signal::SIGKILL);
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        // A disk that a test put there: the directory under it can then be removed.
        for name in ["state", "log"] {
            let _ = nix::mount::umount2(&self.path(name), nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

impl Ground {
    /// Every process that runs with this ground's configuration.
    fn processes(&self) -> Vec<Pid> {
        let config = self.config();
        let ours = |entry: fs::DirEntry| -> Option<Pid> {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            line.split(|byte| *byte == 0)
                .any(|argument| Path::new(std::ffi::OsStr::from_bytes(argument)) == config)
                .then(|| Pid::from_raw(pid))
        };
        let entries = fs::read_dir("/proc").unwrap();
        entries.flatten().filter_map(ours).collect()
    }
}
