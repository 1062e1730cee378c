//! The end of the daemon at any moment: no attempt is uncounted, no code is taken twice, and the
//! database opens.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod ground;

use std::{collections::HashMap, fs, io, path::Path, process::Command, thread, time::Instant};

use ground::{
    Ground,
    authenticator::{self, Authenticator},
    has, is_root,
    peers::{Admin, Gateway, user},
};
use kai_proto::{
    admin_authd,
    code::{Code, RecoveryCode, TotpCode},
    gateway_authd::{User, Verdict},
    sockets,
};
use nix::sys::signal::{Signal, kill};

/// Wrong codes lock late, so that failures can be counted.
const PATIENT: &str = "second_factor: {failures: 10}";

/// Calls that change what is on a disk or tell a peer. Each end comes before its call is made; the
/// moments after are those before the next one.
const WRITING: [&str; 16] = [
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

/// Somebody who is enrolled.
struct Member {
    user: User,
    authenticator: Authenticator,
    recovery: Vec<RecoveryCode>,
}

/// Enrols over the socket, which is quicker than by the command.
fn member(admin: &Admin, name: &str, id: i64) -> Member {
    let user = user(name, id);
    let authenticator = Authenticator::with(&admin.enrol(&user, false).0);
    let recovery = admin.confirm(authenticator.totp(authenticator::settled_step() - 1));
    Member {
        user,
        authenticator,
        recovery,
    }
}

fn admin(ground: &Ground) -> Admin {
    Admin::connect(&sockets::admin_authd(&ground.run())).unwrap()
}

fn failures(ground: &Ground, user: &User) -> u32 {
    let all = admin(ground).enrolments();
    all.iter()
        .find(|enrolment| enrolment.user == *user)
        .unwrap()
        .failures
}

fn is_granted(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Granted { .. })
}

/// What was answered before the end, in the order of the attempts.
#[derive(Debug, Default)]
struct Answered {
    wrong: u32,
    right: bool,
    recovered: bool,
    replayed: bool,
}

/// One wrong code, one right, the same again, and a recovery code.
fn attempts(
    run: &Path,
    members: &Members,
    code: &TotpCode,
    answered: &mut Answered,
) -> io::Result<()> {
    let mut gateway = Gateway::connect(run)?;
    let wrong = members.wrong.authenticator.wrong();
    let verdict = gateway.totp(&members.wrong.user, wrong)?;
    assert_eq!(verdict, Verdict::Refused);
    answered.wrong += 1;
    let verdict = gateway.totp(&members.right.user, code.clone())?;
    assert!(is_granted(&verdict), "{verdict:?}");
    answered.right = true;
    let verdict = gateway.totp(&members.right.user, code.clone())?;
    assert_eq!(verdict, Verdict::Refused, "a code was taken twice");
    answered.replayed = true;
    let recovery = Code::Recovery(members.recovered.recovery[0].clone());
    let verdict = gateway.verify(&members.recovered.user, recovery)?;
    assert!(is_granted(&verdict), "{verdict:?}");
    answered.recovered = true;
    Ok(())
}

struct Members {
    wrong: Member,
    right: Member,
    recovered: Member,
}

/// Copies the directories of database and log from one to another.
fn copy(ground: &Ground, from: &str, to: &str) {
    for directory in ["state", "log"] {
        let target = ground.path(&format!("{to}{directory}"));
        let _ = fs::remove_dir_all(&target);
        let source = ground.path(&format!("{from}{directory}"));
        let status = Command::new("cp")
            .arg("-a")
            .arg(&source)
            .arg(&target)
            .status()
            .unwrap();
        assert!(status.success());
    }
}

