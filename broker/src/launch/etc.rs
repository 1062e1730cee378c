//! A worker's own /etc: files as they were at its start, directories as the host has them.
//!
//! Landlock grants inodes. A host replaces files of /etc by rename(2), as useradd(8) does with
//! /etc/passwd, and the new inode would be out of a running worker's reach; a mount over the old one is
//! no help, because the rename takes it away in every namespace. So the directory itself is the
//! worker's: a read-only tmpfs with copies of the files, and for each of the host's directories a link into the
//! host's /etc, which is bound below it once: in a directory, what is replaced stays in reach of the rule for
//! it. Links that lead out of /etc from below it are absolute (Debian's policy, 10.5), so they lead to the
//! same place from there. A bind for each directory would cost as much as all the rest of a launch.
//!
//! Nothing is copied that the account could not read, so that a mistake in the worker's own list of
//! secrets uncovers nothing. What everybody may read the broker keeps from one launch to the next, as long as
//! nothing of it changes: reading it anew would be half of a launch. What only some may read is read by the
//! launch that may.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown, symlink},
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{OFlag, open},
    mount::{MsFlags, mount},
    sys::stat::Mode,
};

use crate::{accounts::Account, sys};

/// Options of the tmpfs.
const OPTIONS: &str = "mode=0755,size=16m,nr_inodes=8k";
/// Where the host's /etc is bound, for links alone: the worker's rules name no such child of /etc.
const HOST: &str = ".host";
/// Largest file that is copied; the linker's cache of a large host has a few hundred KiB.
const LARGEST: u64 = 4 << 20;

/// The host's /etc as it was when [`refresh`](Self::refresh) was last called.
#[derive(Debug, Default)]
pub struct Etc {
    directory: Option<Stamp>,
    entries: Vec<Entry>,
}

/// One name of /etc.
#[derive(Debug)]
struct Entry {
    name: OsString,
    stamp: Stamp,
    what: What,
}

/// What becomes of it.
#[derive(Debug)]
enum What {
    /// A directory, reached by a link.
    Directory,
    /// A link, made again.
    Link(PathBuf),
    /// A file that everybody may read, copied.
    File(Vec<u8>),
    /// A file that only some may read: by the launch of one that may.
    Restricted,
}

/// What tells that a name is what it was: whatever changes one changes its ctime (inode(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    changed: (i64, i64),
    size: u64,
    mode: u32,
    uid: u32,
    gid: u32,
}

impl Stamp {
    fn of(found: &fs::Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            changed: (found.ctime(), found.ctime_nsec()),
            size: found.len(),
            mode: found.mode(),
            uid: found.uid(),
            gid: found.gid(),
        }
    }

    /// Whether the account has the permission `bit`, 4 to read or 1 to traverse, by owner, group and mode.
    fn may(&self, account: &Account, bit: u32) -> bool {
        let shift = if self.uid == account.uid.as_raw() {
            6
        } else if account.groups.iter().any(|gid| gid.as_raw() == self.gid) {
            3
        } else {
            0
        };
        self.mode & (bit << shift) != 0
    }
}

impl Etc {
    /// Looks whether anything changed, and reads all of it again if so.
    ///
    /// # Errors
    /// If the directory cannot be listed; a single name that cannot be read is left out instead.
    pub fn refresh(&mut self, etc: &Path) -> io::Result<()> {
        let directory = Stamp::of(&fs::metadata(etc)?);
        let same = |entry: &Entry| {
            fs::symlink_metadata(etc.join(&entry.name))
                .is_ok_and(|found| Stamp::of(&found) == entry.stamp)
        };
        if self.directory == Some(directory) && self.entries.iter().all(same) {
            return Ok(());
        }
        self.entries.clear();
        for entry in fs::read_dir(etc)? {
            let entry = entry?;
            self.entries.extend(look(&entry.path(), entry.file_name()));
        }
        // The one from before the listing: a change meanwhile is seen by the next look.
        self.directory = Some(directory);
        Ok(())
    }

    /// Replaces `etc` by the account's view of it. What is in `hidden` is left out.
    ///
    /// # Errors
    /// What the kernel answers.
    pub(super) fn replace(
        &self,
        etc: &Path,
        account: &Account,
        hidden: &[PathBuf],
    ) -> io::Result<()> {
        let host = sys::clone_tree(&open(etc, directory_flags(), Mode::empty())?)?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("tmpfs"), etc, Some("tmpfs"), flags, Some(OPTIONS))?;
        let place = etc.join(HOST);
        fs::create_dir(&place)?;
        sys::add_attributes(&host, libc::MOUNT_ATTR_RDONLY)?;
        sys::mount_on(&host, &open(&place, directory_flags(), Mode::empty())?)?;
        for name in hidden.iter().filter_map(|path| path.strip_prefix(etc).ok()) {
            let hidden = place.join(name);
            if hidden.is_dir() {
                let empty = Some("mode=0755,size=4k");
                mount(Some("tmpfs"), &hidden, Some("tmpfs"), flags, empty)?;
            }
        }
        for entry in &self.entries {
            if !hidden.contains(&etc.join(&entry.name)) {
                entry.make(etc, account)?;
            }
        }
        let again = flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        mount(None::<&str>, etc, None::<&str>, again, None::<&str>)?;
        Ok(())
    }
}

