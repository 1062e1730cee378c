//! The users of the Python kai: what install.yaml and users.yaml here say of them. Nobody is given an
//! account of a person's that the old table did not name.

use std::path::Path;

use kai_program::yaml::{Document, Map, Mistake, Node};
use kai_proto::ids::{AccountName, ModelName, Role, TelegramId, UserName};

use super::{rows::Row, taken::budget};
use crate::{
    accounts::Accounts,
    failure::Failure,
    root::Root,
    settings::{Settings, User, quoted},
};

/// Keys without effect here, which users.yaml may have all the same.
const WITHOUT_EFFECT: [&str; 3] = ["github", "home_workspace", "context_window"];

/// One user as the old table has them.
pub struct Old {
    /// Who they are on Telegram.
    pub id: TelegramId,
    /// What they are.
    pub role: Role,
    name: String,
    os_user: Option<String>,
    /// Further keys of users.yaml, and their values as YAML.
    further: Vec<(&'static str, String)>,
}

/// The users that `text`, that of the users.yaml `file`, lists.
///
/// # Errors
/// The first mistake that leaves unclear who is meant.
pub fn parse(file: &Path, text: &str, rows: &mut Vec<Row>) -> Result<Vec<Old>, Mistake> {
    let mut root = Document::parse(file, text)?.into_map()?;
    let mut users: Vec<Old> = Vec::new();
    for node in root.required("users")?.into_list()? {
        let user = one(file, node.into_map()?, rows)?;
        if users.iter().any(|known| known.id == user.id) {
            let why = "is listed twice: the first entry is taken";
            rows.push(Row::look(format!("user {}", user.id), file, why));
            continue;
        }
        users.push(user);
    }
    Ok(users)
}

/// The users that nothing but a list of ids names.
pub fn of_ids(ids: &[TelegramId]) -> Vec<Old> {
    let mut users: Vec<Old> = Vec::new();
    for id in ids {
        if users.iter().all(|known| known.id != *id) {
            users.push(Old {
                id: *id,
                role: Role::User,
                name: format!("user-{id}"),
                os_user: None,
                further: Vec::new(),
            });
        }
    }
    users
}

fn one(file: &Path, mut map: Map, rows: &mut Vec<Row>) -> Result<Old, Mistake> {
    let id_node = map.required("telegram_id")?;
    let id = id_node.text()?.parse::<i64>().ok();
    let id = id
        .and_then(|id| TelegramId::try_from(id).ok())
        .ok_or_else(|| id_node.mistake("must be a Telegram user id"))?;
    let name = map.required("name")?.text()?.trim().to_owned();
    let mut look = |key: &str, why: &str| {
        let what = format!("{key} of user {id}");
        rows.push(Row::look(what, file, format!("{why}, and was passed over")));
    };
    let role = match map
        .optional("role")
        .map(|node| node.text().map(str::to_owned))
    {
        None => Role::User,
        Some(Ok(role)) if role == "user" => Role::User,
        Some(Ok(role)) if role == "admin" => Role::Admin,
        Some(_) => {
            look("role", "is neither admin nor user");
            Role::User
        }
    };
    let os_user = match map.optional("os_user") {
        Some(node) => Some(node.text()?.to_owned()),
        None => None,
    };
    let mut further = Vec::new();
    let mut take = |map: &mut Map, key: &'static str, value: &dyn Fn(&Node) -> Option<String>| {
        let Some(node) = map.optional(key) else {
            return;
        };
        match value(&node) {
            Some(value) => further.push((key, value)),
            None => look(key, "is no value that it can have here"),
        }
    };
    take(&mut map, "model", &|node| {
        let model = ModelName::try_from(node.text().ok()?.to_owned()).ok()?;
        Some(quoted(model.as_str()))
    });
    take(&mut map, "max_budget", &|node| budget(node.text().ok()?));
    take(&mut map, "timeout", &|node| {
        node.number(1..=600).ok().map(|n| n.to_string())
    });
    for key in WITHOUT_EFFECT {
        take(&mut map, key, &|node| node.text().ok().map(quoted));
    }
    for key in map.keys() {
        look(key, "is not a key that is known here");
    }
    Ok(Old {
        id,
        role,
        name,
        os_user,
        further,
    })
}

/// Puts the users into the settings, each under an account, and says of each what becomes of them.
///
/// # Errors
/// If the accounts of the tree cannot be looked at.
pub fn place(
    root: &Root,
    file: &Path,
    old: &[Old],
    account: Option<&AccountName>,
    settings: &mut Settings,
    rows: &mut Vec<Row>,
) -> Result<(), Failure> {
    // One account for all of them would be one agent for all.
    let account = account.filter(|_| old.len() == 1).map(AccountName::as_str);
    for user in old {
        let what = format!("user {} ({})", user.name, user.id);
        if settings
            .users
            .iter()
            .any(|known| known.telegram_id == user.id)
        {
            rows.push(Row::brought(what, file, "is in install.yaml already"));
            continue;
        }
        let named = user.os_user.as_deref().or(account);
        match new(root, user, named, settings)? {
            Ok(user) => {
                let to = match user.create {
                    true => "an account that apply makes, closed to people",
                    false => "an account that is there",
                };
                let to = format!("/etc/kai/users.yaml, as {}, {to}", user.os_user);
                rows.push(Row::brought(what, file, to));
                settings.users.push(user);
            }
            Err(why) => {
                let to = format!(
                    "is not brought over: {why}; see: kai-install user add --help, and run this again after it"
                );
                rows.push(Row::look(what, file, to));
            }
        }
    }
    Ok(())
}

