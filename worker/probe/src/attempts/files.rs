//! Files of the host, and its own.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    process::Command,
};

use super::{
    Attempt,
    Group::Files,
    of,
    ways::{list, make, read, write},
};
use crate::{
    answer::Answer,
    scene::Scene,
    sys::{at, call},
};

/// A script of its own.
fn execute(path: &std::path::Path) -> Answer {
    let made = fs::write(path, "#!/bin/sh\nexit 0\n")
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o700)));
    if let Err(error) = made {
        return Answer::refused(&error);
    }
    let ran = Command::new(path).env_clear().status();
    let _ = fs::remove_file(path);
    ran.into()
}

/// Changes a file without opening it (truncate(2)).
fn truncate(path: &str) -> Answer {
    let text = format!("{path}\0");
    // To the length that it has.
    match fs::metadata(path) {
        Ok(found) => call(libc::SYS_truncate, [at(text.as_str()), found.len() as i64]).into(),
        Err(error) => Answer::refused(&error),
    }
}

fn by_link(scene: &Scene, target: &str) -> Answer {
    let link = scene.home.join("link");
    let _ = fs::remove_file(&link);
    if let Err(error) = symlink(target, &link) {
        return Answer::refused(&error);
    }
    let answer = read(&link);
    let _ = fs::remove_file(&link);
    answer
}

/// Gives a file of somebody else's a name of its own.
fn hard_link(scene: &Scene, target: &str) -> Answer {
    let link = scene.home.join("hard-link");
    let made = fs::hard_link(target, &link);
    let _ = fs::remove_file(&link);
    made.into()
}

fn upwards(scene: &Scene) -> Answer {
    let up = "../".repeat(scene.home.components().count() + 4);
    read(scene.home.join(up).join("etc/shadow"))
}

/// A program without a file (memfd_create(2)).
fn without_a_file() -> Answer {
    let made = call(libc::SYS_memfd_create, [at("x\0"), 0]);
    made.and_then(|descriptor| {
        let path = format!("/proc/self/fd/{descriptor}");
        fs::copy("/bin/true", &path)?;
        Command::new(path).env_clear().status()
    })
    .into()
}

pub(super) const ATTEMPTS: &[Attempt] = &[
    of(Files, "root-home", "lists root's home", |_| list("/root")),
    of(Files, "homes", "lists who has a home", |_| list("/home")),
    of(Files, "run", "lists what runs on the host", |_| {
        list("/run/systemd")
    }),
    of(Files, "etc-write", "puts a file into /etc", |_| {
        make("/etc/kai-probe")
    }),
    of(
        Files,
        "etc-profile",
        "puts a file where every login reads it",
        |_| make("/etc/profile.d/kai-probe.sh"),
    ),
    of(Files, "host-keys", "reads the host's keys", |_| {
        read("/etc/ssh/ssh_host_ed25519_key")
    }),
    of(
        Files,
        "sites-keys",
        "lists the keys of the host's sites",
        |_| list("/etc/ssl/private"),
    ),
    of(Files, "sudoers-read", "lists who may become whom", |_| {
        list("/etc/sudoers.d")
    }),
    of(Files, "logs", "lists the host's logs", |_| list("/var/log")),
    of(Files, "boot", "lists the host's kernels", |_| list("/boot")),
    of(Files, "var-lib", "lists the host's services", |_| {
        list("/var/lib")
    }),
    of(Files, "var-cache", "lists what services keep", |_| {
        list("/var/cache")
    }),
    of(Files, "srv", "lists what the host serves", |_| list("/srv")),
    of(Files, "media", "lists other disks", |_| list("/media")),
    of(Files, "root-directory", "puts a file into /", |_| {
        make("/kai-probe")
    }),
    of(
        Files,
        "usr-local",
        "puts a program where everybody finds it",
        |_| make("/usr/local/bin/kai-probe"),
    ),
    of(Files, "opt", "puts a file into /opt", |_| {
        make("/opt/kai-probe")
    }),
    of(
        Files,
        "program-truncate",
        "changes a program of the host's without opening it",
        |_| truncate("/usr/bin/env"),
    ),
    of(
        Files,
        "program-write",
        "opens a program of the host's to write",
        |_| write("/usr/bin/env"),
    ),
    of(
        Files,
        "by-link",
        "reads a secret by a link in its home",
        |s| by_link(s, "/etc/shadow"),
    ),
    of(
        Files,
        "hard-link",
        "gives a neighbour's file a name of its own",
        |s| hard_link(s, s.of_neighbour("tmp-file")),
    ),
    of(
        Files,
        "upwards",
        "reads a secret by going up from its home",
        upwards,
    ),
    of(
        Files,
        "first-process-root",
        "goes to the root of the first process",
        |_| list("/proc/1/root/"),
    ),
    of(
        Files,
        "first-process-directory",
        "goes to where the first process is",
        |_| list("/proc/1/cwd/"),
    ),
    of(Files, "outside-name", "makes a name beside its home", |s| {
        make(s.place.join("new"))
    }),
    of(
        Files,
        "login-file",
        "leaves something for the next login of its user",
        |s| {
            let path = s.home.join(".bashrc");
            let mut options = fs::OpenOptions::new();
            options.append(true).create(true).open(path).into()
        },
    ),
    of(
        Files,
        "login-unit",
        "leaves a service for the next login of its user",
        |s| {
            let units = s.home.join(".config/systemd/user");
            fs::create_dir_all(&units).map_or_else(
                |error| Answer::refused(&error),
                |()| make(units.join("new.service")),
            )
        },
    ),
    of(Files, "own-home", "writes in its own home", |s| {
        make(s.home.join("own"))
    }),
    of(
        Files,
        "own-program",
        "executes a program in its own home",
        |s| execute(&s.home.join("own")),
    ),
    of(Files, "own-tmp", "writes in /tmp", |_| {
        make("/tmp/kai-probe-own")
    }),
    of(
        Files,
        "without-file",
        "executes a program that has no file",
        |_| without_a_file(),
    ),
];
