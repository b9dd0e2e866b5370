//! Reading records back, with memory of its own for the messages in them.

use bytes::{Bytes, BytesMut};

use super::{Record, RecordError};

/// Reads stored records. It knows nothing of the queues, so it may run on another thread than what takes the records
/// in.
///
/// Small payloads are copied close together: a block of 8 KiB lives as long as one of them does. Larger ones stand
/// alone.
#[derive(Debug, Default)]
pub struct Decoder {
    block: BytesMut,
}

impl Decoder {
    const BLOCK: usize = 8 << 10;

    /// The record that was stored as these bytes.
    ///
    /// # Errors
    /// [`RecordError::UnknownKind`], [`RecordError::Malformed`].
    pub fn decode(&mut self, kind: u8, bytes: &[u8]) -> Result<Record, RecordError> {
        Record::decode(kind, bytes, |payload| self.copy(payload))
    }

    fn copy(&mut self, payload: &[u8]) -> Bytes {
        if payload.len() > Self::BLOCK / 8 {
            return Bytes::copy_from_slice(payload);
        }
        if self.block.capacity() < payload.len() {
            self.block = BytesMut::with_capacity(Self::BLOCK);
        }
        self.block.extend_from_slice(payload);
        self.block.split().freeze()
    }
}
