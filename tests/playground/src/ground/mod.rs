//! A whole second kai in a directory of its own: accounts, configuration and the real programs.
//!
//! The playground shows it to people, the tests take it apart. As root it separates as an installed
//! kai does: accounts for the gateway and each person, made for this run and removed after it, and the
//! broker that launches workers under them. Without root everything runs under one account, the
//! broker's place is taken by [`crate::launcher`], and what that leaves open is in
//! [`Ground::not_separated`].
//!
//! Everything is written down before it is made ([`record`]), removed when a [`Ground`] is dropped, and
//! otherwise at the next one's start.

pub mod accounts;
mod answers;
mod layout;
mod options;
mod people;
pub mod programs;
mod record;
mod removal;
pub mod status;
pub mod supervisor;

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};

use self::{
    accounts::Account,
    layout::Layout,
    people::Parts,
    programs::Programs,
    record::Thing,
    removal::Made,
    status::Status,
    supervisor::{Plan, Standing, Supervisor},
};
pub use self::{
    options::{Agent, Names, Options, Person},
    removal::{Emergency, clean_up},
    supervisor::Daemon,
};

/// How long the daemons may take to be ready.
const READY: Duration = Duration::from_secs(20);

/// Why there is no ground, or why it is of no use.
#[derive(Debug, thiserror::Error)]
pub enum GroundError {
    /// A program is missing or could not be built.
    #[error("{0}")]
    Programs(String),
    /// Accounts could not be made or removed.
    #[error("{0}")]
    Accounts(String),
    /// A file or directory could not be made.
    #[error("{what}: {error}")]
    Files {
        /// What was to be done.
        what: String,
        /// What the kernel says.
        error: io::Error,
    },
    /// A daemon does not do what it should.
    #[error("{0}")]
    Daemon(String),
    /// There is nobody, or nothing, of that name.
    #[error("{0}")]
    Nobody(String),
}

/// Whether each person has an account of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Separation {
    /// As on an installed host.
    Accounts,
    /// Everything runs under the account of whoever started this.
    OneAccount,
}

/// A second kai. Dropping it ends its processes and removes what was made for it.
#[derive(Debug)]
pub struct Ground {
    layout: Layout,
    separation: Separation,
    people: Vec<Person>,
    accounts: Vec<Account>,
    gateway: Account,
    restarts: bool,
    // In this order: the daemons end before what they use is removed.
    supervisor: Supervisor,
    made: Made,
}

impl Ground {
    /// Makes accounts, directories and configuration, and starts no daemon. Removes first what runs
    /// that were killed left behind. Under `cargo test` it builds the programs first, once.
    ///
    /// # Errors
    /// One sentence that says what is in the way.
    pub fn new(options: &Options) -> Result<Self, GroundError> {
        programs::build_once(true)?;
        let programs = Programs::locate()?;
        Self::with_programs(options, &programs)
    }

    /// As [`new`](Self::new), with programs from another place.
    ///
    /// # Errors
    /// One sentence that says what is in the way.
    pub fn with_programs(options: &Options, programs: &Programs) -> Result<Self, GroundError> {
        let separation = separation();
        removal::clean_up()?;
        let id = unique_id();
        let mut made = Made::begin(separation, &id)?;
        let layout = Layout::new(removal::root(separation, &id));
        let parts = prepare(options, programs, separation, &layout, &mut made)?;
        let supervisor = Supervisor::new(plans(&layout, separation, &parts.gateway))
            .map_err(files("cannot start a thread"))?;
        Ok(Self {
            layout,
            separation,
            people: options.people.clone(),
            accounts: parts.people,
            gateway: parts.gateway,
            restarts: options.restarts,
            supervisor,
            made,
        })
    }

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

    /// Writes users.yaml anew with these of the people; they keep their accounts. The broker takes it
    /// at its next reload.
    ///
    /// # Errors
    /// If somebody has no account here, or the file cannot be written.
    pub fn write_users(&self, people: &[Person]) -> Result<(), GroundError> {
        let mut accounts = Vec::new();
        for person in people {
            accounts.push(self.account(&person.name)?.clone());
        }
        self.layout
            .write_users(people, &accounts, self.separation)
            .map_err(files("cannot write users.yaml"))
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

    /// The account of the person called `name`.
    ///
    /// # Errors
    /// If nobody is called so.
    pub fn account(&self, name: &str) -> Result<&Account, GroundError> {
        self.people
            .iter()
            .position(|person| person.name == name)
            .and_then(|index| self.accounts.get(index))
            .ok_or_else(|| GroundError::Nobody(format!("nobody is called {name}")))
    }

    /// The account of the gateway.
    #[must_use]
    pub fn gateway_account(&self) -> &Account {
        &self.gateway
    }

    /// Where the worker of the person called `name` keeps its state.
    ///
    /// # Errors
    /// If nobody is called so.
    pub fn user_state(&self, name: &str) -> Result<PathBuf, GroundError> {
        let account = self.account(name)?;
        let directory = match self.separation {
            Separation::Accounts => account.name.as_str(),
            Separation::OneAccount => name,
        };
        Ok(self.layout.state().join("users").join(directory))
    }

    /// Writes a file that belongs to the person called `name` into their home, for them alone.
    ///
    /// # Errors
    /// If nobody is called so, or what the file system answers.
    pub fn write_in_home(
        &self,
        name: &str,
        file: &str,
        text: &str,
    ) -> Result<PathBuf, GroundError> {
        let account = self.account(name)?;
        let path = account.home.join(file);
        layout::write(&path, 0o600, text)
            .and_then(|()| chown(&path, Some(account.uid), Some(account.gid)))
            .map_err(files("cannot write into a home"))?;
        Ok(path)
    }

    /// The one directory that all of this ground is in.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.layout.root()
    }

