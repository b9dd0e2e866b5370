//! The conformance cases, run against the rules themselves: every step is spelled as a RESP command, read
//! back as a request, and carried out. `tests/data/conformance/README.md` describes the cases.

mod case;
mod directory;
mod words;

use std::path::Path;

use case::Case;

/// The codes that one client can be answered by a directory whose limits are the default ones. Left out are
/// those of watches (`Compacted`), of servers (`TimedOut`, `ServiceUnavailable`) and of clocks (`TimeLimitExceeded`).
const CODES: [&str; 24] = [
    "ActiveExists",
    "ContextNotEmpty",
    "GroupNotFound",
    "InvalidAttributeIdentifier",
    "InvalidAttributeValue",
    "InvalidName",
    "InvalidRequest",
    "InvalidSearchFilter",
    "Lagging",
    "LeaseEnded",
    "LimitExceeded",
    "LinkLoop",
    "MalformedLink",
    "MemberNotFound",
    "NameAlreadyBound",
    "NameConflict",
    "NameNotFound",
    "NameUnavailable",
    "NotContext",
    "NotSupported",
    "RevisionMismatch",
    "SizeLimitExceeded",
    "StaleEpoch",
    "TransactFailed",
];

#[test]
fn every_case_goes_as_it_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/conformance");
    let files = std::fs::read_dir(&folder).expect("the folder of cases");
    let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    paths.sort();
    let mut failures = Vec::new();
    let (mut count, mut text_of_all) = (0, String::new());
    for path in &paths {
        let text = std::fs::read_to_string(path).expect("a readable file");
        text_of_all.push_str(&text);
        for line in text.lines() {
            let case: Case = serde_json::from_str(line).expect(line);
            count += 1;
            if let Err(failure) = directory::run(&case) {
                failures.push(format!("{}: {}: {failure}", path.display(), case.case));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(count >= 120, "only {count} cases");
    for code in CODES {
        let expected = format!("{{\"code\": \"{code}\"");
        assert!(text_of_all.contains(&expected), "no case ends in {code}");
    }
}
