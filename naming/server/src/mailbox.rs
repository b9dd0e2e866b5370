//! Events on their way to one connection.
//!
//! Bounded: what does not fit is refused, and the watch it was for has to end. Only the last word of a watch
//! is always taken.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use daymark_naming_proto::resp::write_bulk;
use daymark_naming_proto::{NamingError, Revision, WatchMessage};
use tokio::sync::Notify;

use crate::state::to_json;

/// What one waiting event counts for beside its document.
const EVENT_BYTES: usize = 64;
/// How long a browser pauses before it connects anew, in milliseconds, unless an event says more.
pub(crate) const RETRY_MS: u64 = 1_000;

/// A message of a watch, encoded once for each door and shared by everybody it goes to.
#[derive(Debug)]
pub(crate) struct Event {
    /// Where a watcher resumes after this event.
    resume: Option<Revision>,
    /// `state`, `bookmark`, `changed` or `compacted`.
    kind: &'static str,
    /// The JSON document as a RESP bulk string.
    pub(crate) bulk: Bytes,
    /// The event as server-sent events have it, once one of their watchers was told.
    sent: OnceLock<Bytes>,
    /// How long a browser should pause before it connects anew, in milliseconds, where the event says so.
    spread_ms: Option<u64>,
    /// Nothing follows on this watch.
    pub(crate) ends: bool,
}

impl Event {
    /// # Errors
    /// `ServiceUnavailable` for a message that has no JSON form, which no real one is.
    pub(crate) fn of(message: &WatchMessage) -> Result<Self, NamingError> {
        let (kind, resume, spread_ms) = match message {
            WatchMessage::State { .. } => ("state", None, None),
            WatchMessage::Bookmark { revision } => ("bookmark", Some(*revision), None),
            WatchMessage::Changed {
                revision, spread_ms, ..
            } => ("changed", Some(*revision), Some(*spread_ms)),
            WatchMessage::Compacted { .. } => ("compacted", None, None),
        };
        let mut bulk = Vec::new();
        write_bulk(&to_json(message)?, &mut bulk);
        Ok(Self {
            resume,
            kind,
            bulk: bulk.into(),
            sent: OnceLock::new(),
            spread_ms,
            ends: kind == "compacted",
        })
    }

    /// The event as server-sent events have it. A watch that was compacted clears the id, so that a browser starts
    /// anew from the current state.
    pub(crate) fn sent(&self) -> &Bytes {
        self.sent.get_or_init(|| {
            let mut text = Vec::with_capacity(self.bulk.len() + EVENT_BYTES);
            match self.resume {
                Some(revision) => text.extend(format!("id: {revision}\n").bytes()),
                None if self.ends => text.extend(b"id:\n"),
                None => {}
            }
            if let Some(spread_ms) = self.spread_ms.filter(|spread_ms| *spread_ms > RETRY_MS) {
                text.extend(format!("retry: {spread_ms}\n").bytes());
            }
            text.extend(format!("event: {}\ndata: ", self.kind).bytes());
            text.extend(self.json());
            text.extend(b"\n\n");
            text.into()
        })
    }

    /// The document within its bulk string.
    fn json(&self) -> &[u8] {
        let head = self
            .bulk
            .iter()
            .position(|&byte| byte == b'\n')
            .map_or(0, |end| end + 1);
        self.bulk[head..].strip_suffix(b"\r\n").unwrap_or_default()
    }

    const fn size(&self) -> usize {
        self.bulk.len() + EVENT_BYTES
    }
}

/// The events that wait for one connection.
pub(crate) struct Mailbox {
    waiting: Mutex<Waiting>,
    told: Notify,
    bytes_max: usize,
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<Letter>,
    bytes: usize,
    closed: bool,
}

/// An event and the watches of the connection that it is for, sorted.
pub(crate) type Letter = (Arc<[u64]>, Arc<Event>);

/// The event did not fit.
pub(crate) struct Full;

impl Mailbox {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            waiting: Mutex::default(),
            told: Notify::new(),
            bytes_max,
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // No change is ever half done when something panics.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event for these watches, whole or not at all. The connection wakes once.
    pub(crate) fn push(&self, watches: &Arc<[u64]>, event: &Arc<Event>) -> Result<(), Full> {
        let letter = (watches.clone(), event.clone());
        let size = size(&letter);
        let mut waiting = self.waiting();
        if !event.ends && waiting.bytes + size > self.bytes_max {
            return Err(Full);
        }
        waiting.bytes += size;
        waiting.events.push_back(letter);
        drop(waiting);
        self.told.notify_one();
        Ok(())
    }

    /// Takes the next event.
    pub(crate) fn pop(&self) -> Option<Letter> {
        let mut waiting = self.waiting();
        let letter = waiting.events.pop_front()?;
        waiting.bytes -= size(&letter);
        Some(letter)
    }

    /// No event comes any more.
    pub(crate) fn close(&self) {
        self.waiting().closed = true;
        self.told.notify_one();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.waiting().closed
    }

    /// Returns when something may have come. One task waits at a time.
    pub(crate) async fn wait(&self) {
        self.told.notified().await;
    }
}

fn size((watches, event): &Letter) -> usize {
    event.size() + size_of_val::<[u64]>(watches)
}
