//! Where records and roots are, and the removal of what a record names.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use nix::unistd::geteuid;

use super::{
    GroundError, Separation, accounts, files,
    record::{Record, Records, Thing},
    separation,
};

/// What one ground made so far; it is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Made {
    record: Option<Record>,
    id: String,
    records: Records,
}

impl Made {
    /// Begins the record of the ground `id`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn begin(separation: Separation, id: &str) -> Result<Self, GroundError> {
        let records = records(separation)?;
        let record = records
            .begin(id)
            .map_err(files("cannot write down what is made"))?;
        Ok(Self {
            record: Some(record),
            id: id.to_owned(),
            records,
        })
    }

    /// Whose record this is.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Writes `thing` down; only then may it be made.
    ///
    /// # Errors
    /// If the disk does not take it.
    pub(super) fn note(&mut self, thing: Thing) -> Result<(), GroundError> {
        match &mut self.record {
            Some(record) => record
                .note(thing)
                .map_err(files("cannot write down what is made")),
            None => Ok(()),
        }
    }

    /// Holds the lock under which accounts are made and removed.
    ///
    /// # Errors
    /// What flock(2) answers.
    pub(super) fn lock(&self) -> Result<fs::File, GroundError> {
        self.records
            .lock()
            .map_err(files("cannot lock the records"))
    }

    /// What a panic hook needs.
    pub(super) fn emergency(&self) -> Emergency {
        Emergency {
            id: self.id.clone(),
            things: self
                .record
                .as_ref()
                .map_or_else(Vec::new, |record| record.things().to_vec()),
        }
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if let Some(record) = self.record.take()
            && let Err(error) = undo(&self.records, record)
        {
            let _ = writeln!(io::stderr(), "{error}; the next start will try again");
        }
    }
}

/// Enough to clean up after a ground whose owner is about to abort.
#[derive(Debug, Clone)]
pub struct Emergency {
    id: String,
    things: Vec<Thing>,
}

impl Emergency {
    /// Ends the processes and removes what was made. The record itself is left for the next start.
    pub fn clean_up(&self) {
        let _ = undo_things(&self.id, &self.things);
    }
}

/// What records, and with an id behind it what a ground's root, is called.
///
/// As root not below a directory that workers get hidden, and without it not where a long home
/// directory would make the sockets' paths longer than the 107 bytes that unix(7) takes.
fn base(separation: Separation) -> String {
    match separation {
        Separation::Accounts => "/var/lib/kai-play".to_owned(),
        Separation::OneAccount => format!("/var/tmp/kai-play-{}", geteuid()),
    }
}

/// The root of the ground `id`.
pub(super) fn root(separation: Separation, id: &str) -> PathBuf {
    format!("{}-{id}", base(separation)).into()
}

fn records(separation: Separation) -> Result<Records, GroundError> {
    let directory = base(separation);
    Records::open(Path::new(&directory)).map_err(files(&format!("cannot use {directory}")))
}

/// Removes what runs that were killed left behind. True if there was something.
///
/// # Errors
/// If something cannot be removed.
pub fn clean_up() -> Result<bool, GroundError> {
    let records = records(separation())?;
    let left = records
        .left_over()
        .map_err(files("cannot read what was left behind"))?;
    let any = !left.is_empty();
    for record in left {
        undo(&records, record)?;
    }
    Ok(any)
}

fn undo(records: &Records, record: Record) -> Result<(), GroundError> {
    let lock = records.lock().map_err(files("cannot lock the records"))?;
    undo_things(record.id(), record.things())?;
    record.close().map_err(files("cannot remove the record"))?;
    records.remove_if_empty(&lock);
    Ok(())
}

/// Removes what can be removed, and gives the first that could not.
fn undo_things(id: &str, things: &[Thing]) -> Result<(), GroundError> {
    // First whatever still runs: it could make what is removed again.
    for thing in things {
        if let Thing::Directory(path) = thing {
            accounts::end_programs_below(path);
        }
    }
    let mut outcome = Ok(());
    // Backwards: an account before its group.
    for thing in things.iter().rev() {
        let removed = match thing {
            Thing::Account { name, home } => accounts::remove(id, name, home),
            Thing::Group(name) => accounts::remove_group(name),
            Thing::Directory(path) => match fs::remove_dir_all(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(GroundError::Files {
                    what: format!("cannot remove {}", path.display()),
                    error,
                }),
                _ => Ok(()),
            },
        };
        outcome = outcome.and(removed);
    }
    outcome
}
