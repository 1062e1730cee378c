//! The one writer of a log.
//!
//! The log is `audit.jsonl` and, before it, `audit-N.jsonl` for each file that was full, N being the
//! number of its first line. A file follows the one before it as a line follows a line: its first line
//! has the hash of the last one there.
//!
//! ```text
//! rotation: audit.next is made, with its reserve
//!           audit.jsonl -> audit-N.jsonl
//!           audit.next  -> audit.jsonl
//! ```
//!
//! Whatever is cut off between two of these steps, or inside a line, the next [`Log::open`] goes on from
//! the last whole line. Once open, these calls are made: openat, fstat, write, fdatasync, fsync,
//! ftruncate, fallocate, rename, unlink, getdents64, close.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, Flock, FlockArg, OFlag, fallocate},
    unistd::geteuid,
};
use tracing::{info, warn};

use crate::{
    chain::{Hash, Place},
    record::{LINE, Record},
};

/// The file that is being written.
pub const CURRENT: &str = "audit.jsonl";
/// The one that will be, while it is made.
const NEXT: &str = "audit.next";
/// What stays allocated beyond the end of the file: a disk that users fill stops no decision.
const RESERVE: u64 = 1 << 20;
/// Lines between two marks.
const MARK_EVERY: u64 = 100;
/// How much further the file grows until a rotation that failed is tried again.
const TRY_AGAIN: u64 = 64 << 10;

/// How large a log's files may become, and how many of them are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one file before the next is begun.
    pub file: u64,
    /// Files that are kept, the one that is being written among them.
    pub files: usize,
}

impl Limits {
    /// 64 files of 8 MiB: about two million decisions.
    pub const STANDARD: Self = Self {
        file: 8 << 20,
        files: 64,
    };
}

/// Why a log cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A call failed.
    #[error("cannot open the audit log {0}: {1}")]
    Io(PathBuf, io::Error),
    /// Somebody else could have written it.
    #[error("the audit log {path} {fault}; look at it, and mend it with: {mend}")]
    Distrusted {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong with it.
        fault: &'static str,
        /// The command.
        mend: String,
    },
    /// Another process writes it.
    #[error("the audit log {0} has a writer already: stop it first")]
    Busy(PathBuf),
    /// The last line is not one that this program wrote.
    #[error(
        "the audit log cannot go on after the last line of {0}, which is damaged; move the file aside and keep it"
    )]
    Damaged(PathBuf),
}

/// A log that is being written.
#[derive(Debug)]
pub struct Log {
    directory: PathBuf,
    name: String,
    limits: Limits,
    file: File,
    /// The number of the current file's first line.
    first: u64,
    /// The last line.
    last: Place,
    /// Bytes of whole lines in the current file.
    length: u64,
    /// Until where the file is allocated.
    reserved: u64,
    /// The length at which a rotation is due.
    rotate_at: u64,
    /// True if bytes may stand behind `length`, of a line that failed.
    torn: bool,
    // Held as long as the log is open: a second writer would break the chain.
    _lock: Flock<File>,
}

