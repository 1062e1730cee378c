//! The end of `kai-install apply` at any call that writes, and of the tools that it uses: the next run
//! makes of what was left what an undisturbed one makes.
#![allow(clippy::unwrap_used, clippy::panic, dead_code)]

mod ground;
mod skipped;

use std::{
    collections::HashMap,
    fs,
    process::{Command, Output},
};

use ground::{Ground, said};
use skipped::skipped;

/// Calls that change the tree or start what does. Each end comes before its call is made; the moments
/// after are those before the next one.
const WRITING: [&str; 12] = [
    "clone3",
    "vfork",
    "fchmod",
    "fchown",
    "fsync",
    "mkdirat",
    "openat",
    "renameat2",
    "symlinkat",
    "unlinkat",
    "write",
    "copy_file_range",
];
/// How many of the calls of one name that mostly write contents are ended.
const SAMPLE: usize = 10;

fn strace(ground: &Ground, arguments: &[&str]) -> Output {
    Command::new("strace")
        .args(["-qq", "-e", "signal=none"])
        .args(arguments)
        .arg(env!("CARGO_BIN_EXE_kai-install"))
        .args(["apply", "--root"])
        .arg(ground.root())
        .arg("--source")
        .arg(ground.beside("package"))
        .output()
        .unwrap()
}

fn new_ground() -> Option<Ground> {
    if Command::new("strace").arg("-V").output().is_err() {
        skipped("strace is not installed");
        return None;
    }
    Ground::new()
}

/// Which writing calls an undisturbed run makes: each as its name and how many of that name came until it.
fn writing_calls(ground: &Ground) -> Vec<(&'static str, usize)> {
    let trace = ground.beside("trace");
    let traced = format!("trace={}", WRITING.join(","));
    let output = strace(ground, &["-o", trace.to_str().unwrap(), "-e", &traced]);
    assert!(output.status.success(), "{}", said(&output));
    let mut seen: HashMap<&str, usize> = HashMap::new();
    let mut writing = Vec::new();
    for line in fs::read_to_string(trace).unwrap().lines() {
        let Some(call) = line
            .split('(')
            .next()
            .and_then(|name| WRITING.iter().find(|call| **call == name))
        else {
            continue;
        };
        let nth = seen.entry(call).or_default();
        *nth += 1;
        if *call != "openat" || line.contains("O_CREAT") {
            writing.push((*call, *nth));
        }
    }
    writing
}

fn reset(ground: &Ground) {
    fs::remove_dir_all(ground.root()).unwrap();
    ground.make_tree();
}

#[test]
fn an_end_at_any_call_that_writes_is_made_good_by_the_next_run() {
    let Some(ground) = new_ground() else { return };
    let calls = writing_calls(&ground);
    let whole = ground.listing();
    let mut ends = 0;
    for name in WRITING {
        let of_name: Vec<_> = calls.iter().filter(|(call, _)| *call == name).collect();
        let step = of_name.len().div_ceil(SAMPLE).max(1);
        for (call, nth) in of_name.into_iter().step_by(step) {
            reset(&ground);
            let inject = format!("inject={call}:signal=KILL:when={nth}");
            let traced = format!("trace={call}");
            let killed = strace(&ground, &["-o", "/dev/null", "-e", &traced, "-e", &inject]);
            let at = format!("{call} {nth}");
            assert!(!killed.status.success(), "{at}: {}", said(&killed));

            let again = ground.install(&["apply"]);

            assert!(again.status.success(), "{at}: {}", said(&again));
            let listing = ground.listing();
            let differs: Vec<_> = listing
                .iter()
                .filter(|line| !whole.contains(line))
                .collect();
            assert!(
                differs.is_empty() && listing.len() == whole.len(),
                "{at}: {differs:#?}"
            );
            ends += 1;
        }
    }
    println!("{ends} ends of {} calls", calls.len());
    assert!(ends > 50, "{ends}");
}

#[test]
fn an_end_of_the_tools_in_mid_change_is_made_good_by_the_next_run() {
    let Some(ground) = new_ground() else { return };
    for nth in 1..=6 {
        reset(&ground);
        // Of kai-install's own calls none has this name: each tool ends at its nth file.
        let inject = format!("inject=rename:signal=KILL:when={nth}");
        let killed = strace(
            &ground,
            &["-f", "-o", "/dev/null", "-e", "trace=rename", "-e", &inject],
        );

        let again = ground.install(&["apply"]);

        let at = format!("{nth}: {}", said(&killed));
        assert!(again.status.success(), "{at}{}", said(&again));
        let last = ground.done(&["apply"]);
        assert!(last.starts_with("nothing changed"), "{at}{last}");
        for (file, line) in [
            ("passwd", "alice:"),
            ("shadow", "alice:!"),
            ("group", "kai-admin:"),
        ] {
            let text = ground.read(&format!("etc/{file}"));
            let found = text.lines().filter(|found| found.starts_with(line)).count();
            assert_eq!(found, 1, "{at}{text}");
        }
    }
}
