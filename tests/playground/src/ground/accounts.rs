//! Accounts for one run: made under names that nobody has, and removed with all that is theirs.
//!
//! An account is only ever removed if its comment field still says that this very run made it.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Gid, Group, Pid, Uid, User},
};

use super::{GroundError, record::Thing, removal::Made};

/// Where homes are made.
const HOMES: &str = "/home";
/// How often the tools are tried that give up when another program holds the account database.
const ATTEMPTS: u32 = 20;

/// An account that a run works with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
    /// Its home directory.
    pub home: PathBuf,
}

/// The comment field of every account of the run `id`.
fn comment(id: &str) -> String {
    format!("kai playground {id}")
}

/// True if neither an account nor a group nor a home of these names exists.
///
/// # Errors
/// If name service does not answer.
pub(super) fn is_free(name: &str, group: &str) -> Result<bool, GroundError> {
    let lookup = |error: nix::Error| GroundError::Accounts(format!("cannot look up: {error}"));
    Ok(User::from_name(name).map_err(lookup)?.is_none()
        && Group::from_name(group).map_err(lookup)?.is_none()
        && fs::symlink_metadata(Path::new(HOMES).join(name)).is_err())
}

/// Makes a person's account: a group of its own, locked, no login shell, a home that is 0700.
///
/// # Errors
/// What the tools say.
pub(super) fn make_person(
    made: &mut Made,
    name: &str,
    group: &str,
) -> Result<Account, GroundError> {
    let home = Path::new(HOMES).join(name);
    let account = make(made, name, group, &home, &[])?;
    let failed = |error: io::Error| {
        GroundError::Accounts(format!("cannot make {}: {error}", home.display()))
    };
    DirBuilder::new()
        .mode(0o700)
        .create(&home)
        .map_err(failed)?;
    chown(&home, Some(account.uid), Some(account.gid)).map_err(failed)?;
    Ok(account)
}

/// Makes a service's account: a system account without a home.
///
/// # Errors
/// What the tools say.
pub(super) fn make_service(made: &mut Made, name: &str) -> Result<Account, GroundError> {
    make(made, name, name, Path::new("/nonexistent"), &["--system"])
}

fn make(
    made: &mut Made,
    name: &str,
    group: &str,
    home: &Path,
    kind: &[&str],
) -> Result<Account, GroundError> {
    let comment = comment(made.id());
    made.note(Thing::Group(group.to_owned()))?;
    run(Command::new("groupadd").args(kind).arg(group))?;
    made.note(Thing::Account {
        name: name.to_owned(),
        home: home.to_owned(),
    })?;
    run(Command::new("useradd")
        .args(kind)
        .args(["--no-create-home", "--no-log-init", "--shell"])
        .arg("/usr/sbin/nologin")
        // Nobody logs in to it by any way (shadow(5)).
        .args(["--expiredate", "1970-01-02"])
        .args(["--comment", &comment, "--gid", group, "--home-dir"])
        .arg(home)
        .arg(name))?;
    let user = User::from_name(name)
        .ok()
        .flatten()
        .ok_or_else(|| GroundError::Accounts(format!("useradd made no account {name}")))?;
    Ok(Account {
        name: name.to_owned(),
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        home: home.to_owned(),
    })
}

/// Removes the account `name` of the run `id`, its processes and its home. One that somebody else
/// made under that name, or that is gone, is left alone.
///
/// # Errors
/// What the tools say.
pub(super) fn remove(id: &str, name: &str, home: &Path) -> Result<(), GroundError> {
    let Ok(Some(user)) = User::from_name(name) else {
        return Ok(());
    };
    if user.gecos.to_bytes() != comment(id).as_bytes() || user.uid.is_root() {
        return Ok(());
    }
    end_processes_of(user.uid);
    // A home that is not yet the account's is empty: it is given away right after it is made.
    match fs::symlink_metadata(home) {
        Ok(found) if found.is_dir() && found.uid() == user.uid.as_raw() => {
            fs::remove_dir_all(home).map_err(|error| {
                GroundError::Accounts(format!("cannot remove {}: {error}", home.display()))
            })?;
        }
        Ok(found) if found.is_dir() && found.uid() == 0 => drop(fs::remove_dir(home)),
        _ => {}
    }
    run(Command::new("userdel").arg(name))
}

/// Removes the group `name`, unless it is gone.
///
/// # Errors
/// What groupdel(8) says.
pub(super) fn remove_group(name: &str) -> Result<(), GroundError> {
    match Group::from_name(name) {
        Ok(Some(group)) if group.gid != Gid::from_raw(0) => run(Command::new("groupdel").arg(name)),
        _ => Ok(()),
    }
}

/// Kills every process of `uid`, until there is none.
fn end_processes_of(uid: Uid) {
    end_processes(|process| fs::metadata(process).is_ok_and(|found| found.uid() == uid.as_raw()));
}

/// Kills every process whose program lies below `directory`.
pub(super) fn end_programs_below(directory: &Path) {
    end_processes(|process| {
        fs::read_link(process.join("exe")).is_ok_and(|program| program.starts_with(directory))
    });
}

/// Kills every process whose directory in /proc satisfies `ours`, until there is none.
fn end_processes(ours: impl Fn(&Path) -> bool) {
    for _ in 0..100 {
        let Ok(entries) = fs::read_dir("/proc") else {
            return;
        };
        let mut left = false;
        for entry in entries.flatten() {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            if ours(&entry.path()) {
                left = true;
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        if !left {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Runs one of the tools of shadow-utils, again while another program holds the account database.
fn run(command: &mut Command) -> Result<(), GroundError> {
    let tool = command.get_program().to_string_lossy().into_owned();
    command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::null());
    let mut said = String::new();
    for _ in 0..ATTEMPTS {
        let output = command.output().map_err(|error| {
            GroundError::Accounts(format!(
                "cannot run {tool}, which Debian has in the package passwd: {error}"
            ))
        })?;
        if output.status.success() {
            return Ok(());
        }
        said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        // 8: userdel(8) found a process that has been killed and not yet reaped; 10 and 1: the
        // account database is locked.
        if !said.contains("lock") && output.status.code() != Some(8) {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    Err(GroundError::Accounts(format!("{tool} failed: {said}")))
}
