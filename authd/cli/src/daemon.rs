//! Asks authd over root's own socket.

use std::{io, path::Path, time::Duration};

use kai_proto::{
    admin_authd::{Reply, Request},
    connection::{Client, ConnectionError},
    hello::AdminHello,
    sockets,
};

use crate::failure::Failure;

/// The daemon's name, for errors.
pub const NAME: &str = "kai-authd";

/// How long a daemon may take over one answer.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A greeted connection to authd.
#[derive(Debug)]
pub struct Authd(Client);

impl Authd {
    /// Connects and says Hello, for the admin behind sudo(8).
    ///
    /// # Errors
    /// [`Failure`], of reaching the daemon.
    pub fn connect(run: &Path) -> Result<Self, Failure> {
        let client = reach(NAME, &sockets::admin_authd(run))?;
        let mut authd = Self(client);
        let admin = kai_program::admin::acting();
        match authd.ask(&Request::Hello(AdminHello::of(admin)))? {
            Reply::Hello(hello) if hello.matches() => Ok(authd),
            _ => Err(Failure::Unexpected(NAME)),
        }
    }

    /// Sends a request and gives the first reply.
    ///
    /// # Errors
    /// [`Failure::Refused`], and what the connection answers.
    pub fn ask(&mut self, request: &Request) -> Result<Reply, Failure> {
        self.0.send(request).map_err(broken)?;
        self.next_reply()
    }

    /// The next reply of an answer that has several.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn next_reply(&mut self) -> Result<Reply, Failure> {
        match self.0.receive().map_err(broken)? {
            Reply::Refused(refusal) => Err(Failure::refused(NAME, refusal)),
            reply => Ok(reply),
        }
    }
}

fn broken(error: ConnectionError) -> Failure {
    Failure::Connection(NAME, error)
}

/// Connects to `daemon` at `socket`.
///
/// # Errors
/// [`Failure::NotRoot`] or [`Failure::Unreachable`].
pub fn reach(daemon: &'static str, socket: &Path) -> Result<Client, Failure> {
    Client::connect(socket, PATIENCE).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => Failure::NotRoot,
        _ => Failure::Unreachable {
            daemon,
            socket: socket.display().to_string(),
            error,
        },
    })
}
