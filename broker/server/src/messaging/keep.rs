//! Keeping messages without keeping the buffers they came in.
//!
//! A message is a slice of the buffer that was read from the socket, and holds all of it. A small one that
//! stays would hold far more than itself, so small ones are copied into blocks of their own.

use bytes::{Bytes, BytesMut};

/// Messages below this size are copied.
const SMALL: usize = 1 << 10;
/// Bytes small messages are copied into at a time: what one of them that stays holds at most.
const BLOCK: usize = 4 << 10;

/// The block that small messages of one connection are copied into.
#[derive(Debug, Default)]
pub(super) struct Keeper(BytesMut);

impl Keeper {
    /// The message, in memory that is its own if it is small.
    pub(super) fn keep(&mut self, payload: Bytes) -> Bytes {
        if payload.len() >= SMALL {
            return payload;
        }
        if self.0.capacity() < payload.len() {
            self.0 = BytesMut::with_capacity(BLOCK);
        }
        self.0.extend_from_slice(&payload);
        self.0.split().freeze()
    }

    /// Gives the block back; the messages in it stay.
    pub(super) fn shrink(&mut self) {
        self.0 = BytesMut::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_message_does_not_hold_the_buffer_it_came_in() {
        let buffer = Bytes::from(vec![7; 64 << 10]);
        let mut keeper = Keeper::default();
        let kept: Vec<_> = (0..100).map(|_| keeper.keep(buffer.slice(..100))).collect();
        assert!(kept.iter().all(|message| *message == buffer[..100]));
        assert!(buffer.is_unique());
    }

    #[test]
    fn a_large_message_is_not_copied() {
        let buffer = Bytes::from(vec![7; 64 << 10]);
        let kept = Keeper::default().keep(buffer.slice(..SMALL));
        assert_eq!(kept.as_ptr(), buffer.as_ptr());
    }
}
