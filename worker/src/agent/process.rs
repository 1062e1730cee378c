//! A running agent and its three streams.
//!
//! The streams are socketpairs, never pipes: a pipe can be opened again through /proc/PID/fd by any
//! process of the account, so a tool could write in the agent's name or in the user's; opening a
//! socket that way fails (ENXIO, proc(5)).

use std::{
    io::{self, Read},
    os::{fd::OwnedFd, unix::net::UnixStream as StdStream},
    path::Path,
    process::Command,
};

use nix::unistd::Pid;
use tokio::net::UnixStream;

use super::{
    lines::{LONGEST, Lines},
    requests::{self, Control},
};

/// Bytes of standard error that are kept, the last ones.
const ERRORS: usize = 4 * 1024;

/// Reads of its complaints before others have their turn.
const HEARD: usize = 16;

/// What an agent may leave unread, in bytes: the longest line, and the answer to it.
const UNREAD: usize = 2 * LONGEST;

/// Reads of what an ended agent has left.
const DRAINED: usize = 64;

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    /// Its process id.
    pub pid: Pid,
    /// Where it reads.
    pub input: UnixStream,
    /// What is still to be written there.
    pub unsent: Vec<u8>,
    /// Where it writes; none once it has closed it.
    pub output: Option<UnixStream>,
    /// What it wrote.
    pub lines: Lines,
    /// Where it complains; none once it has closed it.
    pub errors: Option<UnixStream>,
    /// The end of its complaints. Never logged: they may hold what somebody wrote.
    pub complaints: Vec<u8>,
}

impl Agent {
    /// Starts `command` and queues its first line, with `instructions` for its system prompt.
    ///
    /// # Errors
    /// What socketpair(2), fork(2) or execve(2) answer.
    pub fn start(mut command: Command, instructions: Option<&str>) -> io::Result<Self> {
        let (input, its_input) = StdStream::pair()?;
        let (output, its_output) = StdStream::pair()?;
        let (errors, its_errors) = StdStream::pair()?;
        for ours in [&input, &output, &errors] {
            ours.set_nonblocking(true)?;
        }
        let child = command
            .stdin(OwnedFd::from(its_input))
            .stdout(OwnedFd::from(its_output))
            .stderr(OwnedFd::from(its_errors))
            .spawn()?;
        // The child is not kept: dropping it neither ends nor reaps, and reaping has one place.
        let pid = Pid::from_raw(child.id().cast_signed());
        let mut unsent = Vec::new();
        requests::control(
            &mut unsent,
            0,
            Control::Initialize {
                append: instructions,
            },
        );
        Ok(Self {
            pid,
            input: UnixStream::from_std(input)?,
            unsent,
            output: Some(UnixStream::from_std(output)?),
            lines: Lines::new(),
            errors: Some(UnixStream::from_std(errors)?),
            complaints: Vec::new(),
        })
    }

    /// Writes as much of what is unsent as the agent takes now. That it does not read any more is
    /// no error here: its end is noticed by itself.
    pub fn flush(&mut self) {
        while !self.unsent.is_empty() {
            match self.input.try_write(&self.unsent) {
                Ok(written) => drop(self.unsent.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.unsent.clear(),
            }
        }
        self.unsent.shrink_to(4 * 1024);
    }

    /// Reads once what the agent has written: false if there is nothing now, or nothing more.
    pub fn fill(&mut self) -> bool {
        let Some(output) = &self.output else {
            return false;
        };
        match output.try_read(self.lines.room()) {
            Ok(read @ 1..) => {
                self.lines.add(read);
                true
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Ok(0) | Err(_) => {
                self.output = None;
                false
            }
        }
    }

    /// Reads all that is left of an agent that has ended, past the runtime: it may not have noticed
    /// yet that there is something.
    pub fn drain(&mut self) {
        // What the agent started may hold its streams open and go on writing: no more is taken than
        // the streams themselves can hold.
        if let Some(Ok(mut output)) = self.output.take().map(UnixStream::into_std) {
            for _ in 0..DRAINED {
                match output.read(self.lines.room()) {
                    Ok(read @ 1..) => self.lines.add(read),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Ok(0) | Err(_) => break,
                }
            }
        }
        if let Some(Ok(mut errors)) = self.errors.take().map(UnixStream::into_std) {
            let mut chunk = [0; 1024];
            for _ in 0..DRAINED {
                match errors.read(&mut chunk) {
                    Ok(read @ 1..) => self.complain(&chunk[..read]),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Ok(0) | Err(_) => break,
                }
            }
        }
    }

    /// Reads what the agent complains of, as much as is fair to others; how many bytes that was.
    pub fn hear(&mut self) -> usize {
        let mut chunk = [0; 8 * 1024];
        let mut heard = 0;
        for _ in 0..HEARD {
            let Some(errors) = &self.errors else { break };
            match errors.try_read(&mut chunk) {
                Ok(read @ 1..) => {
                    heard += read;
                    self.complain(&chunk[..read]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Ok(0) | Err(_) => self.errors = None,
            }
        }
        heard
    }

    /// False while the agent leaves so much unread that it gets no further answers: each of its
    /// requests is answered with as many bytes as it had.
    #[must_use]
    pub fn listens(&self) -> bool {
        self.unsent.len() <= UNREAD
    }

    fn complain(&mut self, bytes: &[u8]) {
        self.complaints.extend_from_slice(bytes);
        let surplus = self.complaints.len().saturating_sub(ERRORS);
        self.complaints.drain(..surplus);
    }
}

/// True if `error`, of a start, says that the program is not there or cannot be executed, and not that
/// the host lacks something.
#[must_use]
pub fn is_missing(error: &io::Error, home: &Path) -> bool {
    let about_the_file = matches!(
        error.raw_os_error(),
        Some(
            libc::ENOENT
                | libc::EACCES
                | libc::EPERM
                | libc::ENOTDIR
                | libc::ENOEXEC
                | libc::EISDIR
                | libc::ELOOP
        )
    );
    // The start changes to the home first, and fails alike if that is gone.
    about_the_file && home.is_dir()
}
