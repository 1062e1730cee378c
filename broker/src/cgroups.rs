//! One control group of version 2 for each worker (cgroups(7), Documentation/admin-guide/cgroup-v2.rst).
//!
//! The broker's own group must be delegated to it (`Delegate=` of its unit). A group with controllers for
//! its children may hold no process itself, so the broker first moves into a leaf. All groups are
//! root's: no worker can write them. Where there is no version 2 with controllers for memory and processes,
//! rlimits hold what they can, and `kai-broker status` shows which of the two it is.
//!
//! Every function works below a path that it is given, which a test makes of plain files.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use tracing::warn;

use crate::policy::Limits;

/// Where version 2 is mounted on every distribution with systemd.
pub const MOUNT: &str = "/sys/fs/cgroup";
/// The broker's own leaf.
const LEAF: &str = "broker";
/// How the groups of workers begin.
const WORKER: &str = "worker-";
/// Period of the processor's limit, in microseconds; the kernel's default.
const PERIOD: u64 = 100_000;

/// The broker's group, in which it makes one for each worker.
#[derive(Debug)]
pub struct Cgroups {
    root: PathBuf,
    next: u64,
}

impl Cgroups {
    /// Moves this process into a leaf below its own group, and hands the controllers to the groups beside
    /// it. `own` is the text of /proc/self/cgroup. None where there is no version 2 with the controllers.
    ///
    /// # Errors
    /// What the kernel answers, as when the group is not delegated.
    pub fn claim(mount: &Path, own: &str) -> io::Result<Option<Self>> {
        let Some(path) = own.lines().find_map(|line| line.strip_prefix("0::/")) else {
            return Ok(None);
        };
        let root = mount.join(path);
        let Ok(controllers) = fs::read_to_string(root.join("cgroup.controllers")) else {
            return Ok(None);
        };
        let has = |name: &str| controllers.split_whitespace().any(|found| found == name);
        if !has("memory") || !has("pids") {
            return Ok(None);
        }
        let leaf = root.join(LEAF);
        match fs::create_dir(&leaf) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // 0 stands for the writer.
        fs::write(leaf.join("cgroup.procs"), "0")?;
        let cpu = if has("cpu") { " +cpu" } else { "" };
        fs::write(
            root.join("cgroup.subtree_control"),
            format!("+memory +pids{cpu}"),
        )?;
        let cgroups = Self { root, next: 0 };
        cgroups.sweep();
        Ok(Some(cgroups))
    }

    /// Removes what a broker that was killed has left.
    fn sweep(&self) {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        for entry in entries {
            if entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(WORKER.as_bytes())
            {
                end(&entry.path());
            }
        }
    }

    /// Makes the group of one worker, with `limits`, on a host with `memory` bytes.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn child(&mut self, limits: &Limits, memory: u64) -> io::Result<Cgroup> {
        let path = loop {
            self.next += 1;
            let path = self.root.join(format!("{WORKER}{}", self.next));
            match fs::create_dir(&path) {
                // Of a broker that was killed: its processes were still on their way out.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => end(&path),
                made => {
                    made?;
                    break path;
                }
            }
        };
        let cgroup = Cgroup::open(path)?;
        let set = |file: &str, value: &str| fs::write(cgroup.path.join(file), value);
        set(
            "memory.max",
            &limits.memory.unwrap_or(memory / 2).to_string(),
        )?;
        // Who is out of memory and goes on in swap slows everybody down. Not every kernel has it.
        let _ = set("memory.swap.max", "0");
        // The kernel ends what takes most, and the next turn goes on; 1 would end the worker too.
        set("memory.oom.group", "0")?;
        set("pids.max", &limits.processes.to_string())?;
        if let Some(hundredths) = limits.cpu {
            set(
                "cpu.max",
                &format!("{} {PERIOD}", hundredths * PERIOD / 100),
            )?;
        }
        Ok(cgroup)
    }
}

/// The group of one worker; dropped, it ends with all that is in it.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    directory: OwnedFd,
}

impl Cgroup {
    /// The group at `path`, which from here on is removed with it.
    ///
    /// # Errors
    /// What open(2) answers.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let directory = OwnedFd::from(File::open(&path)?);
        Ok(Self { path, directory })
    }

    /// Ends every process in it (`cgroup.kill`, Linux 5.14).
    pub fn kill(&self) {
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        end(&self.path);
    }
}

