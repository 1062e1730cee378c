//! Files of a home that run when somebody logs in: read-only for the worker of an account that people
//! log in to, because what an agent writes there would run outside the walls.
//!
//! What is missing is made empty, by the account itself: a mount needs something to be mounted on, and
//! root must not write where a user chooses the path. Every step is relative to the home's descriptor
//! and follows no link. A directory above such a file is bound onto itself, because only what is mounted
//! cannot be renamed away. What is a link, or has several names, cannot be kept so; it stops the launch
//! of a strict policy.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
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
    (".bash_logout", Missing::File, "bash at the end"),
    (".zshenv", Missing::File, "zsh, always"),
    (".zprofile", Missing::File, "zsh at a login"),
    (".zshrc", Missing::File, "zsh"),
    (".zlogin", Missing::File, "zsh at a login"),
    (".zlogout", Missing::File, "zsh at the end"),
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
    (".config/autostart", Missing::Directory, "desktops"),
    (
        ".local/share/systemd",
        Missing::Directory,
        "the user's systemd: units",
    ),
];

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

fn keep_as_the_account(home: &Path, strict: bool) -> io::Result<()> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let home = open(home, flags, Mode::empty())?;
    let mut pinned: Vec<PathBuf> = Vec::new();
    for (path, missing, _) in RUN_AT_LOGIN {
        let kept = keep_one(&home, Path::new(path), *missing, &mut pinned);
        if let Err(error) = kept
            && (strict || !cannot_be_kept(&error))
        {
            return Err(error);
        }
    }
    Ok(())
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
    sys::make_read_only(&tree)?;
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
        Missing::File | Missing::BashProfile => {
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
            let mode = Mode::S_IRUSR | Mode::S_IWUSR;
            let made = beneath(home, path, flags, mode)?;
            if missing == Missing::BashProfile {
                File::from(made).write_all(bash_profile(home))?;
            }
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
