//! Runs the daemons and restarts what ended, as systemd would with `Restart=always`.
//!
//! One thread starts, watches and reaps them all. It has to be a thread of its own that lives as long
//! as the daemons: they are told by the kernel when the thread that started them is gone, so that
//! nothing survives a playground that is killed.

use std::{
    fs::OpenOptions,
    io,
    os::unix::{fs::OpenOptionsExt, process::CommandExt},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{GroundError, accounts::Account};
use crate::sys;

/// How often the children are looked at.
const TICK: Duration = Duration::from_millis(10);
/// systemd's RestartSec= where a unit does not say otherwise.
const RESTART_AFTER: Duration = Duration::from_millis(100);
/// The longest pause before a restart.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A daemon that ran for this long is restarted at once again.
const SETTLED: Duration = Duration::from_secs(5);
/// How long a daemon may take over its end.
const PATIENCE: Duration = Duration::from_secs(5);

/// A program that runs as long as kai does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Daemon {
    /// `kai-authd`.
    Authd,
    /// `kai-brokerd`, or what takes its place without root.
    Broker,
    /// `kai-gateway`.
    Gateway,
}

impl Daemon {
    /// All of them, in the order in which they start.
    pub const ALL: [Self; 3] = [Self::Authd, Self::Broker, Self::Gateway];

    /// A word for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Authd => "authd",
            Self::Broker => "broker",
            Self::Gateway => "gateway",
        }
    }
}

/// How to start a daemon.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Its program.
    pub program: PathBuf,
    /// `kai.yaml`.
    pub config: PathBuf,
    /// The account it runs under, if not this process's.
    pub account: Option<Account>,
    /// Whether it runs as root of a user namespace of its own.
    pub own_root: bool,
    /// The control group that it begins in, if not that of this process.
    pub cgroup: Option<PathBuf>,
    /// Takes what it writes to standard output and standard error.
    pub log: PathBuf,
}

impl Plan {
    fn start(&self) -> io::Result<Child> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&self.log)?;
        let mut command = Command::new(&self.program);
        command
            .arg("--config")
            .arg(&self.config)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A Ctrl-C on the terminal is for the playground, which ends its daemons in order.
            .process_group(0);
        if let Some(account) = &self.account {
            command.uid(account.uid).gid(account.gid);
        }
        if self.own_root {
            sys::as_root_of_its_own(&mut command);
        }
        if let Some(cgroup) = &self.cgroup {
            sys::begin_in_cgroup(&mut command, cgroup)?;
        }
        sys::end_with_this_thread(&mut command, 0o077);
        command.spawn()
    }
}

enum Order {
    Start(Daemon),
    Stop(Daemon),
    Kill(Daemon, Signal),
    Restarts(bool),
    Look(Daemon),
    Quit,
}

/// Where a daemon stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It runs.
    Running {
        /// Its process.
        pid: u32,
    },
    /// It ended, and will be restarted if restarts are on.
    Ended(ExitStatus),
    /// It was not started, or was stopped on purpose.
    Stopped,
}

type Answer = Result<Standing, String>;

/// The thread and the way to it.
#[derive(Debug)]
pub struct Supervisor {
    orders: Sender<(Order, Sender<Answer>)>,
    thread: Option<JoinHandle<()>>,
}

impl Supervisor {
    /// Starts the thread, and no daemon.
    ///
    /// # Errors
    /// If there can be no further thread.
    pub fn new(plans: [(Daemon, Plan); 3]) -> io::Result<Self> {
        let (orders, inbox) = mpsc::channel();
        let mut children = Children {
            slots: plans.map(|(daemon, plan)| Slot::new(daemon, plan)),
            restarts: false,
        };
        let thread = thread::Builder::new()
            .name("supervisor".to_owned())
            .spawn(move || children.serve(&inbox))?;
        Ok(Self {
            orders,
            thread: Some(thread),
        })
    }

    /// Starts `daemon`, unless it runs.
    ///
    /// # Errors
    /// If it cannot be executed.
    pub fn start(&self, daemon: Daemon) -> Result<Standing, GroundError> {
        self.ask(Order::Start(daemon))
    }

    /// Ends `daemon` as systemd would: SIGTERM, and SIGKILL for one that takes too long. It stays
    /// stopped.
    ///
    /// # Errors
    /// If the thread is gone.
    pub fn stop(&self, daemon: Daemon) -> Result<Standing, GroundError> {
        self.ask(Order::Stop(daemon))
    }