/// What must hold after an end, whatever it was.
fn nothing_is_lost(
    ground: &mut Ground,
    members: &Members,
    code: &TotpCode,
    answered: &Answered,
    at: &str,
) {
    ground.start();
    let counted = failures(ground, &members.wrong.user);
    assert!(
        counted >= answered.wrong,
        "{at}: {answered:?}, but {counted} counted"
    );
    assert!(counted <= 1, "{at}: one attempt counted {counted} times");
    let audited = ground.audited("code.refused");
    assert!(
        audited >= usize::try_from(answered.wrong).unwrap() + usize::from(answered.replayed),
        "{at}"
    );
    let mut gateway = Gateway::connect(&ground.run()).unwrap();
    let mut granted = usize::from(answered.right);
    for _ in 0..2 {
        granted += usize::from(is_granted(
            &gateway.totp(&members.right.user, code.clone()).unwrap(),
        ));
    }
    assert!(
        granted <= 1,
        "{at}: {answered:?}, and the code was taken again"
    );
    let recovery = || Code::Recovery(members.recovered.recovery[0].clone());
    let mut granted = usize::from(answered.recovered);
    for _ in 0..2 {
        granted += usize::from(is_granted(
            &gateway.verify(&members.recovered.user, recovery()).unwrap(),
        ));
    }
    assert!(
        granted <= 1,
        "{at}: {answered:?}, and the recovery code was taken again"
    );
    ground.signal(Signal::SIGKILL);
    ground.wait();
}

#[test]
fn an_end_at_any_call_that_writes_loses_no_count_and_lets_no_code_in_twice() {
    if !is_root() || !has("strace", "strace") {
        return;
    }
    let mut ground = Ground::started(PATIENT);
    let members = {
        let admin = admin(&ground);
        Members {
            wrong: member(&admin, "wrong", 1),
            right: member(&admin, "right", 2),
            recovered: member(&admin, "recovered", 3),
        }
    };
    ground.stop();
    copy(&ground, "", "kept-");

    // How often each call is made when nothing happens to it.
    let trace = ground.path("trace");
    let traced = format!("trace={}", WRITING.join(","));
    let calls = [
        "strace",
        "-f",
        "-qq",
        "-e",
        "signal=none",
        "-o",
        trace.to_str().unwrap(),
        "-e",
        &traced,
    ];
    ground.try_start(&calls).unwrap();
    let mut answered = Answered::default();
    let code = members
        .right
        .authenticator
        .totp(authenticator::settled_step());
    attempts(&ground.run(), &members, &code, &mut answered).unwrap();
    kill(ground.pid(), Signal::SIGTERM).unwrap();
    ground.wait();
    let mut made: HashMap<&str, usize> = HashMap::new();
    for line in fs::read_to_string(&trace).unwrap().lines() {
        let call = line
            .split_whitespace()
            .nth(1)
            .and_then(|rest| rest.split('(').next());
        if let Some(call) = WRITING.iter().find(|name| Some(**name) == call) {
            *made.entry(call).or_default() += 1;
        }
    }
    assert!(
        made.get("pwrite64").is_some_and(|count| *count > 3),
        "{made:?}"
    );

    let began = Instant::now();
    let (mut cases, mut in_the_middle) = (0, 0);
    for call in WRITING {
        for nth in 1..=made.get(call).copied().unwrap_or(0) {
            copy(&ground, "kept-", "");
            let at = format!("{call} {nth}");
            let inject = format!("inject={call}:signal=KILL:when={nth}");
            let strace = [
                "strace",
                "-f",
                "-qq",
                "-o",
                "/dev/null",
                "-e",
                &format!("trace={call}"),
                "-e",
                &inject,
            ];
            let code = members
                .right
                .authenticator
                .totp(authenticator::settled_step());
            let mut answered = Answered::default();
            if ground.try_start(&strace).is_ok() {
                let ended = attempts(&ground.run(), &members, &code, &mut answered).is_err();
                in_the_middle += usize::from(ended);
                // If it lives on, the call is one of an ordinary end.
                if let Some(daemon) = ground.living() {
                    let _ = kill(daemon, Signal::SIGTERM);
                }
                ground.wait();
            }
            nothing_is_lost(&mut ground, &members, &code, &answered, &at);
            cases += 1;
        }
    }
    println!(
        "{cases} ends, {in_the_middle} of them within an attempt, in {:?}: {made:?}",
        began.elapsed()
    );
    assert!(in_the_middle >= 10, "{in_the_middle}");
}

/// How often the daemon is killed at a moment of chance.
const KILLS: usize = 200;

