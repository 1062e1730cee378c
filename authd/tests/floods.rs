//! Peers that ask too much, and accounts that are no peers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod ground;

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    thread,
    time::{Duration, Instant},
};

use ground::{
    Ground,
    accounts::{GATEWAY, OTHER, as_account},
    authenticator,
    peers::{Gateway, user},
    programs::is_root,
};
use kai_proto::{
    code::Code,
    codec,
    connection::Client,
    gateway_authd::{Reply, Request, Standing, Verdict},
    hello::Hello,
    sockets,
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// How many codes are guessed.
const GUESSES: usize = 10_000;

/// How much a daemon's memory may differ between two looks, in KiB: its buffers for peers.
const GROWTH: u64 = 1024;

fn resident_kib(ground: &Ground) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/status", ground.pid())).unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn of_ten_thousand_guesses_at_most_the_allowed_number_is_checked() {
    if !is_root() {
        return;
    }
    let ground = Ground::started("");
    let names = ["alice", "bob", "carol", "dave"];
    let users: Vec<_> = names
        .iter()
        .zip(1001..)
        .map(|(name, id)| user(name, id))
        .collect();
    let authenticators: Vec<_> = names
        .iter()
        .zip(1001..)
        .map(|(name, id)| ground.enroll(name, id).authenticator)
        .collect();
    let mut gateway = Gateway::connect(&ground.run()).unwrap();
    let wrong: Vec<_> = authenticators.iter().map(|a| a.wrong()).collect();
    let one_round = |gateway: &mut Gateway, from: usize, to: usize| -> Vec<Verdict> {
        // Many before the first answer is read, as fast as the socket takes them.
        (from..to)
            .collect::<Vec<_>>()
            .chunks(64)
            .flat_map(|chunk| {
                for at in chunk {
                    let (user, code) = (&users[at % 4], &wrong[at % 4]);
                    let code = Code::Totp(code.clone());
                    let request = Request::Verify {
                        user: user.clone(),
                        code,
                    };
                    gateway.0.send(&request).unwrap();
                }
                let answers: Vec<_> = chunk
                    .iter()
                    .map(|_| match gateway.0.receive::<Reply>().unwrap() {
                        Reply::Verdict(verdict) => verdict,
                        other => panic!("{other:?}"),
                    })
                    .collect();
                answers
            })
            .collect()
    };

    let began = Instant::now();
    let mut verdicts = one_round(&mut gateway, 0, 1000);
    let before = resident_kib(&ground);
    verdicts.extend(one_round(&mut gateway, 1000, GUESSES));
    let took = began.elapsed();
    let after = resident_kib(&ground);

    let looked_at = ground.audited("code.refused");
    println!("{GUESSES} guesses in {took:?}: {looked_at} looked at; {before} then {after} KiB");
    // Three of each lock for a quarter of an hour.
    assert!(looked_at <= 3 * users.len(), "{looked_at} were looked at");
    assert_eq!(ground.audited("code.locked"), users.len());
    let refused = verdicts
        .iter()
        .filter(|v| matches!(v, Verdict::Refused))
        .count();
    assert!(refused <= looked_at);
    assert!(verdicts.iter().all(|v| {
        matches!(
            v,
            Verdict::Refused | Verdict::Locked { .. } | Verdict::Later { .. }
        )
    }));
    assert!(after <= before + GROWTH, "{before} KiB, then {after} KiB");
    assert!(
        ground.audit().len() < 100,
        "guesses that are not looked at fill no log"
    );
}

#[test]
fn a_flood_of_one_users_codes_locks_out_no_other() {
    if !is_root() {
        return;
    }
    let ground = Ground::started("");
    let alice = ground.enroll("alice", 1001);
    let others: Vec<_> = (0..6)
        .map(|n| ground.enroll(&format!("user{n}"), 2000 + n))
        .collect();
    let run = ground.run();
    let mut flood = Gateway::connect(&run).unwrap();
    for (n, other) in others.iter().enumerate() {
        for _ in 0..4 {
            let user = user(&format!("user{n}"), 2000 + i64::try_from(n).unwrap());
            flood.totp(&user, other.authenticator.wrong()).unwrap();
        }
    }

    let mut gateway = Gateway::connect(&run).unwrap();
    let code = alice.authenticator.totp(authenticator::step());
    let verdict = gateway.totp(&user("alice", 1001), code).unwrap();

    assert!(matches!(verdict, Verdict::Granted { .. }), "{verdict:?}");
}

