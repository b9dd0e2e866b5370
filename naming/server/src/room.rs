//! Room for requests that are not whole yet, over all connections.
//!
//! What every connection may hold anyway is free, so that a server whose room is taken still answers short
//! requests. Invariant: what is beyond that never exceeds the limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use daymark_naming_proto::NamingError;

/// What one connection holds without asking. Buffers that grew beyond it are given back once they are empty, so that
/// a connection nobody asks anything on costs no more than this for each direction.
pub(crate) const FREE_BYTES: usize = 16 << 10;

/// The room of all connections.
pub(crate) struct InputRoom {
    used: AtomicUsize,
    max: usize,
}

/// What one connection holds of it; given back when this is dropped.
pub(crate) struct Share {
    room: Arc<InputRoom>,
    held: usize,
}

impl InputRoom {
    /// Room for as many bytes.
    pub(crate) fn new(max: usize) -> Arc<Self> {
        let used = AtomicUsize::new(0);
        Arc::new(Self { used, max })
    }

    /// The share of a connection, which holds nothing yet.
    pub(crate) fn share(self: &Arc<Self>) -> Share {
        let room = self.clone();
        Share { room, held: 0 }
    }
}

impl Share {
    /// Holds room for `bytes` bytes in all, more or fewer than before.
    ///
    /// # Errors
    /// `LimitExceeded`; what was held before is still held.
    pub(crate) fn hold(&mut self, bytes: usize) -> Result<(), NamingError> {
        let wanted = bytes.saturating_sub(FREE_BYTES);
        if wanted <= self.held {
            self.room.used.fetch_sub(self.held - wanted, Ordering::Relaxed);
            self.held = wanted;
            return Ok(());
        }
        let more = wanted - self.held;
        let fits = |used: usize| used.checked_add(more).filter(|used| *used <= self.room.max);
        let taken = self
            .room
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        if taken.is_err() {
            return Err(NamingError::LimitExceeded {
                what: "bytes of requests that are not whole, of all connections".to_owned(),
                limit: self.room.max as u64,
            });
        }
        self.held = wanted;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.room.used.fetch_sub(self.held, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_can_be_held_again_and_nothing_beyond_the_limit_is() {
        let room = InputRoom::new(1_000);
        let (mut a, mut b) = (room.share(), room.share());
        assert_eq!(a.hold(FREE_BYTES), Ok(()));
        assert_eq!(a.hold(FREE_BYTES + 600), Ok(()));
        assert!(b.hold(FREE_BYTES + 500).is_err());
        assert_eq!(b.hold(FREE_BYTES), Ok(()), "short requests always fit");
        assert_eq!(a.hold(FREE_BYTES + 400), Ok(()));
        assert_eq!(b.hold(FREE_BYTES + 600), Ok(()));
        drop(b);
        assert_eq!(a.hold(FREE_BYTES + 1_000), Ok(()));
        drop(a);
        assert_eq!(room.used.load(Ordering::Relaxed), 0);
    }
}
