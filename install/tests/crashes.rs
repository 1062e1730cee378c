//! The end of `kai-install apply` at any call that writes, and of the tools that it uses: the next run
//! makes of what was left what an undisturbed one makes.
#![allow(clippy::unwrap_used, clippy::panic, dead_code)]

mod ground;
mod skipped;

use std::{
    collections::HashMap,
    fs,
    process::{Command, Output},
    thread,
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
const SAMPLE: usize = 6;

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
    let ground = Ground::new()?;
    // Less to copy, hundreds of times; where it is not there, it takes longer.
    let _ = Command::new("strip")
        .arg(ground.beside("package/kai-auth"))
        .output();
    Some(ground)
}

/// A call that writes.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Call {
    name: &'static str,
    /// How many of that name came until it, itself included.
    nth: usize,
    /// True if it says what was changed.
    announces: bool,
}

/// Which writing calls an undisturbed run makes.
fn writing_calls(ground: &Ground) -> Vec<Call> {
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
            writing.push(Call {
                name: call,
                nth: *nth,
                announces: line.starts_with("write(1,"),
            });
        }
    }
    writing
}

fn reset(ground: &Ground) {
    fs::remove_dir_all(ground.root()).unwrap();
    ground.make_tree();
}

/// Ends a run before this call, and compares what the next one makes with `whole`.
fn end_and_run_again(ground: &Ground, Call { name, nth, .. }: Call, whole: &[String]) {
    reset(ground);
    let inject = format!("inject={name}:signal=KILL:when={nth}");
    let traced = format!("trace={name}");
    let killed = strace(ground, &["-o", "/dev/null", "-e", &traced, "-e", &inject]);
    let at = format!("{name} {nth}");
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
}

#[test]
fn an_end_at_any_call_that_writes_is_made_good_by_the_next_run() {
    let Some(ground) = new_ground() else { return };
    let calls = writing_calls(&ground);
    let whole = ground.listing();
    let mut ends = 0;
    for name in WRITING {
        let of_name: Vec<_> = calls.iter().filter(|call| call.name == name).collect();
        let step = of_name.len().div_ceil(SAMPLE).max(1);
        for call in of_name.into_iter().step_by(step) {
            end_and_run_again(&ground, *call, &whole);
            ends += 1;
        }
    }
    println!("{ends} ends of {} calls", calls.len());
    assert!(ends > 40, "{ends}");
}

#[test]
fn an_end_in_and_after_each_change_is_made_good_by_the_next_run() {
    let (Some(ground), Some(other)) = (new_ground(), new_ground()) else {
        return;
    };
    let calls = writing_calls(&ground);
    let whole = ground.listing();
    // When the first call of a change is made, and when the last is and nothing was said of it. Before the
    // first is after the change before it.
    let mut ends = Vec::new();
    for change in calls.split_inclusive(|call| call.announces) {
        let second = change.get(1).filter(|call| !call.announces);
        ends.extend(second.into_iter().chain(change.last()).copied());
    }
    let changes = calls.iter().filter(|call| call.announces).count();
    assert!(changes > 60 && ends.len() > changes * 3 / 2, "{changes}");

    thread::scope(|scope| {
        for (at, ground) in [ground, other].into_iter().enumerate() {
            let (ends, whole) = (&ends, &whole);
            scope.spawn(move || {
                for call in ends.iter().skip(at).step_by(2) {
                    end_and_run_again(&ground, *call, whole);
                }
            });
        }
    });
    println!("{} ends of {changes} changes", ends.len());
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
