//! What is there, and what shall become of it: read whole before anything is changed.

use std::path::{Path, PathBuf};

use kai_proto::ids::{Role, TelegramId};

use super::{
    Migrate,
    env::{self, Env},
    foreign::Foreign,
    old_service::{kept, moves},
    progress::Progress,
    rows::Row,
    services,
    users::{self, Old},
    workspaces,
};
use crate::{
    failure::Failure,
    items::{configuration::judge_users, secrets::USERS},
    root::Root,
    settings::{self, Settings},
};

/// Where the Python kai has its secrets, its code and its data.
const SECRETS: &str = "/etc/kai";
const CODE: &str = "/opt/kai";
const DATA: &str = "/var/lib/kai";
/// Longest table, in bytes.
const LONGEST: u64 = 1024 * 1024;
/// What of the directory of secrets is dealt with by name.
const NAMED: [&str; 8] = [
    "env",
    "users.yaml",
    "workspaces.yaml",
    "services.yaml",
    "totp.secret",
    "totp.attempts",
    "install.yaml",
    "kai.yaml",
];

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
    let table = places.one("users.yaml", rows);
    let data = places.data(root, asked)?;
    let database = places.database(data.as_ref());
    if env_files == 0 && table.is_none() && database.is_none() {
        return Err(Failure::Migrate(format!(
            "there is no Python kai in {SECRETS}, {CODE} or {DATA}; name its checkout with --from DIR, its .env \
             with --env FILE and its data with --data DIR"
        )));
    }
    let taken = env.take(&kept, rows);
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
    if let Some((path, text)) = places.one("services.yaml", rows) {
        services::name(&path, &text, &kept(&path), rows);
    }
    if let Some((path, text)) = places.one("workspaces.yaml", rows) {
        workspaces::name(&path, &text, &kept(&path), rows);
    }
    places.others(&kept, rows);
    for place in &places.0 {
        if kept(&place.path) == place.path {
            let why = "stays where it is, with what secrets it holds";
            rows.push(Row::look("directory", &place.path, why));
        }
    }
    let memory = places.memory(root, data.as_ref(), &env)?;
    let progress = Progress {
        unit: asked.unit.clone(),
        data: data.map(|data| data.path),
        memory,
        database,
        users: old.iter().map(|user| i64::from(user.id)).collect(),
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
    table: Option<(PathBuf, zeroize::Zeroizing<String>)>,
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

/// The directories that it is looked for in; that of the secrets first.
struct Places(Vec<Foreign>);

impl Places {
    fn open(root: &Root, asked: &Migrate) -> Result<Self, Failure> {
        let mut paths = vec![PathBuf::from(SECRETS)];
        match asked.from.is_empty() {
            true => paths.push(CODE.into()),
            false => paths.extend(asked.from.iter().cloned()),
        }
        let mut places = Vec::new();
        for path in paths {
            match Foreign::open(root, &path)? {
                Some(place) => places.push(place),
                None if asked.from.contains(&path) => {
                    return Err(Failure::Flag {
                        flag: "from",
                        problem: format!("{} is not there", root.shown(&path).display()),
                    });
                }
                None => {}
            }
        }
        Ok(Self(places))
    }

    /// The first file of this name; further ones are named.
    fn one(
        &self,
        name: &str,
        rows: &mut Vec<Row>,
    ) -> Option<(PathBuf, zeroize::Zeroizing<String>)> {
        let mut first = None;
        for place in &self.0 {
            let path = place.path.join(name);
            match place.text(name.as_ref(), LONGEST) {
                Ok(None) => {}
                Ok(Some(_)) if first.is_some() => {
                    rows.push(Row::look(name, &path, "is another one, and was not read"));
                }
                Ok(Some((text, access))) => {
                    if access.uid != 0 || access.mode & 0o022 != 0 {
                        let why = "could be changed by others than root: look at what is brought over from it";
                        rows.push(Row::look(name, &path, why));
                    }
                    first = Some((path, text));
                }
                Err(refused) => rows.push(Row::look(name, &path, refused.to_string())),
            }
        }
        first
    }

    /// Reads each environment, and returns how many there are.
    fn env(
        &self,
        root: &Root,
        asked: &Migrate,
        env: &mut Env,
        rows: &mut Vec<Row>,
    ) -> Result<usize, Failure> {
        let mut count = 0;
        let mut add = |place: &Foreign, name: &Path| {
            let path = place.path.join(name);
            match place.text(name, env::LONGEST) {
                Ok(None) => return,
                Ok(Some((text, access))) => {
                    if access.uid != 0 || access.mode & 0o022 != 0 {
                        let why = "could be changed by others than root: look at what is brought over from it";
                        rows.push(Row::look("environment", &path, why));
                    }
                    env.add(&path, &text, rows);
                }
                Err(refused) => rows.push(Row::look("environment", &path, refused.to_string())),
            }
            count += 1;
        };
        if let Some(file) = &asked.env {
            let place = file
                .parent()
                .map(|parent| Foreign::open(root, parent))
                .transpose()?;
            let (Some(Some(place)), Some(name)) = (place, file.file_name()) else {
                return Err(Failure::Flag {
                    flag: "env",
                    problem: format!("{} is not there", root.shown(file).display()),
                });
            };
            add(&place, name.as_ref());
            return Ok(count);
        }
        for place in &self.0 {
            let name = if place.path == Path::new(SECRETS) {
                "env"
            } else {
                ".env"
            };
            add(place, name.as_ref());
        }
        Ok(count)
    }

    fn data(&self, root: &Root, asked: &Migrate) -> Result<Option<Foreign>, Failure> {
        let path = asked.data.clone().unwrap_or_else(|| DATA.into());
        match Foreign::open(root, &path) {
            Ok(None) if asked.data.is_some() => Err(Failure::Flag {
                flag: "data",
                problem: format!("{} is not there", root.shown(&path).display()),
            }),
            Err(Failure::NotA { path, .. }) => Err(Failure::Migrate(format!(
                "{}: is no directory; name with --data the one that the data are in",
                path.display()
            ))),
            other => other,
        }
    }

    /// The first of these directories that holds this file.
    fn holds<'a>(
        mut places: impl Iterator<Item = &'a Foreign>,
        name: &str,
    ) -> Option<(PathBuf, PathBuf)> {
        let place = places.find(|place| !matches!(place.file(name.as_ref(), 0), Ok(None)))?;
        Some((place.path.clone(), name.into()))
    }

    fn database(&self, data: Option<&Foreign>) -> Option<(PathBuf, PathBuf)> {
        Self::holds(data.into_iter().chain(&self.0), "kai.db")
    }

    fn memory(
        &self,
        root: &Root,
        data: Option<&Foreign>,
        env: &Env,
    ) -> Result<Option<(PathBuf, PathBuf)>, Failure> {
        if let Some(found) = Self::holds(data.into_iter(), "memory/MEMORY.md") {
            return Ok(Some(found));
        }
        let base = env.get("WORKSPACE_BASE").map(PathBuf::from);
        let base = match base.filter(|path| path.is_absolute()) {
            Some(path) => Foreign::open(root, &path).ok().flatten(),
            None => None,
        };
        Ok(Self::holds(base.iter().chain(&self.0), ".claude/MEMORY.md"))
    }

    /// Whether there was a second factor, which is named.
    fn second_factor(
        &self,
        kept: &dyn Fn(&Path) -> PathBuf,
        settings: &Settings,
        rows: &mut Vec<Row>,
    ) -> bool {
        let mut there = false;
        for place in &self.0 {
            for name in ["totp.secret", "totp.attempts"] {
                if matches!(place.file(name.as_ref(), 0), Ok(None)) {
                    continue;
                }
                let path = place.path.join(name);
                let why = match name {
                    "totp.secret" => "it was one for all, and everybody enrols with their own",
                    _ => "",
                };
                rows.push(Row::kept(name, &path, why, &kept(&path)));
                there |= name == "totp.secret";
            }
        }
        if there {
            for user in &settings.users {
                let how = format!(
                    "nothing of theirs runs before they are enrolled; after apply: kai-auth enroll '{}'",
                    user.name
                );
                let what = format!("second factor of {}", user.name);
                rows.push(Row::look(what, USERS.as_ref(), how));
            }
        }
        there
    }

    /// Whatever else is with the secrets.
    fn others(&self, kept: &dyn Fn(&Path) -> PathBuf, rows: &mut Vec<Row>) {
        let Some(place) = self.0.iter().find(|place| place.path == Path::new(SECRETS)) else {
            return;
        };
        let (names, _) = place.names(".".as_ref()).unwrap_or_default();
        for name in names.iter().filter(|name| !NAMED.contains(&name.as_str())) {
            let path = place.path.join(name);
            rows.push(Row::kept(name, &path, "", &kept(&path)));
        }
    }
}
