//! Browsers as programs hold them.

use std::time::Duration;

use super::consumer::Consumer;
use super::error::ReceiveError;
use super::message::Message;

/// Looks at the messages of a queue without taking them, once, from the front to the end.
///
/// What arrives or is taken meanwhile may be shown or not. A failover in the middle ends it.
pub struct Browser {
    consumer: Consumer,
}

impl Browser {
    pub(super) const fn new(consumer: Consumer) -> Self {
        Self { consumer }
    }

    /// The next message; `None` at the end of the queue.
    ///
    /// # Errors
    /// `TimedOut` where none came within `timeout`; it may be asked again. `BrowseInterrupted` after a failover.
    /// `ReceiveError` otherwise.
    pub async fn next(&self, timeout: Duration) -> Result<Option<Message>, ReceiveError> {
        self.consumer.look(timeout).await
    }

    /// Ends it before the end of the queue.
    pub async fn close(&self) {
        self.consumer.close().await;
    }
}
