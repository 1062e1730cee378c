//! Writes files into a home, as the account whose home it is: the root directory of the process is the home,
//! no link is followed, and nothing that is there is changed.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, Write},
    os::fd::OwnedFd,
    path::{Component, Path},
    process::{ChildStdin, ExitCode},
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2},
    sys::stat::{Mode, fstat, mkdirat},
    unistd::{UnlinkatFlags, fsync, geteuid, linkat, unlinkat},
};
use serde::{Deserialize, Serialize};

use super::{Part, start};
use crate::{
    accounts::Person,
    root::{Found, Kind, Root},
};

/// The name of a file that is not whole yet.
const NEW: &str = ".kai-install.new";
/// Longest header of a file.
const HEADER: u64 = 4096;
/// Longest answer, in bytes.
const ANSWER: u64 = 64 * 1024;
/// How many files that stood in the way are named.
const NAMED: usize = 5;
/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// A file that is written.
#[derive(Debug, Serialize, Deserialize)]
pub struct Parcel {
    /// Where, in the home.
    pub path: String,
    /// Where, if something else is there.
    pub otherwise: Option<String>,
    /// How much.
    length: u64,
}

impl Parcel {
    /// A file of these contents at `path`, or `otherwise`.
    #[must_use]
    pub fn new(path: &str, otherwise: Option<&str>, contents: &[u8]) -> Self {
        Self {
            path: path.to_owned(),
            otherwise: otherwise.map(str::to_owned),
            length: contents.len() as u64,
        }
    }
}

/// Takes a file to be written.
pub type Send<'a> = dyn FnMut(&Parcel, &[u8]) -> io::Result<()> + 'a;

/// What was done.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Done {
    /// How many files are there now.
    pub files: usize,
    /// How many of them are where they go if something else is in their place.
    pub otherwise: usize,
    /// Files in whose place something else is.
    pub in_the_way: Vec<String>,
    /// What ended it.
    problem: Option<String>,
}

