//! The files of the home that run at a login, which the broker mounted read-only: still there?
//!
//! A mount on a file goes away, in every mount namespace, when somebody outside removes the file or renames
//! another over it, as most editors do (rename(2), since Linux 3.18). From then on the agent could write what
//! runs at its user's next login, outside the walls. The kernel wakes whoever polls mountinfo(5) at every
//! change, so the worker sees it at once, and ends; the next one's launch mounts them again.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read, Seek},
    path::Path,
    task::{Context, Poll},
};

use tokio::io::unix::AsyncFd;

use crate::sys;

const MOUNTS: &str = "/proc/self/mountinfo";

/// The mounts below a home.
#[derive(Debug)]
pub struct LoginMounts {
    watched: AsyncFd<File>,
    kept: BTreeSet<String>,
    home: String,
}

impl LoginMounts {
    /// Those that are there now; none if there are none to watch. Must be called within a runtime.
    ///
    /// # Errors
    /// What /proc answers.
    pub fn watch(home: &Path) -> io::Result<Option<Self>> {
        let home = format!("{}/", home.display());
        let mut file = File::open(MOUNTS)?;
        let kept = below(&home, &mut file)?;
        if kept.is_empty() {
            return Ok(None);
        }
        let watched = sys::watched_file(file)?;
        Ok(Some(Self {
            watched,
            kept,
            home,
        }))
    }

    /// Ready after a change of any mount, and once at first.
    pub fn poll_changed(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self.watched.poll_read_ready(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(guard) => {
                // The file is always readable; only the next change wakes again.
                if let Ok(mut guard) = guard {
                    guard.clear_ready();
                }
                Poll::Ready(())
            }
        }
    }

    /// True while all of them are there.
    #[must_use]
    pub fn hold(&mut self) -> bool {
        below(&self.home, self.watched.get_mut()).is_ok_and(|now| now.is_superset(&self.kept))
    }
}

/// The places of mounts below `home`, the fifth field of each line.
fn below(home: &str, mounts: &mut File) -> io::Result<BTreeSet<String>> {
    let mut text = String::new();
    mounts.rewind()?;
    mounts.read_to_string(&mut text)?;
    Ok(text
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|place| place.starts_with(home))
        .map(str::to_owned)
        .collect())
}
