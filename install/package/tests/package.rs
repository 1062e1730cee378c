//! What the package has: a page and completions for each command, and everything that apply copies.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{fs, path::Path, process::Command};

/// The pages, in a directory that goes with the test.
fn made() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let made = Command::new(env!("CARGO_BIN_EXE_kai-package"))
        .arg(place.path())
        .status()
        .unwrap();
    assert!(made.success());
    place
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn each_command_has_a_page_that_man_shows_without_a_warning() {
    let place = made();
    let pages = names(&place.path().join("man"));
    for command in [
        "kai-install",
        "kai-install-apply",
        "kai-install-user-add",
        "kai-broker",
        "kai-broker-audit-verify",
        "kai-broker-probe",
        "kai-broker-login",
        "kai-auth",
        "kai-auth-enroll",
    ] {
        let page = format!("{command}.8");
        assert!(pages.contains(&page), "{page} is not among {pages:?}");
    }
    for page in pages {
        let text = fs::read_to_string(place.path().join("man").join(&page)).unwrap();
        for section in [".SH NAME", ".SH SYNOPSIS", ".SH OPTIONS"] {
            assert!(text.contains(section), "{page} lacks {section}");
        }
        let shown = Command::new("man")
            .args(["--warnings", "--encoding=UTF-8", "--local-file"])
            .arg(place.path().join("man").join(&page))
            .env("MANWIDTH", "100")
            .env("MANPAGER", "cat")
            .output();
        match shown {
            Ok(shown) => {
                let said = String::from_utf8_lossy(&shown.stderr);
                assert!(shown.status.success() && said.is_empty(), "{page}: {said}");
                assert!(!shown.stdout.is_empty(), "{page}");
            }
            Err(error) if std::env::var_os("KAI_TESTS_MUST_RUN").is_some() => {
                panic!("man cannot be run: {error}");
            }
            Err(error) => println!("skipped: man cannot be run: {error}"),
        }
    }
}

#[test]
fn the_three_shells_complete_each_command() {
    let place = made();
    for command in ["kai-install", "kai-broker", "kai-auth"] {
        for file in [
            format!("bash/{command}.bash"),
            format!("zsh/_{command}"),
            format!("fish/{command}.fish"),
        ] {
            let text = fs::read_to_string(place.path().join(&file)).unwrap();
            assert!(text.contains("status"), "{file}");
        }
    }
}

#[test]
fn the_package_owns_usr_lib_kai_the_manual_and_completions_and_nothing_else() {
    let manifest = include_str!("../Cargo.toml");
    let assets: Vec<&str> = manifest
        .lines()
        .filter(|line| line.trim_start().starts_with("[\""))
        .collect();
    for program in [
        "kai-gateway",
        "kai-brokerd",
        "kai-authd",
        "kai-worker",
        "kai-tools",
        "kai-probe",
        "kai-broker",
        "kai-auth",
        "kai-install",
    ] {
        let line = format!("[\"target/release/{program}\", \"usr/lib/kai/\", \"755\"],");
        let owned = assets.iter().any(|asset| asset.trim() == line);
        assert!(owned, "{program}");
    }
    for asset in assets {
        let place = asset.split('"').nth(3).unwrap();
        let owned = [
            "usr/lib/kai/",
            "usr/share/man/",
            "usr/share/bash-completion/completions/",
            "usr/share/zsh/vendor-completions/",
            "usr/share/fish/vendor_completions.d/",
        ];
        assert!(owned.iter().any(|own| place.starts_with(own)), "{place}");
    }
    // Nothing is started, and nothing runs when it comes or goes.
    for key in ["maintainer-scripts", "systemd-units", "triggers-file"] {
        assert!(!manifest.contains(key), "{key}");
    }
}
