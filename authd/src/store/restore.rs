//! A copy of the database comes back.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use rusqlite::{Connection, config::DbConfig};

use super::{Change, Store, StoreError, close, place, put_in_place, schema};
use crate::{clock, codes};

impl Store {
    /// Puts a copy of the database, the file `from`, into `directory`, and keeps what is there beside it,
    /// as `authd.sqlite.before-` and the seconds since 1970. The copy itself is only read; a file
    /// `FROM-wal` beside it, which is there if kai-authd was running when the copy was made, belongs to
    /// it.
    ///
    /// Nobody can tell which codes were used since the copy was made. So no code is taken of a step that
    /// was acceptable until `now`, and the recovery codes are gone: who needs some is enrolled again.
    /// Failures and lockouts stay.
    ///
    /// # Errors
    /// [`StoreError`]; unless the error is one of the last step, which puts the new file in its place,
    /// nothing has changed.
    pub fn restore(from: &Path, directory: &Path, now: SystemTime) -> Result<(), StoreError> {
        place::judge_file(from)?;
        place::make_directory(directory)?;
        let path = place::file_in(directory);
        refuse_if_used(&path)?;
        let new = directory.join("restored.sqlite");
        copy(from, &mut place::make_file(&new)?)?;
        let [journal, _] = place::beside(&new);
        let [from_journal, _] = place::beside(from);
        if place::exists(&from_journal)? {
            place::judge_file(&from_journal)?;
            copy(&from_journal, &mut place::make_file(&journal)?)?;
        }
        let mut database = schema::open(&new).map_err(|error| about(error, from))?;
        mend(&mut database, &new, now).map_err(|error| about(error, from))?;
        close(database, &new)?;
        move_away(&path, clock::unix(now))?;
        put_in_place(&new, &path)
    }
}

fn mend(database: &mut Connection, path: &Path, now: SystemTime) -> Result<(), StoreError> {
    schema::judge(database, path)?;
    schema::upgrade(database).map_err(schema::failed(path))?;
    let change = Change::new(database.transaction().map_err(schema::failed(path))?, path);
    change.age_codes(codes::step(clock::unix(now)).saturating_add(codes::AROUND))?;
    change.commit()
}

/// Copies bytes: the admin's file is not opened as a database, which would change it.
fn copy(from: &Path, to: &mut File) -> Result<(), StoreError> {
    let mut source = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
        .open(from)
        .map_err(place::io_error(from))?;
    io::copy(&mut source, to)
        .and_then(|_| to.sync_all())
        .map_err(place::io_error(from))
}

/// An error of the copy's contents names the file that the admin knows.
fn about(error: StoreError, from: &Path) -> StoreError {
    match error {
        StoreError::Foreign(_) => StoreError::Foreign(from.to_owned()),
        StoreError::Later { major, .. } => StoreError::Later {
            path: from.to_owned(),
            major,
        },
        StoreError::Corrupt { what, .. } => StoreError::Corrupt {
            path: from.to_owned(),
            what,
        },
        other => other,
    }
}

/// Refuses while a process has the database at `path`; one that cannot be opened is in nobody's use.
fn refuse_if_used(path: &Path) -> Result<(), StoreError> {
    if !place::exists(path)? {
        return Ok(());
    }
    let database = match schema::open(path) {
        Err(busy @ StoreError::Busy(_)) => return Err(busy),
        Err(_) => return Ok(()),
        Ok(database) => database,
    };
    // What is there is kept as it is.
    database
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .map_err(schema::failed(path))?;
    match database.execute_batch("BEGIN EXCLUSIVE; ROLLBACK") {
        Err(error) => match schema::failed(path)(error) {
            busy @ StoreError::Busy(_) => Err(busy),
            _ => Ok(()),
        },
        Ok(()) => Ok(()),
    }
}