/// Writes what `feed` sends into the home of `person`, as them.
///
/// # Errors
/// One sentence; what was written before stays.
pub fn into_home(
    root: &Root,
    person: &Person,
    feed: impl FnOnce(&mut Send<'_>) -> io::Result<()> + std::marker::Send,
) -> Result<Done, String> {
    let home = person.home.display();
    let opened = root
        .somebody_s(&person.home)
        .map_err(|problem| problem.to_string())?;
    let Some((directory, found)) = opened else {
        return Err(format!("{home} is not there"));
    };
    if found.access.uid != person.uid {
        return Err(format!("{home} is not the directory of {}", person.name));
    }
    let feed = |input: ChildStdin| {
        let mut input = io::BufWriter::new(input);
        // A child that takes no more says why by what it answers.
        let _ = feed(&mut |parcel, contents| {
            serde_json::to_writer(&mut input, parcel)?;
            input.write_all(b"\n")?;
            input.write_all(contents)
        })
        .and_then(|()| input.flush());
    };
    let account = (person.uid, person.gid);
    let said = start(Part::Write, &directory, account, PATIENCE, ANSWER, feed)?;
    let done: Done =
        serde_json::from_slice(&said).map_err(|_| "what was done is not known".to_owned())?;
    match done.problem {
        Some(problem) => Err(problem),
        None => Ok(done),
    }
}

/// The child's side.
pub(super) fn run() -> ExitCode {
    let mut done = Done::default();
    let mut input = BufReader::new(io::stdin().lock());
    done.problem = take_all(&mut input, &mut done)
        .err()
        .map(|error| error.to_string());
    let said = serde_json::to_string(&done).unwrap_or_default();
    match io::stdout().write_all(said.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn take_all(input: &mut impl BufRead, done: &mut Done) -> io::Result<()> {
    loop {
        let mut header = Vec::new();
        (&mut *input).take(HEADER).read_until(b'\n', &mut header)?;
        if header.is_empty() {
            return Ok(());
        }
        let parcel: Parcel = serde_json::from_slice(&header)?;
        take(&parcel, &mut (&mut *input).take(parcel.length), done)?;
    }
}

fn take(parcel: &Parcel, contents: &mut impl Read, done: &mut Done) -> io::Result<()> {
    let (directory, name) = place(&parcel.path)?;
    match unlinkat(&directory, NEW, UnlinkatFlags::NoRemoveDir) {
        // What a run that was killed left.
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags =
        OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let opened = openat(&directory, NEW, flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
    let mut file = File::from(opened);
    let written = io::copy(contents, &mut file).and_then(|length| {
        file.sync_all()?;
        if length == parcel.length {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    });
    let put = written.and_then(|()| {
        if link(&directory, (&directory, name), &mut file)? {
            done.files += 1;
            return Ok(());
        }
        if let Some(otherwise) = &parcel.otherwise {
            let (other, name) = place(otherwise)?;
            if link(&directory, (&other, name), &mut file)? {
                fsync(&other)?;
                done.files += 1;
                done.otherwise += 1;
                return Ok(());
            }
        }
        if done.in_the_way.len() < NAMED {
            done.in_the_way.push(parcel.path.clone());
        }
        Ok(())
    });
    unlinkat(&directory, NEW, UnlinkatFlags::NoRemoveDir)?;
    fsync(&directory)?;
    put
}

/// Gives the new file this name, unless something else has it; true if the file, or one of the same
/// contents, has it.
fn link(from: &OwnedFd, (directory, name): (&OwnedFd, &str), file: &mut File) -> io::Result<bool> {
    match linkat(from, NEW, directory, name, AtFlags::empty()) {
        Ok(()) => Ok(true),
        // By a run that was killed, perhaps.
        Err(Errno::EEXIST) => is_same(directory, name, file),
        Err(error) => Err(error.into()),
    }
}

fn is_same(directory: &OwnedFd, name: &str, file: &mut File) -> io::Result<bool> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let there = match open(directory, name, flags) {
        Ok(there) => File::from(there),
        Err(_) => return Ok(false),
    };
    let found = there.metadata()?;
    if !found.is_file() || found.len() != file.metadata()?.len() {
        return Ok(false);
    }
    file.rewind()?;
    let (mut old, mut new) = (BufReader::new(there), BufReader::new(file));
    loop {
        let (left, right) = (old.fill_buf()?, new.fill_buf()?);
        let length = left.len().min(right.len());
        if length == 0 {
            return Ok(left.is_empty() && right.is_empty());
        }
        if left[..length] != right[..length] {
            return Ok(false);
        }
        old.consume(length);
        new.consume(length);
    }
}

/// Opens what has this name there, unless a file system is mounted on it: one of the account's own could leave
/// the process waiting for good.
fn open(directory: &OwnedFd, name: &str, flags: OFlag) -> nix::Result<OwnedFd> {
    let resolve = ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_NO_XDEV;
    openat2(
        directory,
        name,
        OpenHow::new().flags(flags).resolve(resolve),
    )
}

/// The directory of a path and its last name; directories on the way that are not there are made.
fn place(path: &str) -> io::Result<(OwnedFd, &str)> {
    let mut names = Vec::new();
    for part in Path::new(path).components() {
        match (part, part.as_os_str().to_str()) {
            (Component::Normal(_), Some(name)) => names.push(name),
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        }
    }
    let last = names.pop().ok_or(io::ErrorKind::InvalidInput)?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut directory = nix::fcntl::open("/", flags, Mode::empty())?;
    for name in names {
        match mkdirat(&directory, name, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let not_own = || {
            io::Error::other(format!(
                "{name} in the home is not a directory of the account's"
            ))
        };
        let opened = match open(&directory, name, flags) {
            Ok(opened) => opened,
            Err(Errno::ELOOP | Errno::ENOTDIR | Errno::EXDEV) => return Err(not_own()),
            Err(error) => return Err(error.into()),
        };
        let found = Found::of(&fstat(&opened)?);
        if found.kind != Kind::Directory || found.access.uid != geteuid().as_raw() {
            return Err(not_own());
        }
        directory = opened;
    }
    Ok((directory, last))
}