fn directory_flags() -> OFlag {
    OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC
}

/// None of what a worker has no use for, such as sockets, and of what cannot be read.
fn look(path: &Path, name: OsString) -> Option<Entry> {
    let found = fs::symlink_metadata(path).ok()?;
    let stamp = Stamp::of(&found);
    let what = if found.is_symlink() {
        What::Link(fs::read_link(path).ok()?)
    } else if found.is_dir() {
        What::Directory
    } else if !found.is_file() || found.len() > LARGEST {
        return None;
    } else if found.mode() & 0o004 == 0 {
        What::Restricted
    } else {
        What::File(read(path)?)
    };
    Some(Entry { name, stamp, what })
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .ok()?;
    let found = file.metadata().ok()?;
    if !found.is_file() {
        return None;
    }
    let mut content = Vec::with_capacity(usize::try_from(found.len().min(LARGEST)).ok()? + 1);
    file.take(LARGEST).read_to_end(&mut content).ok()?;
    Some(content)
}

impl Entry {
    /// Makes it in the worker's own directory, if the account may.
    fn make(&self, etc: &Path, account: &Account) -> io::Result<()> {
        let path = etc.join(&self.name);
        match &self.what {
            What::Link(target) => symlink(target, path),
            What::Directory if self.stamp.may(account, 0o1) => {
                symlink(Path::new(HOST).join(&self.name), path)
            }
            What::File(content) if self.stamp.may(account, 0o4) => self.copy(&path, content),
            What::Restricted if self.stamp.may(account, 0o4) => {
                match read(&etc.join(HOST).join(&self.name)) {
                    Some(content) => self.copy(&path, &content),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    fn copy(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mode = self.stamp.mode & 0o777;
        let mut copy: File = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)?;
        if !content.is_empty() {
            copy.write_all(content)?;
        }
        if (self.stamp.uid, self.stamp.gid) != (0, 0) {
            fchown(&copy, Some(self.stamp.uid), Some(self.stamp.gid))?;
        }
        // What the umask of the broker took away.
        if mode & 0o022 != 0 {
            copy.set_permissions(Permissions::from_mode(mode))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use nix::unistd::{Gid, Uid};

    use super::*;

    fn account() -> Account {
        Account {
            name: "alice".to_owned().try_into().unwrap(),
            uid: Uid::from_raw(61_001),
            gid: Gid::from_raw(61_001),
            groups: vec![Gid::from_raw(61_001)],
            home: "/home/alice".into(),
            shell: "/bin/sh".into(),
            login: false,
        }
    }

    #[test]
    fn only_what_the_account_may_read_is_copied_and_only_what_all_may_is_kept() {
        let mut account = account();
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        fs::write(&path, "x").unwrap();
        let found = |mode| {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            look(&path, "file".into()).unwrap()
        };
        for (mode, open) in [(0o644, true), (0o640, false), (0o600, false), (0o604, true)] {
            let found = found(mode);
            assert_eq!(found.stamp.may(&account, 0o4), open, "{mode:o}");
            assert_eq!(matches!(found.what, What::File(_)), open, "{mode:o}");
        }

        account.groups.push(nix::unistd::getgid());
        for (mode, open) in [(0o640, true), (0o604, false), (0o644, true)] {
            assert_eq!(
                found(mode).stamp.may(&account, 0o4),
                open,
                "{mode:o} by group"
            );
        }
    }

    #[test]
    fn what_changes_in_any_way_is_read_again_and_what_does_not_is_not() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        fs::write(at("file"), "one").unwrap();
        fs::create_dir(at("directory")).unwrap();
        symlink("file", at("link")).unwrap();
        let mut etc = Etc::default();
        let kept = |etc: &Etc| {
            let file = etc.entries.iter().find(|entry| entry.name == "file")?;
            match &file.what {
                What::File(content) => Some(content.clone()),
                _ => None,
            }
        };
        etc.refresh(place.path()).unwrap();
        assert_eq!(kept(&etc).as_deref(), Some(&b"one"[..]));
        assert_eq!(etc.entries.len(), 3);
        let buffer = |etc: &Etc| match &etc.entries.iter().find(|e| e.name == "file").unwrap().what
        {
            What::File(content) => content.as_ptr(),
            _ => std::ptr::null(),
        };
        let before = buffer(&etc);
        etc.refresh(place.path()).unwrap();
        assert_eq!(buffer(&etc), before, "was read again");

        // In place, which the directory does not show.
        fs::write(at("file"), "two").unwrap();
        etc.refresh(place.path()).unwrap();
        assert_eq!(kept(&etc).as_deref(), Some(&b"two"[..]));
        // Renamed over it.
        fs::write(at("new"), "three").unwrap();
        fs::rename(at("new"), at("file")).unwrap();
        etc.refresh(place.path()).unwrap();
        assert_eq!(kept(&etc).as_deref(), Some(&b"three"[..]));
        fs::set_permissions(at("file"), Permissions::from_mode(0o600)).unwrap();
        etc.refresh(place.path()).unwrap();
        assert_eq!(kept(&etc), None);
        fs::remove_file(at("link")).unwrap();
        etc.refresh(place.path()).unwrap();
        assert_eq!(etc.entries.len(), 2);
    }
}