    /// Its `kai.yaml`.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.layout.config()
    }

    /// The directory of its sockets.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.layout.run()
    }

    /// The directory of its state.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.layout.state()
    }

    /// The directory of its programs.
    #[must_use]
    pub fn programs(&self) -> PathBuf {
        self.layout.programs()
    }

    /// Whether each person has an account of their own.
    #[must_use]
    pub fn separation(&self) -> Separation {
        self.separation
    }

    /// What is not separated here and would be on an installed host, one sentence each.
    #[must_use]
    pub fn not_separated(&self) -> &'static [&'static str] {
        match self.separation {
            Separation::Accounts => &[],
            Separation::OneAccount => crate::launcher::NOT_SEPARATED,
        }
    }

    /// What a panic hook needs to clean up where nothing is dropped any more.
    #[must_use]
    pub fn emergency(&self) -> Emergency {
        self.made.emergency()
    }
}

fn plans(layout: &Layout, separation: Separation, gateway: &Account) -> [(Daemon, Plan); 3] {
    let plan = |daemon: Daemon, program: &str| Plan {
        program: layout.programs().join(program),
        config: layout.config(),
        account: None,
        own_root: false,
        log: layout.log().join(format!("{}.txt", daemon.name())),
    };
    let mut authd = plan(Daemon::Authd, "kai-authd");
    let mut broker = plan(Daemon::Broker, "kai-brokerd");
    let mut kai_gateway = plan(Daemon::Gateway, "kai-gateway");
    match separation {
        Separation::Accounts => kai_gateway.account = Some(gateway.clone()),
        Separation::OneAccount => {
            authd.own_root = true;
            broker = plan(Daemon::Broker, "kai-play-launcher");
        }
    }
    [
        (Daemon::Authd, authd),
        (Daemon::Broker, broker),
        (Daemon::Gateway, kai_gateway),
    ]
}

fn prepare(
    options: &Options,
    programs: &Programs,
    separation: Separation,
    layout: &Layout,
    made: &mut Made,
) -> Result<Parts, GroundError> {
    made.note(Thing::Directory(layout.root().to_owned()))?;
    layout
        .make()
        .map_err(files(&format!("cannot make {}", layout.root().display())))?;
    for name in programs::NAMES {
        programs::install(&programs.path(name), &layout.programs().join(name))
            .map_err(files(&format!("cannot copy {name}")))?;
    }
    let command = match &options.agent {
        Agent::Embedded(arguments) => {
            let program = layout.programs().join("kai-play-agent");
            words(&program, arguments)
        }
        Agent::Program { path, arguments } => {
            let program = layout.agent().join(path.file_name().unwrap_or_default());
            programs::install(path, &program)
                .map_err(files(&format!("cannot copy the agent {}", path.display())))?;
            words(&program, arguments)
        }
        Agent::Command(command) => command.clone(),
    };
    let parts = match separation {
        Separation::Accounts => people::make_accounts(options, made)?,
        Separation::OneAccount => people::one_account(options, layout)?,
    };
    // Seen from the user namespace in which authd is root, whoever started this is root.
    let gateway = match separation {
        Separation::Accounts => parts.gateway.name.as_str(),
        Separation::OneAccount => "root",
    };
    let write = || {
        layout.make_gateway_state(&parts.gateway)?;
        layout.write_token(&options.token, &parts.gateway)?;
        layout.write_users(&options.people, &parts.people, separation)?;
        layout.write_config(options, gateway, &command)
    };
    write().map_err(files("cannot write the configuration"))?;
    Ok(parts)
}

fn words(program: &Path, arguments: &[String]) -> Vec<String> {
    std::iter::once(program.to_string_lossy().into_owned())
        .chain(arguments.iter().cloned())
        .collect()
}

/// Whether this process may make accounts.
#[must_use]
pub fn separation() -> Separation {
    if geteuid().is_root() {
        Separation::Accounts
    } else {
        Separation::OneAccount
    }
}

fn files(what: &str) -> impl FnOnce(io::Error) -> GroundError + use<> {
    let what = what.to_owned();
    move |error| GroundError::Files { what, error }
}

/// Unlike any other ground's on this machine now.
fn unique_id() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{}{}", base36(std::process::id()), base36(next))
}

fn base36(mut number: u32) -> String {
    let mut digits = Vec::new();
    loop {
        digits.extend(char::from_digit(number % 36, 36));
        number /= 36;
        if number == 0 {
            return digits.iter().rev().collect();
        }
    }
}
