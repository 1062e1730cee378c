//! The word on tests that cannot run here.

/// Says that a test is skipped and why; fails where `KAI_TESTS_MUST_RUN` is set, as in continuous
/// integration.
pub fn skipped(why: &str) {
    assert!(
        std::env::var_os("KAI_TESTS_MUST_RUN").is_none(),
        "must not be skipped here, but {why}"
    );
    eprintln!("skipped: {why}");
}
