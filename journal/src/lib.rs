//! An append-only journal in one directory: preallocated and recycled segments, one committer, an exclusive
//! lock, and epochs that make a takeover safe.
//!
//! It knows bytes, sequence numbers and epochs, and nothing of what they mean. It decides when a batch is
//! durable and who may say so. It never retries a failed write or sync, never skips damage silently, and
//! never lets the memory for waiting batches grow without bound.
//! Invariant: what was acknowledged once is shown by every later recovery until its owner releases it,
//! whoever dies, freezes or wakes in between.
//!
//! ```
//! use daymark_journal::{Batch, Holder, Locked, Options};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let parent = tempfile::tempdir()?;
//! # let dir = parent.path().join("orders");
//! let locked = Locked::acquire(&dir, &Holder::here("orders-a"), Options::default())?;
//! let epoch = locked.epoch() + 1;
//! let (journal, recovery) = locked.begin(epoch)?.recover(|record| {
//!     println!("{}: kind {}, {} bytes", record.seq, record.kind, record.body.len());
//!     Ok::<(), String>(())
//! })?;
//! let mut batch = Batch::new();
//! batch.push(1, &[b"hello, ", b"world"]);
//! let seqs = journal.append_and_wait(batch)?;
//! assert_eq!(seqs.first, recovery.next_seq);
//! journal.close();
//! # Ok(())
//! # }
//! ```
//!
//! # The commit rule
//! Whoever takes over first writes the new epoch durably and only then reads. Whoever serves first makes a
//! group durable, then re-reads the epoch, and only then acknowledges. If the re-read shows the old epoch,
//! the group was durable before the successor began to read, so the successor has it; if it shows a newer
//! one, nothing is acknowledged any more. This holds even if the lock is broken by force or forgotten by a
//! file system, which is why [`Locked::acquire_forced`] is safe against a process that is merely frozen.
//!
//! # Files
//! | name | what it is |
//! |---|---|
//! | `lock` | held with `flock`; names its holder, so that a refused opener can say who it is |
//! | `epochs/EPOCH` | one marker for each epoch; the highest is the current one |
//! | `manifest-EPOCH` | what the owner of that epoch found: which segments count, and up to which byte |
//! | `seg-ID-EPOCH` | records; the epoch in the name is that of the owner who takes care of the file now |
//! | `spare-EPOCH-N` | a file being filled with zeros, or waiting to be used again |
//!
//! Numbers in names are sixteen hexadecimal digits. Files with other names are left alone.
//!
//! # Late risers
//! A process that was overtaken while it was frozen finishes whatever it was doing when it wakes, and every
//! such step is harmless:
//! - It appends to its segment: that lies behind the length its successor sealed in the manifest. A
//!   successor never appends to a file of an earlier owner and never uses one again.
//! - It creates a segment or a manifest: the name carries its old epoch, so nobody believes it.
//! - It removes or renames a segment: its successor gave that segment another name before it relied on it.
//!   Before that moment the removal was covered by a durable release mark, which the successor reads too.
//! - It claims its epoch: a marker that is not the highest changes nothing.
//!
//! # Torn tails and damage
//! All that waits is written as one frame with one checksum and made durable by one sync; only then comes
//! the next frame. So an invalid frame with no valid one behind it was never acknowledged: it is cut, and
//! [`Recovery::torn_bytes`] says so. Everything else is [`OpenError::Corrupt`] with file and offset: an
//! invalid frame with a valid one behind it, a sealed segment that does not reach its sealed length, a gap in
//! the sequence, a missing manifest. One loss cannot be told from a clean end: somebody deleting the
//! segment with the newest records of an owner whose records nobody has sealed yet.
//!
//! # Start-up and segments
//! An owner starts with a segment that grows, which is created while the others are read, and the next one is
//! filled with zeros in the background, after a quiet time for the first commits; the first commit after that
//! moves over. Released segments of the same owner are used again, at most two wait, the rest is deleted.

mod batch;
mod committer;
mod disk;
mod epoch;
mod error;
#[cfg(test)]
mod fault_tests;
mod feed;
mod format;
mod housekeeper;
mod journal;
mod lock;
mod manifest;
mod names;
mod open;
mod options;
mod reader;
mod recover;
mod scan;
mod segment;
mod select;
mod types;

pub use batch::Batch;
pub use error::{JournalError, OpenError};
pub use journal::Journal;
pub use lock::Holder;
pub use open::{Fenced, Locked};
pub use options::{MAX_BYTES, MIN_SEGMENT_BYTES, Options};
pub use types::{Appended, Record, Recovery, SegmentInfo, Seqs, Stats};
