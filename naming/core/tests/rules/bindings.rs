//! bind, rebind, unbind and contexts, one story for each rule.

use daymark_naming_proto::{Attributes, NamingError, Object, Revision, Write};

use crate::support::{Story, changed, name, queue, refused, unchanged};

#[test]
fn a_bound_name_is_found_with_the_revision_that_bound_it() {
    let mut story = Story::new();
    let revision = changed(story.bind("q", queue("1")));
    let binding = story.lookup("q").expect("a binding");
    assert_eq!(binding.object, queue("1"));
    assert_eq!(
        (binding.created, binding.revision),
        (Revision(revision), Revision(revision))
    );
    assert_eq!(binding.owner, None);
}

#[test]
fn bind_refuses_a_name_that_is_bound() {
    let mut story = Story::new();
    changed(story.bind("q", queue("1")));
    assert_eq!(
        story.bind("q", queue("2")),
        Err(NamingError::NameAlreadyBound { name: name("q") })
    );
    assert_eq!(refused(story.bind("", queue("2"))), "NameAlreadyBound");
    assert_eq!(story.object("q"), queue("1"));
}

#[test]
fn bind_needs_its_context_and_says_how_far_it_got() {
    let mut story = Story::new();
    changed(story.create("a"));
    assert_eq!(
        story.bind("a/b/c", queue("1")),
        Err(NamingError::NameNotFound {
            name: name("a/b/c"),
            resolved: name("a"),
            remaining: name("b/c"),
            revision: Revision(1),
        })
    );
    changed(story.bind("a/q", queue("1")));
    for below in ["a/q/x", "a/q/x/y"] {
        let expected = NamingError::NotContext {
            name: name(below),
            resolved: name("a/q"),
            remaining: name(below).suffix(2),
        };
        assert_eq!(story.bind(below, queue("1")), Err(expected));
    }
}

#[test]
fn a_lookup_that_misses_says_how_far_it_got() {
    let mut story = Story::new();
    changed(story.create("a"));
    assert_eq!(
        story.lookup("a/b/c"),
        Err(NamingError::NameNotFound {
            name: name("a/b/c"),
            resolved: name("a"),
            remaining: name("b/c"),
            revision: Revision(1),
        })
    );
    changed(story.bind("a/b", queue("1")));
    let resolved = name("a/b");
    let expected = NamingError::NotContext {
        name: name("a/b/c"),
        resolved,
        remaining: name("c"),
    };
    assert_eq!(story.lookup("a/b/c"), Err(expected));
}

#[test]
fn rebind_creates_or_replaces_and_remembers_who_came_first() {
    let mut story = Story::new();
    let created = changed(story.rebind("q", queue("1")));
    assert_eq!(story.last_events(), ["q bound"]);
    let rebound = changed(story.rebind("q", queue("2")));
    assert_eq!(story.last_events(), ["q rebound"]);
    let binding = story.lookup("q").expect("a binding");
    assert_eq!(
        (binding.created, binding.revision),
        (Revision(created), Revision(rebound))
    );
}

#[test]
fn rebind_keeps_the_attributes_unless_it_brings_some() {
    let mut story = Story::new();
    let attributes: Attributes = [("region".to_owned(), vec!["eu".to_owned()])]
        .into_iter()
        .collect();
    changed(story.write(Write::Bind {
        name: name("q"),
        object: queue("1"),
        attributes: attributes.clone(),
    }));
    changed(story.rebind("q", queue("2")));
    assert_eq!(story.lookup("q").expect("a binding").attributes, attributes);
    changed(story.write(Write::Rebind {
        name: name("q"),
        object: queue("2"),
        attributes: Some(Attributes::new()),
        expected: None,
    }));
    assert!(story.lookup("q").expect("a binding").attributes.is_empty());
}

#[test]
fn a_rebind_that_changes_nothing_makes_no_revision() {
    let mut story = Story::new();
    changed(story.bind("q", queue("1")));
    unchanged(story.rebind("q", queue("1")));
    assert_eq!(story.directory.revision(), Revision(1));
}

