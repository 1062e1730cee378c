//! A directory that the agent can write to as well: same account. Nothing read from it is trusted in
//! size or content, and no name in it is followed through a symbolic link.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open, openat, renameat},
    sys::stat::{Mode, SFlag, fstat, mkdirat},
    unistd::{UnlinkatFlags, unlinkat},
};

/// An open directory.
#[derive(Debug)]
pub struct Directory(OwnedFd);

impl Directory {
    /// Opens the directory at `path`.
    ///
    /// # Errors
    /// What open(2) answers.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(open(path, directory_flags(), Mode::empty())?))
    }

    /// Opens the directory `name` in it, and makes it, 0700, if it is missing.
    ///
    /// # Errors
    /// What openat(2) or mkdirat(2) answers.
    pub fn child(&self, name: &str) -> io::Result<Self> {
        match mkdirat(&self.0, name, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Self(openat(
            &self.0,
            name,
            directory_flags(),
            Mode::empty(),
        )?))
    }

    /// The content of the regular file `name`, if it has at most `limit` bytes. None if it is
    /// missing, longer, or no file.
    #[must_use]
    pub fn read(&self, name: &str, limit: usize) -> Option<Vec<u8>> {
        let file = self.open_to_read(name).ok()?;
        let length = regular(&file)?;
        if length > limit as u64 {
            return None;
        }
        let mut bytes = Vec::with_capacity(length as usize);
        file.take(limit as u64 + 1).read_to_end(&mut bytes).ok()?;
        (bytes.len() <= limit).then_some(bytes)
    }

    /// Puts a file with this content there, whole or not at all, replacing one of that name.
    ///
    /// A rename replaces the name in one step, so whoever is killed leaves the old file or the new
    /// one. Nothing is synced: killing a process loses no page cache, and an answer that a power
    /// failure takes is asked for again.
    ///
    /// # Errors
    /// What the file system answers.
    pub fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let temporary = format!("{name}.new");
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | common_flags();
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let file = match openat(&self.0, temporary.as_str(), flags, mode) {
            Err(Errno::EEXIST) => {
                self.remove(&temporary)?;
                openat(&self.0, temporary.as_str(), flags, mode)?
            }
            other => other?,
        };
        let written = File::from(file)
            .write_all(content)
            .and_then(|()| Ok(renameat(&self.0, temporary.as_str(), &self.0, name)?));
        if written.is_err() {
            let _ = self.remove(&temporary);
        }
        written
    }

    /// Opens the regular file `name` for reading.
    ///
    /// # Errors
    /// What openat(2) answers, or that it is no regular file.
    pub fn open_to_read(&self, name: &str) -> io::Result<File> {
        // O_NONBLOCK: opening a FIFO would wait for somebody to write.
        self.open_regular(name, OFlag::O_RDONLY)
    }

    fn open_regular(&self, name: &str, flags: OFlag) -> io::Result<File> {
        let flags = flags | OFlag::O_NONBLOCK | common_flags();
        let file = File::from(openat(&self.0, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
        match regular(&file) {
            Some(_) => Ok(file),
            None => Err(io::Error::from(io::ErrorKind::InvalidInput)),
        }
    }

    /// Opens the regular file `name` for reading and writing in place, and makes it if it is missing.
    ///
    /// # Errors
    /// What openat(2) answers, or that it is no regular file.
    pub fn open_in_place(&self, name: &str) -> io::Result<File> {
        self.open_regular(name, OFlag::O_RDWR | OFlag::O_CREAT)
    }

    /// Removes the file `name`; that it is missing is no error.
    ///
    /// # Errors
    /// What unlinkat(2) answers.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.0, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn common_flags() -> OFlag {
    OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC
}

fn directory_flags() -> OFlag {
    OFlag::O_RDONLY | OFlag::O_DIRECTORY | common_flags()
}

/// The length of a regular file.
fn regular(file: &impl AsFd) -> Option<u64> {
    let stat = fstat(file).ok()?;
    let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
    (kind == SFlag::S_IFREG)
        .then(|| u64::try_from(stat.st_size).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_link_a_fifo_a_directory_and_a_giant_are_as_if_absent() {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::open(place.path()).unwrap();
        std::fs::write(place.path().join("giant"), [0; 65]).unwrap();
        std::fs::create_dir(place.path().join("directory")).unwrap();
        symlink("/etc/passwd", place.path().join("link")).unwrap();
        nix::unistd::mkfifo(&place.path().join("fifo"), Mode::S_IRWXU).unwrap();

        for name in ["giant", "directory", "link", "fifo", "missing"] {
            assert_eq!(directory.read(name, 64), None, "{name}");
        }
        assert!(directory.open_in_place("link").is_err());
        assert!(directory.open_in_place("fifo").is_err());
    }

    #[test]
    fn a_replaced_file_is_the_users_alone_and_a_planted_link_is_not_followed() {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::open(place.path()).unwrap();
        let target = place.path().join("target");
        std::fs::write(&target, "untouched").unwrap();
        symlink(&target, place.path().join("x.new")).unwrap();
        symlink(&target, place.path().join("x")).unwrap();

        directory.replace("x", b"content").unwrap();

        assert_eq!(std::fs::read(&target).unwrap(), b"untouched");
        assert_eq!(directory.read("x", 64).unwrap(), b"content");
        let mode = std::fs::metadata(place.path().join("x"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
