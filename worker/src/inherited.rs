//! What the broker left for the worker: the gateway's connection or a login's terminal, the control socket with the
//! assignment in it, and the opened file with the agent's key.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsRawFd, OwnedFd},
};

use kai_proto::{
    codec::{self, CodecError},
    limits,
    worker_broker::{Assignment, CONNECTION_FD, CONTROL_FD, KEY_FD},
};
use nix::sys::socket::{
    MsgFlags, SockType, getsockopt, recv,
    sockopt::{self},
};
use zeroize::Zeroizing;

use crate::sys;

/// Longest key, in bytes.
const KEY: usize = 4096;

/// Why the worker cannot take what it was given.
#[derive(Debug, thiserror::Error)]
pub enum NotGiven {
    /// Descriptor 4 is not the broker's control socket.
    #[error(
        "descriptor {CONTROL_FD} is not a control socket: kai-worker is started by kai-brokerd alone, \
         never by hand"
    )]
    Control,
    /// Descriptor 3 is not open.
    #[error(
        "descriptor {CONNECTION_FD} is not open: the broker passes the gateway's connection there"
    )]
    Connection,
    /// The assignment could not be received.
    #[error("the assignment cannot be received: {0}")]
    Receive(io::Error),
    /// What was received is not an assignment.
    #[error("the assignment cannot be read: {0}; install kai's programs together")]
    Assignment(CodecError),
    /// The key could not be read, or is none.
    #[error("the agent's key cannot be read: {0}")]
    Key(io::Error),
}

/// The agent's key, wiped from memory when dropped.
pub type Key = Zeroizing<String>;

/// Everything that a worker is given.
#[derive(Debug)]
pub struct Inherited {
    /// The gateway's connection, past its attach; for a login its terminal.
    pub connection: OwnedFd,
    /// The broker's control socket.
    pub control: OwnedFd,
    /// What to do.
    pub assignment: Assignment,
    /// The agent's key.
    pub key: Option<Key>,
}

impl Inherited {
    /// Takes over the inherited descriptors and reads what is in them.
    ///
    /// # Errors
    /// [`NotGiven`], the first that is wrong.
    pub fn take() -> Result<Self, NotGiven> {
        let [connection, control, key] =
            sys::inherited([CONNECTION_FD, CONTROL_FD, KEY_FD]).map_err(NotGiven::Receive)?;
        let control = control
            .filter(|socket| getsockopt(socket, sockopt::SockType) == Ok(SockType::SeqPacket))
            .ok_or(NotGiven::Control)?;
        let connection = connection.ok_or(NotGiven::Connection)?;
        let assignment = receive_assignment(&control)?;
        let key = match key {
            Some(file) if assignment.has_key => Some(read_key(File::from(file))?),
            None if assignment.has_key => {
                return Err(NotGiven::Key(io::Error::from_raw_os_error(libc::EBADF)));
            }
            _ => None,
        };
        Ok(Self {
            connection,
            control,
            assignment,
            key,
        })
    }
}

/// The assignment is in the socket before the worker exists, so nothing is waited for.
fn receive_assignment(control: &OwnedFd) -> Result<Assignment, NotGiven> {
    // One byte more than it may have: a longer datagram is seen to be longer.
    let mut datagram = vec![0; limits::CONTROL_FRAME + 1];
    let length = recv(control.as_raw_fd(), &mut datagram, MsgFlags::MSG_DONTWAIT)
        .map_err(|error| NotGiven::Receive(error.into()))?;
    codec::decode(&datagram[..length]).map_err(NotGiven::Assignment)
}

/// One line; the file is the administrator's, opened and judged by the broker.
fn read_key(file: File) -> Result<Key, NotGiven> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(KEY + 1));
    file.take(KEY as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(NotGiven::Key)?;
    let invalid = || NotGiven::Key(io::Error::from(io::ErrorKind::InvalidData));
    if bytes.len() > KEY {
        return Err(invalid());
    }
    let key = std::str::from_utf8(&bytes).map_err(|_| invalid())?.trim();
    if key.is_empty() || key.chars().any(|c| c.is_control()) {
        return Err(invalid());
    }
    Ok(Zeroizing::new(key.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;

    fn key_file(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file.rewind().unwrap();
        file
    }

    #[test]
    fn a_key_is_one_line_without_its_end() {
        assert_eq!(*read_key(key_file(b"sk-made-up\n")).unwrap(), "sk-made-up");
        for bad in [&b""[..], b" \n", b"a\nb", b"\xff\xfe", &[b'x'; KEY + 1]] {
            assert!(read_key(key_file(bad)).is_err());
        }
    }
}
