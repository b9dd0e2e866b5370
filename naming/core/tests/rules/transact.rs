//! Transactions and renames as watchers and replicas see them. What they answer is told by the conformance cases.

use daymark_naming_core::{Directory, Limits};
use daymark_naming_proto::{Attributes, Object, TransactWrite, Write};

use crate::support::{Answer, Story, changed, link, name, queue, refused};

fn transact(story: &mut Story, writes: Vec<TransactWrite>) -> Answer {
    story.write(Write::Transact { writes })
}

fn bind(text: &str, object: Object) -> TransactWrite {
    TransactWrite::Bind {
        name: name(text),
        object,
        attributes: Attributes::new(),
    }
}

fn unbind(text: &str) -> TransactWrite {
    TransactWrite::Unbind {
        name: name(text),
        expected: None,
    }
}

fn rename(story: &mut Story, from: &str, to: &str) -> Answer {
    story.write(Write::Rename {
        name: name(from),
        target: name(to),
        expected: None,
    })
}

#[test]
fn a_watcher_sees_a_transaction_as_one_change_of_each_name() {
    let mut story = Story::new();
    changed(story.bind("gone", queue("1")));
    changed(story.bind("kept", queue("1")));
    let writes = vec![
        bind("new", queue("1")),
        unbind("new"),
        bind("new", queue("2")),
        bind("passing", queue("1")),
        unbind("passing"),
        unbind("kept"),
        bind("kept", queue("2")),
        unbind("gone"),
    ];
    changed(transact(&mut story, writes));
    assert_eq!(story.last_events(), ["gone unbound", "kept rebound", "new bound"]);
    assert_eq!(story.object("new"), queue("2"));
}

#[test]
fn a_refused_transaction_leaves_no_trace_of_the_writes_before() {
    let mut story = Story::new();
    changed(story.create("a"));
    let writes = vec![unbind("a"), bind("b", queue("1")), bind("a/q", queue("1"))];
    assert_eq!(refused(transact(&mut story, writes)), "TransactFailed");
    assert_eq!(story.object("a"), Object::Context);
}

#[test]
fn a_watcher_sees_a_moved_context_go_and_come_in_one_revision() {
    let mut story = Story::new();
    changed(story.create("a"));
    changed(story.bind("a/q", queue("1")));
    changed(rename(&mut story, "a", "b"));
    assert_eq!(
        story.last_events(),
        ["a unbound", "a/q unbound", "b bound", "b/q bound"]
    );
    let restored = Directory::from_snapshot(&story.directory.to_snapshot()).expect("a snapshot");
    assert!(restored.to_snapshot() == story.directory.to_snapshot());
}

#[test]
fn a_rename_that_moves_too_many_names_is_refused() {
    let mut story = Story::within(Limits {
        names_per_rename_max: 2,
        ..Limits::default()
    });
    changed(story.create("a"));
    changed(story.bind("a/1", queue("1")));
    changed(rename(&mut story, "a", "b"));
    changed(story.bind("b/2", queue("1")));
    assert_eq!(refused(rename(&mut story, "b", "c")), "LimitExceeded");
}

#[test]
fn a_rename_through_a_link_moves_what_is_there() {
    let mut story = Story::new();
    changed(story.create("a"));
    changed(story.bind("l", link("a")));
    changed(story.bind("a/q", queue("1")));
    changed(rename(&mut story, "l/q", "p"));
    assert_eq!(story.last_events(), ["a/q unbound", "p bound"]);
}
