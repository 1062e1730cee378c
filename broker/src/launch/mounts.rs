//! Steps 4 to 7: what a worker sees of the file system, in its own mount namespace.
//!
//! Hiding is an empty tmpfs over a directory. What must stay visible below it is opened first, as
//! `O_PATH`, and bound back through `/proc/self/fd` while the old `/proc` is still there.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{OFlag, open},
    mount::{MsFlags, mount},
    sys::{
        stat::Mode,
        statvfs::{FsFlags, statvfs},
    },
};

use super::{Failed, Step};

/// Options of a tmpfs that hides a directory: nothing can be put there.
const EMPTY: &str = "mode=0755,size=64k,nr_inodes=1k";
/// Options of /tmp and its kin.
const TEMPORARY: &str = "mode=1777,size=1g,nr_inodes=256k";

/// What a worker sees, from root's configuration alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct World {
    /// Directories whose content is hidden, those that exist.
    pub hidden: Vec<PathBuf>,
    /// What stays visible below them.
    pub kept: Vec<Kept>,
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
        let name_service = fs::canonicalize("/etc/resolv.conf").ok();
        kept.extend(
            readable
                .iter()
                .cloned()
                .chain(name_service)
                .filter(|path| below(path))
                .map(|path| Kept {
                    path,
                    read_only: true,
                    needed: false,
                }),
        );
        Self { hidden, kept }
    }
}

/// Does steps 4 to 7.
///
/// # Errors
/// The step that failed.
pub(super) fn arrange(world: &World) -> Result<(), Failed> {
    private().map_err(at(Step::PrivateMounts))?;
    let kept = open_kept(world).map_err(at(Step::KeptPaths))?;
    hide(world, &kept).map_err(at(Step::Hidden))?;
    own_temporary().map_err(at(Step::OwnTemporary))?;
    fresh_proc().map_err(at(Step::FreshProc))
}

fn at(step: Step) -> impl Fn(io::Error) -> Failed {
    move |error| (step, error)
}

/// Step 4: no mount made here is seen outside, and none made outside appears here.
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
        // A symbolic link in the last place would let its owner choose what root binds.
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match open(&kept.path, flags, Mode::empty()) {
            Ok(descriptor) => opened.push((kept, descriptor)),
            Err(error) if kept.needed => return Err(error.into()),
            Err(_) => {}
        }
    }
    Ok(opened)
}

/// Step 5.
fn hide(world: &World, kept: &[(&Kept, OwnedFd)]) -> io::Result<()> {
    for directory in world.hidden.iter().filter(|directory| directory.is_dir()) {
        tmpfs(directory, EMPTY)?;
    }
    for (kept, descriptor) in kept {
        let source = PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_raw_fd()));
        if fs::metadata(&source)?.is_dir() {
            fs::create_dir_all(&kept.path)?;
        } else {
            fs::create_dir_all(kept.path.parent().unwrap_or(Path::new("/")))?;
            File::create(&kept.path)?;
        }
        let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(&source), &kept.path, None::<&str>, bind, None::<&str>)?;
        // A remount sets all flags anew: what the admin took away stays away.
        let had = statvfs(&kept.path)?.flags();
        let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        flags.set(
            MsFlags::MS_RDONLY,
            kept.read_only || had.contains(FsFlags::ST_RDONLY),
        );
        flags.set(MsFlags::MS_NOEXEC, had.contains(FsFlags::ST_NOEXEC));
        let again = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | flags;
        mount(None::<&str>, &kept.path, None::<&str>, again, None::<&str>)?;
    }
    Ok(())
}

/// Step 6.
fn own_temporary() -> io::Result<()> {
    for directory in ["/tmp", "/var/tmp", "/dev/shm"] {
        if Path::new(directory).is_dir() {
            tmpfs(Path::new(directory), TEMPORARY)?;
        }
    }
    Ok(())
}

/// Step 7. `hidepid` hides what is not the worker's own even if something of another account got
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
