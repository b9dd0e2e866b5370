//! What list shows, and that it does not walk through what it does not show.

use daymark_naming_proto::{Name, Scope, WatchMessage};

use crate::support::{Story, changed, name, queue};

fn listed(story: &Story, context: &str) -> Vec<String> {
    let listing = story.directory.list(&name(context), false).expect("a listing");
    listing
        .entries
        .iter()
        .map(|entry| entry.name.to_string())
        .collect()
}

#[test]
fn a_listing_holds_the_children_in_order_and_nothing_below_them() {
    let mut story = Story::new();
    for context in ["b", "b/c", "b/c/d", "b-a", "a", "b/e"] {
        changed(story.create(context));
    }
    changed(story.bind("b/c/d/q", queue("1")));
    changed(story.bind("b/z", queue("1")));
    assert_eq!(listed(&story, ""), ["a", "b", "b-a"]);
    assert_eq!(listed(&story, "b"), ["b/c", "b/e", "b/z"]);
    assert_eq!(listed(&story, "b/c"), ["b/c/d"]);
    assert!(listed(&story, "a").is_empty());
}

#[test]
fn bindings_come_along_only_where_they_are_asked_for() {
    let mut story = Story::new();
    changed(story.bind("q", queue("1")));
    let bare = story.directory.list(&Name::root(), false).expect("a listing");
    assert!(bare.entries[0].binding.is_none());
    let full = story.directory.list(&Name::root(), true).expect("a listing");
    assert_eq!(full.entries[0].binding, story.lookup("q").ok());
}

#[test]
fn only_a_context_can_be_listed() {
    let mut story = Story::new();
    changed(story.bind("q", queue("1")));
    let refusal = |text: &str| {
        story
            .directory
            .list(&name(text), false)
            .expect_err("no listing")
            .code()
    };
    assert_eq!(refusal("q"), "NotContext");
    assert_eq!(refusal("x"), "NameNotFound");
}

#[test]
fn a_few_contexts_over_many_names_are_listed_without_visiting_the_names() {
    let mut story = Story::new();
    let mut bind = |text: &str, is_context: bool| {
        let answer = if is_context {
            story.create(text)
        } else {
            story.bind(text, queue("1"))
        };
        changed(answer);
    };
    for context in 0..4 {
        bind(&format!("c{context}"), true);
        for below in 0..100 {
            bind(&format!("c{context}/q{below}"), false);
        }
    }
    assert_eq!(listed(&story, ""), ["c0", "c1", "c2", "c3"]);
    assert_eq!(listed(&story, "c2").len(), 100);
}

#[test]
fn a_watch_begins_with_what_its_scope_covers_and_a_bookmark() {
    let mut story = Story::new();
    changed(story.create("a"));
    changed(story.create("a/b"));
    changed(story.bind("a/b/q", queue("1")));
    changed(story.bind("z", queue("1")));
    let begun = |text: &str, scope| {
        let messages = story.directory.watch_state(&name(text), scope);
        let shown = messages.iter().map(|message| match message {
            WatchMessage::State { change } => change.name.to_string(),
            WatchMessage::Bookmark { revision } => format!("@{revision}"),
            other @ (WatchMessage::Changed { .. } | WatchMessage::Compacted { .. }) => panic!("{other:?}"),
        });
        shown.collect::<Vec<_>>()
    };
    assert_eq!(begun("a", Scope::Object), ["a", "@4"]);
    assert_eq!(begun("a", Scope::OneLevel), ["a/b", "@4"]);
    assert_eq!(begun("a", Scope::Subtree), ["a", "a/b", "a/b/q", "@4"]);
    assert_eq!(begun("x", Scope::Subtree), ["@4"]);
    assert_eq!(begun("", Scope::OneLevel), ["a", "z", "@4"]);
}
