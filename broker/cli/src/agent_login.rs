//! Whether a user's agent has a login or a key, seen from outside and without reading what it is.
//!
//! The file is in a home that its user, and whatever the agent ran, can fill with links, devices and mounts. So
//! it is looked for as the user's account (setfsuid(2)), by descriptors that open nothing (`O_PATH`), and
//! through no link or mount; and no longer than a moment, because a home may be on a server that is gone.

use std::{io, path::Path, sync::mpsc, thread, time::Duration};

use kai_proto::admin_broker::UserStatus;
use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2},
    sys::stat::{Mode, SFlag, fstat},
    unistd::{Gid, Uid, User, setfsgid, setfsuid},
};
use serde::Serialize;

/// Where the agent keeps its login, below the home.
const CREDENTIALS: &str = ".claude/.credentials.json";
/// How long a look may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentLogin {
    /// There is one, or a key in its place; whether it is still good, only the agent knows.
    Yes,
    /// There is none.
    No,
    /// It cannot be told.
    Unknown,
}

impl AgentLogin {
    /// The word in the table.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "NO",
            Self::Unknown => "?",
        }
    }
}

/// Looks for the login of `user`, unless the agent is given a key.
#[must_use]
pub fn look(user: &UserStatus, shared_key: bool) -> AgentLogin {
    if user.own_key || shared_key {
        return AgentLogin::Yes;
    }
    let Ok(Some(account)) = User::from_name(user.account.as_str()) else {
        return AgentLogin::Unknown;
    };
    let (tell, told) = mpsc::channel();
    // A thread: its own file system ids, and one that never comes back is left behind.
    let looking = thread::Builder::new().spawn(move || {
        let _ = tell.send(as_account(&account.dir, account.uid, account.gid));
    });
    match looking.map(|_| told.recv_timeout(PATIENCE)) {
        Ok(Ok(found)) => found,
        _ => AgentLogin::Unknown,
    }
}

fn as_account(home: &Path, uid: Uid, gid: Gid) -> AgentLogin {
    setfsgid(gid);
    setfsuid(uid);
    // They answer with the ids before; asked again, with those that are.
    if setfsuid(uid) != uid || setfsgid(gid) != gid {
        return AgentLogin::Unknown;
    }
    judge(found(home), uid)
}

/// Kind, owner and size.
fn found(home: &Path) -> io::Result<(SFlag, Uid, i64)> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let home = open(home, flags | OFlag::O_DIRECTORY, Mode::empty())?;
    let how = OpenHow::new().flags(flags | OFlag::O_NOFOLLOW).resolve(
        ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_SYMLINKS
            | ResolveFlag::RESOLVE_NO_MAGICLINKS
            | ResolveFlag::RESOLVE_NO_XDEV,
    );
    let file = openat2(&home, CREDENTIALS, how)?;
    let found = fstat(&file)?;
    let kind = SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits());
    Ok((kind, Uid::from_raw(found.st_uid), found.st_size))
}

fn judge(found: io::Result<(SFlag, Uid, i64)>, uid: Uid) -> AgentLogin {
    match found {
        Ok((SFlag::S_IFREG, owner, 1..)) if owner == uid => AgentLogin::Yes,
        Ok((SFlag::S_IFREG, owner, 0)) if owner == uid => AgentLogin::No,
        Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => AgentLogin::No,
        _ => AgentLogin::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt, symlink},
    };

    use super::*;

    #[test]
    fn a_file_of_the_users_with_something_in_it_is_a_login_and_what_is_strange_is_not_opened() {
        let home = tempfile::tempdir().unwrap();
        let own = nix::unistd::geteuid();
        let look = |uid| judge(found(home.path()), uid);
        let directory = home.path().join(".claude");
        let file = home.path().join(CREDENTIALS);
        assert_eq!(look(own), AgentLogin::No);
        fs::create_dir(&directory).unwrap();
        assert_eq!(look(own), AgentLogin::No);
        fs::write(&file, "").unwrap();
        assert_eq!(look(own), AgentLogin::No);
        fs::write(&file, "{}").unwrap();
        assert_eq!(look(own), AgentLogin::Yes);
        assert_eq!(look(Uid::from_raw(4_000_000)), AgentLogin::Unknown);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
        assert_eq!(look(own), AgentLogin::Yes, "it is not read");

        fs::remove_file(&file).unwrap();
        nix::unistd::mkfifo(&file, Mode::S_IRWXU).unwrap();
        assert_eq!(look(own), AgentLogin::Unknown);
        fs::remove_file(&file).unwrap();
        symlink("/etc/passwd", &file).unwrap();
        assert_eq!(look(own), AgentLogin::Unknown);
        fs::remove_dir_all(&directory).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join(".credentials.json"), "{}").unwrap();
        symlink(elsewhere.path(), &directory).unwrap();
        assert_eq!(look(own), AgentLogin::Unknown);
        fs::remove_file(&directory).unwrap();
        fs::write(&directory, "").unwrap();
        assert_eq!(look(own), AgentLogin::Unknown);
    }
}
