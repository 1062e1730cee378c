//! Directories and files.

use std::{
    fmt,
    fs::File as OpenFile,
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::{Goes, Item, Owner, Standing, access, versions};
use crate::{
    failure::Failure,
    root::{Access, Found, Kind, Root},
    tools,
};

/// How much is compared at once.
const CHUNK: usize = 128 * 1024;

/// A directory.
pub struct Directory {
    /// Where.
    pub path: PathBuf,
    /// Whose account.
    pub user: String,
    /// Whose group.
    pub group: String,
    /// Its permission bits. Where only its owner may enter, what others did to it is not repaired, nor what root
    /// did to its own.
    pub mode: u32,
    /// When it goes, with all that is below it.
    pub goes: Goes,
}

impl Directory {
    fn access(&self, root: &Root) -> Result<Option<Access>, Failure> {
        let owner = Owner {
            user: &self.user,
            group: &self.group,
        };
        access(root, owner, self.mode)
    }
}

impl fmt::Display for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, mode) = (self.path.display(), self.mode);
        write!(
            f,
            "directory {path} ({}:{}, {mode:04o})",
            self.user, self.group
        )
    }
}

impl Item for Directory {
    fn look(&self, root: &Root) -> Result<Standing, Failure> {
        let Some(found) = root.look(&self.path)? else {
            return Ok(Standing::Missing);
        };
        if found.kind != Kind::Directory {
            return Err(Failure::NotA {
                path: root.shown(&self.path),
                wanted: "directory",
            });
        }
        let Some(wanted) = self.access(root)? else {
            return Ok(Standing::Differs("waits for its account".to_owned()));
        };
        let is_secret = self.mode & 0o077 == 0;
        let is_foreign = found.access.uid != wanted.uid;
        // What an account that is not root's opened of its own is its own loss, and keeps nobody from what follows.
        let is_open = found.access.mode & 0o077 != 0 && wanted.uid == 0;
        if is_secret && (is_foreign || is_open) {
            return Err(Failure::ForeignSecret {
                path: root.shown(&self.path),
                owner: found.access.uid,
                mode: found.access.mode,
                wanted_owner: format!("{}:{}", self.user, self.group),
                wanted: self.mode,
            });
        }
        Ok(Standing::of(differences(&found, wanted)))
    }

    fn bring_about(&self, root: &Root) -> Result<(), Failure> {
        let access = self.access(root)?.ok_or_else(|| Failure::Tool {
            program: "name service (nsswitch.conf)".to_owned(),
            said: format!("does not know {}, which was just made", self.user),
        })?;
        root.make_directory(&self.path, access)
    }

    fn take_away(&self, root: &Root) -> Result<bool, Failure> {
        let there = root.look(&self.path)?.is_some();
        root.remove_all(&self.path)?;
        Ok(there)
    }

    fn goes_last(&self) -> bool {
        self.path.starts_with(versions::PLACE)
    }

    fn goes(&self) -> Goes {
        self.goes
    }
}

/// A directory of the host's, which is made if it is missing and otherwise left as it is.
pub struct Parent(pub PathBuf);

impl fmt::Display for Parent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "directory {}", self.0.display())
    }
}

impl Item for Parent {
    fn look(&self, root: &Root) -> Result<Standing, Failure> {
        // A link that root made there is as good.
        Ok(match root.look(&self.0)? {
            Some(_) => Standing::Right,
            None => Standing::Missing,
        })
    }

    fn bring_about(&self, root: &Root) -> Result<(), Failure> {
        root.make_directory(&self.0, Access::root(0o755))
    }

    fn take_away(&self, _: &Root) -> Result<bool, Failure> {
        Ok(false)
    }

    fn goes(&self) -> Goes {
        Goes::Never
    }
}

/// What a file holds.
pub enum Contents {
    /// This text.
    Text(String),
    /// What this file of the package holds.
    Copy(PathBuf),
}

impl Contents {
    fn open(&self) -> Result<Box<dyn Read + '_>, Failure> {
        match self {
            Self::Text(text) => Ok(Box::new(text.as_bytes())),
            Self::Copy(path) => match OpenFile::open(path) {
                Ok(file) => Ok(Box::new(file)),
                Err(error) => Err(Failure::io(path, error)),
            },
        }
    }

    fn length(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::Copy(path) => std::fs::metadata(path).map_or(0, |found| found.len()),
        }
    }
}

/// A program that says whether a text is one that it understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judge {
    /// Nothing is asked.
    Nobody,
    /// `visudo -c`: a file of rules that cannot be read would take sudo from everybody.
    Visudo,
}

