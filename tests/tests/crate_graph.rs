//! What is linked into what: few crates into the root daemons, and nothing of theirs into the programs
//! that strangers talk to.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The root daemons, how many crates each may link, itself included. About half of authd's are for SQLite,
/// HMAC and SHA, Landlock and seccomp: it keeps secrets, and confines itself.
const ROOT_DAEMONS: [(&str, usize); 2] = [("kai-brokerd", 36), ("kai-authd", 54)];
/// What no root daemon links: an async runtime, a parser of JSON, a large command line.
const NOT_IN_ROOT_DAEMONS: [&str; 3] = ["tokio", "serde_json", "clap"];
/// The programs that read what users, agents and Telegram wrote.
const EXPOSED: [&str; 2] = ["kai-gateway", "kai-worker"];
/// The folders of the crates that do without unsafe code.
const WITHOUT_UNSAFE: [&str; 3] = ["gateway", "authd", "install"];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The crates that are linked into `package`, each as `name vVERSION`; not those that run in the
/// compiler.
fn linked_into(package: &str) -> BTreeSet<String> {
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(workspace())
        .args(["tree", "--locked", "--offline", "--prefix", "none"])
        .args(["--edges", "normal,no-proc-macro", "--format", "{p}"])
        .args(["--package", package])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| {
            let mut words = line.split_whitespace();
            let (name, version) = (words.next().unwrap(), words.next().unwrap());
            format!("{name} {version}")
        })
        .collect()
}

fn names(crates: &BTreeSet<String>) -> BTreeSet<&str> {
    crates
        .iter()
        .filter_map(|found| found.split_whitespace().next())
        .collect()
}

#[test]
fn the_root_daemons_link_few_crates() {
    for (daemon, most) in ROOT_DAEMONS {
        let linked = linked_into(daemon);
        println!("{daemon}: {} crates of at most {most}", linked.len());
        assert!(names(&linked).contains(daemon), "{linked:?}");
        assert!(
            linked.len() <= most,
            "{daemon} links {}: {linked:#?}",
            linked.len()
        );
    }
}

#[test]
fn the_root_daemons_link_no_runtime_no_json_and_no_large_command_line() {
    for (daemon, _) in ROOT_DAEMONS {
        let linked = linked_into(daemon);
        for name in NOT_IN_ROOT_DAEMONS.into_iter().chain(EXPOSED) {
            assert!(!names(&linked).contains(name), "{daemon} links {name}");
        }
    }
}

#[test]
fn gateway_and_worker_link_nothing_of_the_root_daemons() {
    for program in EXPOSED {
        let linked = linked_into(program);
        for (daemon, _) in ROOT_DAEMONS {
            assert!(!names(&linked).contains(daemon), "{program} links {daemon}");
        }
    }
}

#[test]
fn gateway_authd_and_install_forbid_unsafe_code() {
    for folder in WITHOUT_UNSAFE {
        let source = workspace().join(folder).join("src");
        let library = fs::read_to_string(source.join("lib.rs")).unwrap();
        assert!(
            library
                .lines()
                .any(|line| line == "#![forbid(unsafe_code)]"),
            "{folder}/src/lib.rs"
        );
        // A crate of its own, to which the library's attribute does not reach.
        let program = fs::read_to_string(source.join("main.rs")).unwrap();
        assert!(!program.contains("unsafe"), "{folder}/src/main.rs");
    }
}
