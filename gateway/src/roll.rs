//! The connection on which the broker gives the table of users, at once and after each reload, and on
//! which it is told the numbers of strangers.

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures_util::{SinkExt, StreamExt};
use kai_proto::{
    framed,
    gateway_broker::{Refusal, Reply, Request},
    ids::{TelegramId, UnixSeconds},
};
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use crate::{
    authorise::Roll,
    broker::{self, AttachError},
};

/// The shortest and the longest wait before the broker is tried again.
const WAITS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Somebody who is not in the table.
pub type Stranger = (TelegramId, UnixSeconds);

/// Keeps the connection up for ever and publishes each table that arrives whole. While the broker is
/// away the last one stands.
pub async fn keep(
    socket: PathBuf,
    mut strangers: mpsc::Receiver<Stranger>,
    publish: watch::Sender<Option<Arc<Roll>>>,
) {
    let mut wait = WAITS.0;
    let mut said = false;
    loop {
        let ended = hold(&socket, &mut strangers, &publish, &mut wait, &mut said).await;
        if !said {
            said = true;
            match &ended {
                AttachError::Refused(Refusal::Version) => error!(
                    "the broker is of another version; restart all of kai's programs together"
                ),
                other => warn!("no users from the broker, trying again: {other}"),
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(WAITS.1);
    }
}

/// One connection, from its beginning to its end.
async fn hold(
    socket: &std::path::Path,
    strangers: &mut mpsc::Receiver<Stranger>,
    publish: &watch::Sender<Option<Arc<Roll>>>,
    wait: &mut Duration,
    said: &mut bool,
) -> AttachError {
    let stream = match broker::greet(socket).await {
        Ok(stream) => stream,
        Err(error) => return error,
    };
    let (read, write) = stream.into_split();
    let mut replies = framed::reader::<_, Reply>(read);
    let mut requests = framed::writer::<_, Request>(write);
    if let Err(error) = requests.send(Request::Subscribe).await {
        return AttachError::EndedEarly(error);
    }
    let mut table = Roll::new();
    loop {
        tokio::select! {
            reply = replies.next() => match reply {
                Some(Ok(Reply::User(entry))) => {
                    table.insert(entry.id, entry);
                }
                Some(Ok(Reply::UsersEnd)) => {
                    info!(users = table.len(), "the broker gave the table of users");
                    publish.send_replace(Some(Arc::new(std::mem::take(&mut table))));
                    *wait = WAITS.0;
                    *said = false;
                }
                Some(Ok(Reply::Refused(refusal))) => return AttachError::Refused(refusal),
                Some(Ok(Reply::Hello(_))) => return AttachError::Refused(Refusal::NotPermitted),
                Some(Err(error)) => return AttachError::EndedEarly(error),
                None => {
                    return AttachError::EndedEarly(std::io::ErrorKind::UnexpectedEof.into());
                }
            },
            Some((id, at)) = strangers.recv() => {
                if let Err(error) = requests.send(Request::Stranger { id, at }).await {
                    return AttachError::EndedEarly(error);
                }
            }
        }
    }
}
