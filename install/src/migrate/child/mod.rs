//! A child of this command that gives up all that it may, before it reads or writes what belongs to somebody
//! else. It is shut into one directory and becomes one account for good; then it does the one thing it was
//! started for, and says on its standard output how that went.
//!
//! - [`write`]: writes files into a user's home, as the user;
//! - [`database`]: reads the old database, under a uid that nobody has.

pub mod database;
pub mod write;

use std::{
    env,
    ffi::OsStr,
    io::Read,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Child, ChildStdin, ExitCode, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::{
        prctl,
        resource::{Resource, setrlimit},
        stat::{Mode, umask},
    },
    unistd::{Gid, Uid, chdir, chroot, setgroups, setresgid, setresuid, setsid},
};

use crate::tools;

/// The name that the child is started by: nobody calls a program so who means the command.
const NAME: &str = "kai-install: child of migrate";
/// How often it is looked whether a child has ended.
const PAUSE: Duration = Duration::from_millis(5);

/// How long is waited, after its end, for what it has said, and for that end, after it was killed.
const AFTERWARDS: Duration = Duration::from_secs(5);

/// What a child is started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// To write what it is given.
    Write,
    /// To read the database.
    Database,
}

impl Part {
    fn word(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Database => "database",
        }
    }
}

/// Starts a child in the directory as this account, gives it what `feed` writes, and returns what it says,
/// or why that is not known. A child that takes longer than `patience` is ended: what it meets is in the
/// hands of the account.
///
/// # Errors
/// One sentence.
pub fn start(
    part: Part,
    directory: &OwnedFd,
    (uid, gid): (u32, u32),
    patience: Duration,
    longest: u64,
    feed: impl FnOnce(ChildStdin) + Send,
) -> Result<Vec<u8>, String> {
    let mut child = tools::command("/proc/self/exe")
        .arg0(NAME)
        .args([part.word(), &uid.to_string(), &gid.to_string()])
        .current_dir(format!("/proc/self/fd/{}", directory.as_raw_fd()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("no process can be started: {error}"))?;
    let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err("no process can be spoken to".to_owned());
    };
    let (answer, answered) = mpsc::sync_channel(1);
    // Not of the scope: what the child said to may have been handed to a process that outlives it.
    thread::spawn(move || {
        let mut said = Vec::new();
        let _ = answer.send(output.take(longest).read_to_end(&mut said).map(|_| said));
    });
    thread::scope(|scope| {
        scope.spawn(move || feed(input));
        wait(&mut child, patience)?;
        match answered.recv_timeout(AFTERWARDS) {
            Ok(Ok(said)) => Ok(said),
            _ => Err("what was done is not known".to_owned()),
        }
    })
}

fn wait(child: &mut Child, patience: Duration) -> Result<(), String> {
    let until = Instant::now() + patience;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("the process for it ended: {status}")),
            Ok(None) if Instant::now() < until => thread::sleep(PAUSE),
            Ok(None) | Err(_) => {
                let _ = child.kill();
                // One that waits for a file system in the account's hands may not end at all.
                let until = Instant::now() + AFTERWARDS;
                while matches!(child.try_wait(), Ok(None)) && Instant::now() < until {
                    thread::sleep(PAUSE);
                }
                return Err(format!(
                    "the process for it did not end within {} s",
                    patience.as_secs()
                ));
            }
        }
    }
}

/// Does what a child does, if this process is one.
#[must_use]
pub fn run() -> Option<ExitCode> {
    let mut arguments = env::args_os();
    if arguments.next().as_deref() != Some(OsStr::new(NAME)) {
        return None;
    }
    let words: Vec<String> = arguments
        .filter_map(|word| word.into_string().ok())
        .collect();
    let [part, uid, gid] = &words[..] else {
        return Some(ExitCode::FAILURE);
    };
    let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse()) else {
        return Some(ExitCode::FAILURE);
    };
    if irrevocably_become(uid, gid).is_err() {
        return Some(ExitCode::FAILURE);
    }
    Some(match part.as_str() {
        "write" => write::run(),
        "database" => database::run(),
        _ => ExitCode::FAILURE,
    })
}

/// Shuts the process into its current directory and gives it this account. The account cannot trace it: the
/// kernel sees to that where a process changes its user.
fn irrevocably_become(uid: u32, gid: u32) -> nix::Result<()> {
    if uid == 0 || gid == 0 {
        return Err(nix::Error::EPERM);
    }
    // Away from the admin's terminal.
    let _ = setsid();
    chroot(".")?;
    chdir("/")?;
    umask(Mode::from_bits_truncate(0o077));
    prctl::set_no_new_privs()?;
    setgroups(&[])?;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    // It starts no other process.
    setrlimit(Resource::RLIMIT_NPROC, 0, 0)?;
    let root = Uid::from_raw(0);
    match setresuid(root, root, root) {
        Err(_) => Ok(()),
        Ok(()) => Err(nix::Error::EPERM),
    }
}