#[test]
fn an_expected_revision_that_is_not_the_bindings_refuses_the_write() {
    let mut story = Story::new();
    assert_eq!(
        refused(story.rebind_if("q", queue("1"), Some(4))),
        "RevisionMismatch"
    );
    let first = changed(story.rebind_if("q", queue("1"), Some(0)));
    let mismatch = NamingError::RevisionMismatch {
        name: name("q"),
        expected: Revision(0),
        actual: Revision(first),
    };
    assert_eq!(story.rebind_if("q", queue("2"), Some(0)), Err(mismatch));
    let second = changed(story.rebind_if("q", queue("2"), Some(first)));
    assert_eq!(refused(story.unbind_if("q", Some(first))), "RevisionMismatch");
    changed(story.unbind_if("q", Some(second)));
    assert_eq!(refused(story.unbind_if("q", Some(second))), "RevisionMismatch");
    unchanged(story.unbind_if("q", Some(0)));
}

#[test]
fn unbind_is_idempotent_but_needs_the_context() {
    let mut story = Story::new();
    changed(story.bind("q", queue("1")));
    changed(story.unbind("q"));
    assert_eq!(story.last_events(), ["q unbound"]);
    unchanged(story.unbind("q"));
    assert_eq!(refused(story.unbind("a/q")), "NameNotFound");
}

#[test]
fn a_context_with_names_below_it_is_neither_unbound_nor_replaced_nor_destroyed() {
    let mut story = Story::new();
    changed(story.create("a"));
    changed(story.bind("a/q", queue("1")));
    changed(story.bind("ab", queue("1")));
    assert_eq!(refused(story.unbind("a")), "ContextNotEmpty");
    assert_eq!(refused(story.rebind("a", queue("1"))), "ContextNotEmpty");
    assert_eq!(refused(story.destroy("a")), "ContextNotEmpty");
    changed(story.unbind("a/q"));
    changed(story.destroy("a"));
    unchanged(story.destroy("a"));
    assert_eq!(refused(story.destroy("a/b")), "NameNotFound");
}

#[test]
fn an_empty_context_may_be_replaced_or_unbound() {
    let mut story = Story::new();
    changed(story.create("a"));
    changed(story.rebind("a", queue("1")));
    assert_eq!(refused(story.destroy("a")), "NotContext");
    changed(story.create("b"));
    changed(story.unbind("b"));
}

#[test]
fn a_context_rebound_to_a_context_keeps_what_is_below_it() {
    let mut story = Story::new();
    changed(story.create("a"));
    changed(story.bind("a/q", queue("1")));
    changed(
        story.write(Write::Rebind {
            name: name("a"),
            object: Object::Context,
            attributes: Some(
                [("owner".to_owned(), vec!["us".to_owned()])]
                    .into_iter()
                    .collect(),
            ),
            expected: None,
        }),
    );
    assert_eq!(story.object("a/q"), queue("1"));
    assert_eq!(story.lookup("a").expect("a context").attributes.len(), 1);
}

#[test]
fn the_root_is_a_context_that_always_exists() {
    let mut story = Story::new();
    assert_eq!(story.object(""), Object::Context);
    assert_eq!(refused(story.destroy("")), "InvalidRequest");
    assert_eq!(refused(story.unbind("")), "InvalidRequest");
    assert_eq!(refused(story.rebind("", queue("1"))), "InvalidRequest");
    assert_eq!(refused(story.create("")), "NameAlreadyBound");
    changed(story.bind("q", queue("1")));
    assert_eq!(refused(story.destroy("")), "ContextNotEmpty");
}

#[test]
fn names_with_empty_components_are_names_like_others() {
    let mut story = Story::new();
    changed(story.create("/"));
    changed(story.bind("/a", queue("1")));
    assert_eq!(story.object("/a"), queue("1"));
    assert_eq!(refused(story.destroy("/")), "ContextNotEmpty");
}
