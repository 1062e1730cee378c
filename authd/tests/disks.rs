//! What the daemon does when its database or its disk is not as it should be: nobody is let in, and one
//! line says why.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod ground;

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::{FileExt, PermissionsExt, chown, symlink},
    path::Path,
    thread,
    time::{Duration, UNIX_EPOCH},
};

use ground::{
    Enrolled, Ground, authenticator,
    peers::{Admin, Gateway, user},
    programs::is_root,
};
use kai_authd::{
    attempt::{Counts, Lockout},
    clock::Now,
    store::{NewEnrolment, Secret, Store},
};
use kai_proto::{
    code::{Code, TotpCode},
    gateway_authd::{Standing, User, Verdict},
    sockets,
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use zeroize::Zeroizing;

/// Runs `act` in a thread with a file system tree of its own: what is mounted in it goes with it and
/// the daemons that it starts, however the test ends.
fn with_own_mounts(act: impl FnOnce() + Send) {
    let acted = thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
            act();
        });
        thread.join()
    });
    if let Err(panic) = acted {
        std::panic::resume_unwind(panic);
    }
}

/// A small disk of its own at `path`, which is made outside of the mounts: it cannot be removed while it is one.
fn small_disk(path: &Path) {
    fs::create_dir_all(path).unwrap();
    let options = Some("size=16m,mode=711");
    mount(Some("none"), path, Some("tmpfs"), MsFlags::empty(), options).unwrap();
}

/// Fills the disk of `directory` to its last byte, in `file`.
fn fill(file: &Path) {
    let mut file = File::create(file).unwrap();
    for size in [1 << 20, 4096, 1] {
        let bytes = vec![b'x'; size];
        while file.write_all(&bytes).is_ok() {}
    }
}

/// The same, but for so many bytes.
fn fill_but(left: u64, file: &Path) {
    fill(file);
    let full = File::options().write(true).open(file).unwrap();
    let length = full.metadata().unwrap().len();
    full.set_len(length - left).unwrap();
}

/// The daemon must end at its start, for good, with one line that holds `words`.
fn refused_at_start(ground: &mut Ground, what: &str, words: &[&str]) {
    let before = ground.log();
    let status = ground.try_start(&[]).expect_err(what);
    let log = ground.log();
    let said = log.strip_prefix(&before).unwrap();
    let errors: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("\"level\":\"error\"") || !line.starts_with('{'))
        .collect();
    assert_eq!(status.code(), Some(78), "{what}: {said}");
    assert_eq!(errors.len(), 1, "{what}: {said}");
    for word in words {
        assert!(errors[0].contains(word), "{what}: {said}");
    }
    assert!(
        Admin::connect(&sockets::admin_authd(&ground.run())).is_err(),
        "{what}"
    );
    assert!(Gateway::connect(&ground.run()).is_err(), "{what}");
}

/// Ground with alice enrolled and the daemon stopped.
fn with_alice() -> (Ground, Enrolled) {
    let mut ground = Ground::started("");
    let enrolled = ground.enroll("alice", 1001);
    assert!(ground.stop().success());
    (ground, enrolled)
}

#[test]
fn a_missing_database_is_refused_and_never_made() {
    if !is_root() {
        return;
    }
    let mut ground = Ground::bare("");
    refused_at_start(
        &mut ground,
        "nothing at all",
        &["authd.sqlite", "kai-auth init"],
    );
    assert!(!ground.database().exists());

    let (mut ground, _) = with_alice();
    fs::remove_file(ground.database()).unwrap();
    refused_at_start(
        &mut ground,
        "a lost one",
        &["authd.sqlite", "kai-auth init"],
    );
    assert!(!ground.database().exists());
}