/// Keeps the database at `path` under another name. First the file, so that a host that dies between two
/// steps has no database, rather than one without what was committed last.
fn move_away(path: &Path, seconds: u64) -> Result<(), StoreError> {
    let mut kept = path.as_os_str().to_owned();
    kept.push(format!(".before-{seconds}"));
    let kept = PathBuf::from(kept);
    let names = [(path.to_owned(), kept.clone())].into_iter();
    for (old, new) in names.chain(place::beside(path).into_iter().zip(place::beside(&kept))) {
        if place::exists(&old)? {
            fs::rename(&old, &new).map_err(place::io_error(&old))?;
        }
        place::sync(path.parent().unwrap_or(Path::new("/")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, time::Duration};

    use super::*;
    use crate::{
        attempt::{Counts, Lockout},
        store::{
            Found,
            tests::{close_whole, enrol, now, user},
        },
    };

    /// A database with alice in it, and room for another one.
    fn two_places() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let place = tempfile::tempdir().unwrap();
        let [old, new] = ["old", "new"].map(|name| place.path().join(name));
        let mut store = Store::create(&old).unwrap();
        enrol(&mut store, &user("alice", 1));
        let change = store.change().unwrap();
        let counts = Counts {
            failures: 2,
            lockouts: 1,
        };
        let lockout = Lockout::of(Duration::from_secs(900), now(90_000, 1));
        change
            .refuse(user("alice", 1).id, counts, Some(lockout))
            .unwrap();
        change.commit().unwrap();
        drop(store);
        (place, old.join(place::FILE), new)
    }

    #[test]
    fn a_copy_keeps_what_was_counted_and_no_code_that_may_have_been_used() {
        let (_place, copy, directory) = two_places();
        let before = fs::read(&copy).unwrap();

        Store::restore(&copy, &directory, now(90_000, 0).wall).unwrap();

        assert_eq!(fs::read(&copy).unwrap(), before);
        let store = Store::open(&directory).unwrap();
        let listed = store.list().unwrap().remove(0);
        assert_eq!(listed.recovery_left, 0);
        assert_eq!(listed.enrolled.last_step, 3001);
        assert_eq!(listed.enrolled.counts.failures, 2);
        assert_eq!(listed.enrolled.lockout.unwrap().until, 90_901);
        // A last step that is ahead of the clock stays where it is.
        drop(store);
        let again = directory.join("../again");
        Store::restore(&directory.join(place::FILE), &again, now(30, 0).wall).unwrap();
        let store = Store::open(&again).unwrap();
        assert_eq!(store.list().unwrap()[0].enrolled.last_step, 3001);
    }

    #[test]
    fn a_copy_of_a_running_database_comes_with_its_journal() {
        let (place, file, directory) = two_places();
        let source = file.parent().unwrap();
        let mut store = Store::open(source).unwrap();
        enrol(&mut store, &user("bob", 2));
        let copy = place.path().join("copy");
        for suffix in ["", "-wal"] {
            let to = format!("{}{suffix}", copy.display());
            fs::copy(format!("{}{suffix}", file.display()), &to).unwrap();
            fs::set_permissions(&to, PermissionsExt::from_mode(0o600)).unwrap();
        }

        Store::restore(&copy, &directory, now(0, 0).wall).unwrap();

        let found = Store::open(&directory).unwrap().find(&user("bob", 2));
        assert!(matches!(found, Ok(Found::Enrolled(_))));
    }

    #[test]
    fn what_is_there_is_kept_beside_it_and_left_alone_if_the_copy_is_bad() {
        let (place, copy, directory) = two_places();
        let mut store = Store::create(&directory).unwrap();
        enrol(&mut store, &user("carol", 3));
        drop(store);
        let file = directory.join(place::FILE);
        let before = fs::read(&file).unwrap();
        let bad = place.path().join("bad");
        for bytes in [&b"nothing"[..], &[], &fs::read(&copy).unwrap()[..9000]] {
            fs::write(&bad, bytes).unwrap();
            fs::set_permissions(&bad, PermissionsExt::from_mode(0o600)).unwrap();
            let refused = Store::restore(&bad, &directory, now(0, 0).wall).unwrap_err();
            assert!(refused.to_string().contains("/bad: "), "{refused}");
            assert_eq!(fs::read(&file).unwrap(), before);
        }
        fs::set_permissions(&bad, PermissionsExt::from_mode(0o644)).unwrap();
        let refused = Store::restore(&bad, &directory, now(0, 0).wall).unwrap_err();
        assert!(refused.to_string().contains("chmod 0600"), "{refused}");

        Store::restore(&copy, &directory, now(77, 0).wall).unwrap();

        let kept = directory.join("authd.sqlite.before-77");
        assert_eq!(fs::read(kept).unwrap(), before);
        let store = Store::open(&directory).unwrap();
        assert!(matches!(
            store.find(&user("alice", 1)),
            Ok(Found::Enrolled(_))
        ));
        // A daemon that runs is not pulled the database from under it.
        let busy = Store::restore(&copy, &directory, now(78, 0).wall).unwrap_err();
        assert!(matches!(busy, StoreError::Busy(_)), "{busy}");
    }

    #[test]
    fn a_damaged_database_is_no_hindrance() {
        let (_place, copy, directory) = two_places();
        close_whole(Store::create(&directory).unwrap());
        let file = directory.join(place::FILE);
        fs::write(&file, b"damaged").unwrap();

        Store::restore(&copy, &directory, now(5, 0).wall).unwrap();

        assert_eq!(Store::open(&directory).unwrap().list().unwrap().len(), 1);
        assert_eq!(
            fs::read(directory.join("authd.sqlite.before-5")).unwrap(),
            b"damaged"
        );
    }
}
