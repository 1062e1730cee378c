//! `kai-install apply` as on a host of its own: in the tree as its root directory, where systemd seems to
//! run, and with a kernel that answers as one without Landlock does.
#![allow(clippy::unwrap_used, clippy::panic, dead_code)]

mod ground;
mod skipped;

use std::{
    fs,
    process::{Command, Output},
};

use ground::{Ground, said};
use skipped::skipped;

/// What of the host's is there too, to be read: its programs and its kernel's answers.
const SHARED: [&str; 4] = ["usr", "proc", "sys", "dev"];

/// A tree that can be a root directory.
fn new_ground() -> Option<Ground> {
    if Command::new("strace").arg("-V").output().is_err() {
        skipped("strace is not installed");
        return None;
    }
    let ground = Ground::new()?;
    for name in SHARED {
        fs::create_dir(ground.path(name)).unwrap();
    }
    for name in ["bin", "lib", "lib64", "sbin"] {
        std::os::unix::fs::symlink(format!("usr/{name}"), ground.path(name)).unwrap();
    }
    // Trusted is only what root alone can change, and the directory of a test is in a place of everybody's.
    fs::create_dir(ground.path("run")).unwrap();
    fs::create_dir(ground.path("package")).unwrap();
    fs::create_dir(ground.path("program")).unwrap();
    Some(ground)
}

/// Runs `kai-install` with its own root directory, its mounts gone when it ends; `inject` is what strace(1)
/// does to its calls.
fn on_a_host(ground: &Ground, inject: &[&str], arguments: &[&str]) -> Output {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_kai-install"));
    let mut script = String::from("set -e; cd \"$0\"; ");
    for name in SHARED {
        script.push_str(&format!("mount --rbind -o ro /{name} {name}; "));
    }
    script.push_str("mount --bind -o ro ../package package; ");
    script.push_str("mount --bind -o ro \"$1\" program; shift; exec \"$@\"");
    Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .arg(ground.root())
        .arg(program.parent().unwrap())
        .args(["strace", "-f", "-qq", "-o", "/dev/null"])
        .args(["-e", "signal=none"])
        .args(inject)
        .args(["chroot", ".", "/program/kai-install"])
        .args(arguments)
        .args(["--source", "/package"])
        .output()
        .unwrap()
}

#[test]
fn without_landlock_nothing_is_changed_and_the_mend_is_told() {
    let Some(ground) = new_ground() else { return };
    fs::create_dir_all(ground.path("run/systemd/system")).unwrap();
    let listing = ground.listing();
    for (error, mend) in [
        ("ENOSYS", "boot a kernel with CONFIG_SECURITY_LANDLOCK"),
        ("EOPNOTSUPP", "add landlock to the list behind lsm="),
    ] {
        let inject = format!("inject=landlock_create_ruleset:error={error}");
        let trace = ["-e", "trace=landlock_create_ruleset", "-e", &inject];

        let output = on_a_host(&ground, &trace, &["apply"]);

        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.starts_with("kai-install: landlock: "), "{said}");
        assert!(said.contains(mend), "{said}");
        assert_eq!(said.trim().lines().count(), 1, "{said}");
        assert_eq!(ground.listing(), listing);
    }
    // It is the kernel's answer that was refused.
    let other = on_a_host(&ground, &["-e", "trace=none"], &["apply", "--dry-run"]);
    assert!(!said(&other).contains("landlock"), "{}", said(&other));
}

#[test]
fn without_systemd_nothing_is_changed_and_the_mend_is_told() {
    let Some(ground) = new_ground() else { return };
    let listing = ground.listing();

    let output = on_a_host(&ground, &["-e", "trace=none"], &["apply"]);

    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("systemd does not run here; boot"), "{said}");
    assert_eq!(said.trim().lines().count(), 1, "{said}");
    assert_eq!(ground.listing(), listing);
}
