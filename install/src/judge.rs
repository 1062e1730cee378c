//! What stands against any change at all: the host, its kernel, its disks.

use std::path::Path;

use crate::{
    checks::{self, Check, State},
    desired::Desired,
    failure::Failure,
    items::{Standing, versions},
    root::Root,
};

/// What must be free beside what is written, in bytes.
const SPARE: u64 = 16 * MIB;
/// What must be free where no programs are: configuration, a database, the begin of a log, in bytes.
const FEW: u64 = 2 * MIB;
/// In bytes.
pub const MIB: u64 = 1024 * 1024;

/// The host can run kai.
///
/// # Errors
/// [`Failure::NoSystemd`], or [`Failure::Host`] with what the kernel lacks.
pub fn the_host(root: &Root) -> Result<(), Failure> {
    if !root.is_host() {
        return Ok(());
    }
    if !Path::new("/run/systemd/system").exists() {
        return Err(Failure::NoSystemd);
    }
    the_kernel(checks::kernel_checks())
}

fn the_kernel(checks: Vec<Check>) -> Result<(), Failure> {
    let mut missing = checks
        .into_iter()
        .filter(|check| check.finding.state == State::Missing);
    match missing.next() {
        None => Ok(()),
        Some(check) => Err(Failure::Host {
            name: check.name,
            found: check.finding.found,
            mend: check.finding.mend.unwrap_or_default(),
        }),
    }
}

/// All that is written has room.
///
/// # Errors
/// [`Failure::NoSpace`].
pub fn the_space(root: &Root, list: &Desired, standings: &[Standing]) -> Result<(), Failure> {
    let to_change = || {
        let all = list.iter().zip(standings);
        all.filter(|(_, standing)| **standing != Standing::Right)
    };
    if to_change().next().is_none() {
        return Ok(());
    }
    let programs: u64 = to_change().map(|(item, _)| item.size()).sum();
    let programs = if programs == 0 { 0 } else { programs + SPARE };
    // Each may be a disk of its own.
    has_room(
        root,
        &[
            (versions::PLACE, programs),
            ("/etc", FEW),
            ("/var/lib", FEW),
            ("/var/log", FEW),
        ],
    )
}

/// So many bytes are free in each of these directories, or where they are to be made.
///
/// # Errors
/// [`Failure::NoSpace`].
pub fn has_room(root: &Root, places: &[(&str, u64)]) -> Result<(), Failure> {
    for &(path, needed) in places {
        if root.free(path.as_ref())? < needed {
            return Err(Failure::NoSpace {
                path: root.shown(path.as_ref()),
                needed: needed.div_ceil(MIB),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::kernel;

    #[test]
    fn a_kernel_without_landlock_is_refused_with_the_mend() {
        let check = |finding| Check {
            name: "landlock".to_owned(),
            finding,
        };
        let good = check(kernel::landlock(&kernel::Landlock::Abi(7)));
        let bad = check(kernel::landlock(&kernel::Landlock::NotEnabled));

        assert!(the_kernel(vec![good.clone()]).is_ok());
        let said = the_kernel(vec![good, bad]).unwrap_err().to_string();

        assert!(said.contains("landlock") && said.contains("lsm="), "{said}");
    }
}