    /// Sends `signal` to `daemon`; what that ends is restarted if restarts are on.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill(&self, daemon: Daemon, signal: Signal) -> Result<Standing, GroundError> {
        self.ask(Order::Kill(daemon, signal))
    }

    /// Whether what ends is restarted from now on.
    ///
    /// # Errors
    /// If the thread is gone.
    pub fn restarts(&self, on: bool) -> Result<(), GroundError> {
        self.ask(Order::Restarts(on)).map(drop)
    }

    /// Where `daemon` stands.
    ///
    /// # Errors
    /// If the thread is gone.
    pub fn standing(&self, daemon: Daemon) -> Result<Standing, GroundError> {
        self.ask(Order::Look(daemon))
    }

    fn ask(&self, order: Order) -> Result<Standing, GroundError> {
        let (answer, answers) = mpsc::channel();
        let gone = || GroundError::Daemon("the supervisor is gone".to_owned());
        self.orders.send((order, answer)).map_err(|_| gone())?;
        answers
            .recv()
            .map_err(|_| gone())?
            .map_err(GroundError::Daemon)
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        let _ = self.ask(Order::Quit);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Slot {
    daemon: Daemon,
    plan: Plan,
    child: Option<Child>,
    ended: Option<ExitStatus>,
    started: Instant,
    pause: Duration,
    restart_at: Option<Instant>,
}

impl Slot {
    fn new(daemon: Daemon, plan: Plan) -> Self {
        Self {
            daemon,
            plan,
            child: None,
            ended: None,
            started: Instant::now(),
            pause: RESTART_AFTER,
            restart_at: None,
        }
    }

    fn standing(&self) -> Standing {
        match (&self.child, self.ended) {
            (Some(child), _) => Standing::Running { pid: child.id() },
            (None, Some(status)) => Standing::Ended(status),
            (None, None) => Standing::Stopped,
        }
    }

    fn start(&mut self) -> Answer {
        self.restart_at = None;
        if self.child.is_none() {
            let child = self.plan.start().map_err(|error| {
                format!("cannot start {}: {error}", self.plan.program.display())
            })?;
            self.started = Instant::now();
            self.ended = None;
            self.child = Some(child);
        }
        Ok(self.standing())
    }

    fn stop(&mut self) -> Answer {
        self.restart_at = None;
        if let Some(mut child) = self.child.take() {
            let _ = signal(&child, Signal::SIGTERM);
            let due = Instant::now() + PATIENCE;
            while matches!(child.try_wait(), Ok(None)) {
                if Instant::now() > due {
                    let _ = child.kill();
                    let _ = child.wait();
                    break;
                }
                thread::sleep(TICK);
            }
        }
        self.ended = None;
        Ok(Standing::Stopped)
    }

    fn kill(&mut self, number: Signal) -> Answer {
        match &self.child {
            // Not yet reaped, so the number is still this child's.
            Some(child) => {
                signal(child, number).map_err(|error| error.to_string())?;
                Ok(self.standing())
            }
            None => Err(format!("{} does not run", self.daemon.name())),
        }
    }

    fn look(&mut self, restarts: bool) {
        if let Some(child) = &mut self.child
            && let Ok(Some(status)) = child.try_wait()
        {
            self.child = None;
            self.ended = Some(status);
            if self.started.elapsed() > SETTLED {
                self.pause = RESTART_AFTER;
            }
            self.restart_at = Some(Instant::now() + self.pause);
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
        if restarts && self.restart_at.is_some_and(|at| at <= Instant::now()) {
            let _ = self.start();
        }
    }
}

struct Children {
    slots: [Slot; 3],
    restarts: bool,
}

impl Children {
    fn serve(&mut self, inbox: &Receiver<(Order, Sender<Answer>)>) {
        loop {
            let order = inbox.recv_timeout(TICK);
            for slot in &mut self.slots {
                slot.look(self.restarts);
            }
            match order {
                Ok((Order::Quit, answer)) => {
                    self.end();
                    let _ = answer.send(Ok(Standing::Stopped));
                    return;
                }
                Ok((order, answer)) => {
                    let _ = answer.send(self.obey(&order));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.end(),
            }
        }
    }

    fn obey(&mut self, order: &Order) -> Answer {
        match order {
            Order::Start(daemon) => self.slot(*daemon).start(),
            Order::Stop(daemon) => self.slot(*daemon).stop(),
            Order::Kill(daemon, signal) => self.slot(*daemon).kill(*signal),
            Order::Look(daemon) => Ok(self.slot(*daemon).standing()),
            Order::Restarts(on) => {
                self.restarts = *on;
                Ok(Standing::Stopped)
            }
            Order::Quit => Ok(Standing::Stopped),
        }
    }

    fn slot(&mut self, daemon: Daemon) -> &mut Slot {
        &mut self.slots[daemon as usize]
    }

    /// The last to start is the first to end.
    fn end(&mut self) {
        for slot in self.slots.iter_mut().rev() {
            let _ = slot.stop();
        }
    }
}

fn signal(child: &Child, signal: Signal) -> nix::Result<()> {
    kill(Pid::from_raw(child.id().cast_signed()), signal)
}
