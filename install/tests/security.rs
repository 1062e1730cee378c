//! SECURITY.md's tables say what the units, the sockets and the directories are.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The rows of the table in SECURITY.md whose first column has this heading, without the marks around code.
fn table(heading: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(tree().join("SECURITY.md")).unwrap();
    let rows: Vec<Vec<String>> = text
        .lines()
        .skip_while(|line| !line.starts_with(&format!("| {heading} |")))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells = line.trim_matches('|').split('|');
            cells.map(|cell| cell.trim().replace('`', "")).collect()
        })
        .collect();
    assert!(!rows.is_empty(), "there is no table of {heading}");
    rows
}

/// The values of a unit's directive, the last one first reset by an empty one.
fn values(unit: &str, key: &str) -> Vec<String> {
    let text = fs::read_to_string(tree().join("systemd").join(unit)).unwrap();
    text.lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(name, _)| *name == key)
        .flat_map(|(_, value)| value.split_whitespace())
        .map(str::to_owned)
        .collect()
}

#[test]
fn each_daemon_has_the_account_and_the_capabilities_that_its_row_says() {
    let rows: BTreeMap<String, String> = table("program")
        .into_iter()
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect();
    for (program, unit) in [
        ("kai-gateway", "kai-gateway.service"),
        ("kai-authd", "kai-authd.service"),
        ("kai-brokerd", "kai-broker.service"),
    ] {
        let account = values(unit, "User").pop().unwrap_or("root".to_owned());
        let capabilities = match values(unit, "CapabilityBoundingSet").len() {
            0 if account == "root" => "without a single capability",
            0 => "no capabilities",
            7 => "seven capabilities",
            n => panic!("{unit} has {n} capabilities: say so in SECURITY.md and here"),
        };
        let said = &rows[program];
        assert!(
            said.starts_with(&account),
            "{program}: {said}, not {account}"
        );
        assert!(
            said.ends_with(capabilities),
            "{program}: {said}, not {capabilities}"
        );
    }
}

#[test]
fn each_socket_is_in_the_table_with_its_owner_and_mode() {
    let said: BTreeSet<[String; 3]> = table("socket")
        .into_iter()
        .map(|row| {
            [
                row[0].replace("RUN", "/run/kai"),
                row[1].clone(),
                row[2].clone(),
            ]
        })
        .collect();
    let units = fs::read_dir(tree().join("systemd")).unwrap();
    let made: BTreeSet<[String; 3]> = units
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".socket"))
        .map(|unit| {
            let value = |key| values(&unit, key).join(" ");
            let access = format!(
                "{}:{} {}",
                value("SocketUser"),
                value("SocketGroup"),
                value("SocketMode")
            );
            [value("ListenStream"), unit.clone(), access]
        })
        .collect();
    assert_eq!(said, made);
}

#[test]
fn each_directory_is_in_the_table_with_its_owner_and_mode() {
    let said: BTreeSet<[String; 2]> = table("directory")
        .into_iter()
        .map(|row| [row[0].clone(), row[1].clone()])
        .collect();
    let lines = fs::read_to_string(tree().join("systemd/kai.tmpfiles")).unwrap();
    let made: BTreeSet<[String; 2]> = lines
        .lines()
        .filter(|line| line.starts_with('d'))
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            [
                words[1].to_owned(),
                format!("{}:{} {}", words[3], words[4], words[2]),
            ]
        })
        .collect();
    assert_eq!(said, made);
}

#[test]
fn each_file_and_test_that_is_named_is_there() {
    let text = fs::read_to_string(tree().join("SECURITY.md")).unwrap();
    let named = text.split('`').skip(1).step_by(2);
    let mut seen = 0;
    for path in named.map(|name| name.split("::").next().unwrap_or_default()) {
        let in_tree = [
            "authd/", "broker/", "gateway/", "install/", "proto/", "systemd/", "tests/", "worker/",
        ];
        if in_tree.iter().any(|folder| path.starts_with(folder)) {
            assert!(tree().join(path).exists(), "{path} is named and not there");
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen}");
}

#[test]
fn each_test_that_is_named_is_one() {
    let text = fs::read_to_string(tree().join("SECURITY.md")).unwrap();
    let listed = Command::new("git")
        .args(["ls-files", "*.rs"])
        .current_dir(tree())
        .output()
        .unwrap();
    let files = String::from_utf8(listed.stdout).unwrap();
    let mut seen = 0;
    for named in text.split('`').skip(1).step_by(2) {
        let Some((file, function)) = named.split_once(".rs::") else {
            continue;
        };
        // Of a long name the beginning stands there.
        let begin = format!("fn {}", function.trim_end_matches("..."));
        let is_there = files
            .lines()
            .filter(|path| format!("/{path}").ends_with(&format!("/{file}.rs")))
            .any(|path| {
                fs::read_to_string(tree().join(path))
                    .unwrap()
                    .contains(&begin)
            });
        assert!(is_there, "{named} is named and not there");
        seen += 1;
    }
    assert!(seen > 5, "{seen}");
}
