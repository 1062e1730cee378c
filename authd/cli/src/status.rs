//! `kai-auth status`: the daemon's own word about itself.

use std::{io, path::Path, time::Duration};

use kai_program::config::{Config, ConfigError};
use kai_proto::{
    admin_authd::{AuthdStatus, Refusal, Reply, Request},
    connection::{Client, ConnectionError},
    hello::AdminHello,
    sockets,
};

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The socket is not there or not ours to reach.
    #[error("cannot reach kai-authd at {0}: {1}; run this as root, and start kai-authd")]
    Unreachable(String, io::Error),
    /// The connection broke.
    #[error("kai-authd: {0}")]
    Connection(#[from] ConnectionError),
    /// The daemon refused.
    #[error("kai-authd: {0}")]
    Refused(Refusal),
    /// The daemon answered something else.
    #[error("kai-authd answered what was not asked: install kai's programs together")]
    Unexpected,
}

/// Asks the daemon and puts its answer into lines, or one JSON object.
///
/// # Errors
/// One sentence that says how to mend it.
pub fn show(config: &Path, json: bool) -> Result<String, StatusError> {
    let config = Config::load(config)?;
    let socket = sockets::admin_authd(&config.paths.run);
    let mut client = Client::connect(&socket, Duration::from_secs(5))
        .map_err(|error| StatusError::Unreachable(socket.display().to_string(), error))?;
    client.send(&Request::Hello(
        AdminHello::of(kai_program::admin::acting()),
    ))?;
    client.send(&Request::Status)?;
    match client.receive()? {
        Reply::Hello(_) => {}
        Reply::Refused(refusal) => return Err(StatusError::Refused(refusal)),
        _ => return Err(StatusError::Unexpected),
    }
    match client.receive()? {
        Reply::Status(status) => Ok(if json {
            as_json(&status)
        } else {
            as_lines(&status)
        }),
        Reply::Refused(refusal) => Err(StatusError::Refused(refusal)),
        _ => Err(StatusError::Unexpected),
    }
}

fn as_json(status: &AuthdStatus) -> String {
    serde_json::json!({
        "pid": status.pid,
        "started": status.started,
        "gateway_connections": status.gateway_connections,
        "broker_connected": status.broker_connected,
        "answered": status.answered,
    })
    .to_string()
}

fn as_lines(status: &AuthdStatus) -> String {
    let yes = |connected| {
        if connected {
            "connected"
        } else {
            "not connected"
        }
    };
    format!(
        "kai-authd  running, pid {}\ngateway    {}\nbroker     {}\nanswered   {}",
        status.pid,
        yes(status.gateway_connections > 0),
        yes(status.broker_connected),
        status.answered,
    )
}
