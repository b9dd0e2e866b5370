//! Searches: that they are carried out in portions, read one state, and end where they must. What filters match is
//! told by the conformance cases.

use daymark_naming_proto::{Found, NamingError, Scope, Search};

use crate::support::{Story, changed, name, queue};

fn everything(scope: Scope) -> Search {
    Search::new(scope, "(objectClass=queue)".parse().expect("a filter"))
}

fn names(found: &Found) -> Vec<&str> {
    found.entries.iter().map(|entry| entry.name.as_str()).collect()
}

/// Contexts `a` and `b` with queues in and beside them.
fn story() -> Story {
    let mut story = Story::new();
    for context in ["a", "a/x", "b"] {
        changed(story.create(context));
    }
    for text in ["a/1", "a/x/2", "a/y", "b/3", "c"] {
        changed(story.bind(text, queue(text)));
    }
    story
}

#[test]
fn a_search_in_single_steps_finds_what_a_search_at_once_finds() {
    let story = story();
    for scope in [Scope::Object, Scope::OneLevel, Scope::Subtree] {
        for base in ["", "a", "a/x", "b", "c"] {
            let begin = || {
                story
                    .directory
                    .search(&name(base), &everything(scope))
                    .expect("a base")
            };
            let (mut slow, mut fast) = (begin(), begin());
            while slow.advance(1) {}
            assert!(!fast.advance(1_000));
            assert_eq!(slow.finish(), fast.finish(), "{scope:?} {base:?}");
        }
    }
}

#[test]
fn a_search_under_way_neither_sees_nor_delays_writes() {
    let mut story = story();
    let mut run = story
        .directory
        .search(&name(""), &everything(Scope::Subtree))
        .expect("the root");
    let revision = story.directory.revision();
    assert!(run.advance(2));
    changed(story.unbind("b/3"));
    changed(story.bind("b/4", queue("4")));
    while run.advance(1) {}
    let found = run.finish();
    assert_eq!(names(&found), ["a/1", "a/x/2", "a/y", "b/3", "c"]);
    assert_eq!(found.revision, revision);
}

#[test]
fn a_search_whose_time_is_over_returns_what_it_has() {
    let story = story();
    let begin = || {
        story
            .directory
            .search(&name(""), &everything(Scope::Subtree))
            .expect("the root")
    };
    let mut cut = begin();
    assert!(cut.advance(3));
    cut.stop_for_time(250);
    let found = cut.finish();
    assert_eq!(names(&found), ["a/1"]);
    assert_eq!(
        found.stopped,
        Some(NamingError::TimeLimitExceeded { limit_ms: 250 })
    );
    let mut done = begin();
    assert!(!done.advance(1_000));
    done.stop_for_time(250);
    assert_eq!(done.finish().stopped, None);
}
