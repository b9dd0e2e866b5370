//! The journal against a model: a list, and how much of it was released.

mod common;

use std::path::Path;

use common::{await_prepared, collect, files, growing, small};
use daymark_journal::{Batch, Holder, Journal, JournalError, Locked, Options, Seqs};
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    /// Appends one batch for each list of body lengths, waiting only for the last.
    Append(Vec<Vec<u16>>),
    /// Releases this many thousandths of what there is.
    Release(u16),
    /// Closes and opens again.
    Reopen,
    /// Takes over by force while the old owner lives, and lets that one write afterwards.
    Overtake,
    /// Closes, cuts this many bytes off the newest segment's unused end or adds garbage there.
    Garbage(Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => vec(vec(0..3000_u16, 1..4), 1..12).prop_map(Step::Append),
        1 => vec(vec(40_000..65_000_u16, 1..3), 1..2).prop_map(Step::Append),
        2 => (0..1001_u16).prop_map(Step::Release),
        2 => Just(Step::Reopen),
        1 => Just(Step::Overtake),
        1 => vec(any::<u8>(), 1..200).prop_map(Step::Garbage),
    ]
}

#[derive(Default)]
struct Model {
    /// Record `n` is at index `n - 1`.
    bodies: Vec<Vec<u8>>,
    released: u64,
}

impl Model {
    fn open(&self, dir: &Path, options: &Options) -> Journal {
        // By force, so that an owner that still lives does not matter.
        let locked = Locked::acquire_forced(dir, &Holder::here("model"), options.clone()).unwrap();
        let next = locked.epoch() + 1;
        let (journal, recovery, records) = collect(locked.begin(next).unwrap()).unwrap();
        assert_eq!(recovery.next_seq, self.bodies.len() as u64 + 1);
        assert!(recovery.released_before <= self.released.max(1), "{recovery:?}");
        let first = records.first().map_or(recovery.next_seq, |record| record.seq);
        assert!(
            first <= self.released.max(1),
            "{recovery:?}, released {}",
            self.released
        );
        for (seq, record) in (first..recovery.next_seq).zip(&records) {
            assert_eq!((record.seq, &record.body), (seq, &self.bodies[seq as usize - 1]));
        }
        assert_eq!(records.len() as u64, recovery.next_seq - first);
        journal
    }

    fn append(&mut self, journal: &Journal, batches: &[Vec<u16>]) {
        for (index, lengths) in batches.iter().enumerate() {
            let first = self.bodies.len() as u64 + 1;
            let mut batch = Batch::new();
            for length in lengths {
                let body = vec![self.bodies.len() as u8; usize::from(*length)];
                batch.push(*length as u8, &[&body]);
                self.bodies.push(body);
            }
            let expected = Seqs {
                first,
                last: self.bodies.len() as u64,
            };
            let seqs = if index + 1 == batches.len() {
                journal.append_and_wait(batch).unwrap()
            } else {
                journal.submit(batch, |done| assert!(done.is_ok())).unwrap()
            };
            assert_eq!(seqs, expected);
        }
    }
}

/// Writes behind the last frame, as a torn write does. The file is the active segment of a closed journal.
fn add_garbage(dir: &Path, journal: Journal, garbage: &[u8]) {
    // Closed first: a release that is still under way writes a frame of its own.
    journal.close();
    let active = journal.segments().pop().unwrap();
    let path = files(dir, &format!("seg-{:016x}-{:016x}", active.id, active.epoch))
        .pop()
        .unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let end = active.bytes as usize;
    bytes.resize(bytes.len().max(end + garbage.len()), 0);
    bytes[end..end + garbage.len()].copy_from_slice(garbage);
    std::fs::write(&path, bytes).unwrap();
}

fn run(steps: Vec<Step>, options: &Options) {
    let dir = tempfile::tempdir().unwrap();
    let mut model = Model::default();
    let mut journal = model.open(dir.path(), options);
    let mut sleepers = Vec::new();
    for step in steps {
        match step {
            Step::Append(batches) => model.append(&journal, &batches),
            Step::Release(thousandths) => {
                let seq = model.bodies.len() as u64 * u64::from(thousandths) / 1000;
                model.released = model.released.max(seq);
                journal.release_before(seq);
            }
            Step::Reopen => {
                journal.close();
                journal = model.open(dir.path(), options);
            }
            Step::Overtake => {
                let old = std::mem::replace(&mut journal, model.open(dir.path(), options));
                let mut late = Batch::new();
                late.push(0, &[b"late"]);
                let refused = old.append_and_wait(late);
                assert!(matches!(
                    refused,
                    Err(JournalError::Superseded { .. } | JournalError::LockLost { .. })
                ));
                sleepers.push(old);
            }
            Step::Garbage(garbage) => {
                add_garbage(dir.path(), journal, &garbage);
                journal = model.open(dir.path(), options);
            }
        }
    }
    drop(sleepers);
    journal.close();
    model.open(dir.path(), options);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_journal_holds_what_the_model_holds(
        steps in vec(step(), 1..25),
        preallocate in any::<bool>(),
    ) {
        run(steps, &if preallocate { small() } else { growing() });
    }
}

#[test]
fn records_in_recycled_segments_are_told_from_stale_ones() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = Model::default();
    let mut journal = model.open(dir.path(), &small());
    for round in 0..40 {
        await_prepared(&journal, &small());
        for _ in 0..20 {
            model.append(&journal, &[vec![700, 800]]);
        }
        model.released = model.bodies.len() as u64;
        journal.release_before(model.released);
        if round % 20 == 19 {
            assert!(journal.stats().recycled > 0, "{:?}", journal.stats());
            journal.close();
            journal = model.open(dir.path(), &small());
        }
    }
}
