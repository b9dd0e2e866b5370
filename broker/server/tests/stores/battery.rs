//! The stories every store has to live up to.

use std::collections::BTreeSet;
use std::sync::mpsc;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use daymark_broker_server::store::{AppendError, Batch, Holder, Log, OpenError, Record, Store};
use daymark_test_support::eventually;

/// Longer than anything takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A fresh handle to the store of a story; every handle of one story leads to the same store.
pub(crate) type Open<'a> = &'a dyn Fn(&str) -> Arc<dyn Store>;

/// Number, kind, epoch, body.
pub(crate) type Row = (u64, u8, u64, Vec<u8>);

pub(crate) fn run(open: Open<'_>) {
    for (name, story) in STORIES {
        println!("{name}");
        story(&|| open(name));
    }
}

type Story = fn(&dyn Fn() -> Arc<dyn Store>);

const STORIES: [(&str, Story); 12] = [
    ("new", a_new_store_is_empty_and_has_epoch_0),
    ("order", what_was_acknowledged_is_read_back_as_it_was),
    ("kinds", every_kind_and_every_size_comes_back),
    ("lock", a_second_opener_is_refused_and_told_who_has_it),
    ("stale", an_epoch_that_is_not_newer_is_refused),
    ("force", whoever_lost_its_lock_by_force_acknowledges_nothing_more),
    (
        "race",
        no_acknowledged_batch_is_lost_when_the_lock_is_taken_from_a_busy_holder,
    ),
    ("release", what_is_released_is_given_back_and_the_rest_stays),
    ("crowd", batches_of_many_threads_become_durable_in_order),
    ("refused", a_batch_that_cannot_be_kept_is_refused_and_nothing_else),
    ("closed", a_closed_store_takes_nothing_and_did_not_fail),
    (
        "visitor",
        a_visitor_that_refuses_ends_the_recovery_and_changes_nothing,
    ),
];

pub(crate) fn holder(name: &str) -> Holder {
    Holder::here(name)
}

/// Takes the store over under this epoch, or the next one, and reads it.
pub(crate) fn take(store: &dyn Store, name: &str, force: bool) -> (Log, Vec<Row>) {
    let locked = store.lock(&holder(name), force).expect("the lock");
    let epoch = locked.epoch() + 1;
    let fenced = locked.begin(epoch).expect("the epoch");
    let mut rows = Vec::new();
    let mut visit = |record: Record<'_>| {
        rows.push((record.seq, record.kind, record.epoch, record.body.to_vec()));
        Ok(())
    };
    let log = fenced.recover(&mut visit).expect("everything");
    assert_eq!(log.epoch(), epoch);
    (log, rows)
}

pub(crate) fn batch(bodies: &[&str]) -> Batch {
    let mut batch = Batch::new();
    for body in bodies {
        batch.push(7, &[body.as_bytes()]);
    }
    batch
}

pub(crate) fn texts(rows: &[Row]) -> Vec<String> {
    let text = |(_, _, _, body): &Row| String::from_utf8_lossy(body).into_owned();
    rows.iter().map(text).collect()
}

fn a_new_store_is_empty_and_has_epoch_0(open: &dyn Fn() -> Arc<dyn Store>) {
    let locked = open().lock(&holder("a"), false).expect("the lock");
    assert_eq!(locked.epoch(), 0);
    drop(locked);
    for round in 1..=3 {
        let (log, rows) = take(&*open(), "a", false);
        assert_eq!((log.epoch(), log.next_seq(), rows.len()), (round, 1, 0));
        log.close();
    }
}

fn what_was_acknowledged_is_read_back_as_it_was(open: &dyn Fn() -> Arc<dyn Store>) {
    let (log, _) = take(&*open(), "a", false);
    let seqs = log.append_and_wait(batch(&["one", "two"])).expect("durable");
    assert_eq!((seqs.first, seqs.last), (1, 2));
    log.append_and_wait(batch(&["three"])).expect("durable");
    log.close();
    let (log, rows) = take(&*open(), "b", false);
    assert_eq!(log.next_seq(), 4);
    log.append_and_wait(batch(&["four"])).expect("durable");
    drop(log);
    let (_log, all) = take(&*open(), "a", false);
    assert_eq!(all[..3], rows);
    let numbers: Vec<_> = all
        .iter()
        .map(|(seq, kind, epoch, _)| (*seq, *kind, *epoch))
        .collect();
    assert_eq!(numbers, [(1, 7, 1), (2, 7, 1), (3, 7, 1), (4, 7, 2)]);
    assert_eq!(texts(&all), ["one", "two", "three", "four"]);
}

