//! `kai-auth remove` and `kai-auth unlock`: one request each.

use kai_program::config::Config;
use kai_proto::{
    admin_authd::{Reply, Request},
    ids::UserName,
};

use crate::{
    daemon::{self, Authd},
    failure::Failure,
    terminal,
};

/// Takes the second factor of `name` away.
///
/// # Errors
/// [`Failure`]; nothing has changed then.
pub fn remove(config: &Config, name: UserName) -> Result<(), Failure> {
    done(config, Request::Remove { name: name.clone() }, &name)?;
    terminal::show(&format!(
        "{name} has no second factor any more, and what was proved with it has ended\n"
    ))
}

/// Takes codes of `name` again.
///
/// # Errors
/// [`Failure`]; nothing has changed then.
pub fn unlock(config: &Config, name: UserName) -> Result<(), Failure> {
    done(config, Request::Unlock { name: name.clone() }, &name)?;
    terminal::show(&format!(
        "codes of {name} are taken again, and wrong ones counted from nothing\n"
    ))
}

fn done(config: &Config, request: Request, name: &UserName) -> Result<(), Failure> {
    match Authd::connect(&config.paths.run)?.ask(&request)? {
        Reply::Done => Ok(()),
        Reply::NotDone(why) => Err(Failure::NotDone(name.clone(), why)),
        _ => Err(Failure::Unexpected(daemon::NAME)),
    }
}
