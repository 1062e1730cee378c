//! Which descriptors the worker inherits.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use kai_proto::worker_broker::{CONNECTION_FD, CONTROL_FD, KEY_FD};

use super::{Failed, Step};
use crate::sys;

/// Below this number descriptors are placed; what is to be placed moves above it first, so that no
/// placing overwrites what is still to be placed.
const FREE: RawFd = 16;

/// Puts /dev/null on 0 and 1, the connection, or a login's terminal, on 3, the control socket on 4 and the key on 5, and marks
/// everything else but 2 to be closed at exec. Gives back the program's descriptor.
///
/// # Errors
/// [`Step::Descriptors`].
pub fn place(
    connection: BorrowedFd<'_>,
    control: &OwnedFd,
    key: Option<&OwnedFd>,
    program: BorrowedFd<'_>,
) -> Result<OwnedFd, Failed> {
    place_all(connection, control, key, program).map_err(|error| (Step::Descriptors, error))
}

fn place_all(
    connection: BorrowedFd<'_>,
    control: &OwnedFd,
    key: Option<&OwnedFd>,
    program: BorrowedFd<'_>,
) -> io::Result<OwnedFd> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let wanted = [
        (Some(null.as_fd()), 0),
        (Some(null.as_fd()), 1),
        (Some(connection), CONNECTION_FD),
        (Some(control.as_fd()), CONTROL_FD),
        (key.map(AsFd::as_fd), KEY_FD),
    ];
    let program = sys::move_above(program, FREE)?;
    let mut moved = Vec::with_capacity(wanted.len());
    for (from, to) in wanted {
        if let Some(from) = from {
            moved.push((sys::move_above(from, FREE)?, to));
        }
    }
    sys::close_at_exec_from(3)?;
    for (from, to) in &moved {
        sys::place_descriptor(from.as_raw_fd(), *to)?;
    }
    Ok(program)
}
