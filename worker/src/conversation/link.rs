//! The gateway's connection: frames in, frames out, and when it is of no more use.

use std::{
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream as StdStream,
    },
    task::{Context, Poll},
    time::Instant,
};

use kai_proto::{
    codec::{self, Message},
    conversation::ToWorker,
    frame::FrameReader,
    limits,
};
use nix::sys::socket::{Shutdown, shutdown};
use tokio::net::UnixStream;

/// Unsent bytes above which nothing more is taken from the gateway: it is to read first.
const ENOUGH: usize = 256 * 1024;

/// Unsent bytes above which the gateway counts as stuck. An answer at its longest must fit, beside
/// what is being sent of another.
const STUCK: usize = 32 * 1024 * 1024;

/// The connection is over: closed, broken, too slow, or not what it should be.
#[derive(Debug)]
pub struct Over;

/// The gateway's connection.
#[derive(Debug)]
pub struct Link {
    stream: UnixStream,
    frames: FrameReader,
    due: Option<Instant>,
}

impl Link {
    /// Takes over a connection that the broker handed over.
    ///
    /// # Errors
    /// If the runtime cannot watch it.
    pub fn new(descriptor: OwnedFd) -> io::Result<Self> {
        let stream = StdStream::from(descriptor);
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream: UnixStream::from_std(stream)?,
            frames: FrameReader::new(),
            due: None,
        })
    }

    /// True once there is something to read, or to write of what is `unsent`.
    pub fn poll(&self, unsent: usize, cx: &mut Context<'_>) -> (bool, bool) {
        let ready = |poll: Poll<io::Result<()>>| poll.is_ready();
        (
            unsent < ENOUGH && ready(self.stream.poll_read_ready(cx)),
            unsent > 0 && ready(self.stream.poll_write_ready(cx)),
        )
    }

    /// Reads once, and gives each whole message to `take`.
    ///
    /// # Errors
    /// [`Over`], also if `take` says so.
    pub fn receive(
        &mut self,
        now: Instant,
        mut take: impl FnMut(ToWorker) -> Result<(), Over>,
    ) -> Result<(), Over> {
        let mut chunk = [0; 8 * 1024];
        let mut bytes = match self.stream.try_read(&mut chunk) {
            Ok(0) => return Err(Over),
            Ok(read) => &chunk[..read],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(_) => return Err(Over),
        };
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(self.frames.wanted().min(bytes.len()));
            bytes = rest;
            if let Some(body) = self.frames.push(piece, ToWorker::LIMIT).map_err(|_| Over)? {
                take(codec::decode(&body).map_err(|_| Over)?)?;
                self.due = None;
            }
        }
        if !self.frames.at_boundary() {
            self.due.get_or_insert(now + limits::FRAME_DEADLINE);
        }
        Ok(())
    }

    /// Writes as much of `unsent` as the gateway takes now, and removes it there.
    ///
    /// # Errors
    /// [`Over`].
    pub fn send(&mut self, unsent: &mut Vec<u8>) -> Result<(), Over> {
        let mut written = 0;
        while written < unsent.len() {
            match self.stream.try_write(&unsent[written..]) {
                Ok(0) => return Err(Over),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return Err(Over),
            }
        }
        unsent.drain(..written);
        unsent.shrink_to(8 * 1024);
        if unsent.len() > STUCK {
            Err(Over)
        } else {
            Ok(())
        }
    }

    /// When the frame that has begun must be whole.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.due
    }
}

impl Drop for Link {
    /// The broker holds a duplicate, so closing alone would not tell the gateway.
    fn drop(&mut self) {
        let _ = shutdown(self.stream.as_raw_fd(), Shutdown::Both);
    }
}
