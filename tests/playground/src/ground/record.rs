//! What a run made on this machine, written down before it is made, so that a run which was killed
//! can be cleaned up after by the next one.
//!
//! One file per run, in a directory of its own that only its owner can enter. The run holds the file's
//! flock(2) for as long as it lives: the kernel gives it up with the process, and unlike a process id
//! it is never given to somebody else.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Something that a run made and has to remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Thing {
    /// A directory, with all that is in it.
    Directory(PathBuf),
    /// A group.
    Group(String),
    /// An account and its home.
    Account {
        /// Its name.
        name: String,
        /// Its home directory.
        home: PathBuf,
    },
}

impl Thing {
    fn to_line(&self) -> String {
        match self {
            Self::Directory(path) => format!("directory {}\n", path.display()),
            Self::Group(name) => format!("group {name}\n"),
            Self::Account { name, home } => format!("account {name} {}\n", home.display()),
        }
    }

    fn from_line(line: &str) -> Option<Self> {
        let (kind, rest) = line.split_once(' ')?;
        match kind {
            "directory" => Some(Self::Directory(rest.into())),
            "group" => Some(Self::Group(rest.to_owned())),
            "account" => {
                let (name, home) = rest.split_once(' ')?;
                Some(Self::Account {
                    name: name.to_owned(),
                    home: home.into(),
                })
            }
            _ => None,
        }
    }
}

/// The directory of all records.
#[derive(Debug, Clone)]
pub struct Records {
    directory: PathBuf,
}

impl Records {
    /// Opens `directory`, making it if it is missing.
    ///
    /// # Errors
    /// If it cannot be made, or belongs to somebody else.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let records = Self {
            directory: directory.to_owned(),
        };
        records.make()?;
        Ok(records)
    }

    fn make(&self) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let found = fs::symlink_metadata(&self.directory)?;
        if !found.is_dir() || found.uid() != nix::unistd::geteuid().as_raw() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("{} belongs to somebody else", self.directory.display()),
            ));
        }
        Ok(())
    }

    /// Waits for, and holds, the lock under which runs of this machine make and remove accounts: the
    /// tools for it give up when two of them meet.
    ///
    /// # Errors
    /// What open(2) or flock(2) answers.
    pub fn lock(&self) -> io::Result<File> {
        let path = self.directory.join("lock");
        loop {
            self.make()?;
            let opened = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .open(&path);
            let file = match opened {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened?,
            };
            file.lock()?;
            // Whoever held it may have removed it: then the next one locks another file.
            if fs::metadata(&path)
                .is_ok_and(|found| found.ino() == file.metadata().map_or(0, |own| own.ino()))
            {
                return Ok(file);
            }
        }
    }

    /// Removes the directory and its lock, which the caller holds, if there is no record.
    pub fn remove_if_empty(&self, _lock: &File) {
        let is_record = |entry: fs::DirEntry| entry.path().extension().is_some_and(|e| e == "made");
        let mut entries = fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten();
        if !entries.any(is_record) {
            let _ = fs::remove_file(self.directory.join("lock"));
            let _ = fs::remove_dir(&self.directory);
        }
    }

    /// Begins the record of the run `id`.
    ///
    /// # Errors
    /// If there is one already, or it cannot be written.
    pub fn begin(&self, id: &str) -> io::Result<Record> {
        // Between the file's making and its locking nobody may take it for one of a dead run.
        let _guard = self.lock()?;
        let path = self.directory.join(format!("{id}.made"));
        let file = OpenOptions::new()
            .create_new(true)
            .append(true)
            .mode(0o600)
            .open(&path)?;
        file.lock()?;
        Ok(Record {
            file,
            path,
            id: id.to_owned(),
            things: Vec::new(),
        })
    }

    /// The records of runs that are gone, now held by this one.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn left_over(&self) -> io::Result<Vec<Record>> {
        let _guard = self.lock()?;
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "made") {
                continue;
            }
            let mut file = OpenOptions::new().read(true).append(true).open(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => return Err(error),
            }
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            // A line that a crash cut off was never acted upon.
            let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
            found.push(Record {
                file,
                id: path
                    .file_stem()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
                path,
                things: whole.lines().filter_map(Thing::from_line).collect(),
            });
        }
        Ok(found)
    }
}

/// What one run made.
#[derive(Debug)]
pub struct Record {
    file: File,
    path: PathBuf,
    id: String,
    things: Vec<Thing>,
}

impl Record {
    /// Which run's it is.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Writes `thing` down; only then may it be made.
    ///
    /// # Errors
    /// If the disk does not take it.
    pub fn note(&mut self, thing: Thing) -> io::Result<()> {
        self.file.write_all(thing.to_line().as_bytes())?;
        self.file.sync_data()?;
        self.things.push(thing);
        Ok(())
    }

    /// All that was written down, in order.
    #[must_use]
    pub fn things(&self) -> &[Thing] {
        &self.things
    }

    /// Ends the record, once everything in it is gone.
    ///
    /// # Errors
    /// If the file cannot be removed.
    pub fn close(self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_found_again_only_once_its_run_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::open(&directory.path().join("records")).unwrap();
        let things = [
            Thing::Directory("/var/lib/with a space".into()),
            Thing::Group("play-alice".to_owned()),
            Thing::Account {
                name: "kai-play-alice".to_owned(),
                home: "/home/kai-play-alice".into(),
            },
        ];
        let mut record = records.begin("one").unwrap();
        for thing in &things {
            record.note(thing.clone()).unwrap();
        }

        assert!(records.left_over().unwrap().is_empty());
        drop(record);
        let mut left = records.left_over().unwrap();

        assert_eq!(left.len(), 1);
        assert_eq!(left[0].id(), "one");
        assert_eq!(left[0].things(), things);
        left.remove(0).close().unwrap();
        assert!(records.left_over().unwrap().is_empty());
        let lock = records.lock().unwrap();
        records.remove_if_empty(&lock);
        assert!(!directory.path().join("records").exists());
    }

    #[test]
    fn a_line_cut_off_by_a_crash_is_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::open(&directory.path().join("records")).unwrap();
        fs::write(
            directory.path().join("records/x.made"),
            "group a\naccount kai-pl",
        )
        .unwrap();

        let left = records.left_over().unwrap();

        assert_eq!(left[0].things(), [Thing::Group("a".to_owned())]);
    }

    #[test]
    fn a_directory_of_records_is_nobody_elses() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("records");
        std::os::unix::fs::symlink("/usr", &link).unwrap();
        assert!(Records::open(&link).is_err());
    }
}
