//! The writer on real files: what it goes on from, what it refuses, and what a full disk does.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

use kai_audit::{
    Limits, Log, OpenError, Record,
    chain::Hash,
    writer::{CURRENT, rotated},
};

fn record(number: u64) -> Record {
    Record::new("code.refused")
        .text("user", "alice")
        .number("number", number)
}

fn append(log: &mut Log, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        log.append(&record(number), SystemTime::now()).unwrap();
    }
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("audit");
    (directory, place)
}

/// All lines of a log, in order.
fn lines(directory: &Path) -> Vec<String> {
    let mut files: Vec<PathBuf> = rotated(directory)
        .unwrap()
        .into_iter()
        .map(|(_, path)| path)
        .collect();
    files.push(directory.join(CURRENT));
    files
        .iter()
        .flat_map(|file| {
            let text = fs::read_to_string(file).unwrap();
            assert!(text.is_empty() || text.ends_with('\n'), "{file:?}");
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect()
}

/// That each line follows the one before, from `first` on.
fn assert_whole(directory: &Path, first: u64, count: usize) {
    let lines = lines(directory);
    assert_eq!(lines.len(), count);
    let mut before = (first == 1).then_some(Hash::NONE.to_string());
    for (line, seq) in lines.iter().zip(first..) {
        let read: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(read["seq"], seq);
        if let Some(before) = before {
            assert_eq!(read["prev"], before.as_str(), "line {seq}");
        }
        before = Some(Hash::of(line).to_string());
    }
}

const SMALL: Limits = Limits {
    file: 1000,
    files: 4,
};

#[test]
fn a_log_goes_on_where_it_ended() {
    let (_directory, place) = place();
    for run in 0..3 {
        let mut log = Log::open(&place, Limits::STANDARD).unwrap();
        append(&mut log, run * 5..run * 5 + 5);
        log.close();
    }
    assert_whole(&place, 1, 15);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&place), mode(&place.join(CURRENT))), (0o700, 0o600));
}

#[test]
fn a_torn_line_is_cut_off_and_the_log_goes_on() {
    for torn in ["{", "{\"seq\":4,\"at\":\"20", "{\"seq\":4}"] {
        let (_directory, place) = place();
        let mut log = Log::open(&place, Limits::STANDARD).unwrap();
        append(&mut log, 0..3);
        drop(log);
        let mut file = fs::OpenOptions::new()
            .append(true)
            .open(place.join(CURRENT))
            .unwrap();
        file.write_all(torn.as_bytes()).unwrap();

        let mut log = Log::open(&place, Limits::STANDARD).unwrap();
        append(&mut log, 3..5);

        assert_whole(&place, 1, 5);
    }
}

#[test]
fn nothing_but_a_torn_first_line_is_an_empty_log() {
    let (_directory, place) = place();
    drop(Log::open(&place, Limits::STANDARD).unwrap());
    fs::write(place.join(CURRENT), "{\"seq\":1,").unwrap();
    let mut log = Log::open(&place, Limits::STANDARD).unwrap();
    append(&mut log, 0..2);
    assert_whole(&place, 1, 2);
}

#[test]
fn full_files_hold_on_to_each_other_and_the_oldest_go() {
    let (_directory, place) = place();
    let mut log = Log::open(&place, SMALL).unwrap();
    append(&mut log, 0..100);

    assert_eq!(rotated(&place).unwrap().len(), SMALL.files - 1);
    for (_, path) in rotated(&place).unwrap() {
        assert!(fs::metadata(path).unwrap().len() <= SMALL.file);
    }
    let first = rotated(&place).unwrap()[0].0;
    assert_whole(&place, first, (101 - first) as usize);
    // Also after a restart.
    drop(log);
    let mut log = Log::open(&place, SMALL).unwrap();
    append(&mut log, 100..200);
    let first = rotated(&place).unwrap()[0].0;
    assert_whole(&place, first, (201 - first) as usize);
}

#[test]
fn a_rotation_that_was_cut_off_anywhere_is_gone_on_from() {
    let cut_offs: [fn(&Path); 3] = [
        // The next file was made, and nothing was renamed.
        |place| fs::write(place.join("audit.next"), "").unwrap(),
        // The full file was renamed, and the next one was not.
        |place| {
            let full = place.join("audit-00000000000000000001.jsonl");
            fs::rename(place.join(CURRENT), full).unwrap();
            fs::write(place.join("audit.next"), "").unwrap();
        },
        // Both were renamed, and nothing was written.
        |place| {
            let full = place.join("audit-00000000000000000001.jsonl");
            fs::rename(place.join(CURRENT), full).unwrap();
            fs::write(place.join(CURRENT), "").unwrap();
            let mode = PermissionsExt::from_mode(0o600);
            fs::set_permissions(place.join(CURRENT), mode).unwrap();
        },
    ];
    for cut_off in cut_offs {
        let (_directory, place) = place();
        let mut log = Log::open(&place, Limits::STANDARD).unwrap();
        append(&mut log, 0..5);
        drop(log);
        cut_off(&place);

        let mut log = Log::open(&place, Limits::STANDARD).unwrap();
        append(&mut log, 5..9);

        assert_whole(&place, 1, 9);
        assert!(!place.join("audit.next").exists());
    }
}

