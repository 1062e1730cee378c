//! A control group for each broker, where this process has one to give.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

/// Names the directory of a control group of version 2 that is delegated to the tests: no process is in it,
/// and its controllers for memory and processes are handed on to its children.
const DELEGATED: &str = "KAI_TESTS_CGROUP";

/// True if workers are held by control groups here. If not, says that the test is skipped; continuous
/// integration runs it in the virtual machine of `tests/machine`.
#[must_use]
pub fn limits_memory() -> bool {
    let delegated = std::env::var_os(DELEGATED).is_some();
    if !delegated {
        eprintln!("skipped: needs cgroup v2, which tests/machine/run has");
    }
    delegated
}

/// What a unit with `Delegate=` would have; removed with all below it when dropped.
#[derive(Debug)]
pub(crate) struct OwnCgroup(PathBuf);

impl OwnCgroup {
    /// A new one; none where nothing is delegated.
    ///
    /// # Panics
    /// If what is said to be delegated is not.
    #[allow(clippy::unwrap_used)]
    pub(crate) fn make() -> Option<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let delegated = PathBuf::from(std::env::var_os(DELEGATED)?);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = delegated.join(format!("kai-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Some(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for OwnCgroup {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let _ = fs::remove_dir(entry.path());
        }
        let _ = fs::remove_dir(&self.0);
    }
}
