//! Records on their way to the journal.
//!
//! A batch is encoded while it is filled, so that submitting it is one copy. It is atomic: recovery shows
//! all of its records or none.

use crate::format::split_record;

/// Bytes in front of each record's body: length (u32) and kind (u8).
pub(crate) const RECORD_PREFIX: usize = 5;

/// Records that become durable together and get consecutive sequence numbers.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    encoded: Vec<u8>,
    count: u32,
    largest: u64,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty batch with room for `bytes` of bodies.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            encoded: Vec::with_capacity(bytes + RECORD_PREFIX),
            ..Self::default()
        }
    }

    /// Adds one record whose body is the concatenation of `parts`. `kind` belongs to the owner.
    ///
    /// A body too long for the format is remembered as such and refused by
    /// [`submit`](crate::Journal::submit) with [`TooLarge`](crate::JournalError::TooLarge).
    pub fn push(&mut self, kind: u8, parts: &[&[u8]]) {
        let body: u64 = parts.iter().map(|part| part.len() as u64).sum();
        self.largest = self.largest.max(body);
        self.count = self.count.saturating_add(1);
        let Ok(length) = u32::try_from(body) else {
            return; // `largest` makes submit refuse the batch, so its bytes are not needed.
        };
        self.encoded.extend_from_slice(&length.to_le_bytes());
        self.encoded.push(kind);
        for part in parts {
            self.encoded.extend_from_slice(part);
        }
    }

    /// Number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there is no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes this batch will take in the journal, including five bytes for each record.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.encoded.len() as u64
    }

    /// Every record as it was pushed: its kind and body.
    pub fn records(&self) -> impl Iterator<Item = (u8, &[u8])> {
        let mut rest = self.encoded.as_slice();
        std::iter::from_fn(move || split_record(&mut rest))
    }

    pub(crate) fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Length of the longest body.
    #[must_use]
    pub fn largest(&self) -> u64 {
        self.largest
    }
}
