//! What the tests of the journal share: opening in one line, and reading everything back.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "every test binary uses its own part of this"
)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use daymark_journal::{Batch, Fenced, Holder, Journal, Locked, OpenError, Options, Recovery};

/// One record as it was read back.
#[derive(Clone, PartialEq, Eq)]
pub struct Owned {
    pub seq: u64,
    pub kind: u8,
    pub epoch: u64,
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Owned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.seq, self.body.len())
    }
}

/// Small segments, so that tests see many of them.
pub fn small() -> Options {
    Options {
        segment_bytes: 64 * 1024,
        ..Options::default()
    }
}

/// Small segments that grow, so that appends alone decide where each record lies.
pub fn growing() -> Options {
    Options {
        preallocate: false,
        ..small()
    }
}

/// Waits until a filled segment lies ready, so that the next append moves to it.
pub fn await_prepared(journal: &Journal, options: &Options) {
    let ready = || (journal.stats().disk_bytes > options.segment_bytes).then_some(());
    eventually("a segment is prepared", ready);
}

pub fn fence(dir: &Path, options: Options) -> Result<Fenced, OpenError> {
    let locked = Locked::acquire(dir, &Holder::here("test"), options)?;
    let next = locked.epoch() + 1;
    locked.begin(next)
}

pub fn try_open(dir: &Path, options: Options) -> Result<(Journal, Recovery, Vec<Owned>), OpenError> {
    collect(fence(dir, options)?)
}

pub fn open(dir: &Path, options: Options) -> (Journal, Recovery, Vec<Owned>) {
    try_open(dir, options).expect("the journal opens")
}

pub fn force(dir: &Path, options: Options) -> (Journal, Recovery, Vec<Owned>) {
    let locked =
        Locked::acquire_forced(dir, &Holder::here("successor"), options).expect("force always locks");
    let next = locked.epoch() + 1;
    collect(locked.begin(next).expect("the next epoch is newer")).expect("the journal opens")
}

pub fn collect(fenced: Fenced) -> Result<(Journal, Recovery, Vec<Owned>), OpenError> {
    let mut records = Vec::new();
    let (journal, recovery) = fenced.recover(|record| {
        let (seq, kind, epoch, body) = (record.seq, record.kind, record.epoch, record.body.to_vec());
        records.push(Owned {
            seq,
            kind,
            epoch,
            body,
        });
        Ok::<(), String>(())
    })?;
    Ok((journal, recovery, records))
}

pub fn batch(bodies: &[&[u8]]) -> Batch {
    let mut batch = Batch::new();
    for body in bodies {
        batch.push(7, &[body]);
    }
    batch
}

/// A body that says its number and is `length` bytes long.
pub fn numbered(number: u64, length: usize) -> Vec<u8> {
    let mut body = number.to_le_bytes().to_vec();
    body.resize(length.max(8), (number % 251) as u8);
    body
}

/// Waits until `ready` answers something.
pub fn eventually<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Files of the directory whose name starts with `prefix`, sorted by name.
pub fn files(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir)
        .expect("the directory can be listed")
        .map(|entry| entry.expect("the entry can be read").path())
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
        })
        .collect();
    found.sort();
    found
}
