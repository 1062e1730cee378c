//! Attaching to a user's worker through the broker.
//!
//! A connection is opened for each attach. The broker says Hello on it and then gives it away: the
//! next frame is the worker's own Hello, or the broker's refusal, or the end of the connection if the
//! worker that was to have it was just dying.

use std::{io, path::Path, time::Duration};

use kai_proto::{
    conversation::{FromWorker, ToWorker},
    framed::{self, Reader, Writer},
    gateway_broker::{Refusal, Reply, Request},
    grant::Grant,
    hello::Hello,
    ids::TelegramId,
};
use tokio::net::{
    UnixStream,
    unix::{OwnedReadHalf, OwnedWriteHalf},
};

/// How long the broker may take until the worker has said Hello: it may have to end one worker and
/// start another before.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection to a worker, from its Hello on.
#[derive(Debug)]
pub struct Attached {
    /// What the worker says.
    pub events: Reader<OwnedReadHalf, FromWorker>,
    /// What it is told.
    pub requests: Writer<OwnedWriteHalf, ToWorker>,
}

/// Why there is no worker at the other end.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The broker is not there.
    #[error("the broker cannot be reached: {0}")]
    Unreachable(io::Error),
    /// The connection ended, or nothing came, before the worker's Hello.
    #[error("the connection ended before the worker's Hello: {0}")]
    EndedEarly(io::Error),
    /// The broker, or the worker's version, says no.
    #[error("refused: {0}")]
    Refused(Refusal),
}

/// Connects to the broker's `socket`, says Hello and gives back the greeted connection.
///
/// # Errors
/// [`AttachError`].
pub async fn greet(socket: &Path) -> Result<UnixStream, AttachError> {
    let connected = UnixStream::connect(socket).await;
    let mut stream = connected.map_err(AttachError::Unreachable)?;
    // A worker will be at the other end, and its agent is hostile: closing a descriptor of its making
    // could hold all users up.
    kai_proto::peer::refuse_descriptors(&stream);
    let hello = Request::Hello(Hello::ours());
    framed::send_one(&mut stream, &hello)
        .await
        .map_err(AttachError::Unreachable)?;
    match framed::receive_one(&mut stream).await {
        Ok(Reply::Hello(hello)) if hello.matches() => Ok(stream),
        Ok(Reply::Hello(_)) => Err(AttachError::Refused(Refusal::Version)),
        Ok(Reply::Refused(refusal)) => Err(AttachError::Refused(refusal)),
        Ok(_) => Err(AttachError::Refused(Refusal::NotPermitted)),
        Err(error) => Err(AttachError::Unreachable(error)),
    }
}

/// Attaches to the worker of `user`, who proved the second factor with this grant if it takes one.
///
/// # Errors
/// [`AttachError`].
pub async fn attach(
    socket: &Path,
    user: TelegramId,
    grant: Option<Grant>,
) -> Result<Attached, AttachError> {
    let mut stream = greet(socket).await?;
    let attach = Request::Attach { user, grant };
    framed::send_one(&mut stream, &attach)
        .await
        .map_err(AttachError::EndedEarly)?;
    let arrived = tokio::time::timeout(PATIENCE, stream.readable()).await;
    arrived
        .map_err(io::Error::from)
        .and_then(|ready| ready)
        .map_err(AttachError::EndedEarly)?;
    match framed::receive_one(&mut stream).await {
        Ok(FromWorker::Hello(hello)) if hello.matches() => {
            let (read, write) = stream.into_split();
            Ok(Attached {
                events: framed::reader(read),
                requests: framed::writer(write),
            })
        }
        Ok(FromWorker::Hello(_)) => Err(AttachError::Refused(Refusal::Version)),
        Ok(FromWorker::Refused(refusal)) => Err(AttachError::Refused(refusal)),
        Ok(_) => Err(AttachError::Refused(Refusal::NotPermitted)),
        Err(error) => Err(AttachError::EndedEarly(error)),
    }
}
