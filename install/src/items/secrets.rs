//! What must be nobody else's: where it is, and authd's database.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use super::{Goes, Item, Standing};
use crate::{
    failure::Failure,
    root::{Access, Kind, Root},
    tools,
};

/// Where the token is, if it is not encrypted.
pub const TOKEN: &str = "/etc/kai/credentials/telegram-token";
/// Where kai.yaml is.
pub const CONFIG: &str = "/etc/kai/kai.yaml";
/// Where the table of users is.
pub const USERS: &str = "/etc/kai/users.yaml";
/// Where the version is that runs.
pub const CURRENT: &str = "/opt/kai/current";
const AUTHD: &str = "/var/lib/kai/authd";
const DATABASE: &str = "/var/lib/kai/authd/authd.sqlite";
/// The mode of a secret.
pub const SECRET: u32 = 0o600;
/// The configuration that a tree's database is made with: what stands in its kai.yaml are paths of the host
/// that it is to be.
const MAKING: &str = "/etc/kai/.init.kai-install";

/// Refuses a secret that is not root's alone; false if there is none.
///
/// # Errors
/// [`Failure::ForeignSecret`], or [`Failure::NotA`] if it is no regular file of one name.
pub fn is_root_s_alone(root: &Root, path: &Path) -> Result<bool, Failure> {
    let Some(found) = root.look(path)? else {
        return Ok(false);
    };
    if found.kind != Kind::File || found.names != 1 {
        return Err(Failure::NotA {
            path: root.shown(path),
            wanted: "regular file of one name",
        });
    }
    if found.access.uid != 0 || found.access.mode & 0o077 != 0 {
        return Err(Failure::ForeignSecret {
            path: root.shown(path),
            owner: found.access.uid,
            mode: found.access.mode,
            wanted_owner: "root:root".to_owned(),
            wanted: SECRET,
        });
    }
    Ok(true)
}

/// authd's database, which is made once: a missing one is a lost one ever after.
pub struct Database {
    /// The directory of the version that makes it.
    pub programs: PathBuf,
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "secret {DATABASE}")
    }
}

impl Item for Database {
    fn look(&self, root: &Root) -> Result<Standing, Failure> {
        if is_root_s_alone(root, DATABASE.as_ref())? {
            return Ok(match root.look(MAKING.as_ref())? {
                None => Standing::Right,
                Some(_) => Standing::Differs("was made by a run that did not end".to_owned()),
            });
        }
        let left = root.names(AUTHD.as_ref())?;
        let was_there = left.iter().any(|name| name.starts_with("authd.sqlite"));
        if was_there || root.look(CURRENT.as_ref())?.is_some() {
            return Err(Failure::LostDatabase(root.shown(DATABASE.as_ref())));
        }
        Ok(Standing::Missing)
    }

    fn bring_about(&self, root: &Root) -> Result<(), Failure> {
        if root.look(DATABASE.as_ref())?.is_some() {
            return root.remove(MAKING.as_ref());
        }
        let program = root.shown(&self.programs.join("kai-auth"));
        let mut config = root.shown(CONFIG.as_ref());
        if !root.is_host() {
            let below =
                |path: &str| crate::settings::quoted(&root.shown(path.as_ref()).to_string_lossy());
            let text = format!(
                "agent: {{command: /nothing}}\npaths: {{state: {}, log: {}}}\n",
                below("/var/lib/kai"),
                below("/var/log/kai"),
            );
            root.write(MAKING.as_ref(), &mut text.as_bytes(), Access::root(0o644))?;
            config = root.shown(MAKING.as_ref());
        }
        let ran = tools::command(&program)
            .arg("--config")
            .arg(&config)
            .arg("init")
            .output();
        if !root.is_host() {
            root.remove(MAKING.as_ref())?;
        }
        let output = ran.map_err(|error| Failure::io(&program, error))?;
        if output.status.success() {
            return Ok(());
        }
        Err(Failure::Tool {
            program: format!("{} init", program.display()),
            said: tools::last_line(&output),
        })
    }

    fn take_away(&self, _: &Root) -> Result<bool, Failure> {
        Ok(false)
    }

    fn goes(&self) -> Goes {
        Goes::WithData
    }
}
