//! The daemon under strace(1), which ends it or has a call fail, at each call that writes.

use std::collections::HashMap;

use nix::sys::signal::{Signal, kill};

use super::Ground;

/// Calls that change what is on a disk or tell a peer. Each end comes before its call is made; the
/// moments after are those before the next one.
pub const WRITING: [&str; 16] = [
    "openat",
    "write",
    "writev",
    "pwrite64",
    "fsync",
    "fdatasync",
    "ftruncate",
    "fallocate",
    "rename",
    "renameat2",
    "unlink",
    "unlinkat",
    "fchmod",
    "fchown",
    "sendto",
    "mkdir",
];

/// strace, with what it is to do.
fn strace<'a>(output: &'a str, what: &[&'a str]) -> Vec<&'a str> {
    let mut command = vec!["strace", "-f", "-qq", "-e", "signal=none", "-o", output];
    for expression in what {
        command.extend(["-e", expression]);
    }
    command
}

/// Which calls of [`WRITING`] a daemon makes that nothing happens to while `act` talks to it: each as its
/// name and how many of that name came until it.
pub fn writing_calls(ground: &mut Ground, act: impl FnOnce(&Ground)) -> Vec<(&'static str, usize)> {
    let trace = ground.path("trace");
    let traced = format!("trace={}", WRITING.join(","));
    let command = strace(trace.to_str().unwrap(), &[&traced]);
    ground.try_start(&command).unwrap();
    act(ground);
    kill(ground.pid(), Signal::SIGTERM).unwrap();
    ground.wait();
    read(&std::fs::read_to_string(trace).unwrap())
}

/// Starts the daemon so that `what`, in strace's words, happens at the `nth` call of this name.
pub fn start_with(
    ground: &mut Ground,
    (call, nth): (&str, usize),
    what: &str,
) -> Result<(), std::process::ExitStatus> {
    let traced = format!("trace={call}");
    let inject = format!("inject={call}:{what}:when={nth}");
    ground.try_start(&strace("/dev/null", &[&traced, &inject]))
}

fn read(trace: &str) -> Vec<(&'static str, usize)> {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    let mut writing = Vec::new();
    for line in trace.lines() {
        let name = line
            .split_whitespace()
            .nth(1)
            .and_then(|rest| rest.split('(').next());
        let Some(call) = WRITING.iter().find(|call| Some(**call) == name) else {
            continue;
        };
        let nth = seen.entry(call).or_default();
        *nth += 1;
        let only_reads =
            *call == "openat" && line.contains("O_RDONLY") && !line.contains("O_CREAT");
        if !only_reads {
            writing.push((*call, *nth));
        }
    }
    writing
}
