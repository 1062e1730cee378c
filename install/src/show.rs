//! Findings as lines for people, or as one JSON object for machines.

use kai_program::json::steers;
use serde_json::json;

use crate::checks::{Check, State, Verdict};

/// One line for each check.
#[must_use]
pub fn as_lines(checks: &[Check]) -> String {
    let lines: Vec<String> = checks.iter().map(line).collect();
    lines.join("\n")
}

fn line(check: &Check) -> String {
    let state = match check.finding.state {
        State::Ok => "ok",
        State::Note => "note",
        State::NeedsRoot => "needs root",
        State::Missing => "missing",
    };
    let mut line = format!("{state:<10}  {:<17}  {}", check.name, check.finding.found);
    if let Some(mend) = &check.finding.mend {
        line.push_str("; mend it: ");
        line.push_str(mend);
    }
    // Paths are whatever the configuration says, and this may be root's terminal.
    line.chars()
        .map(|c| {
            if c.is_control() || steers(c) {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

/// `{"ready": …, "checks": [{"name", "state", "found", "mend"}, …]}`.
#[must_use]
pub fn as_json(checks: &[Check], verdict: Verdict) -> String {
    json!({ "ready": verdict == Verdict::Ready, "checks": checks }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::Finding;

    fn missing(found: &str) -> Check {
        Check {
            name: "agent".to_owned(),
            finding: Finding {
                state: State::Missing,
                found: found.to_owned(),
                mend: Some("do this".to_owned()),
            },
        }
    }

    #[test]
    fn a_line_says_state_name_finding_and_mend() {
        assert_eq!(
            as_lines(&[missing("/x does not exist")]),
            "missing     agent              /x does not exist; mend it: do this"
        );
    }

    #[test]
    fn a_path_cannot_begin_a_line_or_steer_the_terminal() {
        let shown = as_lines(&[missing("/x\nok  all\u{1b}[2J\u{202e}")]);
        assert!(!shown.contains(['\n', '\u{1b}', '\u{202e}']), "{shown:?}");
    }
}
