//! What there is in the machine's file system.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::Path,
};

use regex::Regex;
use sha2::{Digest, Sha256};

/// What is no part of the machine's disk, or of this test.
const APART: [&str; 6] = ["/dev", "/mnt", "/proc", "/run", "/sys", "/tmp"];

/// Every path, with what it is: kind, owner, mode, and what is in it.
#[derive(Debug)]
pub struct Listing(BTreeMap<String, String>);

impl Listing {
    pub fn of_this_machine() -> Self {
        let mut listing = Self(BTreeMap::new());
        listing.walk(Path::new("/"));
        listing
    }

    fn walk(&mut self, directory: &Path) {
        // What is gone again while this looks was no part of it.
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = path.to_string_lossy().into_owned();
            let Ok(found) = fs::symlink_metadata(&path) else {
                continue;
            };
            let inside = if found.is_symlink() {
                fs::read_link(&path)
                    .map(|to| format!("-> {}", to.display()))
                    .unwrap_or_default()
            } else if found.is_file() {
                let bytes = fs::read(&path).unwrap_or_default();
                let digest = Sha256::digest(&bytes);
                digest
                    .iter()
                    .take(8)
                    .map(|byte| format!("{byte:02x}"))
                    .collect()
            } else if found.is_dir() {
                "directory".to_owned()
            } else if found.file_type().is_socket() {
                "socket".to_owned()
            } else {
                "other".to_owned()
            };
            let mode = found.permissions().mode() & 0o7777;
            let what = format!("{}:{} {mode:04o} {inside}", found.uid(), found.gid());
            self.0.insert(name.clone(), what);
            if found.is_dir() && !APART.contains(&name.as_str()) {
                self.walk(&path);
            }
        }
    }

    /// What differs between this and `after`, as lines.
    fn differences(&self, after: &Self) -> Vec<(String, String)> {
        let mut differences = Vec::new();
        for (path, was) in &self.0 {
            match after.0.get(path) {
                None => differences.push((path.clone(), "is gone".to_owned())),
                Some(is) if is != was => {
                    differences.push((path.clone(), format!("was {was}, is {is}")));
                }
                Some(_) => {}
            }
        }
        for (path, is) in &after.0 {
            if !self.0.contains_key(path) {
                differences.push((path.clone(), format!("is new: {is}")));
            }
        }
        differences
    }

    /// Nothing may differ but what `reasons` has a line for: `PATTERN  REASON`, where the pattern is a regular
    /// expression of the whole path.
    pub fn judge(&self, after: &Self, reasons: &str) {
        let rules: Vec<Regex> = reasons
            .lines()
            .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
            .map(|line| {
                let (pattern, reason) = line.split_once("  ").expect("PATTERN  REASON");
                assert!(!reason.trim().is_empty(), "{line}: why?");
                Regex::new(&format!("^(?:{pattern})$")).unwrap()
            })
            .collect();
        let differences = self.differences(after);
        let unexplained: Vec<String> = differences
            .iter()
            .filter(|(path, _)| !rules.iter().any(|rule| rule.is_match(path)))
            .map(|(path, what)| format!("{path} {what}"))
            .collect();
        println!(
            "{} paths differ, all of them explained: {}",
            differences.len(),
            unexplained.is_empty()
        );
        assert!(
            unexplained.is_empty(),
            "nobody says why:\n{}",
            unexplained.join("\n")
        );
        // A reason for something that does not happen would one day excuse something else.
        for (rule, line) in rules.iter().zip(
            reasons
                .lines()
                .filter(|line| !line.trim().is_empty() && !line.starts_with('#')),
        ) {
            if !differences.iter().any(|(path, _)| rule.is_match(path)) {
                println!("note: nothing fits this line: {line}");
            }
        }
    }
}