#[test]
fn a_database_that_others_could_touch_is_refused_with_the_mend() {
    if !is_root() {
        return;
    }
    let (mut ground, _) = with_alice();
    let database = ground.database();
    let mode =
        |path: &Path, mode| fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();

    for bad in [0o640, 0o604, 0o666] {
        mode(&database, bad);
        refused_at_start(
            &mut ground,
            "the file's mode",
            &["authd.sqlite", "chmod 0600"],
        );
    }
    mode(&database, 0o600);
    for bad in [0o755, 0o710] {
        mode(&ground.state(), bad);
        refused_at_start(&mut ground, "the directory's mode", &["chmod 0700"]);
    }
    mode(&ground.state(), 0o700);
    chown(&database, Some(65534), None).unwrap();
    refused_at_start(&mut ground, "the file's owner", &["authd.sqlite", "chown"]);
    chown(&database, Some(0), None).unwrap();
    chown(ground.state(), Some(65534), None).unwrap();
    refused_at_start(&mut ground, "the directory's owner", &["chown"]);
    chown(ground.state(), Some(0), None).unwrap();
    let elsewhere = ground.path("elsewhere.sqlite");
    fs::rename(&database, &elsewhere).unwrap();
    symlink(&elsewhere, &database).unwrap();
    refused_at_start(&mut ground, "a link", &["authd.sqlite"]);
    fs::remove_file(&database).unwrap();
    fs::rename(&elsewhere, &database).unwrap();
    fs::hard_link(&database, &elsewhere).unwrap();
    refused_at_start(&mut ground, "a second name", &["authd.sqlite", "link"]);
    fs::remove_file(&elsewhere).unwrap();

    ground.start();
    assert_eq!(ground.status_of("alice")["telegram_id"], 1001);
}

#[test]
fn a_corrupt_database_is_refused() {
    if !is_root() {
        return;
    }
    let (mut ground, _) = with_alice();
    let database = ground.database();
    let good = fs::read(&database).unwrap();
    let write = |bytes: &[u8]| File::create(&database).unwrap().write_all(bytes).unwrap();

    let mut cases: Vec<(String, Vec<u8>)> = vec![
        ("empty".into(), Vec::new()),
        ("text".into(), b"not a database at all\n".repeat(1000)),
        ("cut in the middle".into(), good[..good.len() / 2].to_vec()),
        ("cut in a page".into(), good[..3 * 4096 + 1].to_vec()),
        ("zeroes".into(), vec![0; good.len()]),
    ];
    // A free page holds nothing that could be missed.
    let is_free = |page: &usize| good[page * 4096..(page + 1) * 4096].iter().all(|b| *b == 0);
    for page in (0..good.len() / 4096).filter(|page| !is_free(page)) {
        let mut bad = good.clone();
        // Behind the file's header, and the header of each page.
        let from = page * 4096 + if page == 0 { 100 } else { 0 };
        bad[from..from + 16].fill(0xa5);
        cases.push((format!("page {page}"), bad));
    }
    for (what, bad) in &cases {
        write(bad);
        let _ = fs::remove_file(database.with_extension("sqlite-wal"));
        refused_at_start(&mut ground, what, &["authd.sqlite"]);
        assert_eq!(&fs::read(&database).unwrap(), bad, "{what}: was touched");
    }

    write(&good);
    ground.start();
    assert_eq!(ground.status_of("alice")["telegram_id"], 1001);
}

#[test]
fn a_second_daemon_does_not_get_the_database() {
    if !is_root() {
        return;
    }
    let (mut ground, _) = with_alice();
    let mut second = Ground::bare("");
    fs::remove_dir_all(second.path("state")).unwrap_or_default();
    symlink(ground.path("state"), second.path("state")).unwrap();
    ground.start();

    let refused = second.try_start(&[]).unwrap_err();

    assert!(!refused.success());
    assert!(second.log().contains("authd.sqlite"), "{}", second.log());
    assert_eq!(ground.status_of("alice")["telegram_id"], 1001);
}

#[test]
fn a_read_only_disk_is_refused() {
    if !is_root() {
        return;
    }
    with_own_mounts(|| {
        let mut ground = Ground::bare("");
        small_disk(&ground.path("state"));
        ground.done(&["init"]);
        ground.start();
        ground.enroll("alice", 1001);
        ground.stop();
        let remount = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(
            None::<&str>,
            &ground.path("state"),
            None::<&str>,
            remount,
            None::<&str>,
        )
        .unwrap();

        refused_at_start(&mut ground, "a read-only disk", &["authd.sqlite"]);
        let (status, said) = ground.not_done(&["init", "--restore", "/nowhere"]);
        assert_eq!(status, 1, "{said}");
    });
}

