//! What one does with a ground: start, stop, kill, ask.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    Daemon, Ground, GroundError, Separation, answers, status::Status, supervisor::Standing,
};
use crate::sys;

/// How long the daemons may take to be ready.
const READY: Duration = Duration::from_secs(20);

impl Ground {
    /// Starts authd, the broker and the gateway, each when the one before it is ready, and then lets
    /// them be restarted whenever they end, if the options say so.
    ///
    /// # Errors
    /// If one ends or is not ready in time, with the last that it wrote.
    pub fn start(&self) -> Result<(), GroundError> {
        for daemon in Daemon::ALL {
            self.start_one(daemon)?;
        }
        self.supervisor.restarts(self.restarts)
    }

    /// Starts one daemon and waits until it is ready.
    ///
    /// # Errors
    /// If it ends or is not ready in time, with the last that it wrote.
    pub fn start_one(&self, daemon: Daemon) -> Result<(), GroundError> {
        self.supervisor.start(daemon)?;
        self.wait_until_ready(daemon)
    }

    /// Ends one daemon in an orderly way; it stays down until it is started again.
    ///
    /// # Errors
    /// If the supervisor is gone.
    pub fn stop_one(&self, daemon: Daemon) -> Result<(), GroundError> {
        self.supervisor.stop(daemon).map(drop)
    }

    /// Sends `signal` to one daemon, which then is restarted if restarts are on.
    ///
    /// # Errors
    /// If it does not run.
    pub fn signal(&self, daemon: Daemon, signal: Signal) -> Result<(), GroundError> {
        self.supervisor.kill(daemon, signal).map(drop)
    }