fn every_kind_and_every_size_comes_back(open: &dyn Fn() -> Arc<dyn Store>) {
    let (log, _) = take(&*open(), "a", false);
    let body = |kind: u8| -> Vec<u8> { (0..usize::from(kind) * 37).map(|at| at as u8 ^ kind).collect() };
    let mut all = Batch::new();
    for kind in 0..=255 {
        let body = body(kind);
        let (head, tail) = body.split_at(body.len() / 3);
        all.push(kind, &[head, tail]);
    }
    log.append_and_wait(all).expect("durable");
    let large = vec![0xa5; 5 << 20];
    let mut batch = Batch::new();
    batch.push(1, &[&large]);
    log.append_and_wait(batch).expect("durable");
    log.close();
    let (_log, rows) = take(&*open(), "a", false);
    for (kind, row) in (0..=255).zip(&rows) {
        assert_eq!((row.1, &row.3), (kind, &body(kind)));
    }
    assert!(rows[256].3 == large);
}

fn a_second_opener_is_refused_and_told_who_has_it(open: &dyn Fn() -> Arc<dyn Store>) {
    let (log, _) = take(&*open(), "orders-a", false);
    let second = open();
    for _ in 0..3 {
        match second.lock(&holder("orders-b"), false) {
            Err(error @ OpenError::LockedBy { .. }) => {
                let text = error.to_string();
                assert!(text.contains("orders-a"), "{text}");
                let OpenError::LockedBy { holder, .. } = error else {
                    unreachable!("matched above");
                };
                assert_eq!(holder.expect("a name").pid, std::process::id());
            }
            other => panic!("it must be refused: {other:?}"),
        }
    }
    log.append_and_wait(batch(&["undisturbed"])).expect("durable");
    log.close();
    let (_log, rows) = take(&*second, "orders-b", false);
    assert_eq!(texts(&rows), ["undisturbed"]);
}

fn an_epoch_that_is_not_newer_is_refused(open: &dyn Fn() -> Arc<dyn Store>) {
    let store = open();
    let begin = |epoch| store.lock(&holder("a"), false).expect("the lock").begin(epoch);
    drop(begin(5).expect("the epoch"));
    for asked in [0, 4, 5] {
        let refused = begin(asked).expect_err("an old epoch");
        assert!(
            matches!(refused, OpenError::StaleEpoch { current: 5, .. }),
            "{refused}"
        );
        assert_eq!(refused.newer_epoch(), Some(5));
    }
    assert_eq!(store.lock(&holder("a"), false).expect("the lock").epoch(), 5);
}

fn whoever_lost_its_lock_by_force_acknowledges_nothing_more(open: &dyn Fn() -> Arc<dyn Store>) {
    let (frozen, _) = take(&*open(), "frozen", false);
    frozen.append_and_wait(batch(&["before"])).expect("durable");
    let (failed, failure) = mpsc::channel();
    frozen.on_failure(move |error| failed.send(error).expect("a receiver"));
    let (log, rows) = take(&*open(), "forced", true);
    assert_eq!(texts(&rows), ["before"]);
    let refused = frozen
        .append_and_wait(batch(&["after"]))
        .expect_err("the lock is gone");
    assert!(refused.is_fatal(), "{refused}");
    let told = failure.recv_timeout(PATIENCE).expect("the failure is told");
    assert_eq!(told.to_string(), frozen.failed().expect("it failed").to_string());
    log.append_and_wait(batch(&["mine"])).expect("durable");
    frozen.close();
    log.close();
    let (_log, rows) = take(&*open(), "later", false);
    assert_eq!(texts(&rows), ["before", "mine"]);
}

fn no_acknowledged_batch_is_lost_when_the_lock_is_taken_from_a_busy_holder(
    open: &dyn Fn() -> Arc<dyn Store>,
) {
    let mut expected = BTreeSet::new();
    let (mut log, _) = take(&*open(), "round-0", false);
    for round in 1..=5 {
        let (acknowledged, answers) = mpsc::channel();
        let (busy, started) = (log.clone(), Arc::new(Barrier::new(2)));
        let ready = Arc::clone(&started);
        let writer = std::thread::spawn(move || {
            ready.wait();
            for number in 0_u32.. {
                let text = format!("{round}-{number}");
                let acknowledged = acknowledged.clone();
                let sent = busy.submit(batch(&[&text]), move |result| {
                    if result.is_ok() {
                        acknowledged.send(text).expect("a receiver");
                    }
                });
                match sent {
                    Ok(_) => std::thread::yield_now(),
                    Err(AppendError::Backlog { .. }) => std::thread::sleep(Duration::from_millis(1)),
                    Err(error) => {
                        assert!(error.is_fatal(), "{error}");
                        return;
                    }
                }
            }
        });
        started.wait();
        let first = answers.recv_timeout(PATIENCE).expect("an acknowledgement");
        let (next, rows) = take(&*open(), &format!("round-{round}"), true);
        writer.join().expect("the writer");
        expected.extend(std::iter::once(first).chain(answers.iter()));
        let found: BTreeSet<_> = texts(&rows).into_iter().collect();
        let lost: Vec<_> = expected.difference(&found).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        log = next;
    }
}

