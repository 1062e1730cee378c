//! What goes to a user's home: written there by a child that became the user, once the account is there.

use std::{
    io,
    path::{Path, PathBuf},
};

use kai_proto::ids::{AccountName, TelegramId, UserName};

use super::{
    child::write::{Send, into_home},
    progress::Progress,
    rows::Row,
};
use crate::{
    accounts::{Accounts, Person},
    failure::Failure,
    items::{configuration::judge_users, secrets::USERS},
    root::Root,
    settings::{self, Settings},
};

/// The directory in a home.
pub const PLACE: &str = "kai-before";

/// A user here.
#[derive(Debug, Clone)]
pub struct Someone {
    /// Who they are on Telegram.
    pub id: TelegramId,
    /// What they are called.
    pub name: UserName,
    /// Their account.
    pub account: AccountName,
}

/// Something for one user.
pub struct Gift<'a> {
    /// What it is known by when it was brought.
    pub key: String,
    /// What it is.
    pub what: String,
    /// Where it was.
    pub from: PathBuf,
    /// Whose it is.
    pub owner: TelegramId,
    /// Where it goes, below the home.
    pub to: String,
    /// Where that is, if something else is there.
    pub otherwise: Option<String>,
    /// Sends each file of it, and returns what was left out.
    pub feed: Box<Feed<'a>>,
}

/// Sends files, and says what was left out.
pub type Feed<'a> = dyn FnOnce(&mut Send<'_>) -> io::Result<Vec<String>> + std::marker::Send + 'a;

/// The users here: those of users.yaml, or those that it is about to have.
///
/// # Errors
/// If users.yaml has a mistake.
pub fn users(root: &Root) -> Result<Vec<Someone>, Failure> {
    let file = Path::new(settings::DEFAULT);
    let settings = match root.look(file)? {
        Some(_) => Settings::load(&root.shown(file))?,
        None => Settings::default(),
    };
    let Some(text) = root.read_text(USERS.as_ref())? else {
        return Ok(of(&settings));
    };
    let made: Vec<&AccountName> = settings.users.iter().map(|user| &user.os_user).collect();
    Ok(judge_users(root, &text, &made)?
        .iter()
        .map(|user| Someone {
            id: user.entry.id,
            name: user.entry.name.clone(),
            account: user.account.name.clone(),
        })
        .collect())
}

/// The users of these settings.
#[must_use]
pub fn of(settings: &Settings) -> Vec<Someone> {
    settings
        .users
        .iter()
        .map(|user| Someone {
            id: user.telegram_id,
            name: user.name.clone(),
            account: user.os_user.clone(),
        })
        .collect()
}

/// Brings each gift to its user, and notes it.
///
/// # Errors
/// If what was done cannot be written down.
pub fn bring(
    root: &Root,
    users: &[Someone],
    gifts: Vec<Gift<'_>>,
    progress: &mut Progress,
    rows: &mut Vec<Row>,
) -> Result<(), Failure> {
    for gift in gifts {
        if progress.brought.contains(&gift.key) {
            continue;
        }
        let Some(user) = users.iter().find(|user| user.id == gift.owner) else {
            continue;
        };
        match person(root, user)? {
            None => rows.push(waits(&gift, user)),
            Some(person) => {
                let key = gift.key.clone();
                let (row, is_done) = one(root, &person, gift);
                rows.push(row);
                if is_done {
                    progress.brought.insert(key);
                    progress.save(root)?;
                }
            }
        }
    }
    Ok(())
}

/// What would be brought.
///
/// # Errors
/// If the accounts cannot be looked at.
pub fn would_bring(
    root: &Root,
    users: &[Someone],
    gifts: &[Gift<'_>],
    rows: &mut Vec<Row>,
) -> Result<(), Failure> {
    for gift in gifts {
        let Some(user) = users.iter().find(|user| user.id == gift.owner) else {
            continue;
        };
        rows.push(match person(root, user)? {
            None => waits(gift, user),
            Some(person) => {
                let to = person.home.join(&gift.to);
                Row::brought(&gift.what, &gift.from, to.to_string_lossy())
            }
        });
    }
    Ok(())
}

fn waits(gift: &Gift<'_>, user: &Someone) -> Row {
    let until = format!(
        "the account {} is not there yet: run kai-install apply, and then this again",
        user.account
    );
    Row::waits(&gift.what, &gift.from, until)
}

/// The account of the user, if it is there and may host an agent.
fn person(root: &Root, user: &Someone) -> Result<Option<Person>, Failure> {
    let accounts = Accounts::of(root);
    let name = user.account.as_str();
    if !accounts.can_host(&user.account).unwrap_or(false) {
        return Ok(None);
    }
    // An account without its home is one that is being made; another thing in its place is said later.
    Ok(accounts
        .person(name)?
        .filter(|person| !matches!(root.somebody_s(&person.home), Ok(None))))
}

fn one(root: &Root, person: &Person, gift: Gift<'_>) -> (Row, bool) {
    let mut left_out = Vec::new();
    let mut cut = None;
    let feed = gift.feed;
    let done = into_home(root, person, |send| match feed(send) {
        Ok(named) => {
            left_out = named;
            Ok(())
        }
        Err(error) => {
            cut = Some(error.to_string());
            Err(error)
        }
    });
    let there = |path: &str| person.home.join(path).display().to_string();
    let done = match (done, cut) {
        (Err(problem), _) | (Ok(_), Some(problem)) => {
            let why = format!(
                "is not in {}: {problem}; mend it, and run this again",
                there(&gift.to)
            );
            return (Row::look(gift.what, &gift.from, why), false);
        }
        (Ok(done), None) => done,
    };
    if !done.in_the_way.is_empty() {
        let names: Vec<String> = done.in_the_way.iter().map(|name| there(name)).collect();
        let why = format!(
            "something else is in the place of {}; move it away, and run this again",
            names.join(", ")
        );
        return (Row::look(gift.what, &gift.from, why), false);
    }
    let place = match &gift.otherwise {
        Some(otherwise) if done.otherwise > 0 => {
            format!("{}, for there is another {}", there(otherwise), gift.to)
        }
        _ => there(&gift.to),
    };
    let place = match left_out.is_empty() {
        true => place,
        false => format!("{place}, but for what is kept: {}", left_out.join(", ")),
    };
    (Row::brought(gift.what, &gift.from, place), true)
}
