//! The timeline of a group, and the window in which clients reconnect.

use daymark_naming_core::{Directory, Limits, spread_ms};
use daymark_naming_proto::{Epoch, Evidence, FailoverKind, FailoverReport, Write};

use crate::support::{Answer, Story, changed, granted, group, member, queue, refused, unchanged};

fn report(began_unix_ms: u64) -> FailoverReport {
    FailoverReport {
        kind: FailoverKind::Failover,
        began_unix_ms,
        from: None,
        steps: Vec::new(),
    }
}

fn record(story: &mut Story, who: &str, epoch: u64, report: FailoverReport) -> Answer {
    story.write(Write::RecordFailover {
        group: group("orders"),
        member: member(who),
        epoch: Epoch(epoch),
        report,
    })
}

fn epochs(story: &Story) -> Vec<u64> {
    let timeline = story.directory.timeline(&group("orders")).expect("a group");
    timeline
        .failovers
        .iter()
        .map(|failover| failover.epoch.0)
        .collect()
}

#[test]
fn the_last_failovers_are_kept_and_survive_a_restart() {
    let mut story = Story::within(Limits {
        failovers_kept: 3,
        ..Limits::default()
    });
    story.joined("orders", "kkam");
    for round in 1..=5 {
        let epoch = granted(story.claim("orders", "kkam", 0, Evidence::None));
        changed(record(&mut story, "kkam", epoch, report(round)));
    }
    assert_eq!(epochs(&story), [3, 4, 5]);
    let restored = Directory::from_snapshot(&story.directory.to_snapshot()).expect("a snapshot");
    let timeline = |directory: &Directory| directory.timeline(&group("orders"));
    assert_eq!(timeline(&restored), timeline(&story.directory));
}

#[test]
fn what_is_told_again_of_one_epoch_replaces_what_was_told() {
    let mut story = Story::new();
    let (epoch, ..) = story.serving();
    changed(record(&mut story, "active", epoch, report(1)));
    unchanged(record(&mut story, "active", epoch, report(1)));
    changed(record(&mut story, "active", epoch, report(2)));
    assert_eq!(epochs(&story), [epoch]);
    assert!(story.last_events().is_empty());
}

#[test]
fn a_term_that_is_over_tells_nothing() {
    let mut story = Story::new();
    let (epoch, ..) = story.serving();
    granted(story.claim("orders", "standby", 0, Evidence::StoreLock));
    assert_eq!(
        refused(record(&mut story, "active", epoch, report(1))),
        "StaleEpoch"
    );
    assert_eq!(
        refused(record(&mut story, "active", epoch + 1, report(1))),
        "StaleEpoch"
    );
    assert_eq!(
        refused(record(&mut story, "standby", epoch + 2, report(1))),
        "InvalidRequest"
    );
}

#[test]
fn clients_are_spread_by_their_number_and_only_where_exports_change() {
    let mut story = Story::new();
    story.serving();
    let exports = story.directory.last_change().expect("a change").changes.clone();
    assert_eq!(spread_ms(&exports, 0), 0);
    assert_eq!(spread_ms(&exports, 10_000), 1_000);
    assert_eq!(spread_ms(&exports, u64::MAX), 2_000);
    granted(story.claim("orders", "standby", 0, Evidence::StoreLock));
    let withheld = story.directory.last_change().expect("a change").changes.clone();
    assert_eq!(spread_ms(&withheld, 100), 10);
    changed(story.bind("by-hand", queue("1")));
    let by_hand = story.directory.last_change().expect("a change").changes.clone();
    assert_eq!(spread_ms(&by_hand, 10_000), 0);
}
