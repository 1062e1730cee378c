//! A worker's view of /etc: the host's own, read-only, with what is secret covered.
//!
//! It is the host's directory and not a copy, because a host replaces files of /etc by rename(2), as useradd(8)
//! does with /etc/passwd: what is new stays in reach of the worker's one rule for the directory, and is the new
//! one. Landlock cannot take anything out of a rule, so that what everybody may read and no agent needs to is
//! covered here; what the account may not read anyway is left to its modes.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
};

use nix::{
    fcntl::{OFlag, open},
    mount::{MsFlags, mount},
    sys::stat::Mode,
};

use crate::{accounts::Account, sys};

/// Directories of /etc, the first for itself, and what in them is covered, with the reason. A name that ends
/// in `*` stands for all that begin so.
const SECRET: &[(&str, &[(&str, &str)])] = &[
    (
        "",
        &[
            ("shadow*", "password hashes, and their backups"),
            ("gshadow*", "group password hashes, and their backups"),
            ("sudoers*", "who may become whom"),
            ("doas.conf", "likewise"),
            ("security", "opasswd holds old password hashes"),
            ("krb5.keytab", "the host's Kerberos key"),
            ("ipsec.*", "keys"),
            ("swanctl", "keys"),
            ("wireguard", "keys"),
            ("openvpn", "keys"),
            ("NetworkManager", "passwords of networks"),
            ("netplan", "likewise"),
            ("wpa_supplicant", "likewise"),
            ("ppp", "passwords of providers"),
            ("letsencrypt", "keys of the host's sites"),
            ("credstore*", "systemd's credentials"),
            ("cryptsetup-keys.d", "keys of disks"),
            ("crypttab", "where those keys are"),
            ("docker", "registry logins and keys"),
            ("rancher", "cluster keys"),
            ("kubernetes", "cluster keys"),
            ("restic", "keys of backups"),
            ("borgmatic", "likewise"),
            ("mysql", "debian.cnf holds a password"),
            ("postfix", "sasl_passwd"),
            ("exim4", "passwd.client"),
            ("fail2ban", "what the host watches for"),
            ("audit", "likewise"),
            ("polkit-1", "likewise"),
            ("cron*", "what others run"),
            ("at.*", "likewise"),
            ("backup*", "what others keep"),
        ],
    ),
    ("ssl", &[("private", "keys of the host's sites")]),
    (
        "pki",
        &[
            ("private", "likewise, as other distributions place them"),
            ("tls", "likewise"),
        ],
    ),
    ("apt", &[("auth.conf*", "logins of package archives")]),
    (
        "ssh",
        &[
            ("ssh_host_*", "the host's keys"),
            ("sshd_config*", "who may log in"),
            ("moduli", "of no use to a client"),
        ],
    ),
];

/// Options of the tmpfs that covers a directory: nobody may even list it.
const COVER: &str = "mode=0,size=4k,nr_inodes=2";

/// Makes `etc` read-only, and covers what is secret in it and could be read by `account`.
///
/// # Errors
/// What the kernel answers.
pub(super) fn cover(etc: &Path, account: &Account) -> io::Result<()> {
    let tree = sys::clone_tree(&open(etc, directory_flags(), Mode::empty())?)?;
    let quiet = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    sys::add_attributes(&tree, quiet)?;
    sys::mount_on(&tree, &open(etc, directory_flags(), Mode::empty())?)?;
    for (directory, secret) in SECRET {
        let directory = etc.join(directory);
        for name in names(&directory)? {
            if secret.iter().any(|(pattern, _)| matches(pattern, &name)) {
                match cover_one(&directory.join(name), account) {
                    // Gone since it was listed, as is what useradd(8) and its kin write beside a file.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    other => other?,
                }
            }
        }
    }
    Ok(())
}

fn directory_flags() -> OFlag {
    OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC
}

/// None for a directory that is not there.
fn names(directory: &Path) -> io::Result<Vec<OsString>> {
    match fs::read_dir(directory) {
        Ok(entries) => entries
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect(),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

fn matches(pattern: &str, name: &OsStr) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.as_bytes().starts_with(prefix.as_bytes()),
        None => name == pattern,
    }
}

/// A file by the device that has nothing to read, a directory by an empty one. A link is left: what it leads
/// to is in the worker's rules or not by itself.
fn cover_one(path: &Path, account: &Account) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    if found.is_dir() && may(account, &found, 0o5) {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(COVER))?;
    } else if found.is_file() && may(account, &found, 0o4) {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let null = open("/dev/null", flags, Mode::empty())?;
        sys::mount_on(&sys::clone_tree(&null)?, &open(path, flags, Mode::empty())?)?;
    }
    Ok(())
}

/// Whether the account has any of the permissions `bits`, 4 to read and 1 to traverse, by owner, group and
/// mode. Who is given one by an access control list is given it.
fn may(account: &Account, found: &fs::Metadata, bits: u32) -> bool {
    let shift = if found.uid() == account.uid.as_raw() {
        6
    } else if account.groups.iter().any(|gid| gid.as_raw() == found.gid()) {
        3
    } else {
        0
    };
    found.mode() & (bits << shift) != 0
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use nix::unistd::{Gid, Uid};

    use super::*;

    #[test]
    fn every_entry_has_a_reason() {
        for (directory, secret) in SECRET {
            assert!(!directory.starts_with('/'));
            assert!(secret.iter().all(|(_, reason)| !reason.is_empty()));
        }
    }

    #[test]
    fn names_are_whole_or_beginnings() {
        let secret = |name: &str| {
            let (_, top) = SECRET[0];
            top.iter()
                .any(|(pattern, _)| matches(pattern, OsStr::new(name)))
        };
        for name in [
            "shadow",
            "shadow-",
            "sudoers.d",
            "crontab",
            "cron.d",
            "docker",
        ] {
            assert!(secret(name), "{name}");
        }
        for name in ["passwd", "group", "ssl", "ssh", "docker.conf", "hosts"] {
            assert!(!secret(name), "{name}");
        }
    }

    #[test]
    fn what_modes_close_is_left_to_them() {
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
        let found = |mode| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            fs::metadata(&path).unwrap()
        };
        for (mode, open) in [(0o644, true), (0o640, false), (0o600, false), (0o604, true)] {
            assert_eq!(may(&account, &found(mode), 0o4), open, "{mode:o}");
        }
        account.groups.push(nix::unistd::getgid());
        for (mode, open) in [(0o640, true), (0o604, false), (0o644, true)] {
            assert_eq!(may(&account, &found(mode), 0o4), open, "{mode:o} by group");
        }
    }
}
