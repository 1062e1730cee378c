//! What some tests cannot do without: root, the real agent, a certain kernel.

use std::fmt::Display;
use std::io::Write;

/// The variable that turns a skipped test into a failed one. The CI sets it.
pub const MUST_RUN: &str = "KAI_TESTS_MUST_RUN";

/// What was found, or nothing, with a line that says why the test is skipped.
///
/// # Panics
/// Where every test has to run, instead of skipping.
#[must_use]
pub fn found_or_skipped<T, E: Display>(found: Result<T, E>) -> Option<T> {
    match found {
        Ok(found) => Some(found),
        Err(missing) => {
            let must_run = std::env::var_os(MUST_RUN).is_some();
            assert!(!must_run, "{MUST_RUN} is set, but {missing}");
            // Not `eprintln`: the test harness swallows what that says in a test that passes.
            let _ = writeln!(std::io::stderr(), "skipped: {missing}");
            None
        }
    }
}
