//! `kai-install agent`, from packages as the registry has them.
#![allow(clippy::unwrap_used, clippy::panic, dead_code)]

mod ground;
mod skipped;

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    process::{Command, Output},
};

use ground::{Ground, said, set_mode};
use skipped::skipped;

/// A package of this version, with a program of its own and a script that must not be run.
fn package(ground: &Ground, version: &str, program: &[u8]) -> PathBuf {
    let directory = ground.beside(&format!("npm-{version}"));
    let package = directory.join("package");
    fs::create_dir_all(&package).unwrap();
    let ran = ground.beside("script-ran");
    let description = format!(
        r#"{{"version":"{version}","scripts":{{"install":"touch {0}","postinstall":"touch {0}"}}}}"#,
        ran.display()
    );
    fs::write(package.join("package.json"), description).unwrap();
    fs::write(package.join("claude"), program).unwrap();
    // As a package may come: the owner and the mode in it are not what is installed.
    set_mode(&package.join("claude"), 0o6777);
    let packed = ground.beside(&format!("{version}.tgz"));
    let status = Command::new("tar")
        .args([
            "-czf",
            packed.to_str().unwrap(),
            "-C",
            directory.to_str().unwrap(),
            "package",
        ])
        .status()
        .unwrap();
    assert!(status.success());
    packed
}

fn agent(ground: &Ground, from: &str, version: &[&str]) -> (Option<i32>, String) {
    let output = ground
        .command(&[&["agent", "--from", from], version].concat())
        .output()
        .unwrap();
    (output.status.code(), said(&output))
}

#[test]
fn packages_directories_and_programs_become_root_s_and_two_are_kept() {
    let Some(ground) = Ground::new() else { return };
    let first = package(&ground, "2.1.1", b"\x7fELF first");
    package(&ground, "2.1.2", b"\x7fELF second");
    let second = ground.beside("npm-2.1.2/package");
    fs::write(ground.beside("program"), b"\x7fELF third").unwrap();

    for (from, version) in [
        (first.to_str().unwrap(), &[][..]),
        (second.to_str().unwrap(), &["2.1.2"]),
        (ground.beside("program").to_str().unwrap(), &["2.1.3"]),
    ] {
        let (status, said) = agent(&ground, from, version);
        assert_eq!(status, Some(0), "{said}");
    }

    assert_eq!(
        fs::read_link(ground.path("opt/kai/agent/current"))
            .unwrap()
            .to_str(),
        Some("2.1.3")
    );
    assert!(!ground.path("opt/kai/agent/2.1.1").exists());
    let program = ground.path("opt/kai/agent/2.1.2/claude");
    let found = fs::metadata(&program).unwrap();
    assert_eq!(
        (found.mode() & 0o7777, found.uid(), found.gid()),
        (0o755, 0, 0)
    );
    assert_eq!(fs::read(program).unwrap(), b"\x7fELF second");
    assert!(!ground.beside("script-ran").exists());
}

/// `kai-install agent` under strace(1), with these flags; and what was traced, if anything.
fn traced(ground: &Ground, flags: &[&str], from: &str) -> Option<(Output, String)> {
    let trace = ground.beside("trace");
    let output = Command::new("strace")
        .args(["-f", "-qq", "-o"])
        .arg(&trace)
        .args(flags)
        .arg(env!("CARGO_BIN_EXE_kai-install"))
        .args(["agent", "--from", from, "--root"])
        .arg(ground.root())
        .output();
    match output {
        Ok(output) => Some((output, fs::read_to_string(trace).unwrap())),
        Err(_) => {
            skipped("strace is not installed");
            None
        }
    }
}

#[test]
fn a_package_is_unpacked_under_a_uid_that_nobody_has() {
    let Some(ground) = Ground::new() else { return };
    let packed = package(&ground, "2.1.1", b"\x7fELF first");
    let flags = ["-e", "trace=execve,setresuid"];
    let Some((output, trace)) = traced(&ground, &flags, packed.to_str().unwrap()) else {
        return;
    };
    assert!(output.status.success(), "{}", said(&output));
    let mut became = HashMap::new();
    let mut unpacked = 0;
    for line in trace.lines() {
        let (process, call) = line.split_once(' ').unwrap();
        let call = call.trim_start();
        if let Some(uid) = call.strip_prefix("setresuid(") {
            became.insert(
                process,
                uid.split(',').next().unwrap().parse::<u32>().unwrap(),
            );
        } else if call.starts_with("execve(\"/usr/bin/tar\"") && call.ends_with("= 0") {
            unpacked += 1;
            let uid = became.get(process);
            assert!(
                uid.is_some_and(|uid| (59_000..60_000).contains(uid)),
                "{trace}"
            );
        }
    }
    assert_eq!(unpacked, 2, "{trace}");
}

