//! `kai-auth enroll`: a new secret, shown once, that takes effect with a first code of it.
//!
//! The daemon makes the secret and keeps it in memory until the code comes on this very connection: if
//! this command ends before, by Ctrl-C or with its terminal, nothing has changed.

use kai_program::config::Config;
use kai_proto::{
    admin_authd::{NotDone, Reply, Request, Secret, User},
    code::{RecoveryCode, TotpCode},
    ids::UserName,
};
use zeroize::Zeroizing;

use crate::{
    Enroll,
    daemon::{self, Authd},
    failure::Failure,
    qr, terminal, uri, user,
};

/// How often somebody at a terminal is asked for the code.
const TRIES: usize = 5;

/// Enrolls a user.
///
/// # Errors
/// [`Failure`]; nothing has changed then, but for [`Failure::CodesLost`].
pub fn enroll(config: &Config, what: &Enroll) -> Result<(), Failure> {
    // What is shown here stays out of cores, and out of reach of debuggers that are not root's.
    let _ = nix::sys::prctl::set_dumpable(false);
    let name = &what.name;
    let id = match what.telegram_id {
        Some(id) => id,
        None => user::telegram_id(&config.paths.run, name)?,
    };
    let user = User {
        name: name.clone(),
        id,
    };
    let mut authd = Authd::connect(&config.paths.run)?;
    let request = Request::Enrol {
        user: user.clone(),
        replace: what.replace,
    };
    let secret = match authd.ask(&request)? {
        Reply::Secret(secret) => secret,
        Reply::NotDone(why) => return Err(Failure::NotDone(name.clone(), why)),
        _ => return Err(Failure::Unexpected(daemon::NAME)),
    };
    present(&secret, &user, what.no_qr)?;
    drop(secret);
    let codes = confirm(&mut authd, name)?;
    hand_over(&codes, name).map_err(|error| Failure::CodesLost(name.clone(), error))
}

fn present(secret: &Secret, user: &User, no_qr: bool) -> Result<(), Failure> {
    let host = nix::unistd::gethostname().unwrap_or_default();
    let uri = uri::otpauth(secret, user.name.as_str(), &host.to_string_lossy());
    terminal::show(&format!(
        "A second factor for {}, Telegram id {}. Nothing changes before a code confirms it.\n\n",
        user.name, user.id
    ))?;
    let drawn = match terminal::columns() {
        Some(columns) if !no_qr => match qr::draw(&uri, columns) {
            Some(drawn) => {
                terminal::show(&drawn)?;
                true
            }
            None => {
                terminal::show("The terminal is too narrow for the QR code.\n")?;
                false
            }
        },
        _ => false,
    };
    terminal::show(if drawn {
        "\nScan it with an authenticator app, or give the app this:\n"
    } else {
        "Give this to an authenticator app:\n"
    })?;
    terminal::show(&uri)?;
    terminal::show("\n\n")
}

/// Asks for a code until one is right; at a terminal more than once.
fn confirm(authd: &mut Authd, name: &UserName) -> Result<Vec<RecoveryCode>, Failure> {
    let asked = terminal::can_be_asked();
    let tries = if asked { TRIES } else { 1 };
    for left in (0..tries).rev() {
        if asked {
            terminal::show("The app's code: ")?;
        }
        let line = terminal::read_line()?.ok_or(Failure::NotConfirmed("no code was given"))?;
        let why = match code(&line) {
            None => "a code has six digits",
            Some(code) => match authd.ask(&Request::Confirm { code })? {
                Reply::Confirmed(codes) => return Ok(codes),
                Reply::NotDone(NotDone::WrongCode) => "the code is wrong; is the clock right?",
                Reply::NotDone(why) => return Err(Failure::NotDone(name.clone(), why)),
                _ => return Err(Failure::Unexpected(daemon::NAME)),
            },
        };
        if left == 0 {
            return Err(Failure::NotConfirmed(why));
        }
        terminal::show(&format!("{why} "))?;
    }
    Err(Failure::NotConfirmed("no code was given"))
}

/// A code as apps show it, which is with a gap in it.
fn code(line: &str) -> Option<TotpCode> {
    let mut digits = Zeroizing::new([0; 6]);
    let mut at = 0;
    for byte in line.bytes().filter(|byte| !byte.is_ascii_whitespace()) {
        *digits.get_mut(at)? = byte;
        at += 1;
    }
    if at < digits.len() {
        return None;
    }
    TotpCode::try_from(*digits).ok()
}

fn hand_over(codes: &[RecoveryCode], name: &UserName) -> std::io::Result<()> {
    terminal::write(&format!(
        "\n{name} is enrolled.\n\nRecovery codes, each good once where a code of the app is asked for:\n\n"
    ))?;
    for code in codes {
        terminal::write("  ")?;
        terminal::write(&code.spell())?;
        terminal::write("\n")?;
    }
    terminal::write(
        "\nThey are shown this once. Keep them on paper or in a password manager, away from this host and \
         from the phone.\n",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_may_have_gaps_and_nothing_else() {
        for text in ["123456", " 123 456 ", "123456\r"] {
            assert_eq!(code(text).unwrap().digits(), "123456");
        }
        for text in ["", "12345", "1234567", "12345a", "kai-AAAAA-BBBBB"] {
            assert!(code(text).is_none(), "{text}");
        }
    }
}
