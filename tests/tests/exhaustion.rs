//! An agent that takes all that it can: its neighbour's next answer is not late, it is told in a sentence
//! what is wrong, and it can go on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    fs,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use kai_playground::ground::{Agent, Daemon};
use kai_tests::{ALICE, BOB, Kai, is_root, limits_memory};

/// What a busy machine adds to turns of ten milliseconds by itself.
const GRAIN: Duration = Duration::from_millis(20);
/// A chat takes a message a second; a turn begun earlier would measure that.
const PAUSE: Duration = Duration::from_millis(1200);

/// How long bob's turn takes: the middle one of `turns`.
fn bobs_turn(kai: &Kai, turns: u32) -> Duration {
    let mut took: Vec<Duration> = (0..turns)
        .map(|turn| {
            thread::sleep(PAUSE);
            let begin = Instant::now();
            kai.ask(BOB, &format!("echo turn {turn}"), &format!("turn {turn}"));
            begin.elapsed()
        })
        .collect();
    took.sort();
    took[took.len() / 2]
}

/// alice's agent runs `attack`; meanwhile bob's turns take at most twice as long as usual.
fn bob_is_not_late(kai: &Kai, attack: &str) {
    let usual = bobs_turn(kai, 5);
    kai.say(ALICE, attack);
    thread::sleep(Duration::from_secs(1));
    // Another program's moment is not alice's doing; what she does goes on.
    for attempt in 1..=3 {
        let meanwhile = bobs_turn(kai, 5);
        println!("bob's turn: usually {usual:?}, meanwhile {meanwhile:?}");
        if meanwhile <= usual * 2 + GRAIN {
            return;
        }
        assert!(
            attempt < 3,
            "bob's turn takes {usual:?}, and {meanwhile:?} during the attack"
        );
    }
}

/// alice stops what runs, and her next message is answered.
fn alice_goes_on(kai: &Kai) {
    kai.say(ALICE, "/stop");
    thread::sleep(PAUSE);
    let answer = kai.ask(ALICE, "echo going on; exit 0", "going on");
    assert!(!answer.text().contains("exit status"), "{}", answer.text());
}

/// Asks alice's agent to run `command`, and gives what it printed on both streams.
fn alice(kai: &Kai, command: &str) -> String {
    let marked = format!("{{ {command} ; }} 2>&1; echo \"[status $?]\"");
    kai.ask(ALICE, &marked, "[status ").text().to_owned()
}

#[test]
fn a_fork_bomb_ends_at_its_users_limit() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|options| {
        options.people[0].keys = vec!["limits: {processes: 100}".to_owned()];
    });

    bob_is_not_late(&kai, "f() { f | f & }; f 2>/dev/null; sleep 60");

    alice_goes_on(&kai);
}

#[test]
fn processes_that_only_compute_leave_bob_his_share() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|_| {});

    let busy = "for i in 1 2 3 4 5 6 7 8; do (while :; do :; done) & done; sleep 60";
    bob_is_not_late(&kai, busy);

    alice_goes_on(&kai);
}

#[test]
fn memory_ends_what_takes_it_and_not_the_worker() {
    if !is_root() || !limits_memory() {
        return;
    }
    let kai = Kai::start(|options| {
        options.people[0].keys = vec!["limits: {memory: 256m, tmp: 64m}".to_owned()];
    });
    kai.ask(ALICE, "echo before", "before");
    let worker = kai.ground.status().unwrap().worker("alice").unwrap().pid;

    bob_is_not_late(&kai, "head -c 2G /dev/zero | tail; sleep 60");
    alice_goes_on(&kai);
    let said = alice(&kai, "head -c 2G /dev/zero | tail | wc -c");
    assert!(said.contains("0\n[status 0]"), "{said}");

    let after = kai.ground.status().unwrap().worker("alice").unwrap().pid;
    assert_eq!(after, worker, "the worker itself was ended");
    let table = kai.ground.broker_command(&["status"]).unwrap();
    assert!(table.contains("cgroup: "), "{table}");
}