#[test]
fn a_disk_that_fills_up_meanwhile_leaves_nothing() {
    let Some(ground) = Ground::new() else { return };
    let packed = package(&ground, "2.1.1", b"\x7fELF first");
    let listing = ground.listing();
    // Each directory, what is unpacked, the program beside it, and the link.
    for nth in 1..=6 {
        let inject = format!("inject=fsync:error=ENOSPC:when={nth}");
        let flags = ["-e", "trace=fsync", "-e", &inject];
        let Some((output, trace)) = traced(&ground, &flags, packed.to_str().unwrap()) else {
            return;
        };
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}{trace}");
        assert!(said.contains("no space is left there; make room"), "{said}");
        assert_eq!(said.trim().lines().count(), 1, "{said}");
        assert_eq!(ground.listing(), listing, "{nth}: {trace}");
    }
}

#[test]
fn a_disk_without_room_is_known_before_anything_is_fetched() {
    let Some(ground) = Ground::new() else { return };
    let packed = package(&ground, "2.1.1", b"\x7fELF first");
    fs::create_dir_all(ground.path("opt")).unwrap();
    let listing = ground.listing();
    let command = ground.command(&["agent", "--from", packed.to_str().unwrap()]);
    let output = ground.run_with_tmpfs(&ground.path("opt"), "size=9m", &command);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no space is left there, 600 MiB"), "{said}");
    assert_eq!(ground.listing(), listing);
}

#[test]
fn a_dry_run_counts_the_agent_that_is_not_there() {
    let Some(ground) = Ground::new() else { return };
    ground.settings(&format!("telegram: {{token: \"{}\"}}\n", ground::TOKEN));
    let said = ground.done(&["apply", "--dry-run"]);
    let would = said
        .lines()
        .filter(|line| line.starts_with("would "))
        .count();
    assert!(said.contains("would make    agent 2."), "{said}");
    assert!(
        said.contains(&format!("{would} changes would be made")),
        "{said}"
    );
}

#[test]
fn what_is_no_agent_is_refused_and_the_one_that_is_there_stays() {
    let Some(ground) = Ground::new() else { return };
    let good = package(&ground, "2.1.1", b"\x7fELF first");
    assert_eq!(agent(&ground, good.to_str().unwrap(), &[]).0, Some(0));
    let listing = ground.listing();
    let script = package(&ground, "2.1.2", b"#!/bin/sh\n");
    let whole = fs::read(package(
        &ground,
        "2.1.4",
        &[
            b"\x7fELF".to_vec(),
            (0..200_000u32).flat_map(u32::to_le_bytes).collect(),
        ]
        .concat(),
    ))
    .unwrap();
    fs::write(ground.beside("half.tgz"), &whole[..whole.len() / 2]).unwrap();
    fs::write(ground.beside("program"), b"\x7fELF").unwrap();
    let odd = package(&ground, "2.1.3", b"\x7fELF");
    let cases = [
        (
            script.display().to_string(),
            &[][..],
            "not a native program",
        ),
        (
            ground.beside("half.tgz").display().to_string(),
            &[],
            "not a whole package",
        ),
        (
            ground.beside("program").display().to_string(),
            &[],
            "name it",
        ),
        (
            ground.beside("program").display().to_string(),
            &["../../x"],
            "name it",
        ),
        (odd.display().to_string(), &["9.9.9"], "of version 2.1.3"),
        (
            ground.beside("nothing").display().to_string(),
            &[],
            "No such file",
        ),
    ];
    for (from, version, expected) in cases {
        let (status, said) = agent(&ground, &from, version);
        assert_eq!(status, Some(1), "{from}: {said}");
        assert!(said.contains(expected), "{from}: {said}");
        assert_eq!(said.trim().lines().count(), 1, "{said}");
        assert_eq!(ground.listing(), listing, "{from}");
    }
}

#[test]
fn apply_runs_the_agent_that_is_installed_where_none_is_named() {
    let Some(ground) = Ground::new() else { return };
    let packed = package(&ground, "2.1.1", b"\x7fELF first");
    assert_eq!(agent(&ground, packed.to_str().unwrap(), &[]).0, Some(0));
    ground.settings(&format!("telegram: {{token: \"{}\"}}\n", ground::TOKEN));

    ground.done(&["apply"]);

    assert!(
        ground
            .read("etc/kai/kai.yaml")
            .contains("command: /opt/kai/agent/current/claude")
    );
    let status = said(&ground.install(&["status"]));
    assert!(
        status
            .lines()
            .any(|line| line.starts_with("ok") && line.contains("agent") && line.contains("2.1.1")),
        "{status}"
    );
    set_mode(&ground.path("opt/kai/agent/2.1.1/claude"), 0o777);
    let refused = ground.install(&["apply"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        said(&refused).contains("can be changed by others"),
        "{}",
        said(&refused)
    );
}
