//! Which paths a worker and its agent reach, as data: one entry a path, with its reason.
//!
//! The modes of the file system still hold: nothing here grants what the account may not do.

use std::{
    fs,
    path::{Path, PathBuf},
};

use kai_proto::worker_broker::Assignment;

use crate::tools;

/// What may be done below a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// Read files and list directories.
    Read,
    /// And execute.
    Execute,
    /// Everything: make, change, remove, execute.
    Own,
    /// Read and write what is there, without making or removing anything.
    Use,
    /// The same of devices, with their ioctl(2).
    Device,
}

/// One path with its grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Where.
    pub path: PathBuf,
    /// What.
    pub grant: Grant,
    /// True if the worker cannot do without it; the others are left out where they are missing.
    pub needed: bool,
    /// True if links lead there all the same. Not to what a policy names: whoever may write above it would
    /// choose by a link what this worker reaches.
    pub follow: bool,
}

/// What every worker has, where it exists: path, grant, reason.
const SYSTEM: &[(&str, Grant, &str)] = &[
    ("/usr", Grant::Execute, "programs, libraries, their data"),
    (
        "/bin",
        Grant::Execute,
        "a directory of its own where /usr is not merged",
    ),
    ("/sbin", Grant::Execute, "likewise"),
    ("/lib", Grant::Execute, "likewise; the loader"),
    ("/lib32", Grant::Execute, "likewise"),
    ("/lib64", Grant::Execute, "likewise"),
    (
        "/opt",
        Grant::Execute,
        "programs that no package manager installed",
    ),
    (
        "/etc",
        Grant::Read,
        "configuration; what is secret in it the broker has covered, which no rule could take out",
    ),
    ("/var/lib/dpkg", Grant::Read, "dpkg -l, apt-cache policy"),
    ("/var/lib/apt/lists", Grant::Read, "apt-cache search"),
    ("/var/cache/man", Grant::Read, "man"),
    ("/var/cache/fontconfig", Grant::Read, "whatever draws text"),
    (
        "/proc",
        Grant::Use,
        "the agent aborts without it; shells and runtimes write below /proc/self",
    ),
    (
        "/sys/devices/system/cpu",
        Grant::Read,
        "runtimes count processors",
    ),
    (
        "/sys/devices/system/node",
        Grant::Read,
        "runtimes look for memory nodes",
    ),
    (
        "/sys/kernel/mm/transparent_hugepage",
        Grant::Read,
        "allocators ask for it",
    ),
    (
        "/sys/fs/cgroup",
        Grant::Read,
        "runtimes look for their memory limit",
    ),
    ("/dev/null", Grant::Device, "every shell"),
    ("/dev/zero", Grant::Device, "dd and tests"),
    ("/dev/full", Grant::Device, "tests"),
    ("/dev/random", Grant::Device, "cryptography"),
    (
        "/dev/urandom",
        Grant::Device,
        "the agent crashes without it",
    ),
    (
        "/dev/tty",
        Grant::Device,
        "ssh, sudo and git ask for words there",
    ),
    (
        "/dev/ptmx",
        Grant::Device,
        "new terminals: script, tmux, node-pty",
    ),
    ("/dev/pts", Grant::Device, "those terminals"),
    ("/dev/shm", Grant::Own, "shared memory; the worker's own"),
    ("/tmp", Grant::Own, "the worker's own"),
    ("/var/tmp", Grant::Own, "the worker's own"),
];

/// All rules of a worker.
#[must_use]
pub fn rules(assignment: &Assignment) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::with_capacity(64);
    let mut add_by = |path: PathBuf, grant, needed, follow| {
        rules.push(Rule {
            path,
            grant,
            needed,
            follow,
        })
    };
    for path in &assignment.read_paths {
        add_by(path.into(), Grant::Execute, false, false);
    }
    for path in &assignment.walls.write_paths {
        add_by(path.into(), Grant::Own, false, false);
    }
    let mut add = |path: PathBuf, grant, needed| add_by(path, grant, needed, true);
    for (path, grant, _) in SYSTEM {
        add(path.into(), *grant, false);
    }
    for path in agent_directories(&assignment.agent) {
        add(path, Grant::Execute, false);
    }
    if let Some(path) = name_service() {
        add(path, Grant::Read, false);
    }
    if let Ok(path) = tools::locate() {
        add(path, Grant::Execute, false);
    }
    add(assignment.home.clone().into(), Grant::Own, true);
    add(assignment.state.clone().into(), Grant::Own, true);
    rules
}

/// The directories of the agent's program and of the files among its leading arguments, also where
/// symbolic links lead: an agent executes itself again under another name.
fn agent_directories(command: &[String]) -> Vec<PathBuf> {
    let mut directories = Vec::new();
    for word in command.iter().filter(|word| word.starts_with('/')) {
        let given = PathBuf::from(word);
        let real = fs::canonicalize(&given).ok();
        for path in [Some(given), real].into_iter().flatten() {
            // A program right below / would open everything.
            if let Some(parent) = path.parent().filter(|parent| *parent != Path::new("/")) {
                directories.push(parent.to_owned());
            }
        }
    }
    directories.sort();
    directories.dedup();
    directories
}

/// Where /etc/resolv.conf leads, which is below /run with systemd-resolved.
fn name_service() -> Option<PathBuf> {
    let real = fs::canonicalize("/etc/resolv.conf").ok()?;
    real.starts_with("/run").then_some(real)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_directory_is_open_also_behind_a_link_and_never_the_root() {
        let place = tempfile::tempdir().unwrap();
        let real = place.path().join("versions/1");
        fs::create_dir_all(&real).unwrap();
        fs::write(real.join("agent"), "").unwrap();
        let link = place.path().join("current");
        std::os::unix::fs::symlink(real.join("agent"), &link).unwrap();

        let command = [
            link.to_str().unwrap().to_owned(),
            "--flag".into(),
            "/vmlinuz".into(),
        ];
        let directories = agent_directories(&command);

        assert!(directories.contains(&place.path().to_owned()));
        assert!(directories.contains(&fs::canonicalize(&real).unwrap()));
        assert!(!directories.contains(&PathBuf::from("/")));
    }

    #[test]
    fn every_entry_has_a_reason() {
        assert!(SYSTEM.iter().all(|(_, _, reason)| !reason.is_empty()));
    }
}
