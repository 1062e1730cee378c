//! The workspaces: an agent here works in its user's home, so they are named, and kept.

use std::path::Path;

use super::{rows::Row, services::named};

/// A row for each workspace that `text`, that of the workspaces.yaml `file`, names.
pub fn name(file: &Path, text: &str, kept: &Path, rows: &mut Vec<Row>) {
    named("workspace", "workspaces", file, text, kept, rows);
}
