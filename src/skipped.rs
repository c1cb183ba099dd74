//! What a test does where something that it needs is missing: it says so where people
//! see it, or fails.

/// Says that a test is left out, and why: on standard error, which a passing test
/// hides, and in the file that `HASHPACT_SKIPS` names, which `make test` shows at its
/// end.
///
/// # Panics
/// With `HASHPACT_TESTS_SKIP=deny`, where nothing may be left out; when that file
/// cannot be written.
#[allow(clippy::print_stderr, reason = "what a test leaves out is said")]
pub(crate) fn skipped(what: &str) {
    use std::io::Write as _;
    let denied = std::env::var_os("HASHPACT_TESTS_SKIP").is_some_and(|how| how == "deny");
    assert!(!denied, "left out, and nothing may be: {what}");
    eprintln!("SKIPPED: {what}");
    if let Some(list) = std::env::var_os("HASHPACT_SKIPS") {
        let opened = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(list);
        writeln!(opened.unwrap(), "{what}").unwrap();
    }
}
