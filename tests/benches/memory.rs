//! What kai's programs take when nothing happens: proportional set size, as the kernel counts it in
//! `/proc/PID/smaps_rollup`; fails where a bound of the README is not held.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{env, fs, thread, time::Duration};

use kai_playground::ground::{Daemon, programs};
use kai_tests::{ALICE, BOB, Kai};

/// All three daemons together, in KiB.
const DAEMONS: u64 = 12 * 1024;
/// One worker, without its agent, in KiB.
const WORKER: u64 = 1536;

fn main() {
    // `cargo test --benches` runs this too, with an argument that cargo bench does not give.
    if !env::args().any(|argument| argument == "--bench") || !kai_tests::is_root() {
        return;
    }
    programs::build_if_run_by_cargo().unwrap();
    let kai = Kai::start(|_| {});
    for turn in 0..20 {
        kai.ask(ALICE, &format!("echo turn {turn}"), &format!("turn {turn}"));
        kai.ask(BOB, &format!("echo turn {turn}"), &format!("turn {turn}"));
    }
    thread::sleep(Duration::from_secs(2));

    let mut together = 0;
    for daemon in Daemon::ALL {
        let kib = pss_kib(kai.ground.pid(daemon).unwrap());
        println!("{}: {:.2} MiB", daemon.name(), mib(kib));
        together += kib;
    }
    println!(
        "daemons together: {:.2} MiB (at most {:.2})",
        mib(together),
        mib(DAEMONS)
    );
    let status = kai.ground.status().unwrap();
    let worker = ["alice", "bob"]
        .map(|name| pss_kib(status.worker(name).unwrap().pid))
        .into_iter()
        .max()
        .unwrap();
    println!(
        "a worker: {:.2} MiB (at most {:.2})",
        mib(worker),
        mib(WORKER)
    );
    assert!(
        together <= DAEMONS && worker <= WORKER,
        "a bound was not held"
    );
}

fn pss_kib(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
