//! Giving room back, and never more than was released.

mod common;

use std::fs;

use common::{batch, eventually, files, growing, numbered, open, small, try_open};
use daymark_journal::{Journal, OpenError, SegmentInfo};

fn append(journal: &Journal, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        journal
            .append_and_wait(batch(&[&numbered(number, 1000)]))
            .expect("the journal is ours");
    }
}

fn first_seq(journal: &Journal) -> u64 {
    journal.segments()[0].first_seq
}

fn temp() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

#[test]
fn whole_segments_below_the_mark_go_and_nothing_else() {
    let dir = temp();
    let (journal, ..) = open(dir.path(), small());
    append(&journal, 1..=300);
    let before = journal.segments();
    let middle = &before[2];
    journal.release_before(middle.first_seq + 1);
    eventually("two segments are gone", || {
        (first_seq(&journal) == middle.first_seq).then_some(())
    });
    let ids = |segments: &[SegmentInfo]| segments.iter().map(|segment| segment.id).collect::<Vec<_>>();
    assert_eq!(ids(&journal.segments()), ids(&before[2..]));
    journal.release_before(u64::MAX);
    eventually("only the active one is left", || {
        (journal.segments().len() == 1).then_some(())
    });
    append(&journal, 301..=310);
    let kept = first_seq(&journal);
    drop(journal);
    let (_, recovery, records) = open(dir.path(), small());
    assert!(recovery.released_before > middle.first_seq);
    assert!(records.iter().map(|record| record.seq).eq(records[0].seq..=310));
    assert!(records[0].seq <= kept);
}

#[test]
fn released_files_are_used_again_and_the_disk_does_not_grow() {
    let dir = temp();
    let (journal, ..) = open(dir.path(), small());
    let mut number = 0;
    let mut most = 0;
    for _ in 0..60 {
        append(&journal, number + 1..=number + 60);
        number += 60;
        journal.release_before(number);
        eventually("the release is done", || {
            (journal.segments().len() <= 2).then_some(())
        });
        most = most.max(journal.stats().disk_bytes);
    }
    let stats = journal.stats();
    assert!(stats.recycled >= 10, "{stats:?}");
    assert!(most <= 10 * 64 * 1024, "{most} bytes");
    eventually("few files are left", || {
        (files(dir.path(), "s").len() <= 6).then_some(())
    });
    drop(journal);
    let (_, _, records) = open(dir.path(), small());
    let last = records.last().unwrap();
    assert_eq!((last.seq, &last.body), (number, &numbered(number, 1000)));
}

#[test]
fn what_was_released_and_removed_is_not_missed() {
    let dir = temp();
    let (journal, ..) = open(dir.path(), small());
    append(&journal, 1..=300);
    // Inherited segments are released by the next owner.
    drop(journal);
    let (journal, ..) = open(dir.path(), small());
    append(&journal, 301..=310);
    let inherited: Vec<String> = journal
        .segments()
        .iter()
        .filter(|segment| segment.last_seq < 301)
        .map(|segment| format!("seg-{:016x}-", segment.id))
        .collect();
    journal.release_before(301);
    eventually("inherited segments are gone", || {
        (first_seq(&journal) == 301).then_some(())
    });
    eventually("their files are gone", || {
        let gone = |prefix: &String| files(dir.path(), prefix).is_empty();
        inherited.iter().all(gone).then_some(())
    });
    drop(journal);
    for _ in 0..3 {
        let (journal, recovery, records) = open(dir.path(), small());
        assert_eq!(recovery.released_before, 301);
        assert_eq!(
            records.iter().map(|record| record.seq).collect::<Vec<_>>(),
            (301..=310).collect::<Vec<_>>()
        );
        drop(journal);
    }
}

#[test]
fn what_was_removed_without_a_release_is_missed() {
    let dir = temp();
    let (journal, ..) = open(dir.path(), small());
    append(&journal, 1..=300);
    let third = journal.segments()[2].first_seq;
    let names = files(dir.path(), "seg-");
    journal.release_before(third);
    eventually("two files are gone", || {
        (!names[0].exists() && !names[1].exists()).then_some(())
    });
    drop(journal);
    let segment = files(dir.path(), "seg-").remove(0);
    assert_eq!(segment, names[2]);
    fs::remove_file(segment).unwrap();
    let refused = try_open(dir.path(), small());
    assert!(matches!(refused, Err(OpenError::Corrupt { .. })), "{refused:?}");
}