/// A worker's PID namespace is empty once it is reaped, so its group is too, and can be removed at once.
fn end(path: &Path) {
    let _ = fs::write(path.join("cgroup.kill"), "1");
    if let Err(error) = fs::remove_dir(path) {
        warn!("{}: cannot be removed: {error}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mount of plain files, in which the broker's own group has these controllers.
    fn mount(controllers: &str) -> tempfile::TempDir {
        let mount = tempfile::tempdir().unwrap();
        let own = mount.path().join("system.slice/kai-broker.service");
        fs::create_dir_all(&own).unwrap();
        fs::write(own.join("cgroup.controllers"), controllers).unwrap();
        mount
    }

    const OWN: &str = "1:name=systemd:/x\n0::/system.slice/kai-broker.service\n";

    #[test]
    fn the_broker_moves_into_a_leaf_before_it_hands_controllers_on() {
        let mount = mount("cpu io memory pids");
        let cgroups = Cgroups::claim(mount.path(), OWN).unwrap().unwrap();

        let read = |file: &str| fs::read_to_string(cgroups.root.join(file)).unwrap();
        assert_eq!(read("broker/cgroup.procs"), "0");
        assert_eq!(read("cgroup.subtree_control"), "+memory +pids +cpu");
        // A second start finds the leaf there.
        assert!(Cgroups::claim(mount.path(), OWN).unwrap().is_some());
    }

    #[test]
    fn without_version_2_or_its_controllers_there_are_none_and_nothing_is_touched() {
        for (controllers, own) in [
            ("", OWN),
            ("hugetlb", OWN),
            ("memory cpu", OWN),
            ("memory pids", "9:pids:/\n"),
            ("memory pids", "0::/elsewhere\n"),
        ] {
            let mount = mount(controllers);
            assert!(Cgroups::claim(mount.path(), own).unwrap().is_none());
            let own = mount.path().join("system.slice/kai-broker.service");
            assert_eq!(fs::read_dir(own).unwrap().count(), 1);
        }
    }

    #[test]
    fn a_group_that_is_not_delegated_is_an_error() {
        let mount = mount("memory pids");
        let own = mount.path().join("system.slice/kai-broker.service");
        fs::write(own.join("broker"), "in the way").unwrap();
        assert!(Cgroups::claim(mount.path(), OWN).is_err());
    }

    #[test]
    fn each_worker_has_a_group_with_its_limits() {
        let mount = mount("memory pids cpu");
        let mut cgroups = Cgroups::claim(mount.path(), OWN).unwrap().unwrap();
        let limits = Limits {
            cpu: Some(150),
            processes: 99,
            ..Limits::default()
        };

        let first = cgroups.child(&limits, 8 << 30).unwrap();
        let limits = Limits {
            memory: Some(1 << 30),
            cpu: None,
            ..limits
        };
        let second = cgroups.child(&limits, 8 << 30).unwrap();

        let read = |cgroup: &Cgroup, file: &str| fs::read_to_string(cgroup.path.join(file)).ok();
        assert_eq!(read(&first, "memory.max").as_deref(), Some("4294967296"));
        assert_eq!(read(&first, "memory.oom.group").as_deref(), Some("0"));
        assert_eq!(read(&first, "pids.max").as_deref(), Some("99"));
        assert_eq!(read(&first, "cpu.max").as_deref(), Some("150000 100000"));
        assert_eq!(read(&second, "memory.max").as_deref(), Some("1073741824"));
        assert_eq!(read(&second, "cpu.max"), None);
        assert_ne!(first.path, second.path);

        first.kill();
        assert_eq!(read(&first, "cgroup.kill").as_deref(), Some("1"));
    }

    #[test]
    fn what_a_killed_broker_left_is_ended_and_removed() {
        let mount = mount("memory pids");
        let own = mount.path().join("system.slice/kai-broker.service");
        fs::create_dir(own.join("worker-7")).unwrap();
        fs::create_dir(own.join("other")).unwrap();

        Cgroups::claim(mount.path(), OWN).unwrap();

        // Of plain files, the order to end it is still there.
        let left = fs::read_to_string(own.join("worker-7/cgroup.kill"));
        assert!(left.is_err() || left.unwrap() == "1");
        assert_eq!(fs::read_dir(own.join("other")).unwrap().count(), 0);
    }
}
