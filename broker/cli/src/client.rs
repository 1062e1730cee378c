//! Asks the daemon over root's own socket.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    time::Duration,
};

use kai_program::config::ConfigError;
use kai_proto::{
    admin_broker::{Reply, Request},
    connection::{Client, ConnectionError},
    gateway_broker::Refusal,
    hello::AdminHello,
    sockets,
};

/// How long the daemon may take over one answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a command cannot do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The audit logs cannot be shown.
    #[error(transparent)]
    Audit(#[from] crate::audit::AuditError),
    /// Nothing can be probed.
    #[error(transparent)]
    Probe(#[from] crate::probe::ProbeError),
    /// There is no login.
    #[error(transparent)]
    Login(#[from] crate::login::LoginError),
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Only root can traverse the directory of the socket.
    #[error("only root may ask the broker; run it with sudo")]
    NotRoot,
    /// Nobody listens.
    #[error("cannot reach kai-brokerd at {0}: {1}; is it running?")]
    Unreachable(String, io::Error),
    /// The connection broke.
    #[error("kai-brokerd: {0}")]
    Connection(#[from] ConnectionError),
    /// The daemon refused.
    #[error("kai-brokerd: {0}")]
    Refused(Refusal),
    /// The daemon kept the old table of users.
    #[error("kept the old users.yaml in force: {0}")]
    ReloadRefused(String),
    /// The daemon answered something else.
    #[error("kai-brokerd answered what was not asked; install kai's programs together")]
    Unexpected,
    /// `--watch` needs a screen.
    #[error("--watch needs a terminal; use --json for machines")]
    NoTerminal,
    /// The answer could not be written.
    #[error("cannot write the answer: {0}")]
    Print(io::Error),
    /// The answer could not be put into JSON.
    #[error("cannot write the answer: {0}")]
    Json(#[from] serde_json::Error),
}

impl AsFd for Broker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A greeted connection to the daemon.
#[derive(Debug)]
pub struct Broker(Client);

impl Broker {
    /// Connects and says Hello.
    ///
    /// # Errors
    /// One sentence that says how to mend it.
    pub fn connect(run: &Path) -> Result<Self, ClientError> {
        let socket = sockets::admin_broker(run);
        let client = Client::connect(&socket, PATIENCE).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => ClientError::NotRoot,
            _ => ClientError::Unreachable(socket.display().to_string(), error),
        })?;
        let mut broker = Self(client);
        match broker.ask(Request::Hello(AdminHello::of(kai_program::admin::acting())))? {
            Reply::Hello(hello) if hello.matches() => Ok(broker),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Sends a request and gives the first reply.
    ///
    /// # Errors
    /// [`ClientError::Refused`] and what the connection answers.
    pub fn ask(&mut self, request: Request) -> Result<Reply, ClientError> {
        self.0.send(&request)?;
        self.next_reply()
    }

    /// The next reply of an answer that has several.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn next_reply(&mut self) -> Result<Reply, ClientError> {
        match self.0.receive()? {
            Reply::Refused(refusal) => Err(ClientError::Refused(refusal)),
            reply => Ok(reply),
        }
    }
}
