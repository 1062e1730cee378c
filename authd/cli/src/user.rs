//! Who a name is on Telegram: users.yaml is the broker's, so the broker is asked.

use std::path::Path;

use kai_proto::{
    admin_broker::{Reply, Request},
    connection::Client,
    hello::AdminHello,
    ids::{TelegramId, UserName},
    sockets,
};

use crate::{daemon, failure::Failure};

const BROKER: &str = "kai-brokerd";

/// The Telegram id of the user `name`, as the broker's table has it.
///
/// # Errors
/// [`Failure::IdUnknown`] if the broker does not answer, [`Failure::NoSuchUser`] if it has no such
/// user.
pub fn telegram_id(run: &Path, name: &UserName) -> Result<TelegramId, Failure> {
    match ask(run, name) {
        Ok(Some(id)) => Ok(id),
        Ok(None) => Err(Failure::NoSuchUser(name.clone())),
        Err(Failure::NotRoot) => Err(Failure::NotRoot),
        Err(why) => Err(Failure::IdUnknown(Box::new(why), name.clone())),
    }
}

fn ask(run: &Path, name: &UserName) -> Result<Option<TelegramId>, Failure> {
    let mut client = daemon::reach(BROKER, &sockets::admin_broker(run))?;
    let hello = Request::Hello(AdminHello::of(kai_program::admin::acting()));
    for request in [hello, Request::Status] {
        let sent = client.send(&request);
        sent.map_err(|error| Failure::Connection(BROKER, error))?;
    }
    match receive(&mut client)? {
        Reply::Hello(hello) if hello.matches() => {}
        _ => return Err(Failure::Unexpected(BROKER)),
    }
    loop {
        match receive(&mut client)? {
            Reply::User(user) if user.name == *name => return Ok(Some(user.id)),
            Reply::Broker(_) | Reply::User(_) => {}
            Reply::StatusEnd => return Ok(None),
            _ => return Err(Failure::Unexpected(BROKER)),
        }
    }
}

fn receive(client: &mut Client) -> Result<Reply, Failure> {
    match client.receive() {
        Ok(Reply::Refused(refusal)) => Err(Failure::Refused(BROKER, refusal.to_string())),
        Ok(reply) => Ok(reply),
        Err(error) => Err(Failure::Connection(BROKER, error)),
    }
}
