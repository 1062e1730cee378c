//! Copies bytes between the admin's terminal and the agent's, as the admin: one loop, nothing that blocks, and
//! no more in memory than two reads of each side.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use kai_proto::admin_broker::{LoginEnd, Reply};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
};
use rustix::termios::{tcgetwinsize, tcsetwinsize};

use super::{LoginError, filter::Filter, terminal::Raw};
use crate::client::Broker;

/// Bytes of one read.
const CHUNK: usize = 4096;
/// How long what the agent wrote last may take to be shown once it has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// What ends the login whatever the agent does: this key so often within this time.
const LEAVE: (u8, usize, Duration) = (0x1d, 3, Duration::from_secs(1));

/// How it was over.
#[derive(Debug, PartialEq, Eq)]
pub enum Over {
    /// The daemon has seen the login's end.
    Ended {
        /// Its exit status, or the negated number of the signal.
        status: i32,
        /// What ended it.
        why: LoginEnd,
    },
    /// The login was never begun, for this reason.
    Refused(String),
    /// The daemon is gone, and so is the login.
    BrokerGone,
    /// By [`LEAVE`].
    LeftByKeys,
    /// The admin's terminal is gone.
    HungUp,
    /// This command was asked to end.
    Signal(i32),
}

/// Copies until the login, the terminal, the daemon or this command is to end.
///
/// # Errors
/// What the kernel answers.
pub fn copy(terminal: &Raw<'_>, agent: &File, broker: &mut Broker) -> Result<Over, LoginError> {
    let signals = signals().map_err(|error| LoginError::Copy(error.into()))?;
    let waits_never = fcntl(agent, FcntlArg::F_GETFL).and_then(|flags| {
        let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
        fcntl(agent, FcntlArg::F_SETFL(flags))
    });
    waits_never.map_err(|error| LoginError::Copy(error.into()))?;
    let mut copying = Copying {
        terminal,
        agent,
        agent_open: true,
        filter: Filter::of_this_terminal(),
        to_terminal: Vec::new(),
        to_agent: Vec::new(),
        keys: Keys::default(),
    };
    copying.pass_size_on();
    copying.run(&signals, broker).map_err(LoginError::Copy)
}

/// The signals that are read from a descriptor: none of them ends this process before the terminal is as it
/// was.
fn signals() -> nix::Result<SignalFd> {
    let mut mask = SigSet::empty();
    for signal in [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
        Signal::SIGPIPE,
        Signal::SIGTSTP,
        Signal::SIGWINCH,
    ] {
        mask.add(signal);
    }
    mask.thread_block()?;
    SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}

struct Copying<'a> {
    terminal: &'a Raw<'a>,
    agent: &'a File,
    /// False once nobody has the other side any more.
    agent_open: bool,
    filter: Filter,
    to_terminal: Vec<u8>,
    to_agent: Vec<u8>,
    keys: Keys,
}

