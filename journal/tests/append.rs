//! Appending, reading back, and what submitting promises.

mod common;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use common::{await_prepared, batch, eventually, files, numbered, open, small, try_open};
use daymark_journal::{Batch, Journal, JournalError, MIN_SEGMENT_BYTES, OpenError, Options, Seqs};

fn temp() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

#[test]
fn what_was_appended_is_read_back_in_order() {
    let dir = temp();
    let (journal, recovery, records) = open(dir.path(), Options::default());
    assert_eq!((recovery.records, recovery.next_seq, records.len()), (0, 1, 0));
    let mut first = Batch::new();
    first.push(1, &[b"he", b"", b"llo"]);
    first.push(2, &[]);
    assert_eq!(
        journal.append_and_wait(first).unwrap(),
        Seqs { first: 1, last: 2 }
    );
    assert_eq!(
        journal.append_and_wait(batch(&[b"third"])).unwrap(),
        Seqs { first: 3, last: 3 }
    );
    journal.close();
    let (journal, recovery, records) = open(dir.path(), Options::default());
    let seen: Vec<_> = records
        .iter()
        .map(|r| (r.seq, r.kind, r.epoch, r.body.as_slice()))
        .collect();
    assert_eq!(
        seen,
        [
            (1, 1, 1, b"hello".as_slice()),
            (2, 2, 1, b""),
            (3, 7, 1, b"third")
        ]
    );
    assert_eq!((recovery.records, recovery.bytes, recovery.next_seq), (3, 10, 4));
    assert_eq!((recovery.torn_bytes, recovery.segments), (0, 1));
    assert_eq!(journal.append_and_wait(batch(&[b"x"])).unwrap().first, 4);
}

#[test]
fn records_survive_many_owners_and_segments() {
    let dir = temp();
    let mut expected = 0;
    for owner in 1..=5 {
        let (journal, _, records) = open(dir.path(), small());
        assert_eq!(journal.epoch(), owner);
        assert_eq!(records.len() as u64, expected);
        for (index, record) in records.iter().enumerate() {
            assert_eq!(record.seq, index as u64 + 1);
            assert_eq!(record.body, numbered(record.seq, 1000));
            assert_eq!(record.epoch, index as u64 / 200 + 1);
        }
        for number in expected + 1..=expected + 200 {
            journal
                .append_and_wait(batch(&[&numbered(number, 1000)]))
                .unwrap();
        }
        expected += 200;
        assert!(
            journal.segments().len() as u64 >= 3 * owner,
            "{:?}",
            journal.segments()
        );
    }
}

#[test]
fn one_sync_serves_everything_that_waits() {
    let dir = temp();
    let (journal, ..) = open(dir.path(), Options::default());
    let (sender, answers) = mpsc::channel();
    for number in 1..=10_000_u64 {
        let sender = sender.clone();
        journal
            .submit(batch(&[&numbered(number, 100)]), move |done| {
                sender.send(done.unwrap().seqs).unwrap()
            })
            .unwrap();
    }
    let order: Vec<u64> = answers.iter().take(10_000).map(|seqs| seqs.first).collect();
    assert!(order.is_sorted(), "callbacks come in submission order");
    let stats = journal.stats();
    assert_eq!((stats.appended_records, stats.pending_bytes), (10_000, 0));
    assert!(stats.syncs * 10 < 10_000, "{} syncs", stats.syncs);
}

#[test]
fn a_batch_larger_than_a_segment_gets_one_of_its_own() {
    let dir = temp();
    let (journal, ..) = open(dir.path(), small());
    let large = vec![3; 5 * MIN_SEGMENT_BYTES as usize];
    journal.append_and_wait(batch(&[b"before"])).unwrap();
    journal.append_and_wait(batch(&[&large, b"same batch"])).unwrap();
    journal.append_and_wait(batch(&[b"after"])).unwrap();
    journal.close();
    let (_, recovery, records) = open(dir.path(), small());
    let lengths: Vec<usize> = records.iter().map(|record| record.body.len()).collect();
    assert_eq!(lengths, [6, large.len(), 10, 5]);
    assert_eq!(recovery.segments, 3);
}