/// What becomes of a code, as soon as authd looks at it.
fn judged(gateway: &mut Gateway, user: &User, code: &TotpCode) -> Verdict {
    loop {
        match gateway.totp(user, code.clone()).unwrap() {
            Verdict::Later { after_ms } => thread::sleep(Duration::from_millis(after_ms.into())),
            verdict => return verdict,
        }
    }
}

#[test]
fn a_disk_that_is_full_to_the_last_byte_lets_nobody_in_and_is_got_over_without_a_restart() {
    if !is_root() {
        return;
    }
    with_own_mounts(|| {
        let mut ground = Ground::bare("");
        small_disk(&ground.path("state"));
        ground.done(&["init"]);
        // So full already that no room can be kept for the journal.
        fs::remove_file(ground.path("state/authd/authd.sqlite-wal")).unwrap();
        let filler = ground.path("state/filler");
        fill_but(300 << 10, &filler);
        ground.start();
        let enrolled = ground.enroll("alice", 1001);
        let alice = user("alice", 1001);
        let mut gateway = Gateway::connect(&ground.run()).unwrap();
        fill(&ground.path("state/more"));

        let code = || enrolled.authenticator.totp(authenticator::step());
        let refused = gateway.totp(&alice, code()).unwrap();

        assert_eq!(refused, Verdict::Unavailable);
        assert!(matches!(
            gateway.standing(&alice, None),
            Standing::CodeNeeded | Standing::Unavailable
        ));
        assert_ne!(gateway.standing(&alice, None), Standing::NotEnrolled);
        let (status, said) = ground.not_done(&["remove", "alice"]);
        assert!(
            status == 1 && said.contains("cannot write its state"),
            "{said}"
        );
        assert!(ground.log().contains("full"), "{}", ground.log());
        assert!(ground.log().contains("no room is kept"), "{}", ground.log());
        // The log says what it had said too early.
        assert_eq!(ground.audited("state.not_written"), 2);
        fs::remove_file(filler).unwrap();
        let verdict = gateway.totp(&alice, code()).unwrap();
        assert!(
            matches!(verdict, Verdict::Granted { .. }),
            "{verdict:?}: {}",
            ground.log()
        );
    });
}

#[test]
fn a_disk_filled_by_users_stops_no_decision_while_the_reserves_last() {
    if !is_root() {
        return;
    }
    with_own_mounts(|| {
        let mut ground = Ground::bare("");
        for place in ["log", "state"] {
            small_disk(&ground.path(place));
        }
        ground.done(&["init"]);
        ground.start();
        let enrolled = ground.enroll("alice", 1001);
        let alice = user("alice", 1001);
        for place in ["log/filler", "state/filler"] {
            fill(&ground.path(place));
        }
        for right in 0..2 {
            let mut gateway = Gateway::connect(&ground.run()).unwrap();
            for _ in 0..8 {
                let wrong = enrolled.authenticator.wrong();
                assert_eq!(judged(&mut gateway, &alice, &wrong), Verdict::Refused);
                ground.done(&["unlock", "alice"]);
            }
            let code = enrolled.authenticator.totp(authenticator::step() + right);
            let verdict = judged(&mut gateway, &alice, &code);
            assert!(matches!(verdict, Verdict::Granted { .. }), "{verdict:?}");
            // And it stops and starts on the full disk.
            ground.stop();
            ground.start();
        }

        assert_eq!(ground.audited("code.refused"), 16);
        assert_eq!(ground.audited("code.accepted"), 2);
    });
}

