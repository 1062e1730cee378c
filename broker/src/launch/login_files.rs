//! Files of a home that run when somebody logs in: read-only for the worker of an account that people
//! log in to, because what an agent writes there would run outside the walls.
//!
//! What is missing is made empty, by the account itself: a mount needs something to be mounted on, and
//! root must not write where a user chooses the path. Every step is relative to the home's descriptor
//! and follows no link. A directory above such a file is bound onto itself, because only what is mounted
//! cannot be renamed away. What is a link, or has several names, cannot be kept so; it stops the launch
//! of a strict policy.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2},
    sys::stat::{Mode, SFlag, fstat, mkdirat},
    unistd::{Gid, Uid, setfsgid, setfsuid},
};

use crate::{accounts::Account, sys};

/// What an entry is where it is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// An empty directory.
    Directory,
    /// An empty file.
    File,
    /// A file that does what bash(1) does without it.
    BashProfile,
    /// A file that does what tcsh(1) does without it.
    Tcshrc,
}

/// Each path below a home, what to make of it where it is missing, and what would run it.
const RUN_AT_LOGIN: &[(&str, Missing, &str)] = &[
    (
        ".ssh",
        Missing::Directory,
        "sshd: authorized_keys, rc; ssh: ProxyCommand of config",
    ),
    (
        ".bash_profile",
        Missing::BashProfile,
        "bash at a login: the first of three",
    ),
    (".bash_login", Missing::File, "bash at a login: the second"),
    (
        ".profile",
        Missing::File,
        "sh and bash at a login, display managers",
    ),
    (".bashrc", Missing::File, "bash"),
    (".bash_aliases", Missing::File, "Debian's .bashrc"),
    (
        ".bash_completion",
        Missing::File,
        "Debian's bash-completion",
    ),
    (".bash_logout", Missing::File, "bash at the end"),
    (".zshenv", Missing::File, "zsh, always"),
    (".zprofile", Missing::File, "zsh at a login"),
    (".zshrc", Missing::File, "zsh"),
    (".zlogin", Missing::File, "zsh at a login"),
    (".zlogout", Missing::File, "zsh at the end"),
    (".cshrc", Missing::File, "csh, and tcsh without a .tcshrc"),
    (".tcshrc", Missing::Tcshrc, "tcsh: the first of two"),
    (".login", Missing::File, "csh and tcsh at a login"),
    (".logout", Missing::File, "csh and tcsh at the end"),
    (".kshrc", Missing::File, "ksh"),
    (".mkshrc", Missing::File, "mksh"),
    (
        ".rhosts",
        Missing::File,
        "rshd, and sshd by host: who comes in unasked",
    ),
    (".shosts", Missing::File, "likewise"),
    (
        ".forward",
        Missing::File,
        "the host's mail program: a command for each letter",
    ),
    (".procmailrc", Missing::File, "procmail: likewise"),
    (
        ".pam_environment",
        Missing::File,
        "pam_env before any of these",
    ),
    (".config/fish", Missing::Directory, "fish"),
    (
        ".config/systemd",
        Missing::Directory,
        "the user's systemd: units",
    ),
    (
        ".config/environment.d",
        Missing::Directory,
        "the user's systemd: variables",
    ),
    (
        ".config/containers/systemd",
        Missing::Directory,
        "the user's systemd: units made of Podman's quadlets",
    ),
    (
        ".config/user-tmpfiles.d",
        Missing::Directory,
        "the user's systemd: files made, and removed",
    ),
    (".config/autostart", Missing::Directory, "desktops"),
    (
        ".config/autostart-scripts",
        Missing::Directory,
        "older desktops",
    ),
    (
        ".config/plasma-workspace",
        Missing::Directory,
        "Plasma: env, shutdown",
    ),
    (
        ".local/share/systemd",
        Missing::Directory,
        "the user's systemd: units",
    ),
    (
        ".local/share/user-tmpfiles.d",
        Missing::Directory,
        "the user's systemd: files made, and removed",
    ),
    (
        ".local/share/dbus-1",
        Missing::Directory,
        "the user's bus: services that it starts",
    ),
    (
        ".local/share/fish/vendor_conf.d",
        Missing::Directory,
        "fish",
    ),
];

/// How many names of one such directory are looked at for links, and how deep.
const LOOKED_AT: usize = 1000;
const DEEP: usize = 6;

/// Makes the files read-only in this mount namespace.
///
/// # Errors
/// What the kernel answers; `ELOOP` for a link and `EMLINK` for a file with several names, unless
/// `strict` is false, which leaves them as they are.
pub(super) fn keep(home: &Path, account: &Account, strict: bool) -> io::Result<()> {
    // From here to the end the file system takes this process for the account's: without CAP_DAC_OVERRIDE
    // root could not enter a home of mode 0700 either. CAP_SYS_ADMIN, which mounts, stays in force.
    let (root, wheel) = (Uid::effective(), Gid::effective());
    setfsgid(account.gid);
    setfsuid(account.uid);
    let kept = keep_as_the_account(home, strict);
    setfsuid(root);
    setfsgid(wheel);
    kept
}

