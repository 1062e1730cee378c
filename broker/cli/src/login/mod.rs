//! `kai-broker login`: runs the agent's own login for one user, in that user's walls, on this terminal.
//!
//! kai-brokerd starts it as it starts every worker, and gives the master of a fresh terminal away. As root this
//! command checks its own terminal, asks, and takes that descriptor; it becomes the admin behind sudo(8), for
//! good, before it reads the first byte of what the agent writes.
//!
//! - [`admin`]: whom the command becomes;
//! - [`terminal`]: the admin's terminal, raw and as it was;
//! - [`copy`]: the bytes, both ways;
//! - [`filter`]: what of the agent's output reaches the admin's terminal.

pub mod admin;
pub mod copy;
pub mod filter;
pub mod terminal;

use std::{
    fs::File,
    io::{self, Write},
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    process::ExitCode,
};

use clap::Args;
use kai_program::{
    config::{Config, ConfigError},
    json::printable,
};
use kai_proto::{
    admin_broker::{LoginEnd, Reply, Request, TERMINAL},
    ids::UserName,
};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::client::{Broker, ClientError};
use admin::Admin;
use copy::Over;
use terminal::Terminal;

/// What a shell adds to the number of the signal that ended a program.
const BY_SIGNAL: i32 = 128;

/// `kai-broker login`.
#[derive(Debug, Args)]
pub struct Login {
    /// The user, as in users.yaml.
    name: String,
}

/// Why there is no login. One sentence each.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// Not root.
    #[error("only root can start a worker; use: sudo kai-broker login NAME")]
    NotRoot,
    /// Nobody to type.
    #[error(
        "a login is typed: it needs a terminal as its input and output (over ssh: ssh -t HOST sudo kai-broker \
         login NAME)"
    )]
    NoTerminal,
    /// The terminal cannot be used.
    #[error("this terminal cannot be used: {0}")]
    Terminal(io::Error),
    /// It is nobody's name.
    #[error("`{0}` is no name of a user; `kai-broker status` shows them")]
    Name(String),
    /// kai.yaml.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The daemon did not answer, or refused.
    #[error(transparent)]
    Broker(Box<ClientError>),
    /// The daemon says why there is none.
    #[error("{0}")]
    Refused(String),
    /// The terminal of the login did not come along.
    #[error("kai-brokerd gave no terminal: {0}; install kai's programs together")]
    NotGiven(io::Error),
    /// Root could not be given up.
    #[error(transparent)]
    Admin(#[from] admin::NotBecome),
    /// The copying failed.
    #[error("the login cannot go on: {0}")]
    Copy(io::Error),
    /// What it ended by, other than by itself.
    #[error("{0}")]
    Ended(&'static str),
}

impl From<ClientError> for LoginError {
    fn from(error: ClientError) -> Self {
        Self::Broker(Box::new(error))
    }
}

/// Logs in; the status is the login's.
///
/// # Errors
/// [`LoginError`].
pub fn run(file: &Path, asked: &Login) -> Result<ExitCode, LoginError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(LoginError::NotRoot);
    }
    let name: String = asked.name.chars().map(printable).collect();
    let user =
        UserName::try_from(asked.name.clone()).map_err(|_| LoginError::Name(name.clone()))?;
    let terminal = Terminal::of_this_command()?;
    let admin = Admin::behind_sudo()?;
    let mut broker = Broker::connect(&Config::load(file)?.paths.run)?;
    match broker.ask(Request::Login(user))? {
        Reply::LoginBegins => {}
        Reply::LoginRefused(why) => return Err(LoginError::Refused(why)),
        _ => return Err(ClientError::Unexpected.into()),
    }
    let master = receive_terminal(&broker).map_err(LoginError::NotGiven)?;
    // Nothing was read from it yet.
    admin.irrevocably_become()?;
    tell(&format!(
        "What follows is written by {name}'s agent, not by this host: give it the login's code and nothing \
         else.\nCtrl-] three times ends it."
    ));
    let over = {
        // Whatever characters the terminal is set to.
        let ascii = name.replace(|c: char| !c.is_ascii(), "?");
        let title = format!("kai-broker login {ascii}");
        let raw = terminal.make_raw(&title).map_err(LoginError::Terminal)?;
        copy::copy(&raw, &File::from(master), &mut broker)
    };
    said(&name, over?)
}

/// Not eprintln: the terminal may be gone, and that is no reason to panic.
fn tell(words: &str) {
    let _ = writeln!(io::stderr(), "{words}");
}

/// The byte behind the daemon's answer, with the descriptor that comes along.
fn receive_terminal(broker: &Broker) -> io::Result<OwnedFd> {
    let mut byte = [0; 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [io::IoSliceMut::new(&mut byte)];
    let received = recvmsg(
        broker.as_fd(),
        &mut slices,
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let descriptor = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    match descriptor {
        Some(master) if received.bytes == 1 && byte == [TERMINAL] => Ok(master),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// What the admin is told of the end, and the status.
fn said(name: &str, over: Over) -> Result<ExitCode, LoginError> {
    let status = match over {
        Over::Ended { status, why } => match why {
            LoginEnd::ByItself | LoginEnd::HungUp if status < 0 => BY_SIGNAL - status,
            LoginEnd::ByItself | LoginEnd::HungUp => status,
            LoginEnd::TooLong => {
                return Err(LoginError::Ended(
                    "the login took longer than half an hour and was ended; begin it anew",
                ));
            }
            LoginEnd::UserChanged => {
                return Err(LoginError::Ended(
                    "the login was ended: its user was changed in users.yaml; begin it anew",
                ));
            }
            LoginEnd::NotRecorded => {
                return Err(LoginError::Ended(
                    "the login was ended: the audit log cannot be written; the broker's log says why",
                ));
            }
            LoginEnd::Stopping => {
                return Err(LoginError::Ended(
                    "the login was ended: kai-brokerd stops; begin it anew when it runs",
                ));
            }
        },
        Over::Refused(why) => return Err(LoginError::Refused(why)),
        Over::BrokerGone => {
            return Err(LoginError::Ended(
                "the login was ended: kai-brokerd is gone; begin it anew when it runs",
            ));
        }
        Over::LeftByKeys => {
            tell(&format!("kai-broker: {name}'s login was ended by Ctrl-]"));
            return Ok(ExitCode::FAILURE);
        }
        Over::HungUp => BY_SIGNAL + nix::libc::SIGHUP,
        Over::Signal(signal) => BY_SIGNAL + signal,
    };
    if status != 0 {
        tell(&format!(
            "kai-broker: {name}'s login ended with status {status}"
        ));
    }
    Ok(ExitCode::from(u8::try_from(status).unwrap_or(1)))
}
