//! The tree that is changed: the host's, or one below a directory.
//!
//! Every path is walked by descriptors, from the tree's root and never out of it. A link on the way is
//! followed only if root made it where nobody else can write.
//!
//! - [`change`]: makes, writes and removes, each whole or not at all.

mod change;

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::File,
    io::{self, Read},
    os::fd::{AsRawFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat},
    sys::{
        stat::{FileStat, Mode, SFlag, fstat, fstatat},
        statvfs::fstatvfs,
    },
    unistd::geteuid,
};

use crate::failure::Failure;

/// Links on one way.
const LINKS: usize = 16;
/// How the name ends under which something is made before it is renamed.
pub const NEW: &str = ".kai-install";
/// Whoever is neither the owner nor root may write.
const WRITABLE: u32 = 0o022;

/// Numbers and mode that something has, or shall have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Whose it is.
    pub uid: u32,
    /// Whose group it is.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

impl Access {
    /// Root's, with this mode.
    #[must_use]
    pub const fn root(mode: u32) -> Self {
        Self {
            uid: 0,
            gid: 0,
            mode,
        }
    }
}

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A device, a socket, a pipe.
    Other,
}

/// What stands at a path, and whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// What it is.
    pub kind: Kind,
    /// Whose it is.
    pub access: Access,
    /// Its length.
    pub length: u64,
    /// How many names it has.
    pub names: u64,
    /// When it was changed last, contents or not, in microseconds since 1970.
    pub changed: u64,
}

impl Found {
    pub(crate) fn of(stat: &FileStat) -> Self {
        let kind = match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFREG => Kind::File,
            SFlag::S_IFDIR => Kind::Directory,
            SFlag::S_IFLNK => Kind::Link,
            _ => Kind::Other,
        };
        let seconds = u64::try_from(stat.st_ctime).unwrap_or(0);
        let nanoseconds = u64::try_from(stat.st_ctime_nsec).unwrap_or(0);
        Self {
            kind,
            access: Access {
                uid: stat.st_uid,
                gid: stat.st_gid,
                mode: stat.st_mode & 0o7777,
            },
            length: u64::try_from(stat.st_size).unwrap_or(0),
            names: stat.st_nlink,
            changed: seconds * 1_000_000 + nanoseconds / 1000,
        }
    }
}

/// A directory that was reached, and a name in it.
pub(super) struct Place {
    pub(super) directory: OwnedFd,
    pub(super) name: OsString,
}

/// The tree.
#[derive(Debug)]
pub struct Root {
    top: OwnedFd,
    path: PathBuf,
}

impl Root {
    /// The tree below the directory `path`; `/` is the host's.
    ///
    /// # Errors
    /// [`Failure::Io`] if it is not there.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let absolute = std::path::absolute(path).map_err(|error| Failure::io(path, error))?;
        let top = nix::fcntl::open(
            &absolute,
            OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
        .map_err(|error| Failure::io(&absolute, error))?;
        Ok(Self {
            top,
            path: absolute,
        })
    }

