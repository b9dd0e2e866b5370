//! An append-only journal in one directory.
//!
//! It knows bytes, sequence numbers and epochs, and nothing of what they mean.

mod batch;
mod committer;
mod disk;
mod epoch;
mod error;
#[cfg(test)]
mod fault_tests;
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
