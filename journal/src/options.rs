//! What an owner may choose about a journal, checked before anything touches the disk.

use crate::error::OpenError;

/// Smallest permitted [`Options::segment_bytes`].
pub const MIN_SEGMENT_BYTES: u64 = 64 * 1024;

/// Largest permitted [`Options::segment_bytes`], [`Options::max_record_bytes`] and size of one batch.
pub const MAX_BYTES: u64 = 1 << 30;

/// How a journal lays out its files and how much it lets pile up in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Size of one segment file in bytes. Default 64 MiB, at least 64 KiB, at most 1 GiB.
    /// Larger segments mean fewer files; smaller ones are released sooner.
    pub segment_bytes: u64,
    /// Whether segments are filled with zeros before they are used. Default `true`.
    /// `false` saves the one-off write and costs about a quarter of the append rate, because every sync of
    /// a growing file has to commit its new length as well.
    pub preallocate: bool,
    /// Largest body of one record in bytes. Default 64 MiB, at most 1 GiB.
    pub max_record_bytes: u32,
    /// How many bytes may wait for the disk before [`submit`](crate::Journal::submit) answers
    /// [`Backlog`](crate::JournalError::Backlog). Default 256 MiB. This bounds the memory of the journal.
    pub max_pending_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            preallocate: true,
            max_record_bytes: 64 << 20,
            max_pending_bytes: 256 << 20,
        }
    }
}

impl Options {
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        if !(MIN_SEGMENT_BYTES..=MAX_BYTES).contains(&self.segment_bytes) {
            return Err(OpenError::InvalidOption {
                option: "segment_bytes",
                value: self.segment_bytes,
                min: MIN_SEGMENT_BYTES,
                max: MAX_BYTES,
            });
        }
        if u64::from(self.max_record_bytes) > MAX_BYTES || self.max_record_bytes == 0 {
            return Err(OpenError::InvalidOption {
                option: "max_record_bytes",
                value: u64::from(self.max_record_bytes),
                min: 1,
                max: MAX_BYTES,
            });
        }
        if self.max_pending_bytes == 0 {
            return Err(OpenError::InvalidOption {
                option: "max_pending_bytes",
                value: 0,
                min: 1,
                max: u64::MAX,
            });
        }
        Ok(())
    }
}
