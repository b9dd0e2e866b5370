//! What happens when writes and syncs fail, and the commit rule at its narrowest point.

use std::path::Path;
use std::sync::mpsc;

use rustix::io::Errno;

use crate::disk::Disk;
use crate::epoch::Epochs;
use crate::journal::lock;
use crate::{Batch, Holder, Journal, JournalError, Locked, OpenError, Options, Recovery};

fn options() -> Options {
    // Growing segments: the housekeeper prepares one and then leaves the disk alone.
    Options {
        segment_bytes: 64 * 1024,
        preallocate: false,
        ..Options::default()
    }
}

fn open(dir: &Path) -> (Journal, Disk, Recovery, Vec<Vec<u8>>) {
    let locked = Locked::acquire(dir, &Holder::here("test"), options()).unwrap();
    let disk = locked.base.disk.clone();
    let next = locked.epoch() + 1;
    let mut bodies = Vec::new();
    let visit = |record: crate::Record<'_>| {
        bodies.push(record.body.to_vec());
        Ok::<(), String>(())
    };
    let (journal, recovery) = locked.begin(next).unwrap().recover(visit).unwrap();
    await_quiet_housekeeper(&journal);
    (journal, disk, recovery, bodies)
}

/// Until the one prepared segment is there, so that the next write is the committer's.
fn await_quiet_housekeeper(journal: &Journal) {
    let active = |journal: &Journal| journal.segments().iter().map(|s| s.disk_bytes).sum::<u64>();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while journal.stats().disk_bytes <= active(journal) {
        assert!(std::time::Instant::now() < deadline, "no segment was prepared");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

fn batch(body: &[u8]) -> Batch {
    let mut batch = Batch::new();
    batch.push(1, &[body]);
    batch
}

#[test]
fn a_full_disk_is_final_and_said_clearly_and_the_failed_batch_is_cut() {
    for stored in [0, 1, 8, 30, 40, 10_000] {
        let dir = tempfile::tempdir().unwrap();
        let (journal, disk, ..) = open(dir.path());
        journal.append_and_wait(batch(b"kept")).unwrap();
        *lock(&disk.faults.write) = Some((stored, Errno::NOSPC));
        let refused = journal.append_and_wait(batch(b"a body that does not fit"));
        assert!(
            matches!(refused, Err(JournalError::DiskFull { .. })),
            "{refused:?}"
        );
        // There is room again, and still nothing is written: the failure is final.
        let refused = journal.append_and_wait(batch(b"x"));
        assert!(
            matches!(refused, Err(JournalError::DiskFull { .. })),
            "{refused:?}"
        );
        drop(journal);
        let (journal, _, recovery, bodies) = open(dir.path());
        // A frame that was stored completely before the error may be there: its outcome was unknown.
        assert!(
            bodies[0] == b"kept" && bodies.len() <= 1 + usize::from(stored == 10_000),
            "{bodies:?}"
        );
        assert_eq!(
            recovery.torn_bytes > 0,
            (1..=40).contains(&stored),
            "{stored}: {recovery:?}"
        );
        journal.append_and_wait(batch(b"after")).unwrap();
    }
}

#[test]
fn a_failed_sync_is_final_and_everyone_waiting_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, disk, ..) = open(dir.path());
    let (sender, answers) = mpsc::channel();
    // The first group is held in its sync until the second one waits behind it.
    let (reached, in_sync) = mpsc::channel();
    let (go, gate) = mpsc::channel::<()>();
    *lock(&disk.faults.on_sync) = Some(Box::new(move || {
        let _ = reached.send(());
        let _ = gate.recv();
    }));
    let submit = |body: &[u8]| {
        let sender = sender.clone();
        journal
            .submit(batch(body), move |done| sender.send(done).unwrap())
            .unwrap()
    };
    submit(b"first");
    in_sync.recv().unwrap();
    submit(b"second");
    submit(b"third");
    *lock(&disk.faults.sync) = Some(Errno::IO);
    go.send(()).unwrap();
    for _ in 0..3 {
        let answer = answers.recv().unwrap();
        assert!(
            matches!(answer, Err(JournalError::SyncFailed { .. })),
            "{answer:?}"
        );
    }
    assert!(matches!(journal.failed(), Some(JournalError::SyncFailed { .. })));
    assert!(matches!(
        journal.submit(batch(b"x"), |_| {}),
        Err(JournalError::SyncFailed { .. })
    ));
    assert_eq!(journal.stats().pending_bytes, 0);
}

#[test]
fn a_group_that_was_durable_before_a_newer_epoch_was_seen_is_not_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, disk, ..) = open(dir.path());
    journal.append_and_wait(batch(b"first")).unwrap();
    let path = dir.path().to_owned();
    // The successor writes its epoch while the group is being synced.
    let mut once = Some(());
    *lock(&disk.faults.on_sync) = Some(Box::new(move || {
        if once.take().is_some() {
            Epochs::open(&path).unwrap().claim(9).unwrap();
        }
    }));
    let refused = journal.append_and_wait(batch(b"second"));
    assert!(
        matches!(refused, Err(JournalError::Superseded { epoch: 9 })),
        "{refused:?}"
    );
    drop(journal);
    // It was durable all the same, so the successor has it: the outcome was unknown, not failed.
    let (_, _, _, bodies) = open(dir.path());
    assert_eq!(bodies, [b"first".to_vec(), b"second".to_vec()]);
}

#[test]
fn a_recovery_that_cannot_make_what_it_read_durable_fails() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, ..) = open(dir.path());
    journal.append_and_wait(batch(b"first")).unwrap();
    drop(journal);
    let locked = Locked::acquire(dir.path(), &Holder::here("test"), options()).unwrap();
    *lock(&locked.base.disk.faults.sync) = Some(Errno::IO);
    let refused = locked.begin(2).unwrap().recover(|_| Ok::<(), String>(()));
    assert!(
        matches!(refused, Err(OpenError::Io { op: "sync", .. })),
        "{refused:?}"
    );
    assert_eq!(open(dir.path()).3, [b"first".to_vec()]);
}

#[test]
fn a_disk_that_is_full_at_the_takeover_is_said_clearly() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, ..) = open(dir.path());
    journal.append_and_wait(batch(b"first")).unwrap();
    drop(journal);
    let locked = Locked::acquire(dir.path(), &Holder::here("test"), options()).unwrap();
    *lock(&locked.base.disk.faults.write) = Some((10, Errno::NOSPC));
    let refused = locked.begin(2).unwrap().recover(|_| Ok::<(), String>(()));
    assert!(matches!(refused, Err(OpenError::DiskFull { .. })), "{refused:?}");
    assert_eq!(open(dir.path()).3, [b"first".to_vec()]);
}

#[test]
fn a_segment_that_cannot_be_prepared_is_created_by_the_commit_that_needs_it() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        preallocate: true,
        ..options()
    };
    let locked = Locked::acquire(dir.path(), &Holder::here("test"), options).unwrap();
    let disk = locked.base.disk.clone();
    // Every zero-fill fails; frames and headers do not.
    disk.faults
        .refuse_zeros
        .store(true, std::sync::atomic::Ordering::SeqCst);
    let (journal, _) = locked
        .begin(1)
        .unwrap()
        .recover(|_| Ok::<(), String>(()))
        .unwrap();
    for _ in 0..300 {
        journal.append_and_wait(batch(&[1; 1000])).unwrap();
    }
    assert!(journal.segments().len() >= 5);
    assert!(journal.stats().unprepared >= 4, "{:?}", journal.stats());
    drop(journal);
    assert_eq!(open(dir.path()).3.len(), 300);
}
