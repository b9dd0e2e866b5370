//! Watches as server-sent events.
//!
//! The event's id is the revision to resume after, which a browser sends back as `Last-Event-ID`. A watch that
//! was compacted clears the id, so that the browser starts anew from the current state.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};

use crate::hub::Watching;
use crate::mailbox::{Event, Mailbox, RETRY_MS};

/// Events that leave in one piece.
const PIECE_BYTES: usize = 64 << 10;

/// The answer that goes on until the watch ends.
pub(super) fn response(watching: Watching, mailbox: Arc<Mailbox>, keepalive: Duration) -> Response {
    let told = Told {
        watching,
        mailbox,
        keepalive,
        piece: format!("retry: {RETRY_MS}\n\n").into_bytes(),
        over: false,
    };
    let pieces = stream::unfold(told, |mut told| async {
        let piece = told.next().await?;
        Some((Ok::<Bytes, Infallible>(piece), told))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

struct Told {
    watching: Watching,
    mailbox: Arc<Mailbox>,
    keepalive: Duration,
    piece: Vec<u8>,
    over: bool,
}

impl Told {
    /// The next piece; `None` when the watch has ended.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.fill();
            if !self.piece.is_empty() {
                return Some(std::mem::take(&mut self.piece).into());
            }
            if self.over || self.mailbox.is_closed() {
                return None;
            }
            if tokio::time::timeout(self.keepalive, self.mailbox.wait())
                .await
                .is_err()
            {
                return Some(Bytes::from_static(b": still here\n\n"));
            }
        }
    }

    fn fill(&mut self) {
        while !self.over && self.piece.len() < PIECE_BYTES {
            let Some(message) = self.watching.first.next() else {
                break;
            };
            match Event::of(&message) {
                Ok(event) => self.add(&event),
                Err(error) => tracing::error!(%error, "the start of a watch cannot be told"),
            }
        }
        while !self.over && self.piece.len() < PIECE_BYTES {
            let Some((_, event)) = self.mailbox.pop() else {
                break;
            };
            self.add(&event);
        }
    }

    fn add(&mut self, event: &Event) {
        self.piece.extend_from_slice(event.sent());
        self.over = event.ends;
    }
}
