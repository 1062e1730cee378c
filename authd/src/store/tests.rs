//! The database, from its making to its loss.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    time::{Duration, UNIX_EPOCH},
};

use zeroize::Zeroizing;

use super::*;
use crate::{
    attempt::{Counts, Lockout},
    codes::RecoveryHash,
};

pub(super) fn user(name: &str, id: i64) -> User {
    User {
        name: name.to_owned().try_into().unwrap(),
        id: id.try_into().unwrap(),
    }
}

pub(super) fn enrol(store: &mut Store, user: &User) {
    let change = store.change().unwrap();
    change
        .enrol(&NewEnrolment {
            user,
            secret: &Secret::new(Zeroizing::new([7; 20])),
            since: 1000,
            last_step: 33,
            recovery: &[RecoveryHash {
                salt: [1; 16],
                hash: [2; 32],
            }],
        })
        .unwrap();
    change.commit().unwrap();
}

pub(super) fn now(wall: u64, boot: u64) -> Now {
    Now {
        wall: UNIX_EPOCH + Duration::from_secs(wall),
        boot: Duration::from_secs(boot),
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// A directory with a closed database in it, and its file.
fn made() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("state/authd");
    close_whole(Store::create(&directory).unwrap());
    let file = directory.join(place::FILE);
    (place, directory, file)
}

/// Closes a database, and takes its journal away, which has nothing then that the file has not.
pub(super) fn close_whole(store: Store) {
    let journal = store.path.with_extension("sqlite-wal");
    store.close();
    fs::remove_file(journal).unwrap();
}

fn change_by_hand(file: &Path, sql: &str) {
    Connection::open(file).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn it_is_made_once_and_for_this_account_alone() {
    let (_place, directory, file) = made();

    assert_eq!((mode(&directory), mode(&file)), (0o700, 0o600));
    assert_eq!(mode(directory.parent().unwrap()), 0o755);
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
    let before = fs::read(&file).unwrap();
    let refused = Store::create(&directory).unwrap_err();
    assert!(matches!(refused, StoreError::Exists(_)), "{refused}");
    assert_eq!(fs::read(&file).unwrap(), before);
}

#[test]
fn what_is_left_of_a_lost_one_is_not_taken_into_a_new_one() {
    let (_place, directory, file) = made();
    fs::rename(&file, file.with_extension("sqlite-wal")).unwrap();

    assert!(matches!(
        Store::create(&directory),
        Err(StoreError::Exists(_))
    ));
    assert!(matches!(
        Store::open(&directory),
        Err(StoreError::Missing(_))
    ));
}

#[test]
fn one_process_has_it_at_a_time() {
    let (_place, directory, _) = made();
    let first = Store::open(&directory).unwrap();

    // A second opening in the same process would share the locks; that SQLite itself says so.
    let refused = Store::open(&directory).unwrap_err();
    drop(first);

    assert!(matches!(refused, StoreError::Busy(_)), "{refused}");
    assert!(!refused.needs_an_admin());
    Store::open(&directory).unwrap();
}

#[test]
fn a_missing_one_is_not_made() {
    let place = tempfile::tempdir().unwrap();
    for directory in [place.path().join("nothing"), place.path().join("a/b")] {
        let refused = Store::open(&directory).unwrap_err();
        assert!(matches!(refused, StoreError::Missing(_)), "{refused}");
        assert!(refused.needs_an_admin() && !directory.exists());
    }
}

#[test]
fn a_file_or_directory_that_others_could_touch_is_refused_with_the_mend() {
    let (_place, directory, file) = made();
    let set = |path: &Path, mode| {
        fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    };
    for bad in [0o640, 0o604, 0o602, 0o4600] {
        set(&file, bad);
        let refused = Store::open(&directory).unwrap_err();
        assert!(refused.to_string().contains("chmod 0600"), "{refused}");
    }
    set(&file, 0o600);
    for bad in [0o755, 0o710, 0o1700] {
        set(&directory, bad);
        let refused = Store::open(&directory).unwrap_err();
        assert!(refused.to_string().contains("chmod 0700"), "{refused}");
    }
    set(&directory, 0o700);
    fs::hard_link(&file, directory.join("second")).unwrap();
    let refused = Store::open(&directory).unwrap_err();
    assert!(
        refused.to_string().contains("more than one link"),
        "{refused}"
    );
    fs::remove_file(directory.join("second")).unwrap();
    let journal = directory.join("authd.sqlite-wal");
    std::os::unix::fs::symlink("/etc/passwd", &journal).unwrap();
    let refused = Store::open(&directory).unwrap_err();
    assert!(refused.to_string().contains("regular file"), "{refused}");
}

#[test]
fn a_later_minor_version_is_opened_and_a_later_major_one_refused() {
    let (_place, directory, file) = made();
    change_by_hand(
        &file,
        "UPDATE about SET minor = 7;
         ALTER TABLE enrolment ADD COLUMN later INTEGER NOT NULL DEFAULT 5;
         CREATE TABLE of_later (x INTEGER) STRICT;",
    );
    let mut store = Store::open(&directory).unwrap();
    enrol(&mut store, &user("alice", 1));
    drop(store);
    change_by_hand(&file, "UPDATE about SET major = 2");

    let refused = Store::open(&directory).unwrap_err();

    assert!(
        matches!(refused, StoreError::Later { major: 2, .. }),
        "{refused}"
    );
    assert!(refused.needs_an_admin());
}

#[test]
fn what_is_no_whole_database_of_ours_is_refused_in_one_line_and_not_touched() {
    let (_place, directory, file) = made();
    let mut store = Store::open(&directory).unwrap();
    enrol(&mut store, &user("alice", 1));
    close_whole(store);
    let good = fs::read(&file).unwrap();
    let by_hand = |sql: &str| {
        fs::write(&file, &good).unwrap();
        change_by_hand(&file, sql);
        fs::read(&file).unwrap()
    };
    let mut bad: Vec<Vec<u8>> = vec![
        Vec::new(),
        vec![0; good.len()],
        b"no database\n".repeat(900),
        good[..good.len() / 2].to_vec(),
        // Its last pages are free ones, of which nobody misses anything.
        good[..3 * 4096 + 1].to_vec(),
        by_hand("PRAGMA application_id = 5"),
        by_hand("DROP TABLE about"),
        by_hand("DELETE FROM about"),
        by_hand("DROP TABLE recovery_code"),
        by_hand("PRAGMA foreign_keys = OFF; DELETE FROM enrolment"),
        by_hand("CREATE VIEW v AS SELECT 1"),
        by_hand("CREATE TRIGGER t AFTER UPDATE ON enrolment BEGIN SELECT 1; END"),
        by_hand("PRAGMA ignore_check_constraints = ON; UPDATE enrolment SET secret = x'00'"),
        by_hand("UPDATE enrolment SET name = ' x'"),
        by_hand(
            "PRAGMA foreign_keys = OFF;
             UPDATE enrolment SET telegram_id = 1 << 60;
             UPDATE recovery_code SET telegram_id = 1 << 60",
        ),
        by_hand("PRAGMA journal_mode = DELETE"),
    ];
    // A free page holds nothing that could be missed.
    let is_free = |page: &usize| good[page * 4096..(page + 1) * 4096].iter().all(|b| *b == 0);
    for page in (0..good.len() / 4096).filter(|page| !is_free(page)) {
        let mut page_gone = good.clone();
        let from = page * 4096 + if page == 0 { 100 } else { 0 };
        page_gone[from..from + 16].fill(0xa5);
        bad.push(page_gone);
    }
    for (case, bytes) in bad.iter().enumerate() {
        fs::write(&file, bytes).unwrap();
        let refused = Store::open(&directory).unwrap_err();
        let said = refused.to_string();
        assert!(refused.needs_an_admin(), "case {case}: {said}");
        assert!(
            said.contains("authd.sqlite") && said.lines().count() == 1,
            "{said}"
        );
        assert_eq!(&fs::read(&file).unwrap(), bytes, "case {case}: {said}");
    }
    fs::write(&file, &good).unwrap();
    assert_eq!(Store::open(&directory).unwrap().list().unwrap().len(), 1);
}

#[test]
fn a_user_is_found_by_name_and_id_together() {
    let mut store = Store::in_memory().unwrap();
    enrol(&mut store, &user("alice", 1));
    enrol(&mut store, &user("bob", 2));
    let found = |name, id| store.find(&user(name, id)).unwrap();

    assert!(matches!(found("alice", 1), Found::Enrolled(row) if row.last_step == 33));
    for (name, id) in [("alice", 3), ("carol", 1), ("alice", 2), ("bob", 1)] {
        assert_eq!(found(name, id), Found::Changed, "{name} {id}");
    }
    assert_eq!(found("carol", 3), Found::Nobody);
    assert_eq!(found("Alice", 3), Found::Nobody);
}

#[test]
fn a_change_that_is_not_committed_has_never_been() {
    let mut store = Store::in_memory().unwrap();
    let alice = user("alice", 1);
    enrol(&mut store, &alice);

    let change = store.change().unwrap();
    change.charge(alice.id, 77).unwrap();
    change.accept_step(alice.id, 99).unwrap();
    drop(change);

    let Found::Enrolled(row) = store.find(&alice).unwrap() else {
        panic!("not enrolled");
    };
    assert_eq!((row.last_step, row.seen_step), (33, 0));
    assert_eq!(row.counts, Counts::default());
}

#[test]
fn an_acceptance_never_lowers_the_last_step() {
    let mut store = Store::in_memory().unwrap();
    let alice = user("alice", 1);
    enrol(&mut store, &alice);
    for step in [40, 12] {
        let change = store.change().unwrap();
        change.accept_step(alice.id, step).unwrap();
        change.commit().unwrap();
        let found = store.find(&alice).unwrap();
        assert!(matches!(found, Found::Enrolled(row) if row.last_step == 40));
    }
}

#[test]
fn a_lockout_outlives_a_restart_and_ends_by_the_new_boottime() {
    let (_place, directory, _) = made();
    let alice = user("alice", 1);
    let mut store = Store::open(&directory).unwrap();
    enrol(&mut store, &alice);
    let lockout = Lockout::of(Duration::from_secs(900), now(10_000, 500_000));
    let counts = Counts {
        failures: 0,
        lockouts: 1,
    };
    let change = store.change().unwrap();
    change.refuse(alice.id, counts, Some(lockout)).unwrap();
    change.commit().unwrap();
    drop(store);

    let mut store = Store::open(&directory).unwrap();
    store.anchor_lockouts(now(10_301, 20)).unwrap();

    let Found::Enrolled(row) = store.find(&alice).unwrap() else {
        panic!("not enrolled");
    };
    assert_eq!(row.counts, counts);
    let lockout = row.lockout.unwrap();
    assert_eq!(lockout.ends, Duration::from_secs(620));
    assert_eq!(lockout.holds_until(now(10_301, 20)), Some(10_901));
}

#[test]
fn a_database_of_version_1_0_gets_what_1_1_has_more_and_one_of_1_2_is_opened_as_it_is() {
    let (_place, directory, file) = made();
    let alice = user("alice", 1);
    let mut store = Store::open(&directory).unwrap();
    enrol(&mut store, &alice);
    store.close();
    let older = "ALTER TABLE enrolment DROP COLUMN seen_step; UPDATE about SET minor = 0";
    let newer = "ALTER TABLE enrolment ADD COLUMN more INTEGER; UPDATE about SET minor = 2";
    for (change, minor) in [(older, 1), (newer, 2)] {
        let database = Connection::open(&file).unwrap();
        database.execute_batch(change).unwrap();
        drop(database);

        let mut store = Store::open(&directory).unwrap();

        let change = store.change().unwrap();
        change.charge(alice.id, 77).unwrap();
        change.commit().unwrap();
        let found = store.find(&alice).unwrap();
        assert!(matches!(found, Found::Enrolled(row) if row.seen_step == 77));
        store.close();
        let database = Connection::open(&file).unwrap();
        let read = |sql: &str| database.query_row(sql, [], |row| row.get::<_, i64>(0));
        assert_eq!(read("SELECT minor FROM about").unwrap(), minor);
    }
}

#[test]
fn the_journal_keeps_its_room_on_the_disk_whatever_is_done() {
    let (_place, directory, _) = made();
    let journal = directory.join("authd.sqlite-wal");
    let kept = || fs::metadata(&journal).unwrap().blocks() * 512;
    let alice = user("alice", 1);
    for _ in 0..2 {
        let mut store = Store::open(&directory).unwrap();
        enrol(&mut store, &alice);
        assert!(kept() >= 1 << 20, "{}", kept());
        for step in 0..500 {
            let change = store.change().unwrap();
            change.charge(alice.id, step).unwrap();
            change.commit().unwrap();
        }
        // Each of them is two pages at least: it was begun anew, and stays within its room.
        assert!(fs::metadata(&journal).unwrap().len() < 1 << 20);
        let change = store.change().unwrap();
        change.remove(alice.id).unwrap();
        change.commit().unwrap();
        store.settle().unwrap();
        assert!(kept() >= 1 << 20, "{}", kept());
        store.close();
        assert!(kept() >= 1 << 20, "{}", kept());
    }
}

fn free_pages(store: &Store) -> i64 {
    let read = "PRAGMA freelist_count";
    store
        .database
        .query_row(read, [], |row| row.get(0))
        .unwrap()
}

#[test]
fn the_file_has_free_pages_also_after_a_run_that_was_killed_while_it_made_them() {
    let (_place, directory, file) = made();
    // Between the two steps; and before any of this was known.
    for left in ["CREATE TABLE room (page BLOB)", "VACUUM"] {
        change_by_hand(&file, left);
        let store = Store::open(&directory).unwrap();
        assert!(free_pages(&store) >= 8, "{left}");
        let tables = "SELECT count(*) FROM sqlite_schema WHERE name = 'room'";
        let left: i64 = store
            .database
            .query_row(tables, [], |row| row.get(0))
            .unwrap();
        assert_eq!(left, 0);
        close_whole(store);
    }
}

#[test]
fn nothing_of_a_removed_secret_is_left_on_disk() {
    let (_place, directory, file) = made();
    let alice = user("alice", 1);
    let mut store = Store::open(&directory).unwrap();
    enrol(&mut store, &alice);
    let holds = |name: &str| {
        let bytes = fs::read(directory.join(name)).unwrap_or_default();
        bytes.windows(20).any(|window| window == [7; 20])
    };
    assert!(holds("authd.sqlite-wal"));

    let change = store.change().unwrap();
    change.remove(alice.id).unwrap();
    change.commit().unwrap();
    store.settle().unwrap();

    assert!(!holds("authd.sqlite-wal") && !holds("authd.sqlite"));
    assert!(file.exists());
}