#[test]
fn what_others_could_have_written_is_refused_with_the_mend() {
    let (_directory, place) = place();
    drop(Log::open(&place, Limits::STANDARD).unwrap());
    let current = place.join(CURRENT);
    for (path, mode, mend) in [
        (&current, 0o644, "chmod 0600"),
        (&place, 0o750, "chmod 0700"),
    ] {
        fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        let refused = Log::open(&place, Limits::STANDARD).unwrap_err().to_string();
        assert!(refused.contains(mend), "{refused}");
        fs::set_permissions(&current, PermissionsExt::from_mode(0o600)).unwrap();
    }
}

#[test]
fn a_link_in_the_place_of_the_log_is_not_followed() {
    let (directory, place) = place();
    drop(Log::open(&place, Limits::STANDARD).unwrap());
    let elsewhere = directory.path().join("elsewhere");
    fs::write(&elsewhere, "").unwrap();
    fs::remove_file(place.join(CURRENT)).unwrap();
    std::os::unix::fs::symlink(&elsewhere, place.join(CURRENT)).unwrap();
    assert!(Log::open(&place, Limits::STANDARD).is_err());
    assert_eq!(fs::read(&elsewhere).unwrap(), b"");
}

#[test]
fn a_second_writer_is_refused() {
    let (_directory, place) = place();
    let _log = Log::open(&place, Limits::STANDARD).unwrap();
    let refused = Log::open(&place, Limits::STANDARD).unwrap_err();
    assert!(matches!(refused, OpenError::Busy(_)), "{refused}");
}

#[test]
fn a_last_line_that_is_none_of_ours_is_not_gone_on_from() {
    let (_directory, place) = place();
    drop(Log::open(&place, Limits::STANDARD).unwrap());
    fs::write(place.join(CURRENT), "hello\n").unwrap();
    let refused = Log::open(&place, Limits::STANDARD).unwrap_err();
    assert!(matches!(refused, OpenError::Damaged(_)), "{refused}");
}

/// A small disk of its own, gone when it is dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            assert!(
                std::env::var_os("KAI_TESTS_MUST_RUN").is_none(),
                "must not be skipped here, but needs root, to mount a disk"
            );
            eprintln!("skipped: needs root, to mount a disk");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4m,mode=0700", "kai-audit-test"])
            .arg(directory.path())
            .status()
            .unwrap();
        assert!(mounted.success());
        Some(Self(directory))
    }

    /// Fills what is free.
    fn fill(&self) {
        let mut file = fs::File::create(self.0.path().join("ballast")).unwrap();
        while file.write_all(&[7; 4096]).is_ok() {}
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_disk_that_users_filled_stops_no_decision() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let place = disk.0.path().join("audit");
    let limits = Limits {
        file: 100_000,
        files: 8,
    };
    let mut log = Log::open(&place, limits).unwrap();
    append(&mut log, 0..10);
    disk.fill();

    // Far beyond a file's limit: it cannot rotate, and goes on.
    append(&mut log, 10..3010);

    assert_whole(&place, 1, 3010);
    // With room again it rotates, and nothing is lost.
    fs::remove_file(disk.0.path().join("ballast")).unwrap();
    append(&mut log, 3010..4000);
    assert!(!rotated(&place).unwrap().is_empty());
    assert_whole(&place, 1, 4000);
}

#[test]
fn of_a_line_that_failed_nothing_stays() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let place = disk.0.path().join("audit");
    let mut log = Log::open(&place, Limits::STANDARD).unwrap();
    disk.fill();
    let mut written = 0;
    let failed = loop {
        match log.append(&record(written), SystemTime::now()) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 100_000, "the disk is not full");
    };
    assert_eq!(failed.kind(), std::io::ErrorKind::StorageFull);
    assert_whole(&place, 1, written as usize);

    fs::remove_file(disk.0.path().join("ballast")).unwrap();
    append(&mut log, written..written + 5);

    assert_whole(&place, 1, written as usize + 5);
}