/// A file of root's with certain contents, which is nobody's to change.
pub struct File {
    /// Where.
    pub path: PathBuf,
    /// What it holds.
    pub contents: Contents,
    /// Its permission bits.
    pub mode: u32,
    /// Who is asked before it is put in its place.
    pub judge: Judge,
    /// When it goes.
    pub goes: Goes,
}

impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "file {}", self.path.display())
    }
}

impl Item for File {
    fn look(&self, root: &Root) -> Result<Standing, Failure> {
        if let (Judge::Visudo, Contents::Text(text)) = (self.judge, &self.contents) {
            tools::run("visudo", &["-cf", "-"], Some(text.as_bytes()))?;
        }
        let Some(found) = root.look(&self.path)? else {
            return Ok(Standing::Missing);
        };
        match found.kind {
            Kind::Directory => {
                return Err(Failure::NotA {
                    path: root.shown(&self.path),
                    wanted: "file",
                });
            }
            Kind::File => {}
            Kind::Link | Kind::Other => {
                return Ok(Standing::Differs("is not a regular file".to_owned()));
            }
        }
        let mut differs = differences(&found, Access::root(self.mode));
        if found.length != self.contents.length() || !self.is_same(root)? {
            differs.insert(0, "has other contents".to_owned());
        }
        Ok(Standing::of(differs))
    }

    fn bring_about(&self, root: &Root) -> Result<(), Failure> {
        let mut contents = self.contents.open()?;
        root.write(&self.path, &mut contents, Access::root(self.mode))
    }

    fn take_away(&self, root: &Root) -> Result<bool, Failure> {
        let there = root.look(&self.path)?.is_some();
        root.remove(&self.path)?;
        Ok(there)
    }

    fn goes_last(&self) -> bool {
        self.path.starts_with(versions::PLACE)
    }

    fn goes(&self) -> Goes {
        self.goes
    }

    fn size(&self) -> u64 {
        self.contents.length()
    }
}

impl File {
    fn is_same(&self, root: &Root) -> Result<bool, Failure> {
        let Some(mut found) = root.read(&self.path)? else {
            return Ok(false);
        };
        let mut wanted = self.contents.open()?;
        let failed = |error| Failure::io(root.shown(&self.path), error);
        let (mut one, mut other) = (vec![0; CHUNK], vec![0; CHUNK]);
        loop {
            let length = fill(&mut wanted, &mut one).map_err(failed)?;
            if fill(&mut found, &mut other).map_err(failed)? != length
                || one[..length] != other[..length]
            {
                return Ok(false);
            }
            if length < CHUNK {
                return Ok(true);
            }
        }
    }
}

fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..])? {
            0 => break,
            length => filled += length,
        }
    }
    Ok(filled)
}

/// A file that must not be.
pub struct Absent(pub PathBuf);

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no {}", self.0.display())
    }
}

impl Item for Absent {
    fn look(&self, root: &Root) -> Result<Standing, Failure> {
        Ok(match root.look(&self.0)? {
            None => Standing::Right,
            Some(_) => Standing::Differs("is there".to_owned()),
        })
    }

    fn bring_about(&self, root: &Root) -> Result<(), Failure> {
        root.remove(&self.0)
    }

    fn take_away(&self, _: &Root) -> Result<bool, Failure> {
        Ok(false)
    }

    fn goes(&self) -> Goes {
        Goes::Never
    }
}

/// What differs of whose it is and of its mode.
pub fn differences(found: &Found, wanted: Access) -> Vec<String> {
    let mut differs = Vec::new();
    if (found.access.uid, found.access.gid) != (wanted.uid, wanted.gid) {
        differs.push(format!(
            "belongs to {}:{} in place of {}:{}",
            found.access.uid, found.access.gid, wanted.uid, wanted.gid
        ));
    }
    if found.access.mode != wanted.mode {
        differs.push(format!(
            "has mode {:04o} in place of {:04o}",
            found.access.mode, wanted.mode
        ));
    }
    differs
}

/// The directories in lines of tmpfiles.d(5).
///
/// # Errors
/// What cannot be read of them.
pub fn directories(file: &Path, lines: &str) -> Result<Vec<Directory>, Failure> {
    let lines = lines
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [kind, path, mode, user, group, ..] = words[..] else {
                return Err(line);
            };
            let mode = u32::from_str_radix(mode, 8).map_err(|_| line)?;
            if kind != "d" || !path.starts_with('/') {
                return Err(line);
            }
            let goes = if path.starts_with("/run/") {
                Goes::WithKai
            } else {
                Goes::WithData
            };
            Ok(Directory {
                path: path.into(),
                user: user.to_owned(),
                group: group.to_owned(),
                mode,
                goes,
            })
        })
        .collect::<Result<_, &str>>()
        .map_err(|line| Failure::Source {
            path: file.to_owned(),
            problem: format!("has a line that is not understood: {line}"),
        })
}