#[test]
fn without_preallocation_everything_works_the_same() {
    let dir = temp();
    let options = Options {
        preallocate: false,
        ..small()
    };
    let (journal, ..) = open(dir.path(), options.clone());
    for number in 1..=300 {
        journal
            .append_and_wait(batch(&[&numbered(number, 1000)]))
            .unwrap();
    }
    assert!(journal.segments().len() >= 4);
    drop(journal);
    assert_eq!(open(dir.path(), options).2.len(), 300);
}

#[test]
fn a_batch_that_can_never_fit_is_refused_at_once() {
    let dir = temp();
    let options = Options {
        max_record_bytes: 10,
        max_pending_bytes: 100,
        ..Options::default()
    };
    let (journal, ..) = open(dir.path(), options);
    let refused = journal.append_and_wait(batch(&[&[0; 11]]));
    assert!(
        matches!(refused, Err(JournalError::TooLarge { bytes: 11, limit: 10 })),
        "{refused:?}"
    );
    let refused = journal.append_and_wait(batch(&[&[0_u8; 10] as &[u8]; 7]));
    assert!(
        matches!(
            refused,
            Err(JournalError::TooLarge {
                bytes: 105,
                limit: 100
            })
        ),
        "{refused:?}"
    );
    assert!(matches!(
        journal.append_and_wait(Batch::new()),
        Err(JournalError::EmptyBatch)
    ));
    assert_eq!(journal.append_and_wait(batch(&[&[0; 10]])).unwrap().first, 1);
}

#[test]
fn a_backlog_is_refused_without_being_queued() {
    let dir = temp();
    let options = Options {
        max_pending_bytes: 1000,
        ..Options::default()
    };
    let (journal, ..) = open(dir.path(), options);
    // The committer is held inside a callback, so that nothing drains.
    let (entered, at_gate) = mpsc::channel();
    let (open_gate, gate) = mpsc::channel::<()>();
    journal
        .submit(batch(&[b"gate"]), move |_| {
            entered.send(()).unwrap();
            let _ = gate.recv();
        })
        .unwrap();
    at_gate.recv().unwrap();
    let answered = Arc::new(AtomicU64::new(0));
    let mut queued = 0;
    let refused = loop {
        let counter = Arc::clone(&answered);
        let done = move |result: Result<_, _>| {
            counter.fetch_add(u64::from(result.is_ok()), Ordering::SeqCst);
        };
        match journal.submit(batch(&[&[0; 95]]), done) {
            Ok(seqs) => {
                queued += 1;
                assert_eq!(seqs.first, queued + 1);
            }
            Err(refused) => break refused,
        }
    };
    assert!(
        matches!(
            refused,
            JournalError::Backlog {
                pending: 1000,
                limit: 1000
            }
        ),
        "{refused:?}"
    );
    assert!(!refused.is_fatal());
    assert_eq!(queued, 10);
    open_gate.send(()).unwrap();
    eventually("the backlog drains", || {
        (answered.load(Ordering::SeqCst) == 10).then_some(())
    });
    let next = eventually("there is room again", || {
        journal.append_and_wait(batch(&[&[0; 95]])).ok()
    });
    assert_eq!(next.first, 12, "a refused batch takes no number");
}

#[test]
fn closing_flushes_what_is_pending() {
    let dir = temp();
    let (journal, ..) = open(dir.path(), Options::default());
    let answered = Arc::new(AtomicU64::new(0));
    for number in 1..=1000 {
        let counter = Arc::clone(&answered);
        let done = move |result: Result<_, _>| {
            counter.fetch_add(u64::from(result.is_ok()), Ordering::SeqCst);
        };
        journal.submit(batch(&[&numbered(number, 50)]), done).unwrap();
    }
    let other = journal.clone();
    journal.close();
    assert_eq!(answered.load(Ordering::SeqCst), 1000);
    assert!(matches!(
        other.append_and_wait(batch(&[b"late"])),
        Err(JournalError::Closed)
    ));
    assert!(other.failed().is_none(), "closing is no failure");
    // The lock is free although a handle is still there.
    assert_eq!(open(dir.path(), Options::default()).2.len(), 1000);
}

#[test]
fn dropping_the_last_handle_inside_a_callback_closes_too() {
    let dir = temp();
    let (journal, ..) = open(dir.path(), Options::default());
    let inside = journal.clone();
    journal.submit(batch(&[b"x"]), move |_| drop(inside)).unwrap();
    drop(journal);
    let records = eventually("the lock is free", || {
        try_open(dir.path(), Options::default()).ok()
    })
    .2;
    assert_eq!(records.len(), 1);
}