#[test]
fn a_release_that_was_durable_but_not_carried_out_is_carried_out_later() {
    let dir = temp();
    let (journal, ..) = open(dir.path(), small());
    append(&journal, 1..=300);
    let names = files(dir.path(), "seg-");
    let saved: Vec<Vec<u8>> = names.iter().map(|name| fs::read(name).unwrap()).collect();
    let third = journal.segments()[2].first_seq;
    journal.release_before(third);
    eventually("the files are gone", || {
        (!names[0].exists() && !names[1].exists()).then_some(())
    });
    drop(journal);
    // As if the process had died right before it removed them.
    fs::write(&names[0], &saved[0]).unwrap();
    fs::write(&names[1], &saved[1]).unwrap();
    let (journal, recovery, records) = open(dir.path(), small());
    assert_eq!((recovery.released_before, records[0].seq), (third, 1));
    assert_eq!(first_seq(&journal), third);
    eventually("the files are gone again", || {
        (!names[0].exists() && !names[1].exists()).then_some(())
    });
    drop(journal);
    assert_eq!(open(dir.path(), small()).2[0].seq, third);
}

#[test]
fn an_owner_compacts_by_copying_live_records_forward() {
    let dir = temp();
    let (journal, ..) = open(dir.path(), small());
    // Every hundredth record lives for ever.
    append(&journal, 1..=1000);
    let live: Vec<u64> = (1..=1000).filter(|number| number % 100 == 0).collect();
    let segments = journal.segments();
    let boundary = segments.last().unwrap().first_seq;
    for number in live.iter().filter(|number| **number < boundary) {
        journal
            .append_and_wait(batch(&[&numbered(*number, 1000)]))
            .unwrap();
    }
    journal.release_before(boundary);
    eventually("old segments are gone", || {
        (first_seq(&journal) >= boundary).then_some(())
    });
    eventually("their files are gone", || {
        (files(dir.path(), "seg-").len() <= 3).then_some(())
    });
    drop(journal);
    let (_, _, records) = open(dir.path(), small());
    for number in live {
        assert!(
            records.iter().any(|record| record.body == numbered(number, 1000)),
            "record {number}"
        );
    }
    assert!(records.len() < 200);
}

#[test]
fn everything_may_be_released_and_numbers_go_on() {
    let dir = temp();
    for owner in 0..4 {
        let (journal, recovery, _) = open(dir.path(), small());
        assert_eq!(recovery.next_seq, owner * 100 + 1);
        append(&journal, owner * 100 + 1..=owner * 100 + 100);
        journal.release_before(u64::MAX);
        eventually("all but the active are gone", || {
            (journal.segments().len() == 1).then_some(())
        });
    }
    let (journal, recovery, records) = open(dir.path(), small());
    assert!(recovery.released_before > 300, "{recovery:?}");
    assert_eq!(records.last().unwrap().seq, 400);
    assert_eq!(journal.next_seq(), 401);
}

#[test]
fn a_segment_released_while_it_is_active_goes_when_it_is_left() {
    let dir = temp();
    let (journal, ..) = open(dir.path(), growing());
    append(&journal, 1..=10);
    journal.release_before(11);
    journal.append_and_wait(batch(&[&[0; 60_000]])).unwrap();
    eventually("the segment is gone", || {
        (first_seq(&journal) == 11).then_some(())
    });
}

#[test]
fn a_release_never_reaches_records_that_were_not_there_yet() {
    let dir = temp();
    let (journal, ..) = open(dir.path(), small());
    append(&journal, 1..=10);
    journal.release_before(u64::MAX);
    append(&journal, 11..=400);
    let segments = journal.segments();
    assert_eq!(segments[0].last_seq.max(11), segments[0].last_seq, "{segments:?}");
    drop(journal);
    let (_, recovery, records) = open(dir.path(), small());
    assert!(recovery.released_before <= 11, "{recovery:?}");
    assert!((11..=400).all(|seq| records.iter().any(|record| record.seq == seq)));
}
