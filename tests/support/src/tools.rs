//! Foreign programs a test needs. A missing one skips the test on a developer's machine, says so, and fails
//! it where `CI=true`: there it would be a check that nobody runs.

use std::path::PathBuf;

/// Where this program is, or `None` after saying that the test is skipped.
///
/// # Panics
/// When it is missing and `CI=true`.
#[must_use]
pub fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|file| file.is_file());
    if found.is_none() {
        skipped(&format!("{name} is not installed (.ci/run installs it)"));
    }
    found
}

/// Says that a test is skipped, and why.
///
/// # Panics
/// Where `CI=true`.
pub fn skipped(why: &str) {
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "must not be skipped here: {why}"
    );
    eprintln!("SKIPPED: {why}");
}
