//! The worker at work: one task that waits for whatever comes first, lets the engine decide, and does
//! what the engine wants done.
//!
//! There are no other tasks and no channels. What one wake-up brings is read together, decided
//! together and written together: a piece of an answer is on its way after one read and one write.

use std::{
    future::{Future, poll_fn},
    io,
    os::{fd::OwnedFd, unix::net::UnixStream as StdStream},
    path::Path,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use kai_proto::{
    conversation::FromWorker,
    hello::Hello,
    worker_broker::{Assignment, HANDOVER, Report},
};
use tokio::{
    io::Interest,
    net::UnixStream,
    signal::unix::{Signal, SignalKind, signal},
    time::{Sleep, sleep_until},
};

use crate::{
    agent::{
        command::{self, Start},
        enclosure::Enclosure,
        planted,
        process::{self, Agent},
        tree::{Reaped, Tree},
    },
    conversation::{
        effects::Effects,
        engine::Engine,
        link::{Link, Over},
    },
    inherited::Key,
    login_mounts::LoginMounts,
    reports::Reports,
    sys,
};

/// How often what is being ended is killed again: it may have been starting something.
const AGAIN: Duration = Duration::from_millis(5);

/// How long an agent that has closed its output may take to end by itself.
const CLOSED: Duration = Duration::from_millis(500);

/// Reads of the agent's output before others have their turn.
const READS: usize = 16;

/// Without anything to wait for, the timer still has to be set to something.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// Everything that a worker at work holds.
#[derive(Debug)]
pub struct Host<T> {
    assignment: Assignment,
    key: Option<Key>,
    tree: T,
    enclosure: Option<Enclosure>,
    engine: Engine,
    effects: Effects,
    link: Option<Link>,
    agent: Option<Agent>,
    /// Everything is being ended since the last kill at this time.
    ending: Option<Instant>,
    /// The agent has closed its output at this time and not ended yet.
    closed: Option<Instant>,
    control: UnixStream,
    children: Signal,
    reports: Reports,
    login_mounts: Option<LoginMounts>,
    timer: Pin<Box<Sleep>>,
    /// When the timer fires.
    armed: Instant,
}

/// What is ready.
#[derive(Debug, Default)]
struct Ready {
    control: bool,
    children: bool,
    mounts: bool,
    output: bool,
    errors: bool,
    from_gateway: bool,
    to_gateway: bool,
    to_agent: bool,
    timer: bool,
}

impl Ready {
    fn any(&self) -> bool {
        self.control
            || self.children
            || self.mounts
            || self.output
            || self.errors
            || self.from_gateway
            || self.to_gateway
            || self.to_agent
            || self.timer
    }
}

/// What a host is made of.
#[derive(Debug)]
pub struct Parts<T> {
    /// From the broker.
    pub assignment: Assignment,
    /// The agent's key.
    pub key: Option<Key>,
    /// The processes below the worker.
    pub tree: T,
    /// What is put around the agent. None leaves it where the worker is, for tests of the host
    /// alone.
    pub enclosure: Option<Enclosure>,
    /// The conversation.
    pub engine: Engine,
    /// The broker's control socket.
    pub control: OwnedFd,
    /// The gateway's connection.
    pub connection: OwnedFd,
    /// What the broker is told first.
    pub report: Report,
}

impl<T: Tree> Host<T> {
    /// A worker that is about to say Hello. Must be called within a runtime.
    ///
    /// # Errors
    /// If the runtime cannot watch a descriptor or the signal.
    pub fn new(parts: Parts<T>) -> io::Result<Self> {
        let now = Instant::now();
        let reports = Reports::begin(&parts.control, parts.report, now);
        let armed = now + NEVER;
        let login_mounts = LoginMounts::watch(Path::new(&parts.assignment.home))?;
        let mut host = Self {
            assignment: parts.assignment,
            key: parts.key,
            tree: parts.tree,
            enclosure: parts.enclosure,
            engine: parts.engine,
            effects: Effects::default(),
            link: None,
            agent: None,
            ending: None,
            closed: None,
            control: watched(parts.control)?,
            children: signal(SignalKind::child())?,
            reports,
            login_mounts,
            timer: Box::pin(sleep_until(armed.into())),
            armed,
        };
        host.attach(parts.connection);
        Ok(host)
    }

    /// Works until the broker, or a wall, is gone.
    pub async fn run(mut self) {
        loop {
            let now = Instant::now();
            self.perform(now);
            self.report(now);
            self.arm();
            let ready = poll_fn(|cx| self.poll(cx)).await;
            if self.handle(&ready, Instant::now()).is_err() {
                return;
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ready> {
        let mut ready = Ready {
            control: self.control.poll_read_ready(cx).is_ready(),
            children: self.children.poll_recv(cx).is_ready(),
            mounts: self
                .login_mounts
                .as_ref()
                .is_some_and(|mounts| mounts.poll_changed(cx).is_ready()),
            timer: self.timer.as_mut().poll(cx).is_ready(),
            ..Ready::default()
        };
        if let Some(agent) = &self.agent {
            let readable = |stream: &Option<UnixStream>, cx: &mut Context<'_>| {
                stream
                    .as_ref()
                    .is_some_and(|stream| stream.poll_read_ready(cx).is_ready())
            };
            ready.output = agent.listens() && readable(&agent.output, cx);
            ready.errors = readable(&agent.errors, cx);
            ready.to_agent =
                !agent.unsent.is_empty() && agent.input.poll_write_ready(cx).is_ready();
        }
        if let Some(link) = &self.link {
            (ready.from_gateway, ready.to_gateway) = link.poll(self.effects.frames.len(), cx);
        }
        if ready.any() {
            Poll::Ready(ready)
        } else {
            Poll::Pending
        }
    }

    /// Lets the engine know of all that is ready; an error is the end of the worker.
    fn handle(&mut self, ready: &Ready, now: Instant) -> Result<(), End> {
        if ready.mounts
            && let Some(mounts) = &mut self.login_mounts
            && !mounts.hold()
        {
            tracing::warn!(
                "a file that runs at a login was replaced outside, and with it its wall: this worker ends"
            );
            return Err(End);
        }
        if ready.output {
            self.listen(now);
        }
        if ready.errors
            && let Some(agent) = &mut self.agent
        {
            let heard = agent.hear();
            self.engine.complained(heard, now, &mut self.effects);
        }
        if ready.children {
            self.reap(now);
        }
        if ready.from_gateway {
            self.receive(now);
        }
        if ready.control {
            self.take_handovers()?;
        }
        if ready.timer {
            self.armed = now + NEVER;
            self.tick(now);
        }
        // What can be written again is written with what else there is to do.
        Ok(())
    }

    /// Reads what the agent wrote.
    fn listen(&mut self, now: Instant) {
        for _ in 0..READS {
            let Some(agent) = &mut self.agent else { return };
            if !agent.fill() {
                if agent.output.is_none() {
                    self.closed.get_or_insert(now);
                }
                break;
            }
            self.read_lines(now);
            if self.effects.end_agent {
                break;
            }
            // Before more is read: what comes next may take longer, the end of a turn for one.
            self.engine.flush(&mut self.effects);
            self.send();
        }
        self.engine.flush(&mut self.effects);
    }

    fn read_lines(&mut self, now: Instant) {
        let Some(agent) = &mut self.agent else { return };
        loop {
            match agent.lines.next_line() {
                Ok(Some(line)) => self.engine.line(line, now, &mut self.effects),
                Ok(None) => return,
                Err(_) => self.engine.line_too_long(now, &mut self.effects),
            }
            if self.effects.end_agent {
                return;
            }
        }
    }

    fn reap(&mut self, now: Instant) {
        loop {
            match self.tree.reap() {
                Reaped::Ended { pid, status } => {
                    if self.agent.as_ref().is_some_and(|agent| agent.pid == pid) {
                        self.agent_ended(status, now);
                    }
                }
                Reaped::Running => return,
                Reaped::NoneLeft => {
                    if self.ending.take().is_some() {
                        self.engine.tree_ended(now, &mut self.effects);
                    }
                    return;
                }
            }
        }
    }

    /// The agent has ended by itself; what it wrote before still counts.
    fn agent_ended(&mut self, status: i32, now: Instant) {
        if let Some(agent) = &mut self.agent {
            agent.drain();
            self.read_lines(now);
        }
        let Some(agent) = self.agent.take() else {
            return;
        };
        self.closed = None;
        self.engine.flush(&mut self.effects);
        self.engine
            .agent_ended(status, &agent.complaints, now, &mut self.effects);
    }

    fn receive(&mut self, now: Instant) {
        let Some(link) = &mut self.link else { return };
        let (engine, effects) = (&mut self.engine, &mut self.effects);
        let received = link.receive(now, |message| {
            engine.gateway(message, now, effects).map_err(|_| {
                tracing::warn!("the gateway said what cannot be");
                Over
            })
        });
        if received.is_err() {
            self.detach();
        }
    }

    fn detach(&mut self) {
        self.link = None;
        self.effects.frames = Vec::new();
        self.engine.connection_ended();
    }

    /// From now on this is the gateway's connection.
    fn attach(&mut self, connection: OwnedFd) {
        self.detach();
        match Link::new(connection) {
            Ok(link) => {
                self.link = Some(link);
                self.effects.send(&FromWorker::Hello(Hello::ours()));
            }
            Err(error) => tracing::error!(%error, "a connection cannot be taken over"),
        }
    }

    fn take_handovers(&mut self) -> Result<(), End> {
        loop {
            let mut byte = [0; 1];
            let received = self.control.try_io(Interest::READABLE, || {
                sys::receive_with_descriptor(&self.control, &mut byte)
            });
            match received {
                Ok((0, _)) => return Err(End),
                Ok((1, Some(connection))) if byte == [HANDOVER] => self.attach(connection),
                Ok(_) => tracing::warn!("the broker sent what is no handover"),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(End),
            }
        }
    }

    fn tick(&mut self, now: Instant) {
        self.engine.tick(now, &mut self.effects);
        if self.ending.is_some_and(|last| now >= last + AGAIN) {
            self.end_tree(now);
        }
        if self.closed.is_some_and(|since| now >= since + CLOSED) {
            // Its status says then that it was killed, and the user hears that it ended.
            self.closed = None;
            self.tree.kill();
        }
        if self
            .link
            .as_ref()
            .and_then(Link::due)
            .is_some_and(|due| now >= due)
        {
            self.detach();
        }
    }

    /// Does what the engine wants, until it wants nothing more.
    fn perform(&mut self, now: Instant) {
        loop {
            self.send();
            if std::mem::take(&mut self.effects.end_agent) {
                self.agent = None;
                self.closed = None;
                self.end_tree(now);
            } else if let Some(start) = self.effects.start_agent.take() {
                self.start(&start, now);
            } else {
                break;
            }
        }
        match &mut self.agent {
            Some(agent) => {
                agent.unsent.append(&mut self.effects.lines);
                agent.flush();
            }
            None => self.effects.lines.clear(),
        }
    }

    fn send(&mut self) {
        let sent = match &mut self.link {
            Some(link) => link.send(&mut self.effects.frames),
            // Whoever attaches next asks for what it has not got.
            None => Err(Over),
        };
        if sent.is_err() {
            self.detach();
        }
    }

    fn end_tree(&mut self, now: Instant) {
        self.ending = Some(now);
        self.tree.kill();
        self.reap(now);
    }

    fn start(&mut self, start: &Start, now: Instant) {
        let home = Path::new(&self.assignment.home);
        let key = self.key.as_ref().map(|key| key.as_str());
        let started = command::private_tmp().and_then(|tmp| {
            planted::make_harmless(home)?;
            let mut command = command::command(&self.assignment, key, start, &tmp);
            if let Some(enclosure) = &self.enclosure {
                enclosure.put_around(&mut command)?;
            }
            Agent::start(command, command::instructions(home).as_deref())
        });
        match started {
            Ok(agent) => {
                self.tree.started(agent.pid);
                if self.enclosure.is_some() {
                    Enclosure::started(agent.pid);
                }
                self.agent = Some(agent);
            }
            Err(error) => {
                tracing::error!(%error, "the agent cannot be started");
                let missing = process::is_missing(&error, home);
                self.engine.not_started(missing, now, &mut self.effects);
            }
        }
    }

    fn report(&mut self, now: Instant) {
        let report = Report {
            in_turn: self.engine.in_turn(),
            agent_pid: self
                .agent
                .as_ref()
                .map_or(0, |agent| agent.pid.as_raw().unsigned_abs()),
            session: self
                .engine
                .session()
                .map_or([0; 16], |session| session.to_bytes()),
            turns: self.engine.turns(),
            ..self.reports.latest()
        };
        self.reports.offer(&self.control, report, now);
    }

    /// Sets the timer to what is due next. It may fire early, when something due has moved, and is
    /// then set again: that is cheaper than moving it with each line of the agent.
    fn arm(&mut self) {
        let due = [
            self.engine.due(),
            self.reports.due(),
            self.ending.map(|last| last + AGAIN),
            self.closed.map(|since| since + CLOSED),
            self.link.as_ref().and_then(Link::due),
        ];
        if let Some(due) = due.into_iter().flatten().min()
            && due < self.armed
        {
            self.armed = due;
            self.timer.as_mut().reset(due.into());
        } else if self.timer.is_elapsed() {
            self.timer.as_mut().reset(self.armed.into());
        }
    }
}

/// The control socket as the runtime watches it. It keeps datagrams apart, which a stream does not;
/// the runtime only ever asks whether there is something.
fn watched(control: OwnedFd) -> io::Result<UnixStream> {
    let control = StdStream::from(control);
    control.set_nonblocking(true)?;
    UnixStream::from_std(control)
}

/// The broker's end of the control socket is closed.
#[derive(Debug)]
struct End;
