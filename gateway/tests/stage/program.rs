//! The gateway's program where an account without privileges can execute it: a checkout may stand in a home
//! that only its owner can enter.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, Weak},
};

use tempfile::TempDir;

pub enum Program {
    /// Where cargo left it.
    Built,
    /// In this directory.
    Copied(Arc<TempDir>),
}

impl Program {
    const BUILT: &str = env!("CARGO_BIN_EXE_kai-gateway");

    /// All stages share the copy, which goes with the last of them.
    pub fn reachable() -> Self {
        static COPY: Mutex<Weak<TempDir>> = Mutex::new(Weak::new());
        let open_to_all = |path: &Path| {
            path.ancestors().skip(1).all(|directory| {
                fs::metadata(directory).is_ok_and(|found| found.permissions().mode() & 0o001 != 0)
            })
        };
        if !super::is_root() || open_to_all(Path::new(Self::BUILT)) {
            return Self::Built;
        }
        let mut copy = COPY.lock().unwrap();
        let directory = copy.upgrade().unwrap_or_else(|| {
            let directory = tempfile::tempdir().unwrap();
            fs::set_permissions(&directory, PermissionsExt::from_mode(0o755)).unwrap();
            fs::copy(Self::BUILT, directory.path().join("kai-gateway")).unwrap();
            Arc::new(directory)
        });
        *copy = Arc::downgrade(&directory);
        Self::Copied(directory)
    }

    pub fn path(&self) -> PathBuf {
        match self {
            Self::Built => Self::BUILT.into(),
            Self::Copied(directory) => directory.path().join("kai-gateway"),
        }
    }
}
