//! Listening sockets that the service manager made and passed on (sd_listen_fds(3), systemd.socket(5)).
//!
//! They outlive their daemon: who connects while it starts anew waits, and nobody gets in between. A
//! socket is recognised by the path that it is bound to; the names that the manager gives are not needed.

use std::{
    env, io,
    os::{
        fd::AsFd,
        unix::{
            fs::{FileTypeExt, MetadataExt},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicBool, Ordering},
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::socket::{getsockopt, sockopt},
    unistd::Gid,
};

use crate::{peer, sockets, sys};

/// The first descriptor that is passed on.
const FIRST: i32 = 3;

/// More than any unit of kai's has.
const MOST: i32 = 16;

/// They are taken once: whoever closes one must not find another's descriptor of the same number later.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// What was passed on to this process and is not in use yet.
#[derive(Debug)]
pub struct Inherited(Vec<(PathBuf, UnixListener)>);

impl Inherited {
    /// Takes what was passed on to this very process; nothing if it was started otherwise, or at the
    /// second time.
    ///
    /// # Errors
    /// If a descriptor is none that listens on a path.
    pub fn take() -> io::Result<Self> {
        let number = |name: &str| -> Option<u32> { env::var(name).ok()?.parse().ok() };
        let mine = number("LISTEN_PID") == Some(process::id());
        let count = number("LISTEN_FDS").filter(|_| mine).unwrap_or(0);
        let count = i32::try_from(count).unwrap_or(0).min(MOST);
        if count == 0 || TAKEN.swap(true, Ordering::Relaxed) {
            return Ok(Self(Vec::new()));
        }
        let listeners = (FIRST..FIRST + count).map(|number| {
            let listener = UnixListener::from(sys::take_descriptor(number)?);
            fcntl(&listener, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
            let listens = getsockopt(&listener.as_fd(), sockopt::AcceptConn)?;
            match listener.local_addr()?.as_pathname() {
                Some(path) if listens => Ok((path.to_owned(), listener)),
                _ => Err(io::Error::other(format!(
                    "descriptor {number}, which the service manager passed on, does not listen on a path"
                ))),
            }
        });
        listeners.collect::<io::Result<_>>().map(Self)
    }

    /// The listener on `path`, which the caller's own account and members of `group` can reach: the one
    /// that was passed on, or a new one as [`sockets::listen`] makes it if none was passed on at all.
    ///
    /// # Errors
    /// If others can reach it, or others were passed on and not this one; otherwise as [`sockets::listen`].
    pub fn listen(&mut self, path: &Path, group: Option<Gid>) -> io::Result<UnixListener> {
        let Some(at) = self.0.iter().position(|(bound, _)| bound == path) else {
            return sockets::listen(path, group);
        };
        let (_, listener) = self.0.swap_remove(at);
        judge(path, group)?;
        listener.set_nonblocking(true)?;
        peer::refuse_descriptors(&listener);
        Ok(listener)
    }

    /// Makes sure that all are in use: one that is not is a socket at which nobody would ever answer.
    ///
    /// # Errors
    /// Which one, and how to mend it.
    pub fn finish(self) -> io::Result<()> {
        match self.0.first() {
            None => Ok(()),
            Some((path, _)) => Err(io::Error::other(format!(
                "the service manager listens on {}, where kai.yaml has no socket: make the socket unit and \
                 `paths.run` the same",
                path.display()
            ))),
        }
    }
}

/// A socket that the manager made is this account's own, and reached by nobody but `group` beside it.
fn judge(path: &Path, group: Option<Gid>) -> io::Result<()> {
    let found = std::fs::symlink_metadata(path)?;
    let me = nix::unistd::geteuid().as_raw();
    let grouped = group.is_some_and(|group| group.as_raw() == found.gid());
    let beyond = if grouped { 0o007 } else { 0o077 };
    if found.file_type().is_socket() && found.uid() == me && found.mode() & beyond == 0 {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!(
            "{}: others can reach this socket; look at SocketUser=, SocketGroup= and SocketMode= of its unit",
            path.display()
        ),
    ))
}
