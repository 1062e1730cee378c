//! What a worker sees of the file system, in its own mount namespace.
//!
//! Hiding is an empty tmpfs over a directory. What must stay visible below it is opened first, as
//! `O_PATH`, and bound back by that descriptor.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read},
    os::{
        fd::OwnedFd,
        unix::fs::{OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open, openat2},
    mount::{MsFlags, mount},
    sys::{
        stat::{Mode, SFlag, fstat},
        statfs::{CGROUP2_SUPER_MAGIC, statfs},
    },
};

use super::{Failed, Step, etc, login_files};
use crate::{accounts::Account, sys};

/// Options of a tmpfs that hides a directory: nothing can be put there.
const EMPTY: &str = "mode=0755,size=64k,nr_inodes=1k";
/// Options of the worker's own devpts (Documentation/filesystems/devpts.rst); 5 is Debian's group tty.
const TERMINALS: &str = "newinstance,ptmxmode=0666,mode=0620,gid=5,max=1024";
/// What is the worker's own, and memory: the first place holds the others.
const TEMPORARY: [(&str, &str); 3] = [
    ("/tmp", "tmp"),
    ("/var/tmp", "var-tmp"),
    ("/dev/shm", "shm"),
];
/// Where the control groups are.
const CGROUPS: &str = "/sys/fs/cgroup";
/// Longest resolv.conf that is copied.
const NAME_SERVICE: u64 = 64 * 1024;

/// What a worker sees, from root's configuration alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct World {
    /// Directories whose content is hidden, those that exist.
    pub hidden: Vec<PathBuf>,
    /// What stays visible below them.
    pub kept: Vec<Kept>,
    /// The file below a hidden directory that /etc/resolv.conf leads to; copied, because what writes it
    /// replaces it.
    pub name_service: Option<PathBuf>,
    /// Bytes of /tmp, /var/tmp and /dev/shm together.
    pub temporary: u64,
    /// Whether the files that run at a login are kept from the worker.
    pub login_files: LoginFiles,
}

/// What becomes of the files that run when somebody logs in to the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginFiles {
    /// Nobody logs in: they are the worker's like everything else.
    Own,
    /// They are read-only, or there is no worker.
    ReadOnly,
    /// They are read-only where that can be.
    ReadOnlyIfPossible,
}

/// A path that stays visible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Which.
    pub path: PathBuf,
    /// True if the worker may not write there, whatever the modes say.
    pub read_only: bool,
    /// True if the worker cannot do without it.
    pub needed: bool,
}

impl World {
    /// The world of a worker that has `home` and `state`, on a host where kai's own directories are
    /// `own`, `readable` may be read and `writable` written.
    #[must_use]
    pub fn new(
        home: &Path,
        state: &Path,
        own: &[&Path],
        readable: &[PathBuf],
        writable: &[PathBuf],
    ) -> Self {
        let mut hidden: Vec<PathBuf> = ["/home", "/root", "/run"]
            .iter()
            .map(PathBuf::from)
            .collect();
        // A configuration right in /etc does not hide /etc: its secrets have modes of their own.
        let own = own.iter().filter(|path| path.components().count() > 2);
        hidden.extend(own.map(|&path| path.to_owned()));
        // /run is also reached as /var/run, by a link. A directory below another hidden one needs no
        // mount of its own, and a mount there would find nothing to mount on.
        hidden.sort();
        let all = hidden.clone();
        hidden.retain(|path| {
            !all.iter()
                .any(|other| path != other && path.starts_with(other))
        });
        hidden.dedup();
        let below = |path: &Path| hidden.iter().any(|hidden| path.starts_with(hidden));
        let mut kept: Vec<Kept> = [home, state]
            .iter()
            .filter(|path| below(path))
            .map(|&path| Kept {
                path: path.to_owned(),
                read_only: false,
                needed: true,
            })
            .collect();
        kept.extend(writable.iter().filter(|path| below(path)).map(|path| Kept {
            path: path.clone(),
            read_only: false,
            needed: false,
        }));
        kept.extend(readable.iter().filter(|path| below(path)).map(|path| Kept {
            path: path.clone(),
            read_only: true,
            needed: false,
        }));
        // What holds another comes before it.
        kept.sort_by(|one, other| one.path.cmp(&other.path));
        let name_service = fs::canonicalize("/etc/resolv.conf")
            .ok()
            .filter(|path| below(path));
        Self {
            hidden,
            kept,
            name_service,
            temporary: 1 << 30,
            login_files: LoginFiles::Own,
        }
    }
}

