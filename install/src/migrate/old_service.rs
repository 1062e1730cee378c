//! The old service itself: stopped, disabled, and moved aside, whole and under names of root's alone. Each
//! move is one rename in one directory, so nothing is copied, and nothing is ever deleted.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{progress::KEPT, rows::Row};
use crate::{
    failure::Failure,
    root::{Access, Kind, Root},
    tools,
};

const SUDOERS: &str = "/etc/sudoers.d/kai";
const UNITS: &str = "/etc/systemd/system";
/// What the rules of this kai hold and those of no other.
const OURS: &str = "Cmnd_Alias KAI_LOOK";

/// A name that is given to something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// Where it is.
    pub from: PathBuf,
    /// Where it will be.
    pub to: PathBuf,
}

/// Where something at `path` is after the moves.
#[must_use]
pub fn kept(moves: &[Move], path: &Path) -> PathBuf {
    let moved = moves.iter().find_map(|one| {
        let below = path.strip_prefix(&one.from).ok()?;
        Some(if below.as_os_str().is_empty() {
            one.to.clone()
        } else {
            one.to.join(below)
        })
    });
    moved.unwrap_or_else(|| path.to_owned())
}

/// What of the old one stands where the new one will.
///
/// # Errors
/// If something of it cannot be moved, or something was moved there before.
pub fn moves(root: &Root, unit: &str) -> Result<Vec<Move>, Failure> {
    let kept = Path::new(KEPT);
    let mut all = Vec::new();
    // What lets the old one be root goes first.
    if root
        .read_text(SUDOERS.as_ref())?
        .is_some_and(|text| !text.contains(OURS))
    {
        all.push((PathBuf::from(SUDOERS), kept.join("sudoers.d-kai")));
    }
    for (directory, behind) in [("", ""), ("", ".d"), ("multi-user.target.wants", "")] {
        // There systemctl(1) takes the link away.
        if !directory.is_empty() && is_run_by_systemd(root) {
            continue;
        }
        let name = format!("{unit}{behind}");
        let to = if directory.is_empty() {
            name.clone()
        } else {
            format!("{name}.wanted")
        };
        all.push((Path::new(UNITS).join(directory).join(name), kept.join(to)));
    }
    for place in ["/etc/kai", "/opt/kai", "/var/lib/kai", "/var/log/kai"] {
        all.push((
            place.into(),
            Path::new(&format!("{place}-before")).join("kai"),
        ));
    }
    let mut moves = Vec::new();
    for (from, to) in all {
        let Some(found) = root.look(&from)? else {
            continue;
        };
        if matches!(
            root.look(&to),
            Ok(Some(_)) | Err(Failure::ForeignDirectory { .. })
        ) {
            return Err(Failure::Migrate(format!(
                "{}: is there already, and {} shall go there; move it away",
                root.shown(&to).display(),
                from.display()
            )));
        }
        if found.kind == Kind::Directory && is_mounted(&root.shown(&from)) {
            return Err(Failure::Migrate(format!(
                "{}: is a file system of its own, which cannot be moved aside; mount it elsewhere, and name that \
                 place with --data or --from",
                root.shown(&from).display()
            )));
        }
        moves.push(Move { from, to });
    }
    Ok(moves)
}

fn is_mounted(path: &Path) -> bool {
    let device = |path: &Path| fs::symlink_metadata(path).map(|found| found.dev()).ok();
    path.parent()
        .is_some_and(|parent| device(parent) != device(path))
}

fn is_run_by_systemd(root: &Root) -> bool {
    root.is_host() && Path::new("/run/systemd/system").exists()
}

/// Stops and disables the unit, where systemd runs this tree.
///
/// # Errors
/// If it goes on running.
pub fn stop(root: &Root, unit: &str, rows: &mut Vec<Row>) -> Result<(), Failure> {
    let place = Path::new(UNITS).join(unit);
    if !root.is_host() {
        return Ok(());
    }
    if !is_run_by_systemd(root) {
        let why = "systemd does not run here: if the old kai does, end it";
        rows.push(Row::look(format!("unit {unit}"), &place, why));
        return Ok(());
    }
    let state = |property: &str| -> Result<String, Failure> {
        let property = format!("--property={property}");
        let said = tools::run("systemctl", &["show", &property, "--value", unit], None)?;
        Ok(said.trim().to_owned())
    };
    if state("LoadState")? == "not-found" {
        let why = "is not there: if the old kai runs in another way, end it, or name its unit with --unit";
        rows.push(Row::look(format!("unit {unit}"), &place, why));
        return Ok(());
    }
    tools::run("systemctl", &["disable", "--now", unit], None)?;
    let now = state("ActiveState")?;
    if !matches!(now.as_str(), "inactive" | "failed") {
        return Err(Failure::Unit {
            unit: unit.to_owned(),
            state: now,
            after: "; nothing was moved: stop it, and run this again".to_owned(),
        });
    }
    rows.push(Row::done(
        format!("unit {unit}"),
        &place,
        "stopped and disabled",
    ));
    Ok(())
}

/// Refuses where this kai was installed before all was moved: its own files would be moved with the rest.
///
/// # Errors
/// If something is still to be moved.
pub fn nothing_left(root: &Root, moves: &[Move]) -> Result<(), Failure> {
    let mut left = Vec::new();
    for one in moves {
        if is_left(root, one)? {
            left.push(format!("{} to {}", one.from.display(), one.to.display()));
        }
    }
    if left.is_empty() {
        return Ok(());
    }
    Err(Failure::Migrate(format!(
        "this kai was installed before the old one was moved aside whole; move what is the old one's by hand from {}, \
         which must be there even if empty, and run kai-install migrate again",
        left.join(", from ")
    )))
}

fn is_left(root: &Root, one: &Move) -> Result<bool, Failure> {
    Ok(root.look(&one.to)?.is_none() && root.look(&one.from)?.is_some())
}

/// Gives each thing its new name; what has it already keeps it.
///
/// # Errors
/// The first that cannot be moved; the next run goes on with it.
pub fn move_aside(root: &Root, moves: &[Move]) -> Result<(), Failure> {
    for one in moves {
        if let Some(directory) = one.to.parent() {
            root.make_directory(directory, Access::root(0o700))?;
        }
        if is_left(root, one)? {
            root.rename(&one.from, &one.to)?;
        }
    }
    let is_unit = |one: &Move| one.from.starts_with(UNITS);
    if is_run_by_systemd(root) && moves.iter().any(is_unit) {
        tools::run("systemctl", &["daemon-reload"], None)?;
    }
    Ok(())
}
