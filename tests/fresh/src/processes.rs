//! The listing of processes in SECURITY.md, and the one of this machine.

use std::{collections::BTreeMap, fs, path::Path};

use crate::machine::Machine;

/// The command that SECURITY.md names.
const COMMAND: &str = "ps -eo user:12,pid,ppid,nlwp,args --forest";

/// A process, without what differs from day to day: its user, its program's name, its parent's, and for programs of
/// kai's, which have as many as they mean to, its threads.
type Shape = (String, String, String, Option<u32>);

/// The listing below the words `ps -eo …` of SECURITY.md.
fn documented(security: &Path) -> String {
    let text = fs::read_to_string(security).unwrap();
    assert!(text.contains(COMMAND), "SECURITY.md names another command");
    let lines = text.lines().skip_while(|line| !line.contains(COMMAND));
    let lines = lines.skip_while(|line| *line != "```text").skip(1);
    let lines: Vec<&str> = lines.take_while(|line| *line != "```").collect();
    lines.join("\n")
}

/// The processes of a listing that are of kai's programs, or descend from one.
fn shapes(listing: &str) -> Vec<Shape> {
    let mut programs: BTreeMap<u32, String> = BTreeMap::new();
    let mut shapes = Vec::new();
    for line in listing.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [user, pid, parent, threads, args @ ..] = &words[..] else {
            continue;
        };
        let (Ok(pid), Ok(parent)) = (pid.parse(), parent.parse::<u32>()) else {
            continue;
        };
        // The lines of the tree come first.
        let mut args = args.iter().skip_while(|word| ["|", "\\_"].contains(word));
        let program = args.next().and_then(|path| path.rsplit('/').next());
        let program = program.unwrap_or_default().to_owned();
        let is_ours = program.starts_with("kai-") && program != "kai-fresh";
        let Some(parent) = programs.get(&parent).cloned().or(is_ours.then(String::new)) else {
            continue;
        };
        let threads = is_ours.then(|| threads.parse().unwrap());
        programs.insert(pid, program.clone());
        shapes.push(((*user).to_owned(), program, parent, threads));
    }
    shapes.sort();
    shapes
}

/// What SECURITY.md shows is what runs here now.
pub fn are_those_of_security_md(machine: &Machine, security: &Path) {
    let real = machine.done(COMMAND);
    assert_eq!(shapes(&real), shapes(&documented(security)));
}
