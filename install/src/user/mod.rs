//! `kai-install user`: adds, removes and lists users. [`text`] changes users.yaml and leaves its comments;
//! what comes out is judged as the broker judges it, before it is written.

pub mod text;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use kai_brokerd::users::{User as Row, Users};
use kai_proto::ids::{AccountName, Role, TelegramId, UserName};
use serde_json::json;

use crate::{
    accounts::Accounts,
    apply::{change, lock, look, only_root},
    desired,
    failure::Failure,
    items::{
        Item,
        configuration::judge_users,
        secrets::{CONFIG, CURRENT, USERS, is_root_s_alone},
    },
    print,
    root::{Access, Root},
    settings::{self, Settings, User, interview::telegram_id, quoted},
    spans::Unusual,
    tools,
};

/// What `user` is told.
#[derive(Debug, Args)]
pub struct Asked {
    /// What is done.
    #[command(subcommand)]
    pub command: Command,
    /// Everything is below this directory, and the broker is not told.
    #[arg(long, global = true, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
}

/// What is done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Adds a user, and has the broker take the new table.
    Add {
        /// What people call them; unless --os-user is given, their account too.
        #[arg(value_parser = name)]
        name: UserName,
        /// Who they are on Telegram.
        #[arg(long, value_name = "ID", value_parser = id)]
        telegram_id: TelegramId,
        /// Their account on this host.
        #[arg(long, value_name = "ACCOUNT", value_parser = account)]
        os_user: Option<AccountName>,
        /// They are told of what concerns everybody.
        #[arg(long)]
        admin: bool,
        /// Make the account if it does not exist, closed to people.
        #[arg(long)]
        create_account: bool,
    },
    /// Removes a user, and has the broker take the new table; their account and files stay.
    Remove {
        /// What people call them.
        #[arg(value_parser = name)]
        name: UserName,
    },
    /// Lists the users.
    List {
        /// As a JSON list.
        #[arg(long)]
        json: bool,
    },
}

fn name(text: &str) -> Result<UserName, String> {
    UserName::try_from(text.to_owned()).map_err(|invalid| invalid.to_string())
}

fn account(text: &str) -> Result<AccountName, String> {
    AccountName::try_from(text.to_owned()).map_err(|invalid| invalid.to_string())
}

fn id(text: &str) -> Result<TelegramId, String> {
    telegram_id(text).ok_or_else(|| "a Telegram user id is a positive number".to_owned())
}

