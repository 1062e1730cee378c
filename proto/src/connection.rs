//! Framed connections without an async runtime: [`Connection`] for the daemons' poll loops, and
//! [`Client`] for the admin's commands, which block.
//!
//! Both read with a plain read(2), which takes no descriptors: whatever a peer attaches to its bytes
//! is dropped by the kernel. The bytes may be a code, a grant or a secret, so no buffer is left behind
//! with them.

use std::{
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::{Duration, Instant},
};

use zeroize::{Zeroize, Zeroizing};

use crate::{
    codec::{self, CodecError, Message},
    frame::FrameReader,
    limits,
};

/// Unsent bytes that a connection may pile up before its peer counts as stuck.
const BACKLOG: usize = 4 * 1024 * 1024;

/// Why a connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The peer closed it, between two frames.
    #[error("the peer closed the connection")]
    Closed,
    /// The peer closed it inside a frame, or the kernel says so.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// What arrived, or was to be sent, is not a message of this connection.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The peer took longer than [`limits::FRAME_DEADLINE`] over one frame.
    #[error("the peer took too long over one frame")]
    TooSlow,
    /// The peer does not read what it is sent.
    #[error("the peer does not read its answers")]
    Stuck,
}

/// A non-blocking connection in a poll loop. It reads no byte beyond the frame that has begun.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    reader: FrameReader,
    deadline: Option<Instant>,
    unsent: Zeroizing<Vec<u8>>,
}

impl Connection {
    /// Takes over a connected stream. Its first frame is due within
    /// [`limits::FRAME_DEADLINE`] of `now`.
    ///
    /// # Errors
    /// If the stream cannot be made non-blocking.
    pub fn new(stream: UnixStream, now: Instant) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            reader: FrameReader::new(),
            deadline: Some(now + limits::FRAME_DEADLINE),
            unsent: Zeroizing::default(),
        })
    }

    /// The next whole message, or none if it has not arrived.
    ///
    /// # Errors
    /// Each ends the connection.
    pub fn receive<M: Message>(&mut self, now: Instant) -> Result<Option<M>, ConnectionError> {
        let mut chunk = Zeroizing::new([0; 4096]);
        loop {
            let wanted = self.reader.wanted().min(chunk.len());
            match self.stream.read(&mut chunk[..wanted]) {
                Ok(0) if self.reader.at_boundary() => return Err(ConnectionError::Closed),
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(read) => {
                    if let Some(body) = self.reader.push(&chunk[..read], M::LIMIT)? {
                        self.deadline = None;
                        return Ok(Some(codec::decode(&Zeroizing::new(body))?));
                    }
                    self.deadline.get_or_insert(now + limits::FRAME_DEADLINE);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Queues `message` and sends what the peer takes now.
    ///
    /// # Errors
    /// Each ends the connection.
    pub fn send<M: Message>(&mut self, message: &M) -> Result<(), ConnectionError> {
        codec::encode_frame(message, &mut self.unsent)?;
        if self.unsent.len() > BACKLOG {
            return Err(ConnectionError::Stuck);
        }
        self.flush()
    }

    /// Sends what is queued, as far as the peer takes it.
    ///
    /// # Errors
    /// What write(2) answers.
    pub fn flush(&mut self) -> Result<(), ConnectionError> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(written) => drop(self.unsent.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.unsent.zeroize();
        Ok(())
    }

    /// True while something is queued: poll for writing too.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// When the frame that has begun, or the first one, is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Gives the stream away, between two frames.
    #[must_use]
    pub fn into_stream(self) -> UnixStream {
        self.stream
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// A blocking connection of an admin's command.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
}

impl Client {
    /// Connects to the socket at `path`; every later call waits at most `patience`.
    ///
    /// # Errors
    /// What connect(2) answers.
    pub fn connect(path: &Path, patience: Duration) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Self { stream })
    }

    /// Sends one message.
    ///
    /// # Errors
    /// What write(2) answers, or a message above its limit.
    pub fn send<M: Message>(&mut self, message: &M) -> Result<(), ConnectionError> {
        let mut frame = Zeroizing::new(Vec::new());
        codec::encode_frame(message, &mut frame)?;
        Ok(self.stream.write_all(&frame)?)
    }

    /// Waits for one message.
    ///
    /// # Errors
    /// [`ConnectionError::TooSlow`] when the patience ends; others as they come.
    pub fn receive<M: Message>(&mut self) -> Result<M, ConnectionError> {
        let mut reader = FrameReader::new();
        let mut chunk = Zeroizing::new([0; 4096]);
        loop {
            let wanted = reader.wanted().min(chunk.len());
            match self.stream.read(&mut chunk[..wanted]) {
                Ok(0) if reader.at_boundary() => return Err(ConnectionError::Closed),
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(read) => {
                    if let Some(body) = reader.push(&chunk[..read], M::LIMIT)? {
                        return Ok(codec::decode(&Zeroizing::new(body))?);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(ConnectionError::TooSlow);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{admin_authd::Request, hello::AdminHello};

    fn pair() -> (Connection, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Connection::new(ours, Instant::now()).unwrap(), theirs)
    }

    #[test]
    fn nothing_beyond_the_first_frame_is_read() {
        let (mut connection, mut peer) = pair();
        let mut bytes = Vec::new();
        codec::encode_frame(&Request::Hello(AdminHello::of(0)), &mut bytes).unwrap();
        let frame = bytes.len();
        bytes.extend_from_slice(b"for the worker");
        peer.write_all(&bytes).unwrap();

        let first: Option<Request> = connection.receive(Instant::now()).unwrap();
        let mut rest = [0; 64];
        let read = connection.into_stream().read(&mut rest).unwrap();

        assert_eq!(first, Some(Request::Hello(AdminHello::of(0))));
        assert_eq!(&rest[..read], &bytes[frame..]);
    }

    #[test]
    fn the_deadline_of_a_frame_begins_with_its_first_byte_and_ends_with_its_last() {
        let (mut connection, mut peer) = pair();
        let mut bytes = Vec::new();
        codec::encode_frame(&Request::Status, &mut bytes).unwrap();
        peer.write_all(&bytes).unwrap();
        let now = Instant::now();
        assert!(connection.receive::<Request>(now).unwrap().is_some());
        assert_eq!(connection.deadline(), None);

        peer.write_all(&bytes[..2]).unwrap();
        assert!(connection.receive::<Request>(now).unwrap().is_none());

        assert_eq!(connection.deadline(), Some(now + limits::FRAME_DEADLINE));
    }

    #[test]
    fn a_peer_that_does_not_read_is_cut_off() {
        let (mut connection, _peer) = pair();
        let reply = crate::admin_broker::Reply::ReloadRefused("x".repeat(1000));

        let end = (0..10_000).find_map(|_| connection.send(&reply).err());

        assert!(matches!(end, Some(ConnectionError::Stuck)));
    }
}
