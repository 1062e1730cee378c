//! How one line holds on to the one before.

use std::fmt;

use sha2::{Digest, Sha256};

/// The SHA-256 of a line, without its line end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hash([u8; 32]);

impl Hash {
    /// What the first line of all has before it.
    pub const NONE: Self = Self([0; 32]);

    /// Of a line without its line end.
    #[must_use]
    pub fn of(line: &str) -> Self {
        Self(Sha256::digest(line.as_bytes()).into())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Where a log stands after a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The line's number.
    pub seq: u64,
    /// Its hash.
    pub hash: Hash,
}

impl Place {
    /// After `line`, which must begin as the writer begins each; none if it does not.
    #[must_use]
    pub fn of(line: &str) -> Option<Self> {
        let (seq, rest) = line.strip_prefix("{\"seq\":")?.split_once(',')?;
        let seq = seq.parse().ok().filter(|seq| *seq > 0)?;
        rest.ends_with('}').then_some(())?;
        let hash = Hash::of(line);
        Some(Self { seq, hash })
    }
}
