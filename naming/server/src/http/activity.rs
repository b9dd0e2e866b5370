//! What goes on on one HTTP connection: the requests under way, and the bytes that belong to none of them.
//!
//! It decides when a connection is silent and whether there is room for another head. It reads and answers nothing.
//!
//! Invariant: while no request is under way, what the connection has sent since the last one is in the room for
//! requests that are not whole.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use daymark_naming_proto::NamingError;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, sleep, sleep_until};

use crate::room::Share;

/// What goes on on one connection.
pub(super) struct Activity(Mutex<Now>);

struct Now {
    under_way: usize,
    /// When the last request ended, or the connection began.
    quiet_since: Instant,
    /// Bytes of a head that is not whole.
    heard: usize,
    share: Share,
}

/// A request that is under way until this is dropped.
pub(super) struct Busy(Arc<Activity>);

/// The body of an answer, whose request is under way until it was sent.
pub(super) struct Held {
    body: Body,
    _busy: Busy,
}

impl Activity {
    /// A connection on which nothing was asked yet.
    pub(super) fn new(share: Share) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Now {
            under_way: 0,
            quiet_since: Instant::now(),
            heard: 0,
            share,
        })))
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        // No change is ever half done when something panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A head is whole, and its request begins.
    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        let mut now = self.now();
        now.under_way += 1;
        now.heard = 0;
        // To hold nothing is always granted.
        let _ = now.share.hold(0);
        drop(now);
        Busy(self.clone())
    }

    /// Takes note of bytes that came. Those of bodies are counted by whoever reads them.
    ///
    /// # Errors
    /// `LimitExceeded` where there is no room for a head that is so long.
    pub(super) fn hear(&self, bytes: usize) -> Result<(), NamingError> {
        let mut now = self.now();
        if now.under_way > 0 {
            return Ok(());
        }
        now.heard += bytes;
        let heard = now.heard;
        now.share.hold(heard)
    }

    /// Returns once no request was under way for as long.
    pub(super) async fn is_silent_for(&self, limit: Duration) {
        loop {
            let (is_busy, quiet_since) = {
                let now = self.now();
                (now.under_way > 0, now.quiet_since)
            };
            if is_busy {
                sleep(limit).await;
            } else if quiet_since.elapsed() >= limit {
                return;
            } else {
                sleep_until(quiet_since + limit).await;
            }
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut now = self.0.now();
        now.under_way -= 1;
        now.quiet_since = Instant::now();
    }
}

impl Held {
    pub(super) const fn new(body: Body, busy: Busy) -> Self {
        Self { body, _busy: busy }
    }
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::{FREE_BYTES, InputRoom};

    #[test]
    fn a_head_that_grows_takes_room_until_its_request_begins() {
        let room = InputRoom::new(1_000);
        let activity = Activity::new(room.share());
        assert_eq!(activity.hear(FREE_BYTES + 600), Ok(()));
        assert!(activity.hear(500).is_err());
        let busy = activity.begin();
        assert_eq!(activity.hear(1 << 20), Ok(()), "a body is counted elsewhere");
        drop(busy);
        assert_eq!(activity.hear(FREE_BYTES + 1_000), Ok(()));
    }

    #[tokio::test]
    async fn a_connection_with_a_request_under_way_is_not_silent() {
        let limit = Duration::from_millis(50);
        let activity = Activity::new(InputRoom::new(0).share());
        let (began, busy) = (Instant::now(), activity.begin());
        let ends = async {
            sleep(Duration::from_millis(125)).await;
            drop(busy);
        };
        tokio::join!(ends, activity.is_silent_for(limit));
        assert!(began.elapsed() >= Duration::from_millis(175));
    }
}
