//! Numbers that no account, no group and no process has.

use std::{fs, os::unix::fs::MetadataExt};

use nix::unistd::{Gid, Group, Uid, User};

/// Where they are looked for, from above: the end of what useradd(8) gives to people (login.defs(5)).
const UIDS: std::ops::RangeInclusive<u32> = 59_000..=59_999;

/// All of them, each to be used as uid and gid.
pub fn uids() -> impl Iterator<Item = u32> {
    UIDS.rev().filter(|&id| {
        let account = User::from_uid(Uid::from_raw(id));
        let group = Group::from_gid(Gid::from_raw(id));
        matches!((account, group), (Ok(None), Ok(None))) && !has_processes(id)
    })
}

fn has_processes(uid: u32) -> bool {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| entry.metadata().is_ok_and(|found| found.uid() == uid))
}
