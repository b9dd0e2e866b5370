//! Plain values an owner gets back.

use std::path::PathBuf;
use std::time::Duration;

/// One record, as recovery shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its sequence number; each is exactly one more than the one before.
    pub seq: u64,
    /// What the owner passed to [`Batch::push`](crate::Batch::push).
    pub kind: u8,
    /// The epoch under which it was written.
    pub epoch: u64,
    /// The bytes.
    pub body: &'a [u8],
}

/// The sequence numbers of one batch, both inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seqs {
    /// Number of the first record.
    pub first: u64,
    /// Number of the last record.
    pub last: u64,
}

/// Proof that a batch is durable and was not overtaken by a newer epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The numbers [`submit`](crate::Journal::submit) had assigned.
    pub seqs: Seqs,
    /// The epoch that was re-read after the sync.
    pub epoch: u64,
}

/// What recovery found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Records shown to the visitor.
    pub records: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Segments with at least one record.
    pub segments: u64,
    /// Number of the first record, or of the next one to be written if there is none.
    pub first_seq: u64,
    /// The number the next record will get.
    pub next_seq: u64,
    /// Everything below was released by an owner; those records may or may not have been shown.
    pub released_before: u64,
    /// Bytes at the end of the last segment that belonged to a write that was never acknowledged.
    pub torn_bytes: u64,
    /// The segment whose tail was cut, if one was.
    pub torn_file: Option<PathBuf>,
    /// Files left behind by earlier owners that were ignored and are being deleted.
    pub leftovers: u64,
    /// How long it took, visitor included.
    pub elapsed: Duration,
}

/// One segment that may still hold records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Ascending number of the segment.
    pub id: u64,
    /// The epoch that wrote its records.
    pub epoch: u64,
    /// Number of its first record; for an empty segment the number the first one would get.
    pub first_seq: u64,
    /// Number of its last durable record; `first_seq - 1` for an empty segment.
    pub last_seq: u64,
    /// Bytes in use.
    pub bytes: u64,
    /// Size of the file.
    pub disk_bytes: u64,
    /// Whether records are being appended to it. It cannot be released.
    pub active: bool,
}

/// Running totals since the journal was opened, and what is there now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records acknowledged.
    pub appended_records: u64,
    /// Bytes acknowledged, record prefixes included.
    pub appended_bytes: u64,
    /// Group commits: each is one write and one sync.
    pub syncs: u64,
    /// Time spent in those syncs, in nanoseconds.
    pub sync_nanos: u64,
    /// The longest of them, in nanoseconds.
    pub sync_nanos_max: u64,
    /// Bytes submitted and not yet answered.
    pub pending_bytes: u64,
    /// Segments that may hold records, the active one included.
    pub segments: u64,
    /// Size of all segment files, spares included.
    pub disk_bytes: u64,
    /// Released segments that were put to use again.
    pub recycled: u64,
    /// Segments that could not be prepared ahead of time, so that a commit had to create one itself.
    pub unprepared: u64,
}
