//! Whether a log is what was written: each line follows the one before, and the marks in the journal
//! fit. Who can write both, which is root, can change both.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use kai_audit::{
    chain::Hash,
    writer::{Limits, rotated_number},
};
use kai_program::json::printable;
use serde::Serialize;

use super::{
    AuditError,
    lines::{self, Line},
    marks::Mark,
};

/// What was found of one log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Which log.
    pub log: &'static str,
    /// How many lines it has.
    pub lines: usize,
    /// The number of its first line; older files go in time.
    pub first: u64,
    /// The number of its last line.
    pub last: u64,
    /// Marks that fit.
    pub marks: usize,
    /// The newest line that a mark covers; what follows could be cut off without being missed.
    pub covered: u64,
    /// The first thing that is not as it was written.
    pub finding: Option<Finding>,
}

/// The first line that is not as it was written, or not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its number in the log.
    pub seq: u64,
    /// The file that it stands in, or should.
    pub file: PathBuf,
    /// Which line of the file; where it should stand, if it is missing.
    pub line: usize,
    /// What happened to it.
    pub what: What,
}

/// What happened to a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Its words are not those that were written.
    Changed,
    /// It, and perhaps what follows, is not there.
    Removed,
    /// It was put in.
    Inserted,
    /// It stands elsewhere.
    Moved,
    /// Every line from an earlier one up to it was written anew: its hash is not that of its mark.
    Rewritten,
}

