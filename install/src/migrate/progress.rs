//! How far a migration has come, beside what it moved aside: root's alone, and read by the next run, which
//! goes on from there.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{old_service::Move, rows::Row};
use crate::{
    failure::Failure,
    items::secrets::is_root_s_alone,
    root::{Access, Root},
};

/// Where the configuration of before is kept, and what is said here.
pub const KEPT: &str = "/etc/kai-before";
/// What is said here.
const FILE: &str = "/etc/kai-before/migration.json";

/// How far it has come, and what is left to do.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    /// The unit of the old one.
    pub unit: String,
    /// True once that is stopped and disabled.
    pub is_stopped: bool,
    /// What is moved aside.
    pub moves: Vec<Move>,
    /// True once all of it is.
    pub is_moved: bool,
    /// True once the files for the new kai are in their places.
    pub is_put: bool,
    /// Where the data are.
    pub data: Option<PathBuf>,
    /// Where the memory is: a directory, and the file in it.
    pub memory: Option<(PathBuf, PathBuf)>,
    /// True if the environment led to it, so that it may be in anybody's home.
    #[serde(default)]
    pub is_memory_elsewhere: bool,
    /// Where the database is: a directory, and the file in it.
    pub database: Option<(PathBuf, PathBuf)>,
    /// Who could use the old one.
    pub users: BTreeSet<i64>,
    /// True if nobody but a single user could have had the old agent write into its memory.
    pub is_memory_one_s: bool,
    /// Who of them was an admin.
    pub admins: Vec<i64>,
    /// What was brought into homes.
    pub brought: BTreeSet<String>,
    /// What was said of each thing, for the admin to look up.
    pub said: Vec<serde_json::Value>,
}

impl Progress {
    /// What an earlier run left; none if there was none.
    ///
    /// # Errors
    /// If it is not root's alone, or not whole.
    pub fn load(root: &Root) -> Result<Option<Self>, Failure> {
        let directory = root.look(KEPT.as_ref());
        if matches!(directory, Ok(None)) || !is_root_s_alone(root, FILE.as_ref())? {
            return Ok(None);
        }
        let text = root.read_text(FILE.as_ref())?.unwrap_or_default();
        serde_json::from_str(&text).map(Some).map_err(|error| {
            Failure::Migrate(format!(
                "{}: is not what kai-install wrote ({error}); look at what is in that directory, and bring back \
                 by hand what you want to migrate",
                root.shown(FILE.as_ref()).display()
            ))
        })
    }

    /// Writes it down.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn save(&self, root: &Root) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| Failure::io(FILE, std::io::Error::other(error)))?;
        root.write(FILE.as_ref(), &mut text.as_bytes(), Access::root(0o600))
    }

    /// Notes what was said.
    pub fn note(&mut self, rows: &[Row]) {
        let rows = rows.iter().filter_map(|row| serde_json::to_value(row).ok());
        self.said.extend(rows);
    }

    /// True if this was said before.
    #[must_use]
    pub fn has_said(&self, row: &Row) -> bool {
        serde_json::to_value(row).is_ok_and(|row| self.said.contains(&row))
    }

    /// The same, with all of it where it is after the moves.
    #[must_use]
    pub fn moved(mut self) -> Self {
        let moves = std::mem::take(&mut self.moves);
        let moved = |path: &Path| super::old_service::kept(&moves, path);
        self.data = self.data.as_deref().map(moved);
        for place in [&mut self.memory, &mut self.database] {
            *place = place
                .take()
                .map(|(directory, name)| (moved(&directory), name));
        }
        self.moves = moves;
        self
    }

    /// Where something that was at `path` is kept.
    #[must_use]
    pub fn kept(&self, path: &Path) -> PathBuf {
        super::old_service::kept(&self.moves, path)
    }
}