fn what_is_released_is_given_back_and_the_rest_stays(open: &dyn Fn() -> Arc<dyn Store>) {
    let (log, _) = take(&*open(), "a", false);
    let filler = "x".repeat(1000);
    for number in 0..4000 {
        let mut batch = Batch::new();
        batch.push(7, &[format!("{number} ").as_bytes(), filler.as_bytes()]);
        if number % 100 == 99 {
            log.append_and_wait(batch).expect("durable");
        } else {
            log.submit(batch, |result| {
                result.expect("durable");
            })
            .expect("queued");
        }
    }
    let full = log.usage();
    assert!(full.bytes >= 4_000_000, "{full:?}");
    let before = full.before.expect("something to give back");
    assert!(before > 1000, "{before}");
    log.release_before(before);
    eventually(PATIENCE, "the released bytes are given back", || {
        log.usage().bytes < full.bytes / 2
    });
    log.append_and_wait(batch(&["last"])).expect("durable");
    log.close();
    let (_log, rows) = take(&*open(), "b", false);
    let first = rows.first().expect("live records").0;
    assert!(first <= before, "{first} {before}");
    let numbers: Vec<_> = rows.iter().map(|row| row.0).collect();
    assert_eq!(numbers, (first..=4001).collect::<Vec<_>>());
}

fn batches_of_many_threads_become_durable_in_order(open: &dyn Fn() -> Arc<dyn Store>) {
    let (log, _) = take(&*open(), "a", false);
    let (told, answers) = mpsc::channel();
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            let (log, told) = (log.clone(), told.clone());
            std::thread::spawn(move || {
                for number in 0..100 {
                    let told = told.clone();
                    let text = format!("{thread} {number}");
                    log.submit(batch(&[&text, "and more"]), move |result| {
                        told.send(result.expect("durable").seqs).expect("a receiver");
                    })
                    .expect("queued");
                }
            })
        })
        .collect();
    drop(told);
    for thread in threads {
        thread.join().expect("a thread");
    }
    let mut next = 1;
    for _ in 0..800 {
        let seqs = answers.recv_timeout(PATIENCE).expect("an answer");
        assert_eq!((seqs.first, seqs.last), (next, next + 1));
        next += 2;
    }
    log.close();
    let (_log, rows) = take(&*open(), "b", false);
    assert_eq!(rows.len(), 1600);
    let mine = |row: &&Row| row.3.starts_with(b"3 ");
    let of_one: Vec<_> = texts(&rows.iter().filter(mine).cloned().collect::<Vec<_>>());
    let expected: Vec<_> = (0..100).map(|number| format!("3 {number}")).collect();
    assert_eq!(of_one, expected);
}

fn a_batch_that_cannot_be_kept_is_refused_and_nothing_else(open: &dyn Fn() -> Arc<dyn Store>) {
    let (log, _) = take(&*open(), "a", false);
    let empty = log.append_and_wait(Batch::new());
    assert!(matches!(empty, Err(AppendError::EmptyBatch)), "{empty:?}");
    let mut large = Batch::new();
    large.push(1, &[&vec![0; (64 << 20) + 1]]);
    let large = log.append_and_wait(large);
    assert!(matches!(large, Err(AppendError::TooLarge { .. })), "{large:?}");
    assert!(log.failed().is_none());
    assert_eq!(log.append_and_wait(batch(&["small"])).expect("durable").first, 1);
}

fn a_closed_store_takes_nothing_and_did_not_fail(open: &dyn Fn() -> Arc<dyn Store>) {
    let (log, _) = take(&*open(), "a", false);
    let (failed, failure) = mpsc::channel();
    log.on_failure(move |error| failed.send(error).expect("a receiver"));
    let (told, answer) = mpsc::channel();
    log.submit(batch(&["pending"]), move |result| {
        told.send(result).expect("a receiver")
    })
    .expect("queued");
    log.close();
    answer
        .try_recv()
        .expect("answered before it closed")
        .expect("durable");
    let late = log.append_and_wait(batch(&["late"]));
    assert!(matches!(late, Err(AppendError::Closed)), "{late:?}");
    assert!(log.failed().is_none());
    let (_next, rows) = take(&*open(), "b", false);
    assert_eq!(texts(&rows), ["pending"]);
    drop(log);
    assert!(failure.recv().is_err(), "a close is no failure");
}

fn a_visitor_that_refuses_ends_the_recovery_and_changes_nothing(open: &dyn Fn() -> Arc<dyn Store>) {
    let (log, _) = take(&*open(), "a", false);
    log.append_and_wait(batch(&["one", "two", "three"]))
        .expect("durable");
    log.close();
    let locked = open().lock(&holder("b"), false).expect("the lock");
    let epoch = locked.epoch() + 1;
    let mut visit = |record: Record<'_>| match record.seq {
        2 => Err("not this one".into()),
        _ => Ok(()),
    };
    let refused = locked.begin(epoch).expect("the epoch").recover(&mut visit);
    let refused = refused.expect_err("the visitor refused");
    assert!(matches!(refused, OpenError::Visitor { seq: 2, .. }), "{refused}");
    assert!(refused.to_string().contains("not this one"), "{refused}");
    let (_log, rows) = take(&*open(), "c", false);
    assert_eq!(texts(&rows), ["one", "two", "three"]);
}