impl Log {
    /// Opens the log in `directory`, root's and 0700, and goes on where it ended.
    ///
    /// # Errors
    /// One sentence that says how to mend it.
    pub fn open(directory: &Path, limits: Limits) -> Result<Self, OpenError> {
        let context = |path: &Path| {
            let path = path.to_owned();
            move |error| OpenError::Io(path, error)
        };
        make(directory).map_err(context(directory))?;
        let opened = File::open(directory).map_err(context(directory))?;
        judge(directory, &opened)?;
        let lock = match Flock::lock(opened, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, Errno::EWOULDBLOCK)) => return Err(OpenError::Busy(directory.to_owned())),
            Err((_, errno)) => return Err(OpenError::Io(directory.to_owned(), errno.into())),
        };
        match fs::remove_file(directory.join(NEXT)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(OpenError::Io(directory.join(NEXT), error));
            }
            _ => {}
        }
        let path = directory.join(CURRENT);
        let mut file = options().create(true).open(&path).map_err(context(&path))?;
        judge(&path, &file)?;
        let tail = Tail::read(&mut file).map_err(context(&path))?;
        if tail.torn > 0 {
            warn!(
                bytes = tail.torn,
                "cut off the beginning of a line of the audit log, whose decision never took effect"
            );
            file.set_len(tail.length).map_err(context(&path))?;
            file.sync_all().map_err(context(&path))?;
        }
        let (first, last) = match (&tail.first, &tail.last) {
            (Some(first), Some(last)) => {
                let damaged = || OpenError::Damaged(path.clone());
                let first = Place::of(first).ok_or_else(damaged)?;
                (first.seq, Place::of(last).ok_or_else(damaged)?)
            }
            _ => {
                let last = last_of_rotated(directory)?;
                (last.seq + 1, last)
            }
        };
        let name = directory.file_name().unwrap_or_default();
        let mut log = Self {
            directory: directory.to_owned(),
            name: name.to_string_lossy().into_owned(),
            limits,
            file,
            first,
            last,
            length: tail.length,
            reserved: 0,
            rotate_at: limits.file,
            torn: false,
            _lock: lock,
        };
        log.reserve();
        // The name of a file that was only just made.
        log.sync_directory().map_err(context(directory))?;
        Ok(log)
    }

    /// Appends `record`, which is on disk when this returns: only then may the decision take effect.
    ///
    /// # Errors
    /// What the file system answers; nothing of the record is then in the log.
    pub fn append(&mut self, record: &Record, at: SystemTime) -> io::Result<()> {
        self.append_all(std::slice::from_ref(record), at)
    }

    /// Appends the lines of one decision, in their order: all of them, with one wait for the disk.
    ///
    /// # Errors
    /// What the file system answers; nothing of any of them is then in the log.
    pub fn append_all(&mut self, records: &[Record], at: SystemTime) -> io::Result<()> {
        if self.torn {
            self.cut()?;
        }
        let mut last = self.last;
        let mut text = String::new();
        for record in records {
            let (line, place) = record.line(&last, at);
            text.push_str(&line);
            last = place;
        }
        let bytes = text.len() as u64;
        if self.length > 0 && self.length + bytes > self.rotate_at {
            self.rotate();
        }
        if self.reserved < self.length + RESERVE / 2 {
            self.reserve();
        }
        self.torn = true;
        let written = self
            .file
            .write_all(text.as_bytes())
            .and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Taken back now if that can be, and in any case before the next line.
            let _ = self.cut();
            return Err(error);
        }
        self.torn = false;
        self.length += bytes;
        let marked = self.last.seq / MARK_EVERY;
        self.last = last;
        if self.last.seq / MARK_EVERY > marked {
            self.mark();
        }
        Ok(())
    }

    /// Puts the last sequence number and hash into the journal; to be called at the end.
    pub fn close(self) {
        if self.last.seq > 0 {
            self.mark();
        }
    }

    /// What `kai-broker audit verify` compares the log with: root alone can change both.
    fn mark(&self) {
        info!(
            target: kai_program::log::MARKS,
            "audit mark log={} seq={} hash={}",
            self.name, self.last.seq, self.last.hash
        );
    }

    /// Takes back what was written behind the last line, and with it the reserve, which lies there.
    fn cut(&mut self) -> io::Result<()> {
        self.torn = true;
        self.file.set_len(self.length)?;
        self.torn = false;
        self.reserved = 0;
        self.reserve();
        Ok(())
    }

    fn reserve(&mut self) {
        let (from, bytes) = (self.length, RESERVE);
        let offsets = i64::try_from(from).and_then(|from| Ok((from, i64::try_from(bytes)?)));
        let Ok((from, bytes)) = offsets else {
            return;
        };
        // Without it the log goes on until the disk is full; on a full disk what is left is used up.
        if fallocate(&self.file, FallocateFlags::FALLOC_FL_KEEP_SIZE, from, bytes).is_ok() {
            self.reserved = self.length + RESERVE;
        }
    }

    /// Begins a new file. If that fails, as on a full disk, the old one grows on.
    fn rotate(&mut self) {
        match self.begin_next() {
            Ok(file) => {
                self.file = file;
                self.first = self.last.seq + 1;
                self.length = 0;
                self.reserved = RESERVE;
                self.rotate_at = self.limits.file;
                self.forget_oldest();
            }
            Err(error) => {
                warn!("the audit log's next file cannot be begun yet: {error}");
                self.rotate_at = self.length + TRY_AGAIN;
            }
        }
    }

    fn begin_next(&self) -> io::Result<File> {
        let (current, next) = (self.directory.join(CURRENT), self.directory.join(NEXT));
        let made = options().create_new(true).open(&next).and_then(|file| {
            fallocate(
                &file,
                FallocateFlags::FALLOC_FL_KEEP_SIZE,
                0,
                RESERVE.cast_signed(),
            )
            .or_else(|errno| match errno {
                // A file system that cannot reserve has none for the old file either.
                Errno::EOPNOTSUPP => Ok(()),
                errno => Err(io::Error::from(errno)),
            })?;
            file.sync_all()?;
            Ok(file)
        });
        let file = made.inspect_err(|_| drop(fs::remove_file(&next)))?;
        let full = self.directory.join(rotated_name(self.first));
        if let Err(error) = rename_to_new(&current, &full) {
            drop(fs::remove_file(&next));
            return Err(error);
        }
        if let Err(error) = fs::rename(&next, &current) {
            // Back, so that what is written now is where it is looked for.
            fs::rename(&full, &current)?;
            return Err(error);
        }
        // Both names are there; what failed is only to make them last. The old file must not be written on:
        // the next rotation would put another in its place.
        if let Err(error) = self.sync_directory() {
            warn!("the names of the audit log's files may not outlast a power failure: {error}");
        }
        Ok(file)
    }

    fn forget_oldest(&self) {
        let Ok(rotated) = rotated(&self.directory) else {
            return;
        };
        let surplus = (rotated.len() + 1).saturating_sub(self.limits.files);
        for (_, path) in rotated.into_iter().take(surplus) {
            if let Err(error) = fs::remove_file(&path) {
                warn!("an old file of the audit log stays: {error}");
            }
        }
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.directory)?.sync_all()
    }
}