fn keep_as_the_account(home_path: &Path, strict: bool) -> io::Result<()> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let home = open(home_path, flags, Mode::empty())?;
    let mut pinned: Vec<PathBuf> = Vec::new();
    for (path, missing, _) in RUN_AT_LOGIN {
        let kept = keep_one(&home, Path::new(path), *missing, &mut pinned);
        let kept = match kept {
            Ok(()) if *missing == Missing::Directory && strict => no_way_out(home_path, path),
            kept => kept,
        };
        if let Err(error) = kept
            && (strict || !cannot_be_kept(&error))
        {
            return Err(error);
        }
    }
    Ok(())
}

/// A read-only directory is of no use if what is in it is a link to where the agent may write, or has a
/// second name there. Nobody changes it any more while this looks.
fn no_way_out(home: &Path, directory: &str) -> io::Result<()> {
    let kept = |target: &Path| {
        RUN_AT_LOGIN
            .iter()
            .any(|(path, _, _)| target.starts_with(home.join(path)))
    };
    let mut looked_at = 0;
    let mut deeper = vec![(home.join(directory), 0)];
    while let Some((directory, depth)) = deeper.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let found = entry.metadata()?;
            looked_at += 1;
            if looked_at > LOOKED_AT || depth > DEEP {
                return Err(Errno::EMLINK.into());
            }
            if found.is_symlink() {
                // What leads nowhere yet is judged by its words.
                let target = fs::canonicalize(entry.path()).or_else(|_| {
                    fs::read_link(entry.path()).map(|to| plain(&directory.join(to)))
                })?;
                if target.starts_with(home) && !kept(&target) {
                    return Err(Errno::ELOOP.into());
                }
            } else if found.is_dir() {
                deeper.push((entry.path(), depth + 1));
            } else if found.is_file() && found.nlink() > 1 {
                return Err(Errno::EMLINK.into());
            }
        }
    }
    Ok(())
}

/// The path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

fn cannot_be_kept(error: &io::Error) -> bool {
    [libc::ELOOP, libc::EMLINK, libc::ENOTDIR]
        .iter()
        .any(|number| error.raw_os_error() == Some(*number))
}

fn keep_one(
    home: &OwnedFd,
    path: &Path,
    missing: Missing,
    pinned: &mut Vec<PathBuf>,
) -> io::Result<()> {
    let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
    above.pop();
    for directory in above.into_iter().rev() {
        if !pinned.iter().any(|known| known == directory) {
            let found = found_or_made(home, directory, Missing::Directory)?;
            sys::mount_on(&sys::clone_tree(&found)?, &found)?;
            pinned.push(directory.to_owned());
        }
    }
    let found = found_or_made(home, path, missing)?;
    let stat = fstat(&found)?;
    let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
    if kind == SFlag::S_IFLNK {
        return Err(Errno::ELOOP.into());
    }
    if kind == SFlag::S_IFREG && stat.st_nlink > 1 {
        return Err(Errno::EMLINK.into());
    }
    let tree = sys::clone_tree(&found)?;
    sys::add_attributes(&tree, libc::MOUNT_ATTR_RDONLY)?;
    sys::mount_on(&tree, &found)
}

fn found_or_made(home: &OwnedFd, path: &Path, missing: Missing) -> io::Result<OwnedFd> {
    match beneath(home, path, OFlag::O_PATH | OFlag::O_NOFOLLOW, Mode::empty()) {
        Err(Errno::ENOENT) => {}
        found => return Ok(found?),
    }
    match missing {
        Missing::Directory => {
            let parent = match path.parent().filter(|parent| *parent != Path::new("")) {
                Some(parent) => Some(beneath(home, parent, OFlag::O_PATH, Mode::empty())?),
                None => None,
            };
            let parent = parent.as_ref().map_or(home.as_fd(), AsFd::as_fd);
            let name = path.file_name().unwrap_or_default();
            mkdirat(parent, name, Mode::S_IRWXU)?;
        }
        Missing::File | Missing::BashProfile | Missing::Tcshrc => {
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
            let mode = Mode::S_IRUSR | Mode::S_IWUSR;
            let made = beneath(home, path, flags, mode)?;
            let text: &[u8] = match missing {
                Missing::BashProfile => bash_profile(home),
                Missing::Tcshrc => b"# Stands here so that no agent can write it. tcsh would read .cshrc.\nsource ~/.cshrc\n",
                _ => b"",
            };
            File::from(made).write_all(text)?;
        }
    }
    Ok(beneath(
        home,
        path,
        OFlag::O_PATH | OFlag::O_NOFOLLOW,
        Mode::empty(),
    )?)
}

/// bash(1) reads the first that it finds of .bash_profile, .bash_login and .profile: an empty first one
/// would silence the others.
fn bash_profile(home: &OwnedFd) -> &'static [u8] {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW;
    match beneath(home, Path::new(".bash_login"), flags, Mode::empty()) {
        Ok(_) => b"# Stands here so that no agent can write it. bash would read .bash_login.\n. ~/.bash_login\n",
        Err(_) => b"# Stands here so that no agent can write it. bash would read .profile.\n. ~/.profile\n",
    }
}

/// Opens `path` below `home` without following any link on the way, or leaving it (openat2(2), Linux
/// 5.6).
fn beneath(home: &OwnedFd, path: &Path, flags: OFlag, mode: Mode) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .mode(mode)
        .resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_MAGICLINKS,
        );
    openat2(home, path, how)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_has_a_reason_and_stays_below_the_home() {
        for (path, _, reason) in RUN_AT_LOGIN {
            assert!(!reason.is_empty() && path.starts_with('.'), "{path}");
        }
    }
}