#[test]
fn a_callback_may_submit_but_not_wait() {
    let dir = temp();
    let (journal, ..) = open(dir.path(), Options::default());
    let (sender, answer) = mpsc::channel();
    let inside = journal.clone();
    journal
        .submit(batch(&[b"outer"]), move |_| {
            let waited = inside.append_and_wait(batch(&[b"never"]));
            assert!(matches!(waited, Err(JournalError::WouldDeadlock)));
            inside
                .submit(batch(&[b"inner"]), move |done| sender.send(done).unwrap())
                .unwrap();
        })
        .unwrap();
    assert_eq!(answer.recv().unwrap().unwrap().seqs.first, 2);
}

#[test]
fn a_callback_that_panics_stops_the_journal_and_everyone_is_told() {
    let dir = temp();
    let (journal, ..) = open(dir.path(), Options::default());
    let (failed, failure) = mpsc::channel();
    journal.on_failure(move |error| failed.send(error).unwrap());
    journal
        .submit(batch(&[b"x"]), |_| panic!("by intention"))
        .unwrap();
    let error = failure.recv().unwrap();
    assert!(
        matches!(&error, JournalError::CommitterPanicked { message } if message == "by intention"),
        "{error:?}"
    );
    assert!(journal.append_and_wait(batch(&[b"y"])).is_err());
    let (again, at_once) = mpsc::channel();
    journal.on_failure(move |error| again.send(error.to_string()).unwrap());
    assert_eq!(at_once.try_recv().unwrap(), error.to_string());
}

#[test]
fn many_threads_may_append_at_once() {
    let dir = temp();
    let (journal, ..) = open(dir.path(), small());
    let per_thread = 200_u64;
    let mut seen: Vec<(u64, u64)> = std::thread::scope(|scope| {
        let append = |journal: Journal, thread: u64| {
            let numbers = thread * per_thread..(thread + 1) * per_thread;
            let append = |n| {
                (
                    journal.append_and_wait(batch(&[&numbered(n, 64)])).unwrap().first,
                    n,
                )
            };
            numbers.map(append).collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                scope.spawn({
                    let journal = journal.clone();
                    move || append(journal, thread)
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    seen.sort_unstable();
    drop(journal);
    let (_, _, records) = open(dir.path(), small());
    let stored: Vec<(u64, u64)> = records
        .iter()
        .map(|record| {
            (
                record.seq,
                u64::from_le_bytes(record.body[..8].try_into().unwrap()),
            )
        })
        .collect();
    assert_eq!(stored, seen);
}

#[test]
fn options_out_of_range_touch_nothing() {
    let dir = temp();
    let path = dir.path().join("journal");
    for options in [
        Options {
            segment_bytes: MIN_SEGMENT_BYTES - 1,
            ..Options::default()
        },
        Options {
            segment_bytes: 1 << 40,
            ..Options::default()
        },
        Options {
            max_record_bytes: 0,
            ..Options::default()
        },
        Options {
            max_record_bytes: u32::MAX,
            ..Options::default()
        },
        Options {
            max_pending_bytes: 0,
            ..Options::default()
        },
    ] {
        let refused = try_open(&path, options.clone());
        assert!(
            matches!(refused, Err(OpenError::InvalidOption { .. })),
            "{options:?}"
        );
    }
    assert!(!path.exists());
}

#[test]
fn a_prepared_segment_is_full_size_before_it_is_used() {
    let dir = temp();
    let (journal, ..) = open(dir.path(), small());
    await_prepared(&journal, &small());
    let prepared = files(dir.path(), "seg-").pop().unwrap();
    assert_eq!(prepared.metadata().unwrap().len(), 64 * 1024);
    // The first append moves to it, because the segment of the start-up grows as it is written.
    journal.append_and_wait(batch(&[b"x"])).unwrap();
    let segments = journal.segments();
    let last = segments.last().unwrap();
    assert!(
        prepared
            .to_string_lossy()
            .contains(&format!("seg-{:016x}", last.id))
    );
    assert_eq!(
        (last.disk_bytes, last.first_seq, last.last_seq),
        (64 * 1024, 1, 1)
    );
    assert_eq!(segments.len(), 1, "the empty first segment is gone");
}