    /// The host's own.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn host() -> Result<Self, Failure> {
        Self::open(Path::new("/"))
    }

    /// True for the host's own tree, where programs are started.
    #[must_use]
    pub fn is_host(&self) -> bool {
        self.path == Path::new("/")
    }

    /// The directory that the tree stands below.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `path` in this tree as the host names it.
    #[must_use]
    pub fn shown(&self, path: &Path) -> PathBuf {
        self.path.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// What stands at `path`, and not what a link there leads to.
    ///
    /// # Errors
    /// If the way to it cannot be gone.
    pub fn look(&self, path: &Path) -> Result<Option<Found>, Failure> {
        let Some(place) = self.place(path)? else {
            return Ok(None);
        };
        match fstatat(
            &place.directory,
            place.name.as_os_str(),
            AtFlags::AT_SYMLINK_NOFOLLOW,
        ) {
            Ok(stat) => Ok(Some(Found::of(&stat))),
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(self.failed(path, error)),
        }
    }

    /// Where the link at `path` leads, if there is one.
    ///
    /// # Errors
    /// If something else stands there.
    pub fn link_at(&self, path: &Path) -> Result<Option<PathBuf>, Failure> {
        let Some(place) = self.place(path)? else {
            return Ok(None);
        };
        match readlinkat(&place.directory, place.name.as_os_str()) {
            Ok(to) => Ok(Some(to.into())),
            Err(Errno::ENOENT) => Ok(None),
            Err(Errno::EINVAL) => Err(Failure::NotA {
                path: self.shown(path),
                wanted: "link",
            }),
            Err(error) => Err(self.failed(path, error)),
        }
    }

    /// The file at `path`, open to be read; none if there is nothing.
    ///
    /// # Errors
    /// If it is a link or no regular file.
    pub fn read(&self, path: &Path) -> Result<Option<File>, Failure> {
        let Some(place) = self.place(path)? else {
            return Ok(None);
        };
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        match openat(
            &place.directory,
            place.name.as_os_str(),
            flags,
            Mode::empty(),
        ) {
            Ok(opened) => {
                let stat = fstat(&opened).map_err(|error| self.failed(path, error))?;
                if Found::of(&stat).kind != Kind::File {
                    return Err(Failure::NotA {
                        path: self.shown(path),
                        wanted: "regular file",
                    });
                }
                Ok(Some(opened.into()))
            }
            Err(Errno::ENOENT) => Ok(None),
            Err(Errno::ELOOP) => Err(Failure::NotA {
                path: self.shown(path),
                wanted: "regular file",
            }),
            Err(error) => Err(self.failed(path, error)),
        }
    }

    /// The text of the file at `path`; none if there is nothing.
    ///
    /// # Errors
    /// As [`read`](Self::read), or if it is not UTF-8.
    pub fn read_text(&self, path: &Path) -> Result<Option<String>, Failure> {
        let Some(mut file) = self.read(path)? else {
            return Ok(None);
        };
        let mut text = String::new();
        file.read_to_string(&mut text)
            .map_err(|error| Failure::io(self.shown(path), error))?;
        Ok(Some(text))
    }

    /// The names in the directory at `path`, sorted; none if there is no directory.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn names(&self, path: &Path) -> Result<Vec<String>, Failure> {
        let Some(place) = self.place(path)? else {
            return Ok(Vec::new());
        };
        let through = PathBuf::from(format!("/proc/self/fd/{}", place.directory.as_raw_fd()))
            .join(&place.name);
        let entries = match std::fs::read_dir(through) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.failed(path, error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| self.failed(path, error))?;
            if let Ok(name) = entry.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// The directory at `path`, whoever it belongs to, to be looked into by its descriptor; none if there is
    /// none. Where others than root own the way to it, no link is followed.
    ///
    /// # Errors
    /// If a link or something else stands there.
    pub fn somebody_s(&self, path: &Path) -> Result<Option<(OwnedFd, Found)>, Failure> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let opened = match self.place(path) {
            Ok(None) => return Ok(None),
            Ok(Some(place)) => openat(
                &place.directory,
                place.name.as_os_str(),
                flags,
                Mode::empty(),
            ),
            Err(Failure::ForeignDirectory { .. }) => {
                let how = OpenHow::new()
                    .flags(flags)
                    .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
                openat2(&self.top, path.strip_prefix("/").unwrap_or(path), how)
            }
            Err(problem) => return Err(problem),
        };
        match opened {
            Ok(opened) => {
                let stat = fstat(&opened).map_err(|error| self.failed(path, error))?;
                Ok(Some((opened, Found::of(&stat))))
            }
            Err(Errno::ENOENT) => Ok(None),
            Err(Errno::ELOOP | Errno::ENOTDIR) => Err(Failure::NotA {
                path: self.shown(path),
                wanted: "directory",
            }),
            Err(error) => Err(self.failed(path, error)),
        }
    }

    /// How many bytes are free at `path`, or at the nearest directory above it that is there.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn free(&self, path: &Path) -> Result<u64, Failure> {
        for directory in path.ancestors() {
            if let Some(reached) = self.directory(directory)? {
                let found = fstatvfs(&reached).map_err(|error| self.failed(path, error))?;
                return Ok(found.blocks_available() * found.fragment_size());
            }
        }
        Ok(0)
    }

    pub(super) fn failed(&self, path: &Path, error: impl Into<io::Error>) -> Failure {
        Failure::io(self.shown(path), error)
    }

    pub(super) fn existing_place(&self, path: &Path) -> Result<Place, Failure> {
        self.place(path)?
            .ok_or_else(|| self.failed(path, Errno::ENOENT))
    }

    /// The directory of `path` and its last name; none if the directory is not there.
    pub(super) fn place(&self, path: &Path) -> Result<Option<Place>, Failure> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(self.failed(path, Errno::EINVAL));
        };
        Ok(self.directory(parent)?.map(|directory| Place {
            directory,
            name: name.to_owned(),
        }))
    }

    /// Walks to the directory at `path`; none if it is not there.
    fn directory(&self, path: &Path) -> Result<Option<OwnedFd>, Failure> {
        let mut ahead: VecDeque<OsString> = VecDeque::new();
        names_of(path, &mut ahead);
        let again = |descriptor: &OwnedFd| {
            descriptor
                .try_clone()
                .map_err(|error| Failure::io(self.shown(path), error))
        };
        let mut behind: Vec<OwnedFd> = Vec::new();
        let mut links = 0;
        while let Some(name) = ahead.pop_front() {
            let here = behind.last().unwrap_or(&self.top);
            if name == ".." {
                behind.pop();
                continue;
            }
            let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let step = match openat(here, name.as_os_str(), flags, Mode::empty()) {
                Ok(step) => step,
                Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
                Err(error) => return Err(self.failed(path, error)),
            };
            let found = Found::of(&fstat(&step).map_err(|error| self.failed(path, error))?);
            match found.kind {
                Kind::Directory => {
                    if !is_trusted(found.access.uid) {
                        // Which one on the way it is.
                        let at = format!("/proc/self/fd/{}", step.as_raw_fd());
                        return Err(Failure::ForeignDirectory {
                            path: std::fs::read_link(at).unwrap_or_else(|_| self.shown(path)),
                            owner: found.access.uid,
                        });
                    }
                    behind.push(step);
                }
                Kind::Link => {
                    let around = Found::of(&fstat(here).map_err(|error| self.failed(path, error))?);
                    links += 1;
                    if links > LINKS
                        || !is_trusted(found.access.uid)
                        || around.access.mode & WRITABLE != 0
                    {
                        return Err(Failure::Link(self.shown(path)));
                    }
                    let to: PathBuf = readlinkat(here, name.as_os_str())
                        .map_err(|error| self.failed(path, error))?
                        .into();
                    if to.is_absolute() {
                        behind.clear();
                    }
                    let mut way = VecDeque::new();
                    names_of(&to, &mut way);
                    way.append(&mut ahead);
                    ahead = way;
                }
                Kind::File | Kind::Other => {
                    return Err(Failure::NotA {
                        path: self.shown(path),
                        wanted: "directory",
                    });
                }
            }
        }
        match behind.pop() {
            Some(reached) => Ok(Some(reached)),
            None => again(&self.top).map(Some),
        }
    }
}

