//! What is said of each thing that was there before: what it is, where it was, and what became of it. No
//! value that may be a secret stands in any of it.

use std::path::Path;

use kai_program::json::printable;
use serde::Serialize;

use crate::{failure::Failure, print};

/// Longest part of a row, in characters.
const LONGEST: usize = 160;

/// What becomes of a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// It has a place here, and is there.
    Brought,
    /// It has none, and stays where it is kept.
    Kept,
    /// It gets its place by a later run.
    Waits,
    /// It has a place and does not fit it, or something about it is the admin's to look at.
    Look,
    /// Something of the old installation's that was changed.
    Done,
}

/// One thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    what: String,
    from: String,
    fate: Fate,
    to: String,
}

impl Row {
    /// What is brought to `to`.
    pub fn brought(what: impl AsRef<str>, from: &Path, to: impl AsRef<str>) -> Self {
        Self::new(Fate::Brought, what.as_ref(), from, to.as_ref())
    }

    /// What has no place here, for this reason if there is one to give, and is kept at `kept`.
    pub fn kept(what: impl AsRef<str>, from: &Path, why: &str, kept: &Path) -> Self {
        let (kept, comma) = (kept.display(), if why.is_empty() { "" } else { ": " });
        let to = format!("has no place here{comma}{why}; kept in {kept}");
        Self::new(Fate::Kept, what.as_ref(), from, &to)
    }

    /// What is brought over later.
    pub fn waits(what: impl AsRef<str>, from: &Path, until: impl AsRef<str>) -> Self {
        Self::new(Fate::Waits, what.as_ref(), from, until.as_ref())
    }

    /// What the admin should look at.
    pub fn look(what: impl AsRef<str>, from: &Path, why: impl AsRef<str>) -> Self {
        Self::new(Fate::Look, what.as_ref(), from, why.as_ref())
    }

    /// What of the old installation is changed.
    pub fn done(what: impl AsRef<str>, from: &Path, to: impl AsRef<str>) -> Self {
        Self::new(Fate::Done, what.as_ref(), from, to.as_ref())
    }

    fn new(fate: Fate, what: &str, from: &Path, to: &str) -> Self {
        // Names in it were chosen by others: none steers a terminal or fills it.
        let short = |text: &str, longest: usize| -> String {
            text.chars().take(longest).map(printable).collect()
        };
        Self {
            what: short(what, LONGEST),
            from: short(&from.to_string_lossy(), LONGEST),
            fate,
            to: short(to, 3 * LONGEST),
        }
    }

    /// What became of it.
    #[must_use]
    pub fn fate(&self) -> Fate {
        self.fate
    }
}

/// Prints the rows as lines, or as one JSON object.
///
/// # Errors
/// If standard output does not take them.
pub fn show(rows: &[Row], as_json: bool) -> Result<(), Failure> {
    if as_json {
        return print(&serde_json::json!({ "rows": rows }).to_string());
    }
    for row in rows {
        let mark = match row.fate {
            Fate::Brought => "brought",
            Fate::Kept => "kept",
            Fate::Waits => "waits",
            Fate::Look => "look at",
            Fate::Done => "old",
        };
        print(&format!(
            "{mark:<8} {}  ({})  {}",
            row.what, row.from, row.to
        ))?;
    }
    Ok(())
}