/// Does all of it, for `account`.
///
/// # Errors
/// The step that failed.
pub(super) fn arrange(world: &World, account: &Account) -> Result<(), Failed> {
    private().map_err(at(Step::PrivateMounts))?;
    let kept = open_kept(world).map_err(at(Step::KeptPaths))?;
    let name_service = world.name_service.as_deref().and_then(read_name_service);
    etc::cover(Path::new("/etc"), account).map_err(at(Step::Etc))?;
    hide(world, &kept, name_service).map_err(at(Step::Hidden))?;
    let strict = world.login_files == LoginFiles::ReadOnly;
    if world.login_files != LoginFiles::Own {
        login_files::keep(&account.home, account, strict).map_err(at(Step::LoginFiles))?;
    }
    own_temporary(world.temporary).map_err(at(Step::OwnTemporary))?;
    own_devices().map_err(at(Step::OwnDevices))?;
    own_cgroup_view().map_err(at(Step::OwnCgroupView))?;
    fresh_proc().map_err(at(Step::FreshProc))
}

fn at(step: Step) -> impl Fn(io::Error) -> Failed {
    move |error| (step, error)
}

/// No mount made here is seen outside, and none made outside appears here.
fn private() -> io::Result<()> {
    Ok(mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )?)
}

/// The descriptors must be of this mount namespace: a bind from another one's is refused (EINVAL).
fn open_kept(world: &World) -> io::Result<Vec<(&Kept, OwnedFd)>> {
    let mut opened = Vec::with_capacity(world.kept.len());
    for kept in &world.kept {
        match kept.reach() {
            Ok(descriptor) => opened.push((kept, descriptor)),
            Err(error) if kept.needed => return Err(error),
            Err(_) => {}
        }
    }
    Ok(opened)
}

impl Kept {
    /// What stands at its path, if no link leads there: whoever may write above it would choose by one what
    /// root binds, and where. The way to a home or a state is root's own, and may have links.
    fn reach(&self) -> io::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        if self.needed {
            return Ok(open(&self.path, flags | OFlag::O_DIRECTORY, Mode::empty())?);
        }
        let resolve = ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let how = OpenHow::new().flags(flags).resolve(resolve);
        let found = openat2(AT_FDCWD, &self.path, how)?;
        let kind = SFlag::from_bits_truncate(fstat(&found)?.st_mode & SFlag::S_IFMT.bits());
        match kind {
            SFlag::S_IFDIR | SFlag::S_IFREG | SFlag::S_IFSOCK => Ok(found),
            _ => Err(io::Error::from(io::ErrorKind::InvalidInput)),
        }
    }

    /// Makes something to mount it on, in a directory that is root's and empty of others' names.
    fn make_place(&self, directory: bool) -> io::Result<()> {
        let parent = self.path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(parent)?;
        if directory {
            fs::create_dir(&self.path)
        } else {
            File::create_new(&self.path).map(drop)
        }
    }
}

fn read_name_service(path: &Path) -> Option<(PathBuf, Vec<u8>)> {
    let mut text = Vec::new();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .ok()?;
    file.take(NAME_SERVICE).read_to_end(&mut text).ok()?;
    Some((path.to_owned(), text))
}

fn hide(
    world: &World,
    kept: &[(&Kept, OwnedFd)],
    name_service: Option<(PathBuf, Vec<u8>)>,
) -> io::Result<()> {
    for directory in world.hidden.iter().filter(|directory| directory.is_dir()) {
        tmpfs(directory, EMPTY)?;
    }
    for (at, (one, descriptor)) in kept.iter().enumerate() {
        // Below another one that is bound back already, it is there with it, or was moved away meanwhile;
        // nothing is made there: it is others' to write.
        let with_another = kept[..at]
            .iter()
            .any(|(other, _)| one.path.starts_with(&other.path));
        if !with_another {
            let kind = fstat(descriptor)?.st_mode & SFlag::S_IFMT.bits();
            one.make_place(kind == SFlag::S_IFDIR.bits())?;
        }
        let place = match one.reach() {
            Err(_) if with_another && !one.needed => continue,
            place => place?,
        };
        let tree = sys::clone_tree(descriptor)?;
        let read_only = if one.read_only {
            libc::MOUNT_ATTR_RDONLY
        } else {
            0
        };
        let quiet = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
        sys::add_attributes(&tree, quiet | read_only)?;
        sys::mount_on(&tree, &place)?;
    }
    if let Some((path, text)) = name_service {
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        fs::write(path, text)?;
    }
    Ok(())
}