/// The user as install.yaml has them, or why they cannot be.
fn new(
    root: &Root,
    old: &Old,
    named: Option<&str>,
    settings: &Settings,
) -> Result<Result<User, String>, Failure> {
    let Ok(name) = UserName::try_from(old.name.clone()) else {
        return Ok(Err("the name is none that a user can have".to_owned()));
    };
    if settings.users.iter().any(|known| known.name == name) {
        return Ok(Err("another user has the same name".to_owned()));
    }
    let accounts = Accounts::of(root);
    let is_taken = |account: &AccountName| {
        settings.users.iter().any(|known| known.os_user == *account)
            || settings.admins.contains(account)
    };
    // A group of that name would be what the account is made into.
    let is_free = |account: &AccountName| -> Result<bool, Failure> {
        let name = account.as_str();
        Ok(!is_taken(account)
            && accounts.person(name)?.is_none()
            && accounts.group(name)?.is_none()
            && root.look(&Path::new("/home").join(name))?.is_none())
    };
    let os_user = match named {
        Some(named) => {
            let Ok(account) = AccountName::try_from(named.to_owned()) else {
                return Ok(Err("os_user is no account's name".to_owned()));
            };
            if is_taken(&account) {
                return Ok(Err(format!("{account} is the account of somebody else")));
            }
            if let Err(why) = accounts.can_host(&account) {
                return Ok(Err(format!("os_user {why}")));
            }
            let is_there = accounts.person(account.as_str())?.is_some();
            if !is_there && accounts.group(account.as_str())?.is_some() {
                return Ok(Err(format!("there is a group {account}, but no account")));
            }
            account
        }
        None => {
            let slug = slug(&old.name);
            let mut free = None;
            for candidate in [
                slug.clone(),
                format!("kai-{slug}"),
                format!("kai-{}", old.id),
            ] {
                if let Ok(account) = AccountName::try_from(candidate)
                    && is_free(&account)?
                {
                    free = Some(account);
                    break;
                }
            }
            match free {
                Some(account) => account,
                None => return Ok(Err("there is no os_user".to_owned())),
            }
        }
    };
    Ok(Ok(User {
        telegram_id: old.id,
        name,
        create: accounts.is_kai_s_to_make(&os_user)?,
        os_user,
        role: old.role,
        uid: None,
    }))
}

/// The name as an account could have it.
fn slug(name: &str) -> String {
    let words = name.to_ascii_lowercase();
    let words = words.split(|c: char| !c.is_ascii_alphanumeric());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    words.join("-").chars().take(28).collect()
}

/// The users.yaml of these settings, with what the old table and the environment say beside.
#[must_use]
pub fn users_yaml(
    settings: &Settings,
    old: &[Old],
    for_everybody: &[(&'static str, String)],
    second_factor: bool,
) -> String {
    let mut text = String::from(
        "# Who has an agent, and under which account; every key is in kai's README.\n\
         # After a change: kai-broker reload\n",
    );
    if second_factor {
        text.push_str(
            "# As before: nobody's agent runs before they are enrolled: kai-auth enroll NAME\n",
        );
        text.push_str("second_factor: required\n");
    }
    text.push_str(if settings.users.is_empty() {
        "users: []\n"
    } else {
        "users:\n"
    });
    for user in &settings.users {
        text.push_str(&user.entry());
        let Some(old) = old.iter().find(|old| old.id == user.telegram_id) else {
            continue;
        };
        let has = |key: &str| old.further.iter().any(|(own, _)| *own == key);
        let general = for_everybody.iter().filter(|(key, _)| !has(key));
        for (key, value) in old.further.iter().chain(general) {
            text.push_str(&format!("    {key}: {value}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_value_cannot_be_here_is_named_and_the_user_stays() {
        let mut rows = Vec::new();
        let users = parse(
            Path::new("/etc/kai/users.yaml"),
            "users:\n- {telegram_id: '11', name: Alice B., role: boss, model: --hunter2, timeout: 9000, \
             max_budget: 2.50, github: a, telegram_name: hunter2}\n- {telegram_id: 11, name: again}\n",
            &mut rows,
        )
        .unwrap();

        let said = serde_json::to_string(&rows).unwrap();
        assert_eq!((users.len(), rows.len()), (1, 5), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
        assert_eq!(
            users[0].further,
            [
                ("max_budget", "2.5".to_owned()),
                ("github", "\"a\"".to_owned())
            ]
        );
        assert_eq!(slug(&users[0].name), "alice-b");
    }

    #[test]
    fn an_entry_that_names_nobody_is_a_mistake_with_its_line() {
        for (text, said) in [
            (
                "users:\n- {name: a}",
                ":2: `users[0]` lacks the key `telegram_id`",
            ),
            (
                "users:\n- {telegram_id: hunter2, name: a}",
                ":2: `users[0].telegram_id` must be",
            ),
            ("people: []", "lacks the key `users`"),
        ] {
            let mistake = parse(Path::new("/u.yaml"), text, &mut Vec::new())
                .err()
                .unwrap();
            let mistake = mistake.to_string();
            assert!(mistake.contains(said), "{mistake}");
            assert!(!mistake.contains("hunter2"), "{mistake}");
        }
    }
}