/// Root, or whoever runs this.
fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == geteuid().as_raw()
}

fn names_of(path: &Path, into: &mut VecDeque<OsString>) {
    for part in path.components() {
        match part {
            Component::Normal(name) => into.push_back(name.to_owned()),
            Component::ParentDir => into.push_back("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn tree() -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(directory.path()).unwrap();
        (directory, root)
    }

    fn mine(mode: u32) -> Access {
        Access {
            uid: geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
            mode,
        }
    }

    #[test]
    fn a_link_never_leads_out_of_the_tree() {
        let (directory, root) = tree();
        fs::create_dir(directory.path().join("real")).unwrap();
        symlink("/real", directory.path().join("absolute")).unwrap();
        symlink("../../../real", directory.path().join("upwards")).unwrap();

        for way in ["/absolute/file", "/upwards/file"] {
            root.write(Path::new(way), &mut &b"x"[..], mine(0o600))
                .unwrap();
            fs::remove_file(directory.path().join("real/file")).unwrap();
        }
    }

    #[test]
    fn a_link_in_a_directory_of_everybody_s_is_not_followed() {
        use std::os::unix::fs::PermissionsExt;
        let (directory, root) = tree();
        let open = directory.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::create_dir(directory.path().join("real")).unwrap();
        symlink("/real", open.join("link")).unwrap();
        fs::set_permissions(&open, PermissionsExt::from_mode(0o1777)).unwrap();

        let refused = root.write(Path::new("/open/link/file"), &mut &b"x"[..], mine(0o600));

        assert!(matches!(refused, Err(Failure::Link(_))), "{refused:?}");
    }

    #[test]
    fn a_link_in_the_place_of_a_file_is_replaced_and_what_it_leads_to_left_alone() {
        let (directory, root) = tree();
        fs::write(directory.path().join("other"), "untouched").unwrap();
        symlink("other", directory.path().join("file")).unwrap();

        root.write(Path::new("/file"), &mut &b"new"[..], mine(0o640))
            .unwrap();

        assert_eq!(
            fs::read_to_string(directory.path().join("other")).unwrap(),
            "untouched"
        );
        let found = root.look(Path::new("/file")).unwrap().unwrap();
        assert_eq!((found.kind, found.access), (Kind::File, mine(0o640)));
        assert_eq!(root.names(Path::new("/x/..")).unwrap_or_default().len(), 0);
    }

    #[test]
    fn what_a_killed_run_left_beside_a_file_is_no_obstacle() {
        let (directory, root) = tree();
        fs::write(directory.path().join(".file.kai-install"), "half").unwrap();
        symlink("nowhere", directory.path().join(".link.kai-install")).unwrap();

        root.write(Path::new("/file"), &mut &b"whole"[..], mine(0o600))
            .unwrap();
        root.link(Path::new("/link"), Path::new("file")).unwrap();

        assert_eq!(root.names(Path::new("/.")).unwrap_or_default().len(), 0);
        let names: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }

    #[test]
    fn a_link_is_swapped_in_one_step_and_a_directory_is_not_replaced() {
        let (directory, root) = tree();
        root.link(Path::new("/current"), Path::new("1")).unwrap();
        root.link(Path::new("/current"), Path::new("2")).unwrap();
        assert_eq!(
            root.link_at(Path::new("/current")).unwrap(),
            Some("2".into())
        );
        fs::create_dir(directory.path().join("directory")).unwrap();
        assert!(root.link(Path::new("/directory"), Path::new("2")).is_err());
        assert!(root.link_at(Path::new("/directory")).is_err());
    }
}