/// Judges each log by itself and by the marks.
///
/// # Errors
/// If one cannot be read.
pub fn report(logs: &[(&'static str, PathBuf)], marks: &[Mark]) -> Result<Vec<Report>, AuditError> {
    logs.iter()
        .map(|(name, directory)| {
            let lines = lines::all(directory)?;
            let marks: Vec<&Mark> = marks.iter().filter(|mark| mark.log == *name).collect();
            let current = directory.join(kai_audit::writer::CURRENT);
            Ok(judge(name, current, &lines, &marks))
        })
        .collect()
}

/// Judges one log; `current` is the file in which its next line would stand.
#[must_use]
pub fn judge(log: &'static str, current: PathBuf, lines: &[Line], marks: &[&Mark]) -> Report {
    let hashes: Vec<String> = lines
        .iter()
        .map(|line| Hash::of(&line.text).to_string())
        .collect();
    let first = lines.first().and_then(Line::seq).unwrap_or(0);
    let last = lines.last().and_then(Line::seq).unwrap_or(0);
    let mut report = Report {
        log,
        lines: lines.len(),
        first,
        last,
        marks: 0,
        covered: 0,
        finding: cut_beginning(lines, &current).or_else(|| broken_chain(lines, &hashes)),
    };
    let places = places(lines);
    let fits = |mark: &&&Mark| {
        places
            .get(&mark.seq)
            .is_some_and(|at| hashes[*at] == mark.hash)
    };
    report.marks = marks.iter().filter(fits).count();
    report.covered = marks
        .iter()
        .filter(fits)
        .map(|mark| mark.seq)
        .max()
        .unwrap_or(0);
    if report.finding.is_none() {
        report.finding = unfit_mark(current, lines, &places, &hashes, marks);
    }
    report
}

/// Where the line of each number stands; the first, if several say that they are the same.
fn places(lines: &[Line]) -> HashMap<u64, usize> {
    let mut places = HashMap::with_capacity(lines.len());
    for (at, line) in lines.iter().enumerate() {
        if let Some(seq) = line.seq() {
            places.entry(seq).or_insert(at);
        }
    }
    places
}

/// The first line that is missing at the beginning. Rotation takes whole files away, the oldest, and none while
/// there are fewer than are kept; a full file is named for its first line.
fn cut_beginning(lines: &[Line], current: &Path) -> Option<Finding> {
    let first = lines.first()?;
    let seq = first.seq().filter(|seq| *seq > 1)?;
    let removed = |seq| Finding {
        seq,
        file: first.file.clone(),
        line: first.number,
        what: What::Removed,
    };
    let mut files: Vec<&Path> = lines.iter().map(|line| &*line.file).collect();
    files.dedup();
    let full = files.iter().filter(|file| ***file != *current).count();
    // With the one that is being written.
    if full + 1 < Limits::STANDARD.files {
        return Some(removed(1));
    }
    let named = rotated_number(&first.file)?;
    (named != seq).then(|| removed(named))
}

/// The first line that does not follow the one before it.
fn broken_chain(lines: &[Line], hashes: &[String]) -> Option<Finding> {
    let beginning = Hash::NONE.to_string();
    for (at, line) in lines.iter().enumerate() {
        let found = |at: usize, seq, what| {
            let line: &Line = &lines[at];
            Some(Finding {
                seq,
                file: line.file.clone(),
                line: line.number,
                what,
            })
        };
        let before = at.checked_sub(1).and_then(|before| lines[before].seq());
        let (Some(seq), Some(prev)) = (line.seq(), line.text_of("prev")) else {
            return found(at, before.map_or(1, |before| before + 1), What::Changed);
        };
        let Some(before) = before else {
            // The oldest line that is kept: what it follows is gone, unless it is the first of all.
            if seq == 1 && prev != beginning {
                return found(at, seq, What::Changed);
            }
            continue;
        };
        let follows = prev == hashes[at - 1];
        let expected = before + 1;
        if seq == expected && follows {
            continue;
        }
        if seq > expected {
            let stands_later = lines[at..]
                .iter()
                .any(|later| later.seq() == Some(expected));
            let what = if stands_later {
                What::Moved
            } else {
                What::Removed
            };
            return found(at, expected, what);
        }
        if seq < expected {
            // It follows the line before the last one: that one came between them.
            let is_pushed_away = at >= 2 && prev == hashes[at - 2];
            return if is_pushed_away {
                found(at - 1, before, What::Inserted)
            } else {
                found(at, seq, What::Inserted)
            };
        }
        // The number is right and the hash is not: this line or the one before was changed. If the next
        // one still knows this one, it was the one before.
        let is_known = lines
            .get(at + 1)
            .is_some_and(|next| next.text_of("prev") == Some(hashes[at].as_str()));
        // With the one before the last, nothing else tells; that one is the first that can be meant.
        return if is_known || at + 1 == lines.len() {
            found(at - 1, before, What::Changed)
        } else {
            found(at, seq, What::Changed)
        };
    }
    None
}

/// The oldest mark that the log does not bear out.
fn unfit_mark(
    current: PathBuf,
    lines: &[Line],
    places: &HashMap<u64, usize>,
    hashes: &[String],
    marks: &[&Mark],
) -> Option<Finding> {
    let first = lines.first().and_then(Line::seq).unwrap_or(1);
    let last = lines.last().and_then(Line::seq).unwrap_or(0);
    let mut marks: Vec<&&Mark> = marks.iter().filter(|mark| mark.seq >= first).collect();
    marks.sort_by_key(|mark| mark.seq);
    for mark in marks {
        let Some(at) = places.get(&mark.seq).copied() else {
            let in_file = lines.iter().filter(|line| line.file == current).count();
            return Some(Finding {
                seq: last + 1,
                file: current,
                line: in_file + 1,
                what: What::Removed,
            });
        };
        if hashes[at] != mark.hash {
            return Some(Finding {
                seq: mark.seq,
                file: lines[at].file.clone(),
                line: lines[at].number,
                what: What::Rewritten,
            });
        }
    }
    None
}

/// As lines for people.
#[must_use]
pub fn as_lines(reports: &[Report]) -> String {
    let mut text = Vec::new();
    for report in reports {
        let Report {
            log,
            lines,
            first,
            last,
            marks,
            covered,
            ..
        } = report;
        text.push(match &report.finding {
            None if *lines == 0 => format!("{log}: empty"),
            None => {
                format!("{log}: lines {first} to {last} follow each other, and {marks} marks fit")
            }
            Some(finding) => format!("{log}: {}", in_words(finding)),
        });
        if report.finding.is_none() {
            let behind = if covered < last { covered } else { last };
            text.push(format!(
                "{log}: no mark covers what follows line {behind}: if lines were cut off at the end, this \
                 cannot tell"
            ));
        }
    }
    text.join("\n")
}

fn in_words(finding: &Finding) -> String {
    let Finding {
        seq, line, what, ..
    } = finding;
    let file = finding.file.display().to_string();
    let place: String = format!("{file}:{line}").chars().map(printable).collect();
    match what {
        What::Changed => format!("line {seq} was CHANGED ({place})"),
        What::Removed => format!("line {seq} was REMOVED (missing at {place})"),
        What::Inserted => format!("line {seq} was INSERTED ({place})"),
        What::Moved => format!("line {seq} was MOVED (missing at {place})"),
        What::Rewritten => format!(
            "lines up to {seq} were CHANGED: it is not the one that the journal has the hash of ({place})"
        ),
    }
}

/// As one JSON object.
#[must_use]
pub fn as_json(reports: &[Report]) -> String {
    let good = reports.iter().all(|report| report.finding.is_none());
    serde_json::json!({"good": good, "logs": reports}).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use kai_audit::{Record, chain::Place};
    use proptest::prelude::*;

    use super::*;

    /// A log of `count` lines, as texts.
    fn written(count: u64) -> Vec<String> {
        let mut place = Place {
            seq: 0,
            hash: Hash::NONE,
        };
        (0..count)
            .map(|number| {
                let record = Record::new("code.refused").number("number", number);
                let (line, next) = record.line(&place, UNIX_EPOCH + Duration::from_secs(number));
                place = next;
                line.trim_end().to_owned()
            })
            .collect()
    }

    fn lines(texts: &[String]) -> Vec<Line> {
        texts
            .iter()
            .zip(1..)
            .map(|(text, number)| Line {
                file: PathBuf::from("audit.jsonl"),
                number,
                text: text.clone(),
                fields: serde_json::from_str(text).ok(),
            })
            .collect()
    }

    fn judged(texts: &[String], marks: &[Mark]) -> Report {
        let marks: Vec<&Mark> = marks.iter().collect();
        judge("authd", PathBuf::from("audit.jsonl"), &lines(texts), &marks)
    }

    fn found(texts: &[String], marks: &[Mark]) -> Option<(u64, What)> {
        judged(texts, marks).finding.map(|f| (f.seq, f.what))
    }

    fn mark(texts: &[String], seq: u64) -> Mark {
        Mark {
            log: "authd".to_owned(),
            seq,
            hash: Hash::of(&texts[seq as usize - 1]).to_string(),
        }
    }

    proptest! {
        #[test]
        fn a_log_as_it_was_written_is_good(count in 0_u64..30) {
            let texts = written(count);
            let marks: Vec<_> = (1..=count).map(|seq| mark(&texts, seq)).collect();
            prop_assert_eq!(found(&texts, &marks), None);
        }

        #[test]
        fn a_beginning_that_was_cut_off_is_missed(count in 2_u64..30, from in 1_usize..30) {
            let texts = written(count);
            let from = 1 + from % (texts.len() - 1);
            prop_assert_eq!(found(&texts[from..], &[]), Some((1, What::Removed)));
        }

        #[test]
        fn the_first_line_that_was_changed_is_named(count in 3_u64..20, at in 0_usize..20) {
            let mut texts = written(count);
            // The last line has no next one: only a mark tells of it.
            let at = at % (texts.len() - 1);
            texts[at] = texts[at].replace("code.refused", "code.accepted");
            prop_assert_eq!(found(&texts, &[]), Some((at as u64 + 1, What::Changed)));
        }

        #[test]
        fn a_line_whose_hash_of_the_one_before_was_changed_is_named(
            count in 4_u64..20, at in 1_usize..20
        ) {
            let mut texts = written(count);
            let at = 1 + at % (texts.len() - 2);
            let prev = Hash::of(&texts[at - 1]).to_string();
            texts[at] = texts[at].replace(&prev, &"ab".repeat(32));
            prop_assert_eq!(found(&texts, &[]), Some((at as u64 + 1, What::Changed)));
        }

        #[test]
        fn the_first_line_that_was_removed_is_named(count in 4_u64..20, at in 0_usize..20) {
            let mut texts = written(count);
            // Not the first: that one may have gone with its file. The last: by its mark.
            let at = 1 + at % (texts.len() - 1);
            let marks = [mark(&texts, count)];
            texts.remove(at);
            prop_assert_eq!(found(&texts, &marks), Some((at as u64 + 1, What::Removed)));
        }

        #[test]
        fn a_line_that_was_inserted_is_named(count in 3_u64..20, at in 0_usize..20) {
            let mut texts = written(count);
            let at = 1 + at % (texts.len() - 1);
            let place = Place::of(&texts[at - 1]).unwrap();
            let (line, _) = Record::new("code.accepted").line(&place, UNIX_EPOCH);
            texts.insert(at, line.trim_end().to_owned());
            prop_assert_eq!(found(&texts, &[]), Some((at as u64 + 1, What::Inserted)));
        }

        #[test]
        fn lines_that_changed_places_are_named(count in 5_u64..20, at in 0_usize..20) {
            let mut texts = written(count);
            let at = 1 + at % (texts.len() - 2);
            texts.swap(at, at + 1);
            prop_assert_eq!(found(&texts, &[]), Some((at as u64 + 1, What::Moved)));
        }

        #[test]
        fn a_tail_that_was_cut_off_below_a_mark_is_missed(count in 3_u64..20, kept in 1_usize..20) {
            let texts = written(count);
            let kept = kept % texts.len();
            let marks = [mark(&texts, count)];
            prop_assert_eq!(
                found(&texts[..kept], &marks), Some((kept as u64 + 1, What::Removed))
            );
        }

        #[test]
        fn a_log_that_was_written_anew_does_not_fit_its_marks(count in 3_u64..20, at in 1_u64..20) {
            let marks = [mark(&written(count), 1 + at % count)];
            let mut place = Place { seq: 0, hash: Hash::NONE };
            let forged: Vec<String> = (0..count).map(|_| {
                let (line, next) = Record::new("code.accepted").line(&place, UNIX_EPOCH);
                place = next;
                line.trim_end().to_owned()
            }).collect();
            prop_assert_eq!(found(&forged, &marks), Some((1 + at % count, What::Rewritten)));
        }

        #[test]
        fn whatever_stands_in_a_log_is_judged(texts in prop::collection::vec(".*", 0..9)) {
            let _ = judged(&texts, &[]);
        }
    }

    #[test]
    fn the_oldest_files_go_in_time_and_not_before() {
        let texts = written(100);
        let in_files = |from: usize| {
            let mut lines = lines(&texts);
            for (at, line) in lines.iter_mut().enumerate() {
                line.file = format!("audit-{:020}.jsonl", at + 1).into();
            }
            lines.last_mut().unwrap().file = "audit.jsonl".into();
            lines.split_off(from)
        };
        let found = |lines: &[Line]| {
            let report = judge("authd", PathBuf::from("audit.jsonl"), lines, &[]);
            report.finding.map(|f| (f.seq, f.what))
        };
        assert_eq!(found(&in_files(100 - Limits::STANDARD.files)), None);
        assert_eq!(found(&in_files(60)), Some((1, What::Removed)));
        // The first line of the oldest file that is kept.
        let mut lines = in_files(30);
        lines[1].file = lines[0].file.clone();
        assert_eq!(found(&lines[1..]), Some((31, What::Removed)));
    }

    #[test]
    fn what_no_mark_covers_is_said() {
        let texts = written(5);
        let marks = [mark(&texts, 3)];
        let report = judged(&texts, &marks);
        assert_eq!((report.covered, report.last, report.marks), (3, 5, 1));
        assert!(as_lines(&[report]).contains("line 3"));
    }
}