impl Copying<'_> {
    fn run(&mut self, signals: &SignalFd, broker: &mut Broker) -> io::Result<Over> {
        let mut over: Option<(Over, Instant)> = None;
        loop {
            if let Some((ended, since)) = over.take() {
                let all_shown = !self.agent_open && self.to_terminal.is_empty();
                if all_shown || since.elapsed() > LAST_WORDS {
                    return Ok(ended);
                }
                over = Some((ended, since));
            }
            let (for_terminal, for_agent) = self.wanted();
            let mut polled = [
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(broker.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.terminal.as_fd(), for_terminal),
                PollFd::new(self.agent.as_fd(), for_agent),
            ];
            // A side that has hung up says so whether it is asked or not, and the loop would spin.
            let asked = if self.agent_open && !for_agent.is_empty() {
                polled.len()
            } else {
                3
            };
            let polled = &mut polled[..asked];
            let timeout = match over {
                Some(_) => PollTimeout::from(50_u8),
                None => PollTimeout::NONE,
            };
            if over.is_some() {
                // The daemon has said its last word.
                polled[1] = PollFd::new(signals.as_fd(), PollFlags::empty());
            }
            match poll(polled, timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            let happened = |at: usize| {
                let fd = polled.get(at);
                fd.and_then(PollFd::revents).unwrap_or(PollFlags::empty())
            };
            let (signal, word) = (happened(0), happened(1));
            let (screen, agent) = (happened(2), happened(3));
            if !signal.is_empty()
                && let Some(ended) = self.take_signals(signals)
            {
                return Ok(ended);
            }
            if over.is_none() && !word.is_empty() {
                over = Some((hear(broker), Instant::now()));
            }
            if let Some(ended) = self.serve_terminal(screen)? {
                return Ok(ended);
            }
            self.serve_agent(agent)?;
        }
    }

    /// What is waited for: the agent is not read before what it wrote last was shown, and keys always are, as
    /// they may be [`LEAVE`].
    fn wanted(&self) -> (PollFlags, PollFlags) {
        let wanted = |read: bool, out: &[u8]| {
            let mut events = PollFlags::empty();
            events.set(PollFlags::POLLIN, read);
            events.set(PollFlags::POLLOUT, !out.is_empty());
            events
        };
        (
            wanted(true, &self.to_terminal),
            wanted(self.to_terminal.is_empty(), &self.to_agent),
        )
    }

    fn take_signals(&self, signals: &SignalFd) -> Option<Over> {
        while let Ok(Some(taken)) = signals.read_signal() {
            match Signal::try_from(taken.ssi_signo.cast_signed()) {
                Ok(Signal::SIGWINCH) => self.pass_size_on(),
                Ok(Signal::SIGHUP) => return Some(Over::HungUp),
                Ok(Signal::SIGPIPE | Signal::SIGTSTP) | Err(_) => {}
                Ok(other) => return Some(Over::Signal(other as i32)),
            }
        }
        None
    }

    /// The agent's terminal is as large as the admin's.
    fn pass_size_on(&self) {
        if let Ok(size) = tcgetwinsize(self.terminal) {
            let _ = tcsetwinsize(self.agent, size);
        }
    }

    fn serve_terminal(&mut self, events: PollFlags) -> io::Result<Option<Over>> {
        if events.contains(PollFlags::POLLOUT)
            && send(self.terminal.file(), &mut self.to_terminal).is_err()
        {
            return Ok(Some(Over::HungUp));
        }
        if events.contains(PollFlags::POLLIN) {
            let mut chunk = [0; CHUNK];
            match received(self.terminal.file(), &mut chunk) {
                Ok(None) => {}
                Ok(Some(0)) | Err(_) => return Ok(Some(Over::HungUp)),
                Ok(Some(read)) => {
                    if self.keys.leave(&chunk[..read], Instant::now()) {
                        return Ok(Some(Over::LeftByKeys));
                    }
                    // What an agent does not read is lost.
                    if self.agent_open && self.to_agent.len() < CHUNK {
                        self.to_agent.extend_from_slice(&chunk[..read]);
                    }
                }
            }
        } else if events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL) {
            return Ok(Some(Over::HungUp));
        }
        Ok(None)
    }

    fn serve_agent(&mut self, events: PollFlags) -> io::Result<()> {
        if events.contains(PollFlags::POLLOUT) && send(self.agent, &mut self.to_agent).is_err() {
            self.to_agent.clear();
        }
        if events.contains(PollFlags::POLLIN) && self.to_terminal.is_empty() {
            let mut chunk = [0; CHUNK];
            match received(self.agent, &mut chunk) {
                Ok(None) => {}
                Ok(Some(read @ 1..)) => self.filter.pass(&chunk[..read], &mut self.to_terminal),
                // EIO: nobody has the other side open.
                Ok(Some(0)) | Err(_) => self.agent_open = false,
            }
        } else if events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR)
            && self.to_terminal.is_empty()
        {
            self.agent_open = false;
        }
        if !self.agent_open {
            self.to_agent.clear();
        }
        Ok(())
    }
}

/// What the daemon says of the end.
fn hear(broker: &mut Broker) -> Over {
    match broker.next_reply() {
        Ok(Reply::LoginEnded { status, why }) => Over::Ended { status, why },
        Ok(Reply::LoginRefused(why)) => Over::Refused(why),
        _ => Over::BrokerGone,
    }
}

/// One read: none if nothing is there now.
fn received(mut from: &File, chunk: &mut [u8]) -> io::Result<Option<usize>> {
    match from.read(chunk) {
        Ok(read) => Ok(Some(read)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// One write of as much as is taken now.
fn send(mut to: &File, bytes: &mut Vec<u8>) -> io::Result<()> {
    match to.write(bytes) {
        Ok(written) => drop(bytes.drain(..written)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            ) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// The last keys that were the one of [`LEAVE`].
#[derive(Debug, Default)]
struct Keys(Vec<Instant>);

impl Keys {
    /// True if the login is to be left.
    fn leave(&mut self, typed: &[u8], now: Instant) -> bool {
        let (key, times, within) = LEAVE;
        for byte in typed {
            if *byte != key {
                self.0.clear();
                continue;
            }
            self.0.retain(|at| now.duration_since(*at) <= within);
            self.0.push(now);
            if self.0.len() >= times {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_times_the_key_within_a_second_and_nothing_else_leaves() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut keys = Keys::default();

        assert!(!keys.leave(b"\x1d\x1d", now));
        assert!(!keys.leave(b"x\x1d\x1d", now));
        assert!(!keys.leave(b"\x1d", now + second * 2));
        assert!(!keys.leave(b"\x1d", now + second * 2));
        assert!(keys.leave(b"\x1d", now + second * 3));
        assert!(Keys::default().leave(b"\x1d\x1d\x1d", now));
    }
}
