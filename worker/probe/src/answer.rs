//! What came of one attempt.

use std::{fmt, io};

use nix::errno::Errno;

/// What the kernel, or what was attacked, answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It did what was asked, or got so far that nothing of ours had stopped it; with what was seen.
    Open(String),
    /// It was refused; with the errno's name, or what showed it.
    Blocked(String),
    /// There is nothing on this host to be attacked, and what is missing.
    Nothing(String),
    /// The attempt did not come to an end; how.
    Unknown(String),
}

impl Answer {
    /// Open, with nothing more to say.
    #[must_use]
    pub fn open() -> Self {
        Self::Open(String::new())
    }

    /// Blocked by what an error says.
    #[must_use]
    pub fn refused(error: &io::Error) -> Self {
        Self::Blocked(error.raw_os_error().map_or_else(
            || error.to_string(),
            |number| format!("{:?}", Errno::from_raw(number)),
        ))
    }

    /// Open if `open`, and blocked with `why` if not.
    #[must_use]
    pub fn open_if(open: bool, why: &str) -> Self {
        if open {
            Self::open()
        } else {
            Self::Blocked(why.to_owned())
        }
    }

    /// Its word in a report.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Open(_) => "open",
            Self::Blocked(_) => "blocked",
            Self::Nothing(_) => "nothing",
            Self::Unknown(_) => "unknown",
        }
    }

    /// What was seen.
    #[must_use]
    pub fn detail(&self) -> &str {
        match self {
            Self::Open(detail)
            | Self::Blocked(detail)
            | Self::Nothing(detail)
            | Self::Unknown(detail) => detail,
        }
    }

    /// Of a word and a detail, as a report has them.
    #[must_use]
    pub fn read(word: &str, detail: &str) -> Option<Self> {
        let detail = detail.to_owned();
        Some(match word {
            "open" => Self::Open(detail),
            "blocked" => Self::Blocked(detail),
            "nothing" => Self::Nothing(detail),
            "unknown" => Self::Unknown(detail),
            _ => return None,
        })
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.detail() {
            "" => f.write_str(self.word()),
            detail => write!(f, "{} ({detail})", self.word()),
        }
    }
}

impl<T> From<io::Result<T>> for Answer {
    fn from(result: io::Result<T>) -> Self {
        match result {
            Ok(_) => Self::open(),
            Err(error) => Self::refused(&error),
        }
    }
}

impl<T> From<Result<T, Errno>> for Answer {
    fn from(result: Result<T, Errno>) -> Self {
        result.map_err(io::Error::from).into()
    }
}
