//! Opens a file once and judges it by that descriptor, so that nobody can swap it between the look
//! and the read.

use std::{
    fs::File,
    io::{self, Read},
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{OFlag, open},
    sys::stat::Mode,
};
use zeroize::Zeroizing;

/// Longest configuration file or secret, in bytes.
const LONGEST: u64 = 1024 * 1024;
/// With less than 32 bytes left, `read_to_end` looks for the end by way of its stack.
const SPARE: usize = 64;

/// Who may own a file and who may read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Owned by root or this process's account, not writable by others: configuration.
    Configuration,
    /// Owned by root or this process's account, one link, and neither group nor others may touch it.
    Private,
    /// As [`Private`](Self::Private), but this process's own group may read it: a root-owned secret
    /// for one service account.
    GroupSecret,
}

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub enum Distrust {
    /// It cannot be opened or read.
    #[error("{path}: {error}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the kernel says.
        error: io::Error,
    },
    /// It is not a regular file.
    #[error("{0}: must be a regular file")]
    NotAFile(PathBuf),
    /// Somebody else owns it.
    #[error("{path}: belongs to uid {owner}; mend it with: chown {wanted} {path}")]
    Owner {
        /// Which.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who should.
        wanted: u32,
    },
    /// Its mode lets others in.
    #[error(
        "{path}: its mode {mode:04o} lets other accounts in; mend it with: chmod {wanted:04o} {path}"
    )]
    Mode {
        /// Which.
        path: PathBuf,
        /// What it is.
        mode: u32,
        /// What it should be.
        wanted: u32,
    },
    /// It has further names.
    #[error("{0}: has more than one link; copy it to a file of its own")]
    Links(PathBuf),
    /// It is longer than any configuration is.
    #[error("{0}: is longer than 1 MiB")]
    TooLong(PathBuf),
    /// It became longer since it was opened.
    #[error("{0}: changed while it was read; try again")]
    Changed(PathBuf),
    /// It is not text.
    #[error("{0}: is not UTF-8 text")]
    NotText(PathBuf),
}

/// A file that passed.
#[derive(Debug)]
pub struct TrustedFile {
    file: File,
    path: PathBuf,
    /// In bytes.
    length: u64,
}

impl TrustedFile {
    /// Opens `path` for reading, without following a symbolic link in its last component, and judges
    /// what was opened.
    ///
    /// # Errors
    /// [`Distrust`], which says how to mend it.
    pub fn open(path: &Path, trust: Trust) -> Result<Self, Distrust> {
        let io = |error: io::Error| Distrust::Io {
            path: path.to_owned(),
            error,
        };
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let descriptor = open(path, flags, Mode::empty()).map_err(|e| io(e.into()))?;
        let file = File::from(descriptor);
        let found = file.metadata().map_err(io)?;
        let me = nix::unistd::geteuid().as_raw();
        let my_group = nix::unistd::getegid().as_raw();
        if !found.is_file() {
            return Err(Distrust::NotAFile(path.to_owned()));
        }
        if found.uid() != 0 && found.uid() != me {
            return Err(Distrust::Owner {
                path: path.to_owned(),
                owner: found.uid(),
                wanted: me,
            });
        }
        let (forbidden, wanted) = match trust {
            Trust::Configuration => (0o022, 0o644),
            // systemd from 254 hands credentials over as root:root with an access list, which stat(2)
            // shows as the group's bits; nobody but root is in that group.
            Trust::GroupSecret if found.gid() == my_group || found.gid() == 0 => (0o037, 0o640),
            Trust::Private | Trust::GroupSecret => (0o077, 0o600),
        };
        let mode = found.mode() & 0o7777;
        if mode & forbidden != 0 {
            return Err(Distrust::Mode {
                path: path.to_owned(),
                mode,
                wanted,
            });
        }
        if trust != Trust::Configuration && found.nlink() != 1 {
            return Err(Distrust::Links(path.to_owned()));
        }
        if found.len() > LONGEST {
            return Err(Distrust::TooLong(path.to_owned()));
        }
        Ok(Self {
            file,
            path: path.to_owned(),
            length: found.len(),
        })
    }

    /// Its whole text, wiped from memory when dropped.
    ///
    /// # Errors
    /// [`Distrust::Io`], [`Distrust::Changed`] or [`Distrust::NotText`].
    pub fn read(self) -> Result<Zeroizing<String>, Distrust> {
        // Room for all of it at once, and for what `read_to_end` wants to have left at the end: a buffer that
        // grows leaves copies behind. No more: wiped, it is memory that a daemon keeps.
        let mut bytes = Zeroizing::new(Vec::with_capacity(self.length as usize + SPARE));
        self.file
            .take(self.length + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| Distrust::Io {
                path: self.path.clone(),
                error,
            })?;
        if bytes.len() as u64 > self.length {
            return Err(Distrust::Changed(self.path));
        }
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(Zeroizing::new(text.to_owned())),
            Err(_) => Err(Distrust::NotText(self.path)),
        }
    }

    /// The descriptor, to be handed on unread.
    #[must_use]
    pub fn into_descriptor(self) -> OwnedFd {
        self.file.into()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn file(directory: &Path, mode: u32) -> PathBuf {
        let path = directory.join("secret");
        fs::write(&path, "hunter2").unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn a_private_file_that_others_can_read_is_refused_with_the_mend() {
        let directory = tempfile::tempdir().unwrap();
        for mode in [0o640, 0o604, 0o620, 0o660, 0o666] {
            let path = file(directory.path(), mode);
            let refused = TrustedFile::open(&path, Trust::Private)
                .unwrap_err()
                .to_string();
            assert!(refused.contains("chmod 0600"), "{refused}");
            assert!(!refused.contains("hunter2"));
        }
    }

    #[test]
    fn a_link_a_second_name_and_a_directory_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = file(directory.path(), 0o600);
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(
            TrustedFile::open(&link, Trust::Private),
            Err(Distrust::Io { .. })
        ));
        assert!(matches!(
            TrustedFile::open(directory.path(), Trust::Private),
            Err(Distrust::NotAFile(_))
        ));
        fs::hard_link(&path, directory.path().join("second")).unwrap();
        assert!(matches!(
            TrustedFile::open(&path, Trust::Private),
            Err(Distrust::Links(_))
        ));
    }

    #[test]
    fn a_fifo_does_not_block_the_open() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        nix::unistd::mkfifo(&path, Mode::S_IRUSR).unwrap();
        assert!(matches!(
            TrustedFile::open(&path, Trust::Configuration),
            Err(Distrust::NotAFile(_))
        ));
    }

    #[test]
    fn what_passes_is_read_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = file(directory.path(), 0o600);
        let text = TrustedFile::open(&path, Trust::Private)
            .unwrap()
            .read()
            .unwrap();
        assert_eq!(text.as_str(), "hunter2");
    }

    #[test]
    fn what_grows_after_it_was_judged_is_not_read_in_part() {
        let directory = tempfile::tempdir().unwrap();
        let path = file(directory.path(), 0o600);
        let opened = TrustedFile::open(&path, Trust::Private).unwrap();
        fs::write(&path, "hunter2 and more").unwrap();
        let refused = opened.read().unwrap_err();
        assert!(matches!(refused, Distrust::Changed(_)), "{refused}");
    }
}