/// Carries `user` out.
///
/// # Errors
/// Why nothing was changed.
pub fn run(asked: &Asked) -> Result<ExitCode, Failure> {
    only_root()?;
    let root = Root::open(&asked.root)?;
    let _lock = lock(&root)?;
    let old = read(&root)?;
    match &asked.command {
        Command::List { json } => list(&judge_users(&root, &old, &[])?, *json)?,
        Command::Add {
            name,
            telegram_id,
            os_user,
            admin,
            create_account,
        } => {
            let os_user = match os_user {
                Some(os_user) => os_user.clone(),
                None => account(name.as_str()).map_err(|problem| Failure::Flag {
                    flag: "os-user",
                    problem: format!("is needed, for the name is no account's: {problem}"),
                })?,
            };
            let create = *create_account && Accounts::of(&root).is_kai_s_to_make(&os_user)?;
            let user = User {
                telegram_id: *telegram_id,
                name: name.clone(),
                os_user,
                role: if *admin { Role::Admin } else { Role::User },
                create,
                uid: None,
            };
            add(&root, &old, user)?;
            print(&format!(
                "added {name}; they write to the bot, and it answers"
            ))?;
        }
        Command::Remove { name } => {
            remove(&root, &old, name)?;
            print(&format!("removed {name}; their account and files are left"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn read(root: &Root) -> Result<String, Failure> {
    is_root_s_alone(root, USERS.as_ref())?;
    root.read_text(USERS.as_ref())?.ok_or_else(|| {
        Failure::Users(format!(
            "{} is not there; kai-install apply makes it",
            root.shown(USERS.as_ref()).display()
        ))
    })
}

fn list(users: &Users, as_json: bool) -> Result<(), Failure> {
    let role = |user: &Row| match user.entry.role {
        Role::Admin => "admin",
        Role::User => "user",
    };
    if as_json {
        let rows: Vec<_> = users
            .iter()
            .map(|user| {
                json!({
                    "name": user.entry.name.as_str(),
                    "telegram_id": i64::from(user.entry.id),
                    "os_user": user.account.name.as_str(),
                    "role": role(user),
                })
            })
            .collect();
        return print(&serde_json::Value::from(rows).to_string());
    }
    for user in users.iter() {
        let (id, account) = (i64::from(user.entry.id), user.account.name.as_str());
        print(&format!(
            "{:<20}  {id:<12}  {account:<20}  {}",
            user.entry.name.as_str(),
            role(user)
        ))?;
    }
    Ok(())
}

fn add(root: &Root, old: &str, user: User) -> Result<(), Failure> {
    let before = judge_users(root, old, &[])?;
    if before.get(user.telegram_id).is_some() {
        // Which is refused below; of a run that was killed the broker may not have been told.
        reload(root)?;
    }
    let mut entry = vec![
        ("telegram_id", i64::from(user.telegram_id).to_string()),
        ("name", quoted(user.name.as_str())),
        ("os_user", user.os_user.to_string()),
    ];
    if user.role == Role::Admin {
        entry.push(("role", "admin".to_owned()));
    }
    let new = text::add(old, &entry).map_err(|why| unusual(root, why))?;
    let made: Vec<&AccountName> = user.create.then_some(&user.os_user).into_iter().collect();
    let after = judge_users(root, &new, &made)?;
    let kept = before.gone_or_changed(&after).is_empty() && after.len() == before.len() + 1;
    if !kept || after.get(user.telegram_id).is_none() {
        return Err(unusual(root, Unusual));
    }
    let mut only = Settings::default();
    only.users.push(user.clone());
    let accounts = desired::accounts(root, &only)?;
    // An account that cannot be used is refused before anything is written.
    look(root, &accounts)?;
    note(root, |settings| {
        // Whoever is in it and in the table no more was taken out of that by hand.
        settings.users.retain(|known| {
            known.os_user != user.os_user
                && known.name != user.name
                && known.telegram_id != user.telegram_id
        });
        settings.users.push(user.clone());
    })?;
    bring_about_accounts(root, &only)?;
    put(root, old, &new)
}

fn remove(root: &Root, old: &str, name: &UserName) -> Result<(), Failure> {
    let before = judge_users(root, old, &[])?;
    let at = before.iter().position(|user| user.entry.name == *name);
    // The table first: whoever shall be gone is gone, whatever comes next.
    if let Some(at) = at {
        let new = text::take_out(old, at).map_err(|why| unusual(root, why))?;
        let after = judge_users(root, &new, &[])?;
        let gone = before.gone_or_changed(&after);
        let is_it =
            matches!(gone[..], [id] if before.get(id).is_some_and(|user| user.entry.name == *name));
        if !is_it || after.len() + 1 != before.len() {
            return Err(unusual(root, Unusual));
        }
        put(root, old, &new)?;
    } else {
        // Of a run that was killed the broker may not have been told.
        reload(root)?;
    }
    let mut noted = None;
    note(root, |settings| {
        let at = settings.users.iter().position(|user| user.name == *name);
        noted = at.map(|at| settings.users.remove(at));
    })?;
    // In install.yaml alone is who was taken from the table by a run that was killed.
    if at.is_none() && noted.is_none() {
        return Err(Failure::Users(format!(
            "there is no user {name}; see: kai-install user list"
        )));
    }
    // The account stays closed by having expired; what names it beside that goes with the user.
    if let Some(user) = noted.filter(|user| user.create) {
        for line in desired::denied(&user.os_user) {
            line.take_away(root)?;
        }
        bring_about_accounts(root, &Settings::default())?;
    }
    Ok(())
}

/// The accounts of all users, and the files that name them; where there is no install.yaml, those of `only`.
fn bring_about_accounts(root: &Root, only: &Settings) -> Result<(), Failure> {
    let settings = match root.look(settings::DEFAULT.as_ref())? {
        Some(_) => Settings::load(&root.shown(settings::DEFAULT.as_ref()))?,
        None => only.clone(),
    };
    let accounts = desired::accounts(root, &settings)?;
    let standings = look(root, &accounts)?;
    change(root, &accounts, &standings).map(drop)
}

fn unusual(root: &Root, why: Unusual) -> Failure {
    Failure::Users(format!(
        "{} {why}; change it by hand, then: kai-broker reload",
        root.shown(USERS.as_ref()).display()
    ))
}

/// Changes install.yaml, if there is one.
fn note(root: &Root, with: impl FnOnce(&mut Settings)) -> Result<(), Failure> {
    let path = Path::new(settings::DEFAULT);
    let Some(found) = root.look(path)? else {
        return Ok(());
    };
    let mut settings = Settings::load(&root.shown(path))?;
    let before = settings.clone();
    with(&mut settings);
    if settings == before {
        return Ok(());
    }
    let text = settings.render();
    // What cannot be read again would stand against every later command.
    Settings::parse(path, &text)?;
    root.write(path, &mut text.as_bytes(), found.access)
}

/// Writes the table, and has the broker take it; if it does not, the old one is back.
fn put(root: &Root, old: &str, new: &str) -> Result<(), Failure> {
    let write = |text: &str| root.write(USERS.as_ref(), &mut text.as_bytes(), Access::root(0o600));
    write(new)?;
    reload(root).or_else(|problem| {
        write(old)?;
        Err(Failure::Users(format!(
            "the broker does not take the new table, and the old one is back: {problem}"
        )))
    })
}

/// Has the broker take the table, if one runs.
fn reload(root: &Root) -> Result<(), Failure> {
    let broker = Path::new(CURRENT).join("kai-broker");
    let runs = root.is_host()
        && tools::run(
            "systemctl",
            &["is-active", "--quiet", "kai-broker.service"],
            None,
        )
        .is_ok();
    if !runs {
        return Ok(());
    }
    let output = tools::command(&broker)
        .args(["--config", CONFIG, "reload"])
        .output()
        .map_err(|error| Failure::io(&broker, error))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Failure::Users(tools::last_line(&output)))
}