/// One tmpfs for the three places, so that one size bounds them together.
fn own_temporary(size: u64) -> io::Result<()> {
    // An inode is some kilobyte of the kernel's memory, which no size counts.
    let options = format!("mode=0755,size={size},nr_inodes={}", size >> 12);
    let [(first, _), ..] = TEMPORARY;
    tmpfs(Path::new(first), &options)?;
    let below = |name: &str| Path::new(first).join(name);
    for (_, name) in TEMPORARY {
        fs::create_dir(below(name))?;
        fs::set_permissions(below(name), Permissions::from_mode(0o1777))?;
    }
    // The first is bound onto itself last: it covers the others' names.
    for (place, name) in TEMPORARY.into_iter().rev() {
        if Path::new(place).is_dir() {
            let bind = MsFlags::MS_BIND;
            mount(Some(&below(name)), place, None::<&str>, bind, None::<&str>)?;
        }
    }
    Ok(())
}

/// /dev/ptmx leads to the devpts beside it, whether it is a link or a device (Linux 4.7).
fn own_devices() -> io::Result<()> {
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    for (place, kind, options) in [
        ("/dev/pts", "devpts", Some(TERMINALS)),
        ("/dev/mqueue", "mqueue", None),
    ] {
        if Path::new(place).is_dir() {
            let flags = match kind {
                // Its files are devices.
                "devpts" => quiet,
                _ => quiet | MsFlags::MS_NODEV,
            };
            mount(Some(kind), place, Some(kind), flags, options)?;
        }
    }
    Ok(())
}

/// Of version 2 the worker's own group, which its cgroup namespace has as its root: runtimes look for their
/// limits there, and the others' would show what others do. Of version 1 nothing: it holds no limits here.
fn own_cgroup_view() -> io::Result<()> {
    let Ok(found) = statfs(CGROUPS) else {
        return Ok(());
    };
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
    // Under version 2 too: the kernel refuses a file system right on top of itself (EBUSY).
    mount(Some("tmpfs"), CGROUPS, Some("tmpfs"), quiet, Some(EMPTY))?;
    if found.filesystem_type() == CGROUP2_SUPER_MAGIC {
        let kind = Some("cgroup2");
        mount(kind, CGROUPS, kind, quiet, None::<&str>)?;
    }
    Ok(())
}

/// `hidepid` hides what is not the worker's own even if something of another account got
/// into the namespace; `subset=pid` would break ps(1).
fn fresh_proc() -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    Ok(mount(
        Some("proc"),
        "/proc",
        Some("proc"),
        flags,
        Some("hidepid=invisible"),
    )?)
}

fn tmpfs(directory: &Path, options: &str) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(
        Some("tmpfs"),
        directory,
        Some("tmpfs"),
        flags,
        Some(options),
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kai_s_own_directories_are_hidden_and_the_users_are_kept() {
        let world = World::new(
            Path::new("/home/alice"),
            Path::new("/var/lib/kai/users/alice"),
            &[
                Path::new("/var/lib/kai"),
                Path::new("/run/kai"),
                Path::new("/etc/kai"),
            ],
            &["/opt/tools".into(), "/home/shared".into()],
            &["/home/drop".into()],
        );

        let hidden: Vec<_> = world
            .hidden
            .iter()
            .map(|path| path.to_str().unwrap())
            .collect();
        assert_eq!(
            hidden,
            ["/etc/kai", "/home", "/root", "/run", "/var/lib/kai"]
        );
        let kept = |path: &str| world.kept.iter().find(|kept| kept.path == Path::new(path));
        assert!(kept("/home/alice").is_some_and(|kept| !kept.read_only && kept.needed));
        assert!(kept("/var/lib/kai/users/alice").is_some());
        assert!(kept("/home/shared").is_some_and(|kept| kept.read_only));
        assert!(kept("/home/drop").is_some_and(|kept| !kept.read_only && !kept.needed));
        assert!(
            kept("/opt/tools").is_none(),
            "is not hidden, so needs no bind"
        );
    }
}
