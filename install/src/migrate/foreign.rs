//! Directories that belong to the account of the Python kai, read as what a stranger wrote: no link is
//! followed, nothing but a regular file of one name is opened, and nothing is longer than it may be.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    sys::stat::{Mode, fstat},
};
use zeroize::Zeroizing;

use crate::{
    failure::Failure,
    root::{Access, Found, Kind, Root},
};

/// How many names of one directory are looked at.
const NAMES: usize = 20_000;

/// Why a file is not read. It follows the file's name.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It is a link, or something on the way to it is.
    #[error("is a link, which is not followed")]
    Link,
    /// It is a device, a pipe, a directory, or has another name somewhere.
    #[error("is not a regular file of one name")]
    NotAFile,
    /// It is too long.
    #[error("is longer than {} KiB", .0 / 1024)]
    TooLong(u64),
    /// It is not text.
    #[error("is not UTF-8 text")]
    NotText,
    /// The kernel refuses.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
}

impl From<Errno> for Refused {
    fn from(error: Errno) -> Self {
        match error {
            Errno::ELOOP => Self::Link,
            other => Self::Io(other.into()),
        }
    }
}

/// What a file holds, and whose it is.
pub type Contents<T> = (Zeroizing<T>, Access);

/// A directory of somebody's.
#[derive(Debug)]
pub struct Foreign {
    directory: OwnedFd,
    /// Where it is in the tree.
    pub path: PathBuf,
}

impl Foreign {
    /// The directory at `path`; none if there is none.
    ///
    /// # Errors
    /// If a link or something else stands there.
    pub fn open(root: &Root, path: &Path) -> Result<Option<Self>, Failure> {
        Ok(root.somebody_s(path)?.map(|(directory, _)| Self {
            directory,
            path: path.to_owned(),
        }))
    }

    /// The file `name`, which may be some directories down, and whose it is; none if there is none.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn file(&self, name: &Path, longest: u64) -> Result<Option<(File, Access)>, Refused> {
        // Its kind first: to open a device does something.
        let Some(place) = self.place(name, OFlag::O_PATH)? else {
            return Ok(None);
        };
        let found = Found::of(&fstat(&place)?);
        if found.kind == Kind::Link {
            return Err(Refused::Link);
        }
        if found.kind != Kind::File || found.names != 1 {
            return Err(Refused::NotAFile);
        }
        if found.length > longest {
            return Err(Refused::TooLong(longest));
        }
        let opened = nix::fcntl::open(
            format!("/proc/self/fd/{}", place.as_raw_fd()).as_str(),
            OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )?;
        Ok(Some((opened.into(), found.access)))
    }

    /// What the file `name` holds, and whose it is; none if there is none.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn read(&self, name: &Path, longest: u64) -> Result<Option<Contents<Vec<u8>>>, Refused> {
        let Some((file, access)) = self.file(name, longest)? else {
            return Ok(None);
        };
        let length = file.metadata()?.len().min(longest);
        // Room for all of it at once: a buffer that grows leaves copies of secrets behind.
        let room = usize::try_from(length).unwrap_or(0) + 1;
        let mut bytes = Zeroizing::new(Vec::with_capacity(room));
        file.take(longest + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > longest {
            return Err(Refused::TooLong(longest));
        }
        Ok(Some((bytes, access)))
    }

    /// The text of the file `name`, and whose it is; none if there is none.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn text(&self, name: &Path, longest: u64) -> Result<Option<Contents<String>>, Refused> {
        let Some((bytes, access)) = self.read(name, longest)? else {
            return Ok(None);
        };
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(Some((Zeroizing::new(text.to_owned()), access))),
            Err(_) => Err(Refused::NotText),
        }
    }

    /// The names in the directory `name`, sorted, and whether there are more than are looked at.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn names(&self, name: &Path) -> Result<(Vec<String>, bool), Refused> {
        let Some(place) = self.place(name, OFlag::O_PATH | OFlag::O_DIRECTORY)? else {
            return Ok((Vec::new(), false));
        };
        let entries = std::fs::read_dir(format!("/proc/self/fd/{}", place.as_raw_fd()))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            if names.len() == NAMES {
                return Ok((names, true));
            }
            // Another name is none that the Python kai gives.
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok((names, false))
    }

    fn place(&self, name: &Path, flags: OFlag) -> Result<Option<OwnedFd>, Refused> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        match openat2(&self.directory, name, how) {
            Ok(opened) => Ok(Some(opened)),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn nothing_but_a_file_of_one_name_is_read_and_no_link_leads_anywhere() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("d")).unwrap();
        fs::write(at("d/good"), "1").unwrap();
        fs::write(at("d/long"), "12345").unwrap();
        fs::write(at("d/binary"), [0xff, 0xfe]).unwrap();
        fs::write(at("outside"), "secret").unwrap();
        symlink("../outside", at("d/link")).unwrap();
        symlink(".", at("d/way")).unwrap();
        fs::hard_link(at("outside"), at("d/second")).unwrap();
        nix::unistd::mkfifo(&at("d/fifo"), Mode::S_IRWXU).unwrap();
        let root = Root::open(directory.path()).unwrap();
        let foreign = Foreign::open(&root, Path::new("/d")).unwrap().unwrap();
        let read = |name: &str| foreign.text(Path::new(name), 4);

        assert_eq!(read("good").unwrap().unwrap().0.as_str(), "1");
        assert!(read("none").unwrap().is_none() && read("good/x").unwrap().is_none());
        for link in ["link", "way/good"] {
            assert!(matches!(read(link), Err(Refused::Link)), "{link}");
        }
        for other in ["second", "fifo", "../d"] {
            assert!(read(other).is_err(), "{other}");
        }
        assert!(matches!(read("long"), Err(Refused::TooLong(4))));
        assert!(matches!(read("binary"), Err(Refused::NotText)));
        assert!(Foreign::open(&root, Path::new("/d/way")).is_err());
    }
}
