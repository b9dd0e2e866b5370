//! Links: where they are followed, how far, and what stops them.

use daymark_naming_core::LINK_HOPS_MAX;
use daymark_naming_proto::NamingError;

use crate::support::{Story, changed, link, name, queue, refused};

#[test]
fn lookup_follows_a_link_and_lookup_link_does_not() {
    let mut story = Story::new();
    changed(story.bind("q", queue("1")));
    changed(story.bind("l", link("q")));
    assert_eq!(story.lookup("l").expect("a binding").name, name("q"));
    let kept = story.directory.lookup_link(&name("l")).expect("a link");
    assert_eq!(kept.object, link("q"));
}

#[test]
fn a_link_on_the_way_is_followed_with_what_remains_appended() {
    let mut story = Story::new();
    changed(story.create("a"));
    changed(story.create("a/b"));
    changed(story.bind("a/b/q", queue("1")));
    changed(story.bind("l", link("a")));
    assert_eq!(story.lookup("l/b/q").expect("a binding").name, name("a/b/q"));
    let kept = story.directory.lookup_link(&name("l/b/q")).expect("a binding");
    assert_eq!(kept.object, queue("1"));
    let listing = story.directory.list(&name("l/b"), false).expect("a listing");
    assert_eq!(listing.name, name("a/b"));
    assert_eq!(listing.entries[0].name, name("a/b/q"));
}

#[test]
fn a_write_follows_links_to_its_context_and_never_the_name_itself() {
    let mut story = Story::new();
    changed(story.create("a"));
    changed(story.bind("l", link("a")));
    changed(story.bind("l/q", queue("1")));
    assert_eq!(story.last_events(), ["a/q bound"]);
    assert_eq!(refused(story.bind("l", queue("1"))), "NameAlreadyBound");
    changed(story.rebind("l", link("a/q")));
    assert_eq!(refused(story.bind("l/x", queue("1"))), "NotContext");
    changed(story.unbind("l"));
    assert_eq!(story.object("a/q"), queue("1"));
}

#[test]
fn a_link_to_nothing_says_where_the_walk_ended() {
    let mut story = Story::new();
    changed(story.create("a"));
    changed(story.bind("l", link("a/b")));
    let missed = |asked: &str, remaining: &str| NamingError::NameNotFound {
        name: name(asked),
        resolved: name("a"),
        remaining: name(remaining),
        revision: story.directory.revision(),
    };
    assert_eq!(story.lookup("l/c"), Err(missed("l/c", "b/c")));
    let expected = missed("l/c", "b/c");
    assert_eq!(story.bind("l/c", queue("1")), Err(expected));
}

#[test]
fn links_that_lead_in_a_circle_are_a_loop() {
    let mut story = Story::new();
    changed(story.bind("x", link("y")));
    changed(story.bind("y", link("x")));
    let refusal = story.lookup("x").expect_err("a loop");
    assert!(
        matches!(
            refusal,
            NamingError::LinkLoop {
                hops: LINK_HOPS_MAX,
                ..
            }
        ),
        "{refusal}"
    );
    changed(story.bind("deep", link("deep/er")));
    assert_eq!(story.lookup("deep").expect_err("a loop").code(), "LinkLoop");
    assert_eq!(refused(story.bind("x/q", queue("1"))), "LinkLoop");
}

#[test]
fn eight_links_are_followed_and_nine_are_not() {
    let mut story = Story::new();
    changed(story.bind("l0", queue("1")));
    for hop in 1..=9 {
        changed(story.bind(&format!("l{hop}"), link(&format!("l{}", hop - 1))));
    }
    assert_eq!(story.object("l8"), queue("1"));
    assert_eq!(
        story.lookup("l9"),
        Err(NamingError::LinkLoop {
            name: name("l9"),
            at: name("l1"),
            remaining: name(""),
            hops: LINK_HOPS_MAX,
        })
    );
}

#[test]
fn a_link_that_makes_the_name_too_long_is_malformed() {
    let mut story = Story::new();
    let long = "x".repeat(250);
    changed(story.bind("l", link(&format!("l/{long}"))));
    assert_eq!(story.lookup("l").expect_err("too long").code(), "MalformedLink");
}

#[test]
fn a_link_to_the_root_leads_to_the_root() {
    let mut story = Story::new();
    changed(story.bind("l", link("")));
    changed(story.bind("l/q", queue("1")));
    assert_eq!(story.object("q"), queue("1"));
    assert_eq!(story.object("l/l/l/q"), queue("1"));
}