/// Nothing that stands there already is lost: the log has one writer, so nothing comes there meanwhile.
fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    match fs::symlink_metadata(to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::rename(from, to),
        Err(error) => Err(error),
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
    }
}

/// The full files of a log, the oldest first, each with the number of its first line.
///
/// # Errors
/// What readdir(3) answers.
pub fn rotated(directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        found.extend(rotated_number(&path).map(|number| (number, path)));
    }
    found.sort_unstable();
    Ok(found)
}

/// The number of the first line of a full file, by its name; none for another file.
#[must_use]
pub fn rotated_number(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let number = name.strip_prefix("audit-")?.strip_suffix(".jsonl")?;
    number.parse().ok()
}

fn rotated_name(first: u64) -> String {
    // As wide as the largest number, so that names sort as numbers do.
    format!("audit-{first:020}.jsonl")
}

fn make(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory),
        other => other,
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .append(true)
        .mode(0o600)
        .custom_flags(OFlag::O_NOFOLLOW.bits());
    options
}

/// Refuses what somebody else owns or could have written.
fn judge(path: &Path, opened: &File) -> Result<(), OpenError> {
    let found = opened
        .metadata()
        .map_err(|error| OpenError::Io(path.to_owned(), error))?;
    let distrusted = |fault, mend| {
        let path = path.to_owned();
        Err(OpenError::Distrusted { path, fault, mend })
    };
    if found.uid() != geteuid().as_raw() {
        return distrusted(
            "belongs to another account",
            format!("chown {} {}", geteuid(), path.display()),
        );
    }
    if found.mode() & 0o077 != 0 {
        let mode = if found.is_dir() { "0700" } else { "0600" };
        return distrusted(
            "is open to other accounts",
            format!("chmod {mode} {}", path.display()),
        );
    }
    if found.is_file() && found.nlink() != 1 {
        return distrusted(
            "has a second name",
            format!("find / -xdev -samefile {}", path.display()),
        );
    }
    Ok(())
}

/// What a file ends with.
struct Tail {
    first: Option<String>,
    last: Option<String>,
    /// Bytes of whole lines.
    length: u64,
    /// Bytes after them.
    torn: u64,
}

impl Tail {
    fn read(file: &mut File) -> io::Result<Self> {
        let size = file.metadata()?.len();
        let piece = size.min(2 * LINE as u64);
        let mut end = Vec::new();
        file.seek(SeekFrom::Start(size - piece))?;
        file.take(piece).read_to_end(&mut end)?;
        let whole = end
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        let torn = (end.len() - whole) as u64;
        let lines = &end[..whole.saturating_sub(1)];
        let last = match lines.iter().rposition(|byte| *byte == b'\n') {
            _ if whole == 0 => None,
            Some(before) => Some(&lines[before + 1..]),
            None => Some(lines),
        };
        let mut start = vec![0; size.min(LINE as u64) as usize];
        file.seek(SeekFrom::Start(0))?;
        file.read_exact(&mut start)?;
        let first = start.split(|byte| *byte == b'\n').next();
        let text = |line: &[u8]| String::from_utf8_lossy(line).into_owned();
        Ok(Self {
            first: first.filter(|_| last.is_some()).map(text),
            last: last.map(text),
            // Nothing whole within the longest line: all of it is one torn line.
            length: if whole == 0 { 0 } else { size - torn },
            torn: if whole == 0 { size } else { torn },
        })
    }
}

/// Where the newest full file ended; the beginning of everything if there is none.
fn last_of_rotated(directory: &Path) -> Result<Place, OpenError> {
    let context = |error| OpenError::Io(directory.to_owned(), error);
    let Some((_, path)) = rotated(directory).map_err(context)?.pop() else {
        return Ok(Place {
            seq: 0,
            hash: Hash::NONE,
        });
    };
    let mut file = options().open(&path).map_err(context)?;
    judge(&path, &file)?;
    let tail = Tail::read(&mut file).map_err(context)?;
    tail.last
        .as_deref()
        .and_then(Place::of)
        .filter(|_| tail.torn == 0)
        .ok_or(OpenError::Damaged(path))
}
