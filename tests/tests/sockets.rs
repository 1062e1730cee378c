//! Who may connect to kai's sockets, and what a hostile gateway gets out of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    env, fs,
    io::{IoSlice, Read, Write},
    os::{
        fd::AsRawFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use kai_playground::ground::{Daemon, accounts::Account, programs};
use kai_proto::{
    connection::{Client, ConnectionError},
    conversation::FromWorker,
    gateway_broker::{Refusal, Reply, Request},
    hello::Hello,
    ids::TelegramId,
    sockets,
};
use kai_tests::{ALICE, BOB, Kai, is_root};
use nix::{
    errno::Errno,
    sys::socket::{ControlMessage, MsgFlags, sendmsg},
};

/// Set in the process that a test starts under another account: the directory of the sockets.
const RUN: &str = "KAI_TEST_RUN_DIRECTORY";

/// Runs one test of this file again in a process of `account`'s, with [`RUN`] set.
fn as_account(kai: &Kai, account: &Account, test: &str) {
    let program = kai.ground.programs().join(format!("test-{test}"));
    programs::install(&env::current_exe().unwrap(), &program).unwrap();
    let output = Command::new(program)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env_clear()
        .env(RUN, kai.ground.run())
        .uid(account.uid)
        .gid(account.gid)
        .current_dir("/")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "as {}: {said}", account.name);
    let ran = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(ran.contains("1 passed"), "{ran}");
}

/// The directory of the sockets, in the process that [`as_account`] started.
fn run_directory() -> Option<PathBuf> {
    env::var_os(RUN).map(PathBuf::from)
}

#[test]
fn every_account_is_turned_away_from_the_sockets_of_others() {
    if let Some(run) = run_directory() {
        for socket in all_sockets(&run) {
            let refused = UnixStream::connect(&socket).unwrap_err();
            assert_eq!(
                refused.kind(),
                std::io::ErrorKind::PermissionDenied,
                "{socket:?}"
            );
        }
        return;
    }
    if !is_root() {
        return;
    }
    let kai = Kai::start(|_| {});
    let alice = kai.ground.account("alice").unwrap().clone();

    as_account(
        &kai,
        &alice,
        "every_account_is_turned_away_from_the_sockets_of_others",
    );
}

#[test]
fn the_gateways_account_reaches_its_two_sockets_and_no_other() {
    if let Some(run) = run_directory() {
        let own = [sockets::gateway_broker(&run), sockets::gateway_authd(&run)];
        for socket in all_sockets(&run) {
            assert_eq!(
                UnixStream::connect(&socket).is_ok(),
                own.contains(&socket),
                "{socket:?}"
            );
        }
        return;
    }
    if !is_root() {
        return;
    }
    let kai = Kai::start(|_| {});

    let gateway = kai.ground.gateway_account().clone();
    as_account(
        &kai,
        &gateway,
        "the_gateways_account_reaches_its_two_sockets_and_no_other",
    );
}

fn all_sockets(run: &Path) -> [PathBuf; 5] {
    [
        sockets::gateway_broker(run),
        sockets::gateway_authd(run),
        sockets::broker_authd(run),
        sockets::admin_broker(run),
        sockets::admin_authd(run),
    ]
}

fn connect(run: &Path) -> Client {
    Client::connect(&sockets::gateway_broker(run), Duration::from_secs(10)).unwrap()
}

fn greeted(run: &Path) -> Client {
    let mut client = connect(run);
    client.send(&Request::Hello(Hello::ours())).unwrap();
    assert_eq!(
        client.receive::<Reply>().unwrap(),
        Reply::Hello(Hello::ours())
    );
    client
}

fn attach(run: &Path, user: i64) -> Client {
    let mut client = greeted(run);
    let user = TelegramId::try_from(user).unwrap();
    client.send(&Request::Attach { user, grant: None }).unwrap();
    client
}

/// The kernel's version, as far as a test asks for it.
fn kernel() -> (u32, u32) {
    let name = nix::sys::utsname::uname().unwrap();
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    (
        numbers.next().unwrap().unwrap(),
        numbers.next().unwrap().unwrap(),
    )
}

fn ended(result: Result<FromWorker, ConnectionError>) -> bool {
    matches!(
        result,
        Err(ConnectionError::Closed | ConnectionError::Io(_))
    )
}