#[test]
fn a_thousand_idle_connections_keep_a_good_one_out_for_no_longer_than_hello_is_due() {
    if !is_root() {
        return;
    }
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let ground = Ground::started("");
    let run = ground.run();
    let before = resident_kib(&ground);
    let path = sockets::gateway_authd(&run);

    let began = Instant::now();
    let idle: Vec<UnixStream> = as_account(GATEWAY, || {
        (0..1000)
            .map_while(|_| UnixStream::connect(&path).ok())
            .collect()
    });

    assert_eq!(idle.len(), 1000);
    let due = Instant::now() + Duration::from_secs(4);
    let mut tries = 0;
    while Gateway::connect(&run).is_err() {
        tries += 1;
        assert!(
            Instant::now() < due,
            "kept out by {} idle connections",
            idle.len()
        );
        thread::sleep(Duration::from_millis(50));
    }
    let during = resident_kib(&ground);
    println!(
        "in after {:?} and {tries} tries; {before} then {during} KiB",
        began.elapsed()
    );
    assert!(during <= before + GROWTH, "{before} KiB, then {during} KiB");
}

#[test]
fn a_peer_that_reads_no_answers_costs_no_memory_and_nobody_elses_time() {
    if !is_root() {
        return;
    }
    let ground = Ground::started("");
    let path = sockets::gateway_authd(&ground.run());
    let mut stuck = as_account(GATEWAY, || UnixStream::connect(&path)).unwrap();
    let mut bytes = Vec::new();
    codec::encode_frame(&Request::Hello(Hello::ours()), &mut bytes).unwrap();
    let user = user("alice", 1001);
    let request = Request::Standing {
        user: user.clone(),
        grant: None,
        renew: true,
    };
    for _ in 0..100_000 {
        codec::encode_frame(&request, &mut bytes).unwrap();
    }
    let before = resident_kib(&ground);

    stuck
        .set_write_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let said = stuck.write_all(&bytes);

    assert!(said.is_err(), "{} bytes were all taken", bytes.len());
    let began = Instant::now();
    let mut gateway = Gateway::connect(&ground.run()).unwrap();
    assert_eq!(gateway.standing(&user, None), Standing::NotEnrolled);
    let (took, after) = (began.elapsed(), resident_kib(&ground));
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(after <= before + GROWTH, "{before} KiB, then {after} KiB");
}

#[test]
fn a_client_that_says_nothing_of_sense_is_cut_off_and_nobody_else() {
    if !is_root() {
        return;
    }
    let ground = Ground::started("");
    let path = sockets::gateway_authd(&ground.run());
    let mut good = Gateway::connect(&ground.run()).unwrap();
    for bytes in [
        vec![0xff; 64],
        vec![3, 0, 0, 0, 0xff, 0xff, 0xff],
        vec![0; 8],
    ] {
        let mut stream = as_account(GATEWAY, || UnixStream::connect(&path)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        stream.write_all(&bytes).unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.is_empty(), "garbage was answered");
    }
    assert_eq!(
        good.standing(&user("alice", 1001), None),
        Standing::NotEnrolled
    );
}

#[test]
fn another_account_cannot_connect_and_learns_nothing() {
    if !is_root() {
        return;
    }
    let ground = Ground::started("");
    ground.enroll("alice", 1001);
    let run = ground.run();
    let sockets = [
        sockets::gateway_authd(&run),
        sockets::broker_authd(&run),
        sockets::admin_authd(&run),
    ];
    let patience = Duration::from_secs(1);
    let denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;

    for path in &sockets {
        let refused = as_account(OTHER, || Client::connect(path, patience)).unwrap_err();
        assert!(denied(&refused), "{path:?}: {refused}");
        // Not even whether it is there.
        let unseen = as_account(OTHER, || fs::symlink_metadata(path)).unwrap_err();
        assert!(denied(&unseen), "{path:?}: {unseen}");
    }
    // The gateway's account has its own socket and no other.
    for path in &sockets[1..] {
        let refused = as_account(GATEWAY, || Client::connect(path, patience)).unwrap_err();
        assert!(denied(&refused), "{path:?}: {refused}");
    }
    for account in [OTHER, GATEWAY] {
        for path in [ground.database(), ground.path("log/authd/audit.jsonl")] {
            let unread = as_account(account, || fs::read(&path)).unwrap_err();
            assert!(denied(&unread), "{path:?}: {unread}");
        }
        let pid = ground.pid();
        for file in ["environ", "mem", "fd", "maps"] {
            let path = format!("/proc/{pid}/{file}");
            let unread = as_account(account, || {
                fs::read(&path).and(fs::read_dir(&path).map(drop))
            });
            assert!(unread.is_err(), "{path}");
        }
    }
}