    /// `kill -9` of one daemon.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill(&self, daemon: Daemon) -> Result<(), GroundError> {
        self.signal(daemon, Signal::SIGKILL)
    }

    /// Whether what ends is restarted from now on.
    ///
    /// # Errors
    /// If the supervisor is gone.
    pub fn set_restarts(&self, on: bool) -> Result<(), GroundError> {
        self.supervisor.restarts(on)
    }

    /// The process of `daemon`, if it runs.
    #[must_use]
    pub fn pid(&self, daemon: Daemon) -> Option<u32> {
        match self.supervisor.standing(daemon) {
            Ok(Standing::Running { pid }) => Some(pid),
            _ => None,
        }
    }

    /// Waits until `daemon` answers: authd and the broker on root's socket, the gateway by being
    /// connected to the broker.
    ///
    /// # Errors
    /// If it ends or is not ready in time, with the last that it wrote.
    pub fn wait_until_ready(&self, daemon: Daemon) -> Result<(), GroundError> {
        let due = Instant::now() + READY;
        loop {
            if self.is_ready(daemon) {
                return Ok(());
            }
            let trouble = match self.supervisor.standing(daemon)? {
                Standing::Ended(status) => format!("ended with {status}"),
                Standing::Stopped => "was not started".to_owned(),
                Standing::Running { .. } if Instant::now() > due => {
                    format!("was not ready within {} s", READY.as_secs())
                }
                Standing::Running { .. } => {
                    thread::sleep(Duration::from_millis(5));
                    continue;
                }
            };
            return Err(GroundError::Daemon(format!(
                "{} {trouble}; the last it wrote:\n{}",
                daemon.name(),
                self.log_tail(daemon)
            )));
        }
    }

    fn is_ready(&self, daemon: Daemon) -> bool {
        match daemon {
            Daemon::Authd => answers::authd(&self.layout.run()),
            Daemon::Broker => answers::broker(&self.layout.run()).is_some(),
            Daemon::Gateway => {
                answers::broker(&self.layout.run()).is_some_and(|broker| broker.gateway_connected)
            }
        }
    }

    /// The end of what `daemon` wrote to its standard error.
    #[must_use]
    pub fn log_tail(&self, daemon: Daemon) -> String {
        const LINES: usize = 12;
        let log = self.log(daemon);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }

    /// All that `daemon` wrote to its standard error.
    #[must_use]
    pub fn log(&self, daemon: Daemon) -> String {
        let path = self.layout.log().join(format!("{}.txt", daemon.name()));
        let bytes = fs::read(path).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Runs `kai-broker` with `arguments` and this ground's configuration, and gives what it printed.
    ///
    /// # Errors
    /// If it cannot be run, or ends with another status than 0.
    pub fn broker_command(&self, arguments: &[&str]) -> Result<String, GroundError> {
        let ran = self.run_broker_command(arguments)?;
        match ran.complaint {
            None => Ok(ran.printed),
            Some(complaint) => Err(GroundError::Daemon(complaint)),
        }
    }

    /// Runs `kai-auth` with `arguments` and this ground's configuration, and gives what it printed.
    ///
    /// # Errors
    /// If it cannot be run, or ends with another status than 0.
    pub fn auth_command(&self, arguments: &[&str]) -> Result<String, GroundError> {
        let ran = answers::run(&mut self.auth(arguments))?;
        match ran.complaint {
            None => Ok(ran.printed),
            Some(complaint) => Err(GroundError::Daemon(complaint)),
        }
    }

    /// `kai-auth` with `arguments` and this ground's configuration, not yet started: as whom authd
    /// takes for root.
    #[must_use]
    pub fn auth(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.layout.programs().join("kai-auth"));
        command
            .args(arguments)
            .arg("--config")
            .arg(self.layout.config())
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        if self.separation == Separation::OneAccount {
            sys::as_root_of_its_own(&mut command);
        }
        command
    }

    fn run_broker_command(&self, arguments: &[&str]) -> Result<answers::Ran, GroundError> {
        answers::run(
            Command::new(self.layout.programs().join("kai-broker"))
                .args(arguments)
                .arg("--config")
                .arg(self.layout.config()),
        )
    }

    /// What `kai-broker status --json` prints, also where it finds something that is not as it should
    /// be.
    ///
    /// # Errors
    /// If it prints no status.
    pub fn status_json(&self) -> Result<serde_json::Value, GroundError> {
        let ran = self.run_broker_command(&["status", "--json"])?;
        serde_json::from_str(&ran.printed).map_err(|error| {
            GroundError::Daemon(ran.complaint.unwrap_or_else(|| error.to_string()))
        })
    }

    /// The same, with what is needed by name.
    ///
    /// # Errors
    /// If it prints no status.
    pub fn status(&self) -> Result<Status, GroundError> {
        serde_json::from_value(self.status_json()?)
            .map_err(|error| GroundError::Daemon(format!("kai-broker status --json: {error}")))
    }

    /// `kill -9` of the worker of the person called `name`.
    ///
    /// # Errors
    /// If there is none.
    pub fn kill_worker(&self, name: &str) -> Result<(), GroundError> {
        let status = self.status()?;
        let pid = status.worker(name).map(|worker| worker.pid);
        self.kill_for(name, pid, "worker")
    }

    /// `kill -9` of the agent of the person called `name`.
    ///
    /// # Errors
    /// If there is none.
    pub fn kill_agent(&self, name: &str) -> Result<(), GroundError> {
        let status = self.status()?;
        let pid = status.worker(name).and_then(|worker| worker.agent_pid);
        self.kill_for(name, pid, "agent")
    }

    fn kill_for(&self, name: &str, pid: Option<u32>, what: &str) -> Result<(), GroundError> {
        let account = self.account(name)?;
        let pid = pid
            .filter(|pid| *pid > 1)
            // A number from a table may have become somebody else's meanwhile.
            .filter(|pid| {
                fs::metadata(format!("/proc/{pid}")).is_ok_and(|found| found.uid() == account.uid)
            })
            .ok_or_else(|| GroundError::Nobody(format!("{name} has no {what} now")))?;
        kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL)
            .map_err(|error| GroundError::Nobody(format!("cannot kill {name}'s {what}: {error}")))
    }
}
