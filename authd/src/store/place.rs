//! Where the database is: a directory and a file of this account's own, which nobody else can read.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use kai_program::trusted_file::Distrust;

use super::StoreError;

/// The file's name in its directory.
pub const FILE: &str = "authd.sqlite";

/// What SQLite may keep beside a database: what was committed last, or must be undone.
const BESIDE: [&str; 2] = ["-wal", "-journal"];

const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// The file in `directory`.
pub(super) fn file_in(directory: &Path) -> PathBuf {
    directory.join(FILE)
}

/// The files that SQLite may keep beside the one at `path`.
pub(super) fn beside(path: &Path) -> [PathBuf; 2] {
    BESIDE.map(|suffix| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        name.into()
    })
}

/// Judges `directory` and the database in it, which must be there.
pub(super) fn judge(directory: &Path) -> Result<(), StoreError> {
    let path = file_in(directory);
    let missing = |error: StoreError| match error {
        StoreError::Distrust(Distrust::Io { error, .. })
            if error.kind() == io::ErrorKind::NotFound =>
        {
            StoreError::Missing(path.clone())
        }
        other => other,
    };
    judge_directory(directory).map_err(missing)?;
    judge_file(&path).map_err(missing)?;
    for path in beside(&path) {
        if exists(&path)? {
            judge_file(&path)?;
        }
    }
    Ok(())
}

/// Judges a directory that is there.
fn judge_directory(path: &Path) -> Result<(), StoreError> {
    let found = fs::symlink_metadata(path).map_err(io_error(path))?;
    if !found.is_dir() {
        return Err(StoreError::NotADirectory(path.to_owned()));
    }
    judge_access(path, &found, DIRECTORY_MODE)
}

/// Judges a file that is there: a regular one, of one name, which only this account can read.
pub(super) fn judge_file(path: &Path) -> Result<(), StoreError> {
    let found = fs::symlink_metadata(path).map_err(io_error(path))?;
    if !found.is_file() {
        return Err(Distrust::NotAFile(path.to_owned()).into());
    }
    judge_access(path, &found, FILE_MODE)?;
    if found.nlink() != 1 {
        return Err(Distrust::Links(path.to_owned()).into());
    }
    Ok(())
}

fn judge_access(path: &Path, found: &fs::Metadata, wanted: u32) -> Result<(), StoreError> {
    let me = nix::unistd::geteuid().as_raw();
    if found.uid() != me {
        return Err(Distrust::Owner {
            path: path.to_owned(),
            owner: found.uid(),
            wanted: me,
        }
        .into());
    }
    let mode = found.mode() & 0o7777;
    if mode & !DIRECTORY_MODE != 0 {
        return Err(Distrust::Mode {
            path: path.to_owned(),
            mode,
            wanted,
        }
        .into());
    }
    Ok(())
}

/// True if there is something at `path`, be it a link to nothing.
pub(super) fn exists(path: &Path) -> Result<bool, StoreError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io_error(path)(error)),
    }
}

/// Makes `directory` if it is missing, and what is above it, and judges it.
pub(super) fn make_directory(directory: &Path) -> Result<(), StoreError> {
    let mut missing = Vec::new();
    for path in directory.ancestors() {
        if path.as_os_str().is_empty() || exists(path)? {
            break;
        }
        missing.push(path);
    }
    for path in missing.into_iter().rev() {
        // What is above is for others to traverse: users and the gateway have theirs beside it.
        let mode = if path == directory {
            DIRECTORY_MODE
        } else {
            0o755
        };
        DirBuilder::new()
            .mode(mode)
            .create(path)
            .and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)))
            .map_err(io_error(path))?;
        sync(path.parent().unwrap_or(Path::new("/")))?;
    }
    judge_directory(directory)
}

/// Makes an empty file that only this account can read, in place of what an attempt that was killed has
/// left of the same name.
pub(super) fn make_file(path: &Path) -> Result<File, StoreError> {
    remove(path)?;
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(path)
        .map_err(io_error(path))?;
    // Whatever the umask took away.
    file.set_permissions(Permissions::from_mode(FILE_MODE))
        .map_err(io_error(path))?;
    Ok(file)
}

/// Removes the file at `path` and those beside it, if they are there.
fn remove(path: &Path) -> Result<(), StoreError> {
    for path in beside(path).iter().chain([&path.to_owned()]) {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error(path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Has the names in `directory` on disk.
pub(super) fn sync(directory: &Path) -> Result<(), StoreError> {
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(io_error(directory))
}

/// An error of a call with its path.
pub(super) fn io_error(path: &Path) -> impl Fn(io::Error) -> StoreError {
    move |error| {
        Distrust::Io {
            path: path.to_owned(),
            error,
        }
        .into()
    }
}
