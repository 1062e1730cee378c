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
//! secrets uncovers nothing.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown, symlink},
    path::Path,
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

/// What becomes of one name of /etc.
#[derive(Debug)]
enum Entry {
    /// A directory, reached by a link.
    Directory,
    /// A file, copied.
    File(File, fs::Metadata),
    /// A link, made again.
    Link(std::path::PathBuf),
}

/// Replaces `etc` by the account's view of it. What is in `hidden` is left out.
///
/// # Errors
/// What the kernel answers; a single name that cannot be read is left out instead.
pub(super) fn replace(
    etc: &Path,
    account: &Account,
    hidden: &[std::path::PathBuf],
) -> io::Result<()> {
    let host = sys::clone_tree(&open(etc, directory_flags(), Mode::empty())?)?;
    let mut entries = Vec::with_capacity(256);
    for entry in fs::read_dir(etc)? {
        let entry = entry?;
        let path = entry.path();
        if hidden.contains(&path) {
            continue;
        }
        if let Some(found) = look(&path, entry.file_type()?, account) {
            entries.push((entry.file_name(), found));
        }
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), etc, Some("tmpfs"), flags, Some(OPTIONS))?;
    let place = etc.join(HOST);
    fs::create_dir(&place)?;
    sys::add_attributes(&host, libc::MOUNT_ATTR_RDONLY)?;
    sys::mount_on(&host, &open(&place, directory_flags(), Mode::empty())?)?;
    for name in hidden.iter().filter_map(|path| path.strip_prefix(etc).ok()) {
        let hidden = place.join(name);
        if hidden.is_dir() {
            mount(
                Some("tmpfs"),
                &hidden,
                Some("tmpfs"),
                flags,
                Some("mode=0755,size=4k"),
            )?;
        }
    }
    for (name, entry) in entries {
        make(etc, &name, entry)?;
    }
    let again = flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(None::<&str>, etc, None::<&str>, again, None::<&str>)?;
    Ok(())
}

fn directory_flags() -> OFlag {
    OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC
}

fn look(path: &Path, kind: fs::FileType, account: &Account) -> Option<Entry> {
    if kind.is_symlink() {
        return Some(Entry::Link(fs::read_link(path).ok()?));
    }
    if kind.is_dir() {
        let found = fs::symlink_metadata(path).ok()?;
        return (found.is_dir() && may(account, &found, 0o1)).then_some(Entry::Directory);
    }
    if !kind.is_file() {
        return None;
    }
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .ok()?;
    let found = file.metadata().ok()?;
    let copied = found.is_file() && found.len() <= LARGEST && may(account, &found, 0o4);
    copied.then_some(Entry::File(file, found))
}

/// Whether the account has the permission `bit`, 4 to read or 1 to traverse, by owner, group and mode.
fn may(account: &Account, found: &fs::Metadata, bit: u32) -> bool {
    let shift = if found.uid() == account.uid.as_raw() {
        6
    } else if account.groups.iter().any(|gid| gid.as_raw() == found.gid()) {
        3
    } else {
        0
    };
    found.mode() & (bit << shift) != 0
}

fn make(etc: &Path, name: &OsStr, entry: Entry) -> io::Result<()> {
    let path = etc.join(name);
    match entry {
        Entry::Link(target) => symlink(target, path),
        Entry::Directory => symlink(Path::new(HOST).join(name), path),
        Entry::File(file, found) => {
            // One read and one write: copy_file_range(2) and sendfile(2) cost more where files are small.
            let mut content = Vec::with_capacity(usize::try_from(found.len()).unwrap_or(0) + 1);
            file.take(LARGEST).read_to_end(&mut content)?;
            let mut copy = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(found.mode() & 0o777)
                .open(path)?;
            copy.write_all(&content)?;
            if (found.uid(), found.gid()) != (0, 0) {
                fchown(&copy, Some(found.uid()), Some(found.gid()))?;
            }
            // What the umask of the broker took away.
            if found.mode() & 0o022 != 0 {
                copy.set_permissions(Permissions::from_mode(found.mode() & 0o777))?;
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::unistd::{Gid, Uid};

    use super::*;

    #[test]
    fn only_what_the_account_may_read_is_copied() {
        let mut account = Account {
            name: "alice".to_owned().try_into().unwrap(),
            uid: Uid::from_raw(61_001),
            gid: Gid::from_raw(61_001),
            groups: vec![Gid::from_raw(61_001)],
            home: "/home/alice".into(),
            shell: "/bin/sh".into(),
            login: false,
        };
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        fs::write(&path, "x").unwrap();
        let kind = fs::metadata(&path).unwrap().file_type();
        for (mode, open) in [(0o644, true), (0o640, false), (0o600, false), (0o604, true)] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(look(&path, kind, &account).is_some(), open, "{mode:o}");
        }

        account.groups.push(nix::unistd::getgid());
        for (mode, open) in [(0o640, true), (0o604, false), (0o644, true)] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(
                look(&path, kind, &account).is_some(),
                open,
                "{mode:o} by group"
            );
        }
    }
}
