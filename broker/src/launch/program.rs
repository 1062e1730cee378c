//! The worker's program is root's, and nobody else can put another in its place.

use std::{
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{OFlag, open},
    sys::stat::{Mode, fstat},
};

/// Why the program is not executed.
#[derive(Debug, thiserror::Error)]
pub enum Untrusted {
    /// It cannot be opened or looked at.
    #[error("{path}: {error}; install kai's programs together")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the kernel says.
        error: io::Error,
    },
    /// Somebody other than root can change it, or a directory above it.
    #[error(
        "{0}: can be changed by others than root; mend it with: chown root {0} && chmod go-w {0}"
    )]
    Writable(PathBuf),
    /// It is not a program.
    #[error("{0}: is not an executable file")]
    NotAProgram(PathBuf),
}

/// The program, opened and judged by that descriptor.
#[derive(Debug)]
pub struct WorkerProgram(OwnedFd);

impl WorkerProgram {
    /// Opens `path`, whose directories must all be root's too.
    ///
    /// # Errors
    /// [`Untrusted`], which says how to mend it.
    pub fn open(path: &Path) -> Result<Self, Untrusted> {
        for parent in path.ancestors().skip(1) {
            let found = std::fs::metadata(parent).map_err(|error| Untrusted::Io {
                path: parent.to_owned(),
                error,
            })?;
            // A sticky directory like /tmp lets others add names, and not take this one's away; the
            // walk stops there all the same, because it is no place for a program of root's.
            if found.uid() != 0 || found.mode() & 0o022 != 0 {
                return Err(Untrusted::Writable(parent.to_owned()));
            }
        }
        let io = |error: nix::Error| Untrusted::Io {
            path: path.to_owned(),
            error: error.into(),
        };
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let descriptor = open(path, flags, Mode::empty()).map_err(io)?;
        let found = fstat(&descriptor).map_err(io)?;
        if found.st_mode & libc::S_IFMT != libc::S_IFREG || found.st_mode & 0o111 == 0 {
            return Err(Untrusted::NotAProgram(path.to_owned()));
        }
        if found.st_uid != 0 || found.st_mode & 0o022 != 0 {
            return Err(Untrusted::Writable(path.to_owned()));
        }
        Ok(Self(descriptor))
    }
}

impl AsFd for WorkerProgram {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_under_tmp_is_refused() {
        let refused = WorkerProgram::open(Path::new("/tmp/kai-worker"));
        assert!(matches!(refused, Err(Untrusted::Writable(path)) if path == Path::new("/tmp")));
    }

    #[test]
    fn a_directory_and_a_plain_file_are_refused() {
        assert!(matches!(
            WorkerProgram::open(Path::new("/usr/bin")),
            Err(Untrusted::NotAProgram(_) | Untrusted::Io { .. })
        ));
        assert!(matches!(
            WorkerProgram::open(Path::new("/etc/passwd")),
            Err(Untrusted::NotAProgram(_))
        ));
    }
}
