//! Events on their way to one connection.
//!
//! Bounded: what does not fit is refused, and the watch it was for has to end. Only the last word of a watch
//! is always taken.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use daymark_naming_proto::{NamingError, Revision, WatchMessage};
use tokio::sync::Notify;

use crate::state::to_json;

/// What one waiting event counts for beside its document.
const EVENT_BYTES: usize = 64;

/// A message of a watch with its JSON document, shared by everybody it goes to.
#[derive(Debug)]
pub(crate) struct Event {
    /// Where a watcher resumes after this event.
    pub(crate) resume: Option<Revision>,
    /// `state`, `bookmark`, `changed` or `compacted`.
    pub(crate) kind: &'static str,
    pub(crate) json: Bytes,
    /// How long a browser should pause before it connects anew, in milliseconds, where the event says so.
    pub(crate) spread_ms: Option<u64>,
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
        Ok(Self {
            resume,
            kind,
            json: to_json(message)?,
            spread_ms,
            ends: kind == "compacted",
        })
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
    events: VecDeque<(u64, Arc<Event>)>,
    bytes: usize,
    closed: bool,
}

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

    /// Adds an event of a watch.
    pub(crate) fn push(&self, watch: u64, event: &Arc<Event>) -> Result<(), Full> {
        let size = event.json.len() + EVENT_BYTES;
        let mut waiting = self.waiting();
        if !event.ends && waiting.bytes + size > self.bytes_max {
            return Err(Full);
        }
        waiting.bytes += size;
        waiting.events.push_back((watch, event.clone()));
        drop(waiting);
        self.told.notify_one();
        Ok(())
    }

    /// Takes the next event.
    pub(crate) fn pop(&self) -> Option<(u64, Arc<Event>)> {
        let mut waiting = self.waiting();
        let (watch, event) = waiting.events.pop_front()?;
        waiting.bytes -= event.json.len() + EVENT_BYTES;
        Some((watch, event))
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
