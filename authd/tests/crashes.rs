//! The end of the daemon at any moment: no attempt is uncounted, no code is taken twice, and the
//! database opens.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod ground;

use std::{collections::HashMap, io, path::Path, thread, time::Instant};

use ground::{
    Ground, authenticator,
    members::{Member, Members, admin, failures, is_granted, member},
    peers::Gateway,
    programs::{has, is_root},
    strace,
};
use kai_proto::{
    admin_authd,
    code::{Code, TotpCode},
    gateway_authd::Verdict,
};
use nix::sys::signal::{Signal, kill};

/// Wrong codes lock late, so that failures can be counted.
const PATIENT: &str = "second_factor: {failures: 10}";

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
    let recovery = members.recovery();
    let verdict = gateway.verify(&members.recovered.user, recovery)?;
    assert!(is_granted(&verdict), "{verdict:?}");
    answered.recovered = true;
    Ok(())
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
    let recovery = || members.recovery();
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
    let members = Members::enrolled(&ground);
    // With a journal that the next start must take in.
    ground.signal(Signal::SIGKILL);
    ground.wait();
    ground.keep();

    let writing = strace::writing_calls(&mut ground, |ground| {
        let code = members
            .right
            .authenticator
            .totp(authenticator::settled_step());
        attempts(&ground.run(), &members, &code, &mut Answered::default()).unwrap();
    });
    let count = |name: &str| writing.iter().filter(|(call, _)| *call == name).count();
    assert!(count("pwrite64") > 3, "{writing:?}");

    let began = Instant::now();
    let (mut cases, mut in_the_middle) = (0, 0);
    for (call, nth) in writing {
        ground.bring_back();
        let step = authenticator::settled_step();
        let code = members.right.authenticator.totp(step);
        let mut answered = Answered::default();
        if strace::start_with(&mut ground, (call, nth), "signal=KILL").is_ok() {
            let ended = attempts(&ground.run(), &members, &code, &mut answered).is_err();
            in_the_middle += usize::from(ended);
            // If it lives on, the call is one of an ordinary end.
            if let Some(daemon) = ground.living() {
                let _ = kill(daemon, Signal::SIGTERM);
            }
            ground.wait();
        }
        let at = format!("{call} {nth}");
        nothing_is_lost(&mut ground, &members, &code, &answered, &at);
        cases += 1;
    }
    println!(
        "{cases} ends, {in_the_middle} of them within an attempt, in {:?}",
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
    // How long what is to be hit takes here, and as long again: the first after a start takes longer.
    let usual = Instant::now();
    let mut gateway = Gateway::connect(&ground.run()).unwrap();
    for member in &members[..3] {
        let verdict = gateway.totp(&member.user, member.authenticator.wrong());
        assert_eq!(verdict.unwrap(), Verdict::Refused);
    }
    let longest = usual.elapsed() * 2;
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
        unanswered > KILLS / 20,
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
