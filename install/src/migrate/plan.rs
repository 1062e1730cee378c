//! What is there, and what shall become of it: read whole before anything is changed.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use kai_proto::ids::{Role, TelegramId};

use super::{
    Migrate,
    env::Env,
    old_service::{kept, moves},
    places::{CODE, DATA, Places, SECRETS, Table, name_the_account},
    progress::Progress,
    rows::Row,
    services,
    taken::Taken,
    users::{self, Old},
    workspaces,
};
use crate::{
    failure::Failure,
    items::configuration::judge_users,
    root::Root,
    settings::{self, Settings},
};

/// What shall be.
pub struct Plan {
    /// How far it has come, which is nowhere: all is still where it was.
    pub progress: Progress,
    /// install.yaml.
    pub settings: Settings,
    /// users.yaml.
    pub users_yaml: String,
    /// kai.yaml, if it says more than the one that apply writes.
    pub kai_yaml: Option<String>,
}

/// Reads all that is there.
///
/// # Errors
/// If nothing is there, or it cannot be told who is meant.
pub fn plan(root: &Root, asked: &Migrate, rows: &mut Vec<Row>) -> Result<Plan, Failure> {
    let places = Places::open(root, asked)?;
    let moves = moves(root, &asked.unit)?;
    let kept = |path: &Path| kept(&moves, path);
    let mut env = Env::default();
    let env_files = places.env(root, asked, &mut env, rows)?;
    let table = match places.one("users.yaml", rows).transpose() {
        Ok(table) => table,
        // Who is meant stands nowhere else.
        Err((path, refused)) => {
            let path = root.shown(&path);
            return Err(Failure::Migrate(format!(
                "{}: {refused}; put what is meant in its place",
                path.display()
            )));
        }
    };
    let data = places.data(root, asked)?;
    let database = places.database(data.as_ref());
    if env_files == 0 && table.is_none() && database.is_none() {
        return Err(Failure::Migrate(format!(
            "there is no Python kai in {SECRETS}, {CODE} or {DATA}; name its checkout with --from DIR, its .env \
             with --env FILE and its data with --data DIR"
        )));
    }
    let taken = Taken::of(&env, &kept, rows);
    let mut settings = there_already(root)?;
    settings.token = taken.token.clone().or(settings.token);
    settings.base_url = settings.base_url.or(taken.base_url.clone());
    if settings.token.is_none() {
        let why = "is nowhere; give it after this with: kai-install config --token-file FILE";
        rows.push(Row::look("the bot's token", Path::new(SECRETS), why));
    }
    let (file, old) = who(table, taken.allowed.as_ref(), rows)?;
    users::place(
        root,
        &file,
        &old,
        taken.account.as_ref(),
        &mut settings,
        rows,
    )?;
    let second_factor = places.second_factor(&kept, &settings, rows);
    let users_yaml = users::users_yaml(&settings, &old, &taken.for_everybody, second_factor);
    let made: Vec<_> = settings.users.iter().map(|user| &user.os_user).collect();
    // What is written is what the broker takes.
    judge_users(root, &users_yaml, &made)?;
    Settings::parse(settings::DEFAULT.as_ref(), &settings.render())?;
    match places.one("services.yaml", rows) {
        Some(Ok((path, text))) => services::name(&path, &text, &kept(&path), rows),
        Some(Err((path, refused))) => {
            rows.push(Row::kept(
                "services",
                &path,
                &refused.to_string(),
                &kept(&path),
            ));
        }
        None => {}
    }
    match places.one("workspaces.yaml", rows) {
        Some(Ok((path, text))) => workspaces::name(&path, &text, &kept(&path), rows),
        Some(Err((path, refused))) => {
            rows.push(Row::kept(
                "workspaces",
                &path,
                &refused.to_string(),
                &kept(&path),
            ));
        }
        None => {}
    }
    places.others(&kept, rows);
    name_the_account(root, data.as_ref(), &settings, rows)?;
    for place in &places.0 {
        if kept(&place.path) == place.path {
            let why = "stays where it is, with what secrets it holds";
            rows.push(Row::look("directory", &place.path, why));
        }
    }
    let (memory, is_memory_elsewhere) = places.memory(root, data.as_ref(), &env);
    let allowed = taken.allowed.iter().flat_map(|(_, ids)| ids);
    let users: BTreeSet<i64> = old
        .iter()
        .map(|user| &user.id)
        .chain(allowed)
        .map(|id| i64::from(*id))
        .collect();
    let is_memory_one_s = users.len() == 1
        && data.as_ref().is_none_or(|data| {
            let chats = data.names("history".as_ref());
            chats.is_ok_and(|(names, more)| {
                let is_theirs = |name: &String| name.parse().is_ok_and(|id| users.contains(&id));
                !more && names.iter().all(is_theirs)
            })
        });
    let progress = Progress {
        unit: asked.unit.clone(),
        data: data.map(|data| data.path),
        memory,
        is_memory_elsewhere,
        database,
        users,
        is_memory_one_s,
        admins: old
            .iter()
            .filter(|user| user.role == Role::Admin)
            .map(|user| i64::from(user.id))
            .collect(),
        moves,
        ..Progress::default()
    };
    Ok(Plan {
        kai_yaml: taken.kai_yaml(&settings),
        progress,
        settings,
        users_yaml,
    })
}

/// What `config` has written, if it was run before.
fn there_already(root: &Root) -> Result<Settings, Failure> {
    let file = Path::new(settings::DEFAULT);
    match root.look(file) {
        Ok(Some(_)) => Settings::load(&root.shown(file)),
        // A directory that is not root's holds nothing that was written by it.
        Ok(None) | Err(Failure::ForeignDirectory { .. }) => Ok(Settings::default()),
        Err(problem) => Err(problem),
    }
}

/// Who used the old one, and which file says so.
fn who(
    table: Option<Table>,
    allowed: Option<&(PathBuf, Vec<TelegramId>)>,
    rows: &mut Vec<Row>,
) -> Result<(PathBuf, Vec<Old>), Failure> {
    let Some((file, text)) = table else {
        return Ok(match allowed {
            Some((file, ids)) => (file.clone(), users::of_ids(ids)),
            None => (SECRETS.into(), Vec::new()),
        });
    };
    let old = users::parse(&file, &text, rows)?;
    let Some((_, allowed)) = allowed else {
        return Ok((file, old));
    };
    let is_user = |id: &&TelegramId| old.iter().any(|user| user.id == **id);
    for id in allowed.iter().filter(|id| !is_user(id)) {
        let why = "is allowed to write, and no user; see: kai-install user add --help";
        rows.push(Row::look(format!("user {id}"), &file, why));
    }
    for user in old.iter().filter(|user| !allowed.contains(&user.id)) {
        let why = "is a user, and not in ALLOWED_USER_IDS; see: kai-install user remove --help";
        rows.push(Row::look(format!("user {}", user.id), &file, why));
    }
    Ok((file, old))
}
