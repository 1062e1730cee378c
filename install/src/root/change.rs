//! Changes of the tree, each in one step: what is made is made beside its place and renamed there, so that
//! a run that is killed leaves it whole or not there.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, RenameFlags, openat, renameat2},
    sys::stat::{Mode, fchmod, fstat, mkdirat},
    unistd::{Gid, Uid, UnlinkatFlags, fchown, symlinkat, unlinkat},
};

use super::{Access, Found, Root};
use crate::{failure::Failure, tools};

impl Root {
    /// Makes the directory at `path`, in one step with this access, or gives it to the one that is there.
    ///
    /// # Errors
    /// If something else is there, or the kernel refuses.
    pub fn make_directory(&self, path: &Path, access: Access) -> Result<(), Failure> {
        let place = self.existing_place(path)?;
        let is_new = self.look(path)?.is_none();
        let new = beside(&place.name);
        let name = if is_new { &new } else { &place.name };
        let made = (|| {
            if is_new {
                match mkdirat(&place.directory, new.as_os_str(), Mode::S_IRWXU) {
                    // What a run that was killed left.
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(error) => return Err(io::Error::from(error)),
                }
            }
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let opened = openat(&place.directory, name.as_os_str(), flags, Mode::empty())?;
            give(&opened, access)?;
            if is_new {
                renameat2(
                    &place.directory,
                    new.as_os_str(),
                    &place.directory,
                    place.name.as_os_str(),
                    RenameFlags::RENAME_NOREPLACE,
                )?;
            }
            sync(&place.directory)
        })();
        made.map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOTDIR | Errno::ELOOP) => Failure::NotA {
                path: self.shown(path),
                wanted: "directory",
            },
            _ => self.failed(path, error),
        })
    }

    /// Writes the file at `path` whole, in the place of whatever file or link is there.
    ///
    /// # Errors
    /// Nothing has changed then.
    pub fn write(
        &self,
        path: &Path,
        contents: &mut dyn Read,
        access: Access,
    ) -> Result<(), Failure> {
        let place = self.existing_place(path)?;
        let new = beside(&place.name);
        let written = self.write_beside(&place.directory, &new, contents, access);
        let done = written.and_then(|()| {
            renameat2(
                &place.directory,
                new.as_os_str(),
                &place.directory,
                place.name.as_os_str(),
                RenameFlags::empty(),
            )?;
            sync(&place.directory)
        });
        done.map_err(|error| {
            let _ = unlinkat(
                &place.directory,
                new.as_os_str(),
                UnlinkatFlags::NoRemoveDir,
            );
            self.failed(path, error)
        })
    }

    fn write_beside(
        &self,
        directory: &OwnedFd,
        new: &OsStr,
        contents: &mut dyn Read,
        access: Access,
    ) -> io::Result<()> {
        // What a run that was killed left.
        match unlinkat(directory, new, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let opened = openat(directory, new, flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
        let mut file = File::from(opened);
        io::copy(contents, &mut file)?;
        file.flush()?;
        give(&file, access)?;
        file.sync_all()
    }

    /// Gives the file or directory at `path` this access.
    ///
    /// # Errors
    /// If it is a link, or the kernel refuses.
    pub fn give(&self, path: &Path, access: Access) -> Result<(), Failure> {
        let place = self.existing_place(path)?;
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        openat(
            &place.directory,
            place.name.as_os_str(),
            flags,
            Mode::empty(),
        )
        .map_err(io::Error::from)
        .and_then(|opened| give(&opened, access))
        .map_err(|error| self.failed(path, error))
    }

    /// Makes the link at `path` lead to `to`, in one step, in the place of a link that is there.
    ///
    /// # Errors
    /// Nothing has changed then.
    pub fn link(&self, path: &Path, to: &Path) -> Result<(), Failure> {
        let place = self.existing_place(path)?;
        let new = beside(&place.name);
        let linked = (|| {
            match unlinkat(
                &place.directory,
                new.as_os_str(),
                UnlinkatFlags::NoRemoveDir,
            ) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(error) => return Err(error.into()),
            }
            symlinkat(to, &place.directory, new.as_os_str())?;
            renameat2(
                &place.directory,
                new.as_os_str(),
                &place.directory,
                place.name.as_os_str(),
                RenameFlags::empty(),
            )?;
            sync(&place.directory)
        })();
        linked.map_err(|error: io::Error| self.failed(path, error))
    }

    /// Gives what stands at `path` the name `to`, in one step, where nothing is yet.
    ///
    /// # Errors
    /// Nothing has changed then.
    pub fn rename(&self, path: &Path, to: &Path) -> Result<(), Failure> {
        let (old, new) = (self.existing_place(path)?, self.existing_place(to)?);
        let renamed = renameat2(
            &old.directory,
            old.name.as_os_str(),
            &new.directory,
            new.name.as_os_str(),
            RenameFlags::RENAME_NOREPLACE,
        );
        renamed
            .map_err(io::Error::from)
            // The new name first: at no moment is what has two names on the disk without either.
            .and_then(|()| sync(&new.directory))
            .and_then(|()| sync(&old.directory))
            .map_err(|error| self.failed(path, error))
    }

    /// Removes the file or link at `path`, if there is one.
    ///
    /// # Errors
    /// If it is a directory, or the kernel refuses.
    pub fn remove(&self, path: &Path) -> Result<(), Failure> {
        self.unlink(path, UnlinkatFlags::NoRemoveDir)
    }

    /// Removes the directory at `path` if it is there and empty.
    ///
    /// # Errors
    /// If the kernel refuses for another reason.
    pub fn remove_if_empty(&self, path: &Path) -> Result<bool, Failure> {
        match self.unlink(path, UnlinkatFlags::RemoveDir) {
            Err(Failure::Io { error, .. }) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                Ok(false)
            }
            other => other.map(|()| true),
        }
    }

    /// Removes what stands at `path` and all below it, following no link.
    ///
    /// # Errors
    /// If the kernel refuses; some of it may be gone then.
    pub fn remove_all(&self, path: &Path) -> Result<(), Failure> {
        let Some(place) = self.place(path)? else {
            return Ok(());
        };
        // By this process's number, so that it is the same place to a program that it starts.
        let (process, directory) = (std::process::id(), place.directory.as_raw_fd());
        let through = PathBuf::from(format!("/proc/{process}/fd/{directory}")).join(&place.name);
        let removed = match std::fs::symlink_metadata(&through) {
            Ok(found) if found.is_dir() => std::fs::remove_dir_all(&through).or_else(|_| {
                // It holds a descriptor for each level, and its owner may have made more than can be held.
                let words = ["-rf", "--one-file-system", "--", &through.to_string_lossy()];
                tools::run("rm", &words, None)
                    .map(drop)
                    .map_err(io::Error::other)
            }),
            Ok(_) => std::fs::remove_file(&through),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.failed(path, error)),
            _ => sync(&place.directory).map_err(|error| self.failed(path, error)),
        }
    }

    fn unlink(&self, path: &Path, flags: UnlinkatFlags) -> Result<(), Failure> {
        let Some(place) = self.place(path)? else {
            return Ok(());
        };
        match unlinkat(&place.directory, place.name.as_os_str(), flags) {
            Ok(()) => sync(&place.directory).map_err(|error| self.failed(path, error)),
            Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(self.failed(path, error)),
        }
    }
}

/// The name under which a file is written before it is renamed: no reader of a directory of fragments
/// takes it for one.
fn beside(name: &OsStr) -> OsString {
    let mut new = OsString::from(".");
    new.push(name);
    new.push(super::NEW);
    new
}

/// The owner first: it takes set-id bits away.
fn give(file: &impl AsFd, access: Access) -> io::Result<()> {
    let found = Found::of(&fstat(file)?);
    if (found.access.uid, found.access.gid) != (access.uid, access.gid) {
        fchown(
            file,
            Some(Uid::from_raw(access.uid)),
            Some(Gid::from_raw(access.gid)),
        )?;
    }
    fchmod(file, Mode::from_bits_truncate(access.mode))?;
    Ok(())
}

/// The names in a directory, to the disk. The descriptor is one of O_PATH.
fn sync(directory: &OwnedFd) -> io::Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let opened = openat(directory, ".", flags, Mode::empty())?;
    nix::unistd::fsync(&opened)?;
    Ok(())
}