#[test]
fn a_database_that_is_opened_on_a_nearly_full_disk_works_as_soon_as_there_is_room() {
    if !is_root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    with_own_mounts(|| {
        small_disk(place.path());
        let directory = place.path().join("authd");
        let filler = place.path().join("filler");
        // From nothing to all that is wanted: it is out of room at each of the steps that make some.
        for left in (0..50).map(|pages| pages * 4096) {
            Store::create(&directory).unwrap().close();
            let file = directory.join("authd.sqlite");
            let compact = rusqlite::Connection::open(&file).unwrap();
            compact.execute_batch("VACUUM").unwrap();
            compact.close().unwrap();
            fill_but(left, &filler);
            let opened = Store::open(&directory);
            fs::remove_file(&filler).unwrap();

            let mut store = opened.unwrap_or_else(|_| Store::open(&directory).unwrap());
            let change = store.change().unwrap();
            change.commit().unwrap();
            store.settle().unwrap();

            store.close();
            fs::remove_dir_all(&directory).unwrap();
        }
    });
}

#[test]
fn rows_that_grow_need_no_room_on_a_full_disk() {
    if !is_root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    with_own_mounts(|| {
        small_disk(place.path());
        let directory = place.path().join("authd");
        for users in [3, 20, 60, 200] {
            let mut store = Store::create(&directory).unwrap();
            let change = store.change().unwrap();
            for n in 1..=users {
                let enrolment = NewEnrolment {
                    user: &user(&format!("user{n}"), n),
                    secret: &Secret::new(Zeroizing::new([7; 20])),
                    since: 1,
                    last_step: 0,
                    recovery: &[],
                };
                change.enrol(&enrolment).unwrap();
            }
            change.commit().unwrap();
            store.settle().unwrap();
            fill(&place.path().join("filler"));

            for round in 0..5 {
                for n in 1..=users {
                    let id = user("x", n).id;
                    let change = store.change().unwrap();
                    let now = Now {
                        wall: UNIX_EPOCH + Duration::from_secs(1_800_000_000),
                        boot: Duration::from_secs(1 << 30),
                    };
                    change.charge(id, 60_000_000).unwrap();
                    let lockout = Lockout::of(Duration::from_secs(90_000), now);
                    let counts = Counts {
                        failures: 0,
                        lockouts: 100_000,
                    };
                    let written = change
                        .refuse(id, counts, Some(lockout))
                        .and_then(|()| change.commit());
                    assert!(written.is_ok(), "{users} users, round {round}: {written:?}");
                }
            }
            drop(store);
            fs::remove_file(place.path().join("filler")).unwrap();
            fs::remove_dir_all(&directory).unwrap();
        }
    });
}

#[test]
fn without_its_audit_log_nothing_is_decided() {
    if !is_root() {
        return;
    }
    // A log that cannot be opened: the daemon does not run.
    let mut ground = Ground::new("");
    fs::remove_dir_all(ground.path("log/authd")).unwrap();
    fs::write(
        ground.path("log/authd"),
        "a file where a directory should be",
    )
    .unwrap();

    let refused = ground.try_start(&[]).unwrap_err();

    assert!(!refused.success());
    assert!(ground.log().contains("log/authd"), "{}", ground.log());
}

#[test]
fn a_database_that_goes_bad_under_the_daemon_is_unavailable_and_never_not_enrolled() {
    if !is_root() {
        return;
    }
    let mut ground = Ground::started("");
    let enrolled = ground.enroll("alice", 1001);
    ground.stop();
    ground.start();
    let alice = user("alice", 1001);
    let mut gateway = Gateway::connect(&ground.run()).unwrap();

    // Everything behind the first page, while the daemon has it open.
    let file = File::options().write(true).open(ground.database()).unwrap();
    let length = file.metadata().unwrap().len();
    file.write_all_at(&vec![0xa5; usize::try_from(length).unwrap() - 4096], 4096)
        .unwrap();
    let code = Code::Totp(enrolled.authenticator.totp(authenticator::step()));
    let verdict = gateway.verify(&alice, code).unwrap();
    let standing = gateway.standing(&alice, None);

    // What is in the daemon's own cache may still be right; nothing else may pass.
    assert!(
        matches!(verdict, Verdict::Unavailable | Verdict::Granted { .. }),
        "{verdict:?}"
    );
    assert!(
        !matches!(standing, Standing::NotEnrolled | Standing::Changed),
        "{standing:?}"
    );
}