#[test]
fn a_full_tmp_is_its_own_and_a_million_small_files_in_it_are_not_to_be_had() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|options| {
        options.people[0].keys = vec!["limits: {tmp: 16m}".to_owned()];
    });

    for place in ["/tmp", "/var/tmp", "/dev/shm"] {
        let said = alice(&kai, &format!("head -c 100M /dev/zero > {place}/large"));
        assert!(said.contains("No space left on device"), "{said}");
        let said = alice(&kai, &format!("rm {place}/large"));
        assert!(said.contains("[status 0]"), "{said}");
    }
    let million = "i=0; while [ $i -lt 1000000 ]; do : > /tmp/f$i || break; i=$((i+1)); done; \
                   echo made $i; rm -rf /tmp/f*";
    let said = alice(&kai, million);
    assert!(said.contains("No space left on device"), "{said}");
    kai.ask(
        BOB,
        "touch /tmp/x && echo bob has his own",
        "bob has his own",
    );
    alice_goes_on(&kai);
}

/// A home of a few megabytes, on a file system of its own.
struct SmallHome(PathBuf);

impl SmallHome {
    fn of_alice(kai: &Kai, options: &str) -> Self {
        let alice = kai.ground.account("alice").unwrap();
        let (uid, gid) = (alice.uid, alice.gid);
        let options = format!("{options},mode=0700,uid={uid},gid={gid}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "none"])
            .arg(&alice.home)
            .status();
        assert!(mounted.unwrap().success());
        Self(alice.home.clone())
    }
}

impl Drop for SmallHome {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_home_is_said_before_the_turn_and_hurts_nobody_else() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|options| {
        options.people[0].keys = vec!["limits: {free: 4m}".to_owned()];
    });
    let home = SmallHome::of_alice(&kai, "size=16m,nr_inodes=2000");
    let lines = audit_lines(&kai);

    bob_is_not_late(&kai, "cat /dev/zero > ~/full; echo filled");
    thread::sleep(PAUSE);
    let asked = kai.say(ALICE, "echo is there room");
    let refused = kai.answer(ALICE, asked, |message| message.text().contains("free"));
    assert!(refused.text().lines().count() <= 2, "{}", refused.text());

    // Somebody makes room, and she goes on.
    fs::remove_file(home.0.join("full")).unwrap();
    alice_goes_on(&kai);
    let million = "i=0; while [ $i -lt 1000000 ]; do : > ~/f$i || break; i=$((i+1)); done; \
                   echo made $i; rm -rf ~/f*";
    let said = alice(&kai, million);
    assert!(said.contains("No space left on device"), "{said}");
    alice_goes_on(&kai);
    // The audit log went on, and nobody else noticed.
    kai.ground.kill_worker("bob").unwrap();
    kai.ask(BOB, "echo a new worker", "a new worker");
    assert!(audit_lines(&kai) > lines);
}

fn audit_lines(kai: &Kai) -> usize {
    let log = kai.ground.broker_command(&["audit", "--json"]).unwrap();
    log.lines().count()
}

#[test]
fn open_files_end_at_the_limit_of_one_process() {
    if !is_root() {
        return;
    }
    let kai = Kai::start(|options| {
        options.people[0].keys = vec!["limits: {files: 300}".to_owned()];
    });

    let said = alice(
        &kai,
        "ulimit -n 300; bash -c 'while exec {fd}</dev/null; do :; done'",
    );

    assert!(said.contains("Too many open files"), "{said}");
    alice_goes_on(&kai);
}

#[test]
fn an_agent_that_floods_its_errors_floods_neither_log_nor_journal() {
    if !is_root() {
        return;
    }
    let flood = ["/bin/sh", "-c", "yes flood >&2 & yes flood >&2"];
    let kai = Kai::start(|options| {
        options.agent = Agent::Command(flood.map(str::to_owned).to_vec());
    });
    let before = kai.ground.log(Daemon::Broker).len();

    let refused = "The answer is longer than kai takes";
    kai.ask(ALICE, "begin", refused);
    thread::sleep(PAUSE);
    kai.ask(ALICE, "again", refused);

    let log = kai.ground.log(Daemon::Broker);
    assert!(
        log.len() < before + 8 * 1024,
        "{} bytes more",
        log.len() - before
    );
    assert!(!log.contains("flood"));
}
