//! Lines of files that others have lines in too.

use std::{fmt, path::PathBuf};

use super::{Goes, Item, Standing};
use crate::{
    failure::Failure,
    root::{Access, Root},
};

/// A line of a file that others have lines in too.
pub struct Line {
    /// Where.
    pub path: PathBuf,
    /// The line.
    pub line: String,
    /// Whether the file is made for it.
    pub make: bool,
}

impl Line {
    fn rest(&self, text: &str) -> String {
        let others = text.lines().filter(|line| line.trim() != self.line);
        others.map(|line| format!("{line}\n")).collect()
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.line, self.path.display())
    }
}

impl Item for Line {
    fn look(&self, root: &Root) -> Result<Standing, Failure> {
        Ok(match root.read_text(&self.path)? {
            Some(text) if text.lines().any(|line| line.trim() == self.line) => Standing::Right,
            None if !self.make => Standing::Right,
            _ => Standing::Missing,
        })
    }

    fn bring_about(&self, root: &Root) -> Result<(), Failure> {
        let text = root.read_text(&self.path)?.unwrap_or_default();
        let text = format!("{}{}\n", self.rest(&text), self.line);
        let access = root
            .look(&self.path)?
            .map_or(Access::root(0o644), |found| found.access);
        root.write(&self.path, &mut text.as_bytes(), access)
    }

    fn take_away(&self, root: &Root) -> Result<bool, Failure> {
        let (Some(text), Some(found)) = (root.read_text(&self.path)?, root.look(&self.path)?)
        else {
            return Ok(false);
        };
        let rest = self.rest(&text);
        if rest.len() == text.len() {
            return Ok(false);
        }
        if rest.is_empty() && self.make {
            root.remove(&self.path)?;
        } else {
            root.write(&self.path, &mut rest.as_bytes(), found.access)?;
        }
        Ok(true)
    }

    fn goes(&self) -> Goes {
        Goes::WithKai
    }
}
