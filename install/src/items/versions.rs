//! Which version runs: `/opt/kai/current` leads to its directory, `/opt/kai/previous` to the one before.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use super::{Goes, Item, Standing, files::Directory, secrets::CURRENT};
use crate::{
    failure::Failure,
    root::{self, Kind, Root},
    source::{self, Version, parse_version},
};

/// Where versions are.
pub const PLACE: &str = "/opt/kai";
/// Where agents are.
pub const AGENTS: &str = "/opt/kai/agent";
/// Where admins' shells and sudo's secure_path look for commands that are no package's.
pub const COMMANDS: &str = "/usr/local/sbin";
/// The version before.
pub const PREVIOUS: &str = "/opt/kai/previous";

/// The directory of this version.
#[must_use]
pub fn directory(version: &str) -> PathBuf {
    Path::new(PLACE).join(version)
}

/// True for the directory of a version, whose name begins with a digit, also of one that was begun: the first that
/// is put into it are directories. What else there is below [`PLACE`] is somebody's own.
fn is_version(root: &Root, path: &Path) -> Result<bool, Failure> {
    let is_directory = root
        .look(path)?
        .is_some_and(|found| found.kind == Kind::Directory);
    let is_named = path.file_name().is_some_and(|name| {
        name.as_encoded_bytes()
            .first()
            .is_some_and(u8::is_ascii_digit)
    });
    if !is_directory || !is_named {
        return Ok(false);
    }
    let names = root.names(path)?;
    let begun = ["systemd", "sudoers.d"];
    Ok(names.iter().any(|name| name == source::VERSION)
        || names
            .iter()
            .all(|name| begun.contains(&name.as_str()) || is_leftover(name)))
}

/// True for what a run that was killed has left of what it was about to rename.
fn is_leftover(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(root::NEW)
}

/// The version that the link at `path` leads to, if it does.
///
/// # Errors
/// If something else stands there, or the version's description cannot be read.
pub fn at(root: &Root, path: &Path) -> Result<Option<Version>, Failure> {
    let Some(name) = root.link_at(path)? else {
        return Ok(None);
    };
    let file = Path::new(PLACE).join(name).join(source::VERSION);
    match root.read_text(&file)? {
        Some(text) => parse_version(&root.shown(&file), &text).map(Some),
        None => Ok(None),
    }
}

/// The version that runs.
pub struct Current(pub String);

impl fmt::Display for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "link {CURRENT} to {}", self.0)
    }
}

impl Item for Current {
    fn look(&self, root: &Root) -> Result<Standing, Failure> {
        Ok(match root.link_at(CURRENT.as_ref())? {
            None => Standing::Missing,
            Some(to) if to == Path::new(&self.0) => Standing::Right,
            Some(to) => Standing::Differs(format!("leads to {}", to.display())),
        })
    }

    fn bring_about(&self, root: &Root) -> Result<(), Failure> {
        // The version before is noted first: one that is current and previous is neither's loss.
        if let Some(old) = root.link_at(CURRENT.as_ref())?
            && old != Path::new(&self.0)
            && at(root, CURRENT.as_ref())?.is_some()
        {
            root.link(PREVIOUS.as_ref(), &old)?;
        }
        root.link(CURRENT.as_ref(), self.0.as_ref())
    }

    fn take_away(&self, root: &Root) -> Result<bool, Failure> {
        let there = root.look(CURRENT.as_ref())?.is_some();
        root.remove(CURRENT.as_ref())?;
        Ok(there)
    }

    fn goes_last(&self) -> bool {
        true
    }

    fn goes(&self) -> Goes {
        Goes::WithKai
    }
}

/// The directory of the versions, which may hold what kai did not put there.
pub struct Place(pub Directory);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Item for Place {
    fn look(&self, root: &Root) -> Result<Standing, Failure> {
        self.0.look(root)
    }

    fn bring_about(&self, root: &Root) -> Result<(), Failure> {
        self.0.bring_about(root)
    }

    fn take_away(&self, root: &Root) -> Result<bool, Failure> {
        let place = Path::new(PLACE);
        if root.look(place)?.is_none() {
            return Ok(false);
        }
        let mut removed = false;
        for name in root.names(place)? {
            let path = place.join(&name);
            if is_version(root, &path)?
                || is_leftover(&name)
                || [CURRENT, PREVIOUS, AGENTS]
                    .iter()
                    .any(|own| path == Path::new(own))
            {
                root.remove_all(&path)?;
                removed = true;
            }
        }
        Ok(root.remove_if_empty(place)? || removed)
    }

    fn goes_last(&self) -> bool {
        true
    }

    fn goes(&self) -> Goes {
        self.0.goes()
    }
}

/// A command of the version that runs, under a name that shells and sudo(8) look up.
pub struct Command(pub &'static str);

impl Command {
    fn path(&self) -> PathBuf {
        Path::new(COMMANDS).join(self.0)
    }

    fn leads_to(&self) -> PathBuf {
        Path::new(CURRENT).join(self.0)
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command {}", self.path().display())
    }
}

impl Item for Command {
    fn look(&self, root: &Root) -> Result<Standing, Failure> {
        Ok(match root.link_at(&self.path())? {
            None => Standing::Missing,
            Some(to) if to == self.leads_to() => Standing::Right,
            Some(to) => Standing::Differs(format!("leads to {}", to.display())),
        })
    }

    fn bring_about(&self, root: &Root) -> Result<(), Failure> {
        root.link(&self.path(), &self.leads_to())
    }

    fn take_away(&self, root: &Root) -> Result<bool, Failure> {
        // What is something else is somebody else's by now.
        let path = self.path();
        let is_link = root
            .look(&path)?
            .is_some_and(|found| found.kind == Kind::Link);
        let there = is_link && root.link_at(&path)? == Some(self.leads_to());
        if there {
            root.remove(&path)?;
        }
        Ok(there)
    }

    fn goes_last(&self) -> bool {
        true
    }

    fn goes(&self) -> Goes {
        Goes::WithKai
    }
}

/// No version but the two.
pub struct Pruned(pub String);

impl Pruned {
    fn extra(&self, root: &Root) -> Result<Vec<String>, Failure> {
        // Before the switch, what runs now is what will be the one before.
        let kept = match root.link_at(CURRENT.as_ref())? {
            Some(current) if current != Path::new(&self.0) => Some(current),
            _ => root.link_at(PREVIOUS.as_ref())?,
        };
        let mut extra = Vec::new();
        for name in root.names(PLACE.as_ref())? {
            let path = Path::new(PLACE).join(&name);
            let is_kept = name == self.0 || kept.as_deref() == Some(Path::new(&name));
            if is_leftover(&name) || is_version(root, &path)? && !is_kept {
                extra.push(name);
            }
        }
        Ok(extra)
    }
}

impl fmt::Display for Pruned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "two versions in {PLACE}")
    }
}

impl Item for Pruned {
    fn look(&self, root: &Root) -> Result<Standing, Failure> {
        let extra = self.extra(root)?;
        Ok(Standing::of(
            (!extra.is_empty())
                .then(|| format!("older than these: {}", extra.join(" ")))
                .into_iter()
                .collect(),
        ))
    }

    fn bring_about(&self, root: &Root) -> Result<(), Failure> {
        for name in self.extra(root)? {
            root.remove_all(&Path::new(PLACE).join(name))?;
        }
        Ok(())
    }

    fn take_away(&self, _: &Root) -> Result<bool, Failure> {
        Ok(false)
    }

    fn depends_on_others(&self) -> bool {
        true
    }

    fn goes(&self) -> Goes {
        Goes::Never
    }
}
