//! The services that agents could call: named, and kept.

use std::path::Path;

use kai_program::yaml::{Document, Mistake};

use super::rows::Row;

/// A row for each service that `text`, that of the services.yaml `file`, names.
pub fn name(file: &Path, text: &str, kept: &Path, rows: &mut Vec<Row>) {
    named("service", "services", file, text, kept, rows);
}

/// A row for each entry of the map below `key`, or of the whole file if it has no such key. A mistake
/// in a file of which nothing is taken is told, and no obstacle.
pub(super) fn named(
    what: &str,
    key: &str,
    file: &Path,
    text: &str,
    kept: &Path,
    rows: &mut Vec<Row>,
) {
    match names(key, file, text) {
        Ok(names) => {
            let named = names.iter().map(|name| format!("{what} {name}"));
            rows.extend(named.map(|name| Row::kept(name, file, "", kept)));
        }
        Err(mistake) => {
            rows.push(Row::kept(
                format!("each {what}"),
                file,
                &mistake.to_string(),
                kept,
            ));
        }
    }
}

fn names(key: &str, file: &Path, text: &str) -> Result<Vec<String>, Mistake> {
    let mut root = Document::parse(file, text)?.into_map()?;
    let map = match root.optional(key) {
        Some(node) => node.into_map()?,
        None => root,
    };
    Ok(map.keys().map(str::to_owned).collect())
}