#[test]
fn a_hostile_gateway_gets_nothing_but_its_own_users_workers() {
    let Some(run) = run_directory() else {
        if !is_root() {
            return;
        }
        let kai = Kai::start(|_| {});
        kai.ground.set_restarts(false).unwrap();
        kai.ground.stop_one(Daemon::Gateway).unwrap();
        let gateway = kai.ground.gateway_account().clone();
        as_account(
            &kai,
            &gateway,
            "a_hostile_gateway_gets_nothing_but_its_own_users_workers",
        );
        assert!(
            kai.ground.pid(Daemon::Broker).is_some(),
            "the broker did not survive"
        );
        return;
    };

    // A request before Hello, a second Hello, and a request of another state.
    for requests in [
        vec![Request::Subscribe],
        vec![Request::Hello(Hello::ours()), Request::Hello(Hello::ours())],
        vec![
            Request::Hello(Hello::ours()),
            Request::Stranger {
                id: TelegramId::try_from(1).unwrap(),
                at: 0,
            },
        ],
    ] {
        let mut client = connect(&run);
        for request in &requests {
            client.send(request).unwrap();
        }
        let mut last = client.receive::<Reply>().unwrap();
        if requests.len() > 1 {
            last = client.receive::<Reply>().unwrap();
        }
        assert_eq!(last, Reply::Refused(Refusal::NotPermitted), "{requests:?}");
        assert!(client.receive::<Reply>().is_err());
    }

    // Another version.
    let mut client = connect(&run);
    client.send(&Request::Hello(Hello { protocol: 0 })).unwrap();
    assert_eq!(
        client.receive::<Reply>().unwrap(),
        Reply::Refused(Refusal::Version)
    );

    // Somebody who is not a user.
    let mut client = attach(&run, 6666);
    let refused: FromWorker = client.receive().unwrap();
    assert_eq!(refused, FromWorker::Refused(Refusal::UnknownUser));

    // A frame of four gigabytes, and one of garbage.
    for bytes in [vec![0xff; 64], vec![3, 0, 0, 0, 0xff, 0xff, 0xff]] {
        let mut stream = UnixStream::connect(sockets::gateway_broker(&run)).unwrap();
        stream.write_all(&bytes).unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.is_empty(), "garbage was answered");
    }

    // Half a Hello is due within two seconds.
    let began = Instant::now();
    let mut stream = UnixStream::connect(sockets::gateway_broker(&run)).unwrap();
    stream.write_all(&[5, 0]).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );

    // A descriptor sent along with the bytes: from Linux 6.16 on the kernel refuses it.
    let stream = UnixStream::connect(sockets::gateway_broker(&run)).unwrap();
    let passed = [stream.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&passed)];
    let bytes = [IoSlice::new(&[0])];
    let flags = MsgFlags::empty();
    let sent = sendmsg::<()>(stream.as_raw_fd(), &bytes, &rights, flags, None);
    if kernel() >= (6, 16) {
        assert_eq!(sent, Err(Errno::EPERM));
    }

    // A flood on one connection does not keep the broker from others.
    let mut roll = greeted(&run);
    roll.send(&Request::Subscribe).unwrap();
    let flood = std::thread::spawn(move || {
        let id = TelegramId::try_from(7).unwrap();
        let end = Instant::now() + Duration::from_secs(3);
        while Instant::now() < end && roll.send(&Request::Stranger { id, at: 0 }).is_ok() {}
    });
    std::thread::sleep(Duration::from_millis(200));
    let began = Instant::now();
    drop(greeted(&run));
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    flood.join().unwrap();

    // A second attach ends the first, and the worker answers the second.
    let mut first = attach(&run, ALICE.0);
    assert_eq!(
        first.receive::<FromWorker>().unwrap(),
        FromWorker::Hello(Hello::ours())
    );
    let mut second = attach(&run, ALICE.0);
    assert_eq!(
        second.receive::<FromWorker>().unwrap(),
        FromWorker::Hello(Hello::ours())
    );
    assert!(ended(first.receive()));

    // A thousand connections that say nothing do not keep a good one out for longer than the deadline.
    let idle: Vec<_> = (0..1000)
        .filter_map(|_| UnixStream::connect(sockets::gateway_broker(&run)).ok())
        .collect();
    let due = Instant::now() + Duration::from_secs(6);
    loop {
        let mut good = connect(&run);
        let greeted = good
            .send(&Request::Hello(Hello::ours()))
            .and_then(|()| good.receive::<Reply>())
            .is_ok_and(|reply| reply == Reply::Hello(Hello::ours()));
        if greeted {
            break;
        }
        assert!(
            Instant::now() < due,
            "kept out by {} idle connections",
            idle.len()
        );
        std::thread::sleep(Duration::from_millis(100));
    }

    // Attaches as fast as they can be written: every one is answered or ended, the broker lives.
    for _ in 0..200 {
        drop(attach(&run, BOB.0));
    }
    let mut last = attach(&run, BOB.0);
    assert_eq!(
        last.receive::<FromWorker>().unwrap(),
        FromWorker::Hello(Hello::ours())
    );
}

#[test]
fn a_socket_directory_of_another_account_is_refused() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path().join("run");
    fs::create_dir_all(run.join("admin")).unwrap();
    std::os::unix::fs::chown(run.join("admin"), Some(65534), None).unwrap();

    let refused = sockets::listen(&sockets::admin_broker(&run), None)
        .unwrap_err()
        .to_string();

    assert!(refused.contains("belongs to another account"), "{refused}");
}
