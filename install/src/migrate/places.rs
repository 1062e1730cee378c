//! Where the Python kai has its files: found by its layout, or where the admin says.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{
    Migrate,
    env::{self, Env},
    foreign::{Foreign, Refused},
    rows::Row,
};
use crate::{
    accounts::Accounts,
    failure::Failure,
    items::secrets::USERS,
    root::{Access, Root},
    settings::Settings,
};

/// Where the Python kai has its secrets.
pub const SECRETS: &str = "/etc/kai";
/// Where it has its code.
pub const CODE: &str = "/opt/kai";
/// Where it has its data.
pub const DATA: &str = "/var/lib/kai";
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

/// A file, and its text.
pub type Table = (PathBuf, Zeroizing<String>);

/// The directories that it is looked for in; that of the secrets first.
pub struct Places(pub Vec<Foreign>);

impl Places {
    /// The directories that are there.
    ///
    /// # Errors
    /// If one that was named is not there, or something else is in its place.
    pub fn open(root: &Root, asked: &Migrate) -> Result<Self, Failure> {
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

    /// The first file of this name, or why it is not read; further ones are named.
    pub fn one(
        &self,
        name: &str,
        rows: &mut Vec<Row>,
    ) -> Option<Result<Table, (PathBuf, Refused)>> {
        let mut first = None;
        for place in &self.0 {
            let path = place.path.join(name);
            let read = place.text(name.as_ref(), LONGEST);
            match read {
                Ok(None) => {}
                _ if first.is_some() => {
                    rows.push(Row::look(name, &path, "is another one, and was not read"));
                }
                Ok(Some((text, access))) => {
                    warn(name, &path, access, rows);
                    first = Some(Ok((path, text)));
                }
                Err(refused) => first = Some(Err((path, refused))),
            }
        }
        first
    }

    /// Reads each environment, and returns how many there are.
    ///
    /// # Errors
    /// If one that was named is not there.
    pub fn env(
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
                    warn("environment", &path, access, rows);
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

    /// The directory of the data.
    ///
    /// # Errors
    /// If it was named and is not there, or is none.
    pub fn data(&self, root: &Root, asked: &Migrate) -> Result<Option<Foreign>, Failure> {
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

    /// The directory of the database, and its name.
    pub fn database(&self, data: Option<&Foreign>) -> Option<(PathBuf, PathBuf)> {
        Self::holds(data.into_iter().chain(&self.0), "kai.db")
    }

    /// The directory of the memory, and its name; and whether it is the environment that led there.
    pub fn memory(
        &self,
        root: &Root,
        data: Option<&Foreign>,
        env: &Env,
    ) -> (Option<(PathBuf, PathBuf)>, bool) {
        if let Some(found) = Self::holds(data.into_iter(), "memory/MEMORY.md") {
            return (Some(found), false);
        }
        let base = env.get("WORKSPACE_BASE").map(PathBuf::from);
        let base = match base.filter(|path| path.is_absolute()) {
            Some(path) => Foreign::open(root, &path).ok().flatten(),
            None => None,
        };
        let name = ".claude/MEMORY.md";
        match Self::holds(base.iter(), name) {
            Some(found) => (Some(found), true),
            None => (Self::holds(self.0.iter(), name), false),
        }
    }

    /// Whether there was a second factor, which is named.
    pub fn second_factor(
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
    pub fn others(&self, kept: &dyn Fn(&Path) -> PathBuf, rows: &mut Vec<Row>) {
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

/// Says it of a file that others could have changed.
fn warn(what: &str, path: &Path, access: Access, rows: &mut Vec<Row>) {
    if access.uid != 0 || access.mode & 0o022 != 0 {
        let why = "could be changed by others than root: look at what is brought over from it";
        rows.push(Row::look(what, path, why));
    }
}

/// Says that the account stays that the old kai ran as, if it was one of its own.
///
/// # Errors
/// If it cannot be looked up.
pub fn name_the_account(
    root: &Root,
    data: Option<&Foreign>,
    settings: &Settings,
    rows: &mut Vec<Row>,
) -> Result<(), Failure> {
    let owner = match data {
        Some(data) => root
            .somebody_s(&data.path)?
            .map(|(_, found)| found.access.uid),
        None => None,
    };
    let Some(person) = owner
        .filter(|uid| *uid != 0)
        .map(|uid| Accounts::of(root).person_of(uid))
    else {
        return Ok(());
    };
    if let (Some(person), Some(data)) = (person?, data)
        && settings
            .users
            .iter()
            .all(|user| user.os_user.as_str() != person.name)
    {
        let why = format!(
            "ran the old kai, and stays; once nothing else is its own: userdel {}",
            person.name
        );
        rows.push(Row::look(
            format!("account {}", person.name),
            &data.path,
            why,
        ));
    }
    Ok(())
}
