//! Revisions and what is kept of them.

use daymark_naming_core::Limits;
use daymark_naming_proto::{NamingError, Revision};

use crate::support::{Story, changed, events, queue};

#[test]
fn every_revision_is_replayed_once_and_in_order_even_where_it_touched_no_name() {
    let mut story = Story::new();
    changed(story.bind("q", queue("1")));
    story.joined("orders", "kkam");
    changed(story.unbind("q"));
    let sets: Vec<_> = story
        .directory
        .changes_after(Revision(0))
        .expect("all kept")
        .collect();
    let shown: Vec<_> = sets.iter().map(|set| (set.revision.0, events(set))).collect();
    let expected = [
        (1, vec!["q bound".to_owned()]),
        (2, vec![]),
        (3, vec!["q unbound".to_owned()]),
    ];
    assert_eq!(shown, expected);
    assert_eq!(
        story
            .directory
            .changes_after(Revision(3))
            .expect("nothing new")
            .count(),
        0
    );
}

#[test]
fn resuming_after_the_future_says_that_this_server_lags() {
    let story = Story::new();
    let refusal = story.directory.changes_after(Revision(1)).err();
    let expected = NamingError::Lagging {
        have: Revision(0),
        want: Revision(1),
    };
    assert_eq!(refusal, Some(expected));
}

#[test]
fn history_is_bounded_by_count() {
    let mut story = Story::within(Limits {
        changes_kept: 3,
        ..Limits::default()
    });
    for n in 1..=5 {
        changed(story.rebind("q", queue(&n.to_string())));
    }
    assert_eq!(story.directory.oldest_resumable(), Revision(2));
    assert_eq!(
        story.directory.changes_after(Revision(2)).expect("kept").count(),
        3
    );
    let expected = NamingError::Compacted {
        from: Revision(1),
        oldest: Revision(2),
    };
    assert_eq!(story.directory.changes_after(Revision(1)).err(), Some(expected));
}

#[test]
fn history_is_bounded_by_bytes_but_keeps_the_last_change() {
    let mut story = Story::within(Limits {
        change_bytes_kept: 1_000,
        ..Limits::default()
    });
    for n in 1..=20 {
        changed(story.rebind("q", queue(&n.to_string())));
    }
    let kept = 20 - story.directory.oldest_resumable().0;
    assert!((2..20).contains(&kept), "{kept}");
    changed(story.rebind("q", queue(&"x".repeat(2_000))));
    assert_eq!(story.directory.oldest_resumable(), Revision(20));
    assert_eq!(story.last_events(), ["q rebound"]);
}

#[test]
fn a_clone_is_a_snapshot_that_later_writes_do_not_touch() {
    let mut story = Story::new();
    changed(story.bind("q", queue("1")));
    let earlier = story.directory.clone();
    let bytes = earlier.to_snapshot();
    changed(story.rebind("q", queue("2")));
    assert_eq!(earlier.revision(), Revision(1));
    assert!(earlier.to_snapshot() == bytes);
}