#[test]
fn two_hundred_ends_by_chance_lose_no_count_and_let_no_code_in_twice() {
    if !is_root() {
        return;
    }
    let mut ground = Ground::started(PATIENT);
    let members: Vec<Member> = {
        let admin = admin(&ground);
        (0..40)
            .map(|n| member(&admin, &format!("user{n}"), 1000 + n))
            .collect()
    };
    // How long what is to be hit takes here, and a little more.
    let usual = Instant::now();
    let mut gateway = Gateway::connect(&ground.run()).unwrap();
    for member in &members[..3] {
        let verdict = gateway.totp(&member.user, member.authenticator.wrong());
        assert_eq!(verdict.unwrap(), Verdict::Refused);
    }
    let longest = usual.elapsed() * 5 / 4;
    for member in &members[..3] {
        let name = member.user.name.clone();
        admin(&ground).ask(&admin_authd::Request::Unlock { name });
    }
    // Not from a clock: a run that fails can be repeated.
    let mut chance = 0x2545_f491_4f6c_dd1d_u64;
    let mut taken: HashMap<(usize, Counted), usize> = HashMap::new();
    let mut wrong: HashMap<usize, u32> = HashMap::new();
    let (mut unanswered, mut again) = (0, 0);
    let began = Instant::now();
    for round in 0..KILLS {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        let delay = longest.mul_f64((chance % 1000) as f64 / 1000.0);
        let (guessed, owner) = (round % 40, (round + 20) % 40);
        let code = code_of(&members[owner], round);
        let run = ground.run();
        let (refused, granted, complete) = thread::scope(|scope| {
            let attempts = scope.spawn(|| {
                let (mut refused, mut granted) = (0, false);
                let complete = (|| {
                    let mut gateway = Gateway::connect(&run)?;
                    let member = &members[guessed];
                    for _ in 0..2 {
                        let verdict = gateway.totp(&member.user, member.authenticator.wrong())?;
                        if verdict == Verdict::Refused {
                            refused += 1;
                        }
                    }
                    granted = is_granted(&gateway.verify(&members[owner].user, code.code())?);
                    io::Result::Ok(())
                })();
                (refused, granted, complete.is_ok())
            });
            thread::sleep(delay);
            ground.signal(Signal::SIGKILL);
            attempts.join().unwrap()
        });
        ground.wait();
        unanswered += usize::from(!complete);
        *wrong.entry(guessed).or_default() += refused;
        let took = taken.entry((owner, code.clone())).or_default();
        *took += usize::from(granted);

        ground.start();
        let counted = failures(&ground, &members[guessed].user);
        let answered = wrong[&guessed];
        assert!(
            counted >= answered.min(9),
            "round {round}: {answered} answered, {counted} counted"
        );
        // Those that were counted without an answer count from now on, too.
        wrong.insert(guessed, counted);
        let mut gateway = Gateway::connect(&ground.run()).unwrap();
        let verdict = gateway.verify(&members[owner].user, code.code()).unwrap();
        if is_granted(&verdict) {
            *took += 1;
            again += 1;
            wrong.insert(owner, 0);
        } else {
            *wrong.entry(owner).or_default() = failures(&ground, &members[owner].user);
        }
        assert!(*took <= 1, "round {round}: a code was taken {took} times");
        for at in [guessed, owner] {
            if wrong[&at] >= 6 {
                let name = members[at].user.name.clone();
                admin(&ground).ask(&admin_authd::Request::Unlock { name });
                wrong.insert(at, 0);
            }
        }
    }
    println!(
        "{KILLS} ends, {unanswered} within an attempt, {again} codes taken after the end instead, in {:?}",
        began.elapsed()
    );
    assert!(
        unanswered > KILLS / 10,
        "only {unanswered} came within an attempt"
    );
}

/// A code by which it can be counted how often it was taken.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Counted {
    Totp(String),
    Recovery(String),
}

impl Counted {
    fn code(&self) -> Code {
        let (Self::Totp(text) | Self::Recovery(text)) = self;
        Code::parse(text).unwrap()
    }
}

/// A user's codes, one after the other: that of this step at first, then those for recovery.
fn code_of(member: &Member, round: usize) -> Counted {
    match round / 40 {
        0 => Counted::Totp(member.authenticator.code(authenticator::settled_step())),
        nth => Counted::Recovery(member.recovery[nth].spell().to_string()),
    }
}
