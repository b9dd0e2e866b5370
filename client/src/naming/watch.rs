//! A watch that outlives its connections.
//!
//! It decides where to resume: after the last revision that was delivered whole. It delivers nothing twice,
//! and where it has to begin again it says so first.

use std::sync::Arc;

use bytes::Bytes;
use daymark_naming_proto::{Name, NamingError, Request, Revision, Scope, WatchMessage};
use tokio::sync::mpsc;

use super::error::LookupError;
use super::link::Link;
use super::session::Session;

/// The most messages kept for a watcher that does not read. Above it the watch is cut and resumed.
const BUFFER_MAX: usize = 65_536;

/// Follows a name, or names below it, over reconnections.
///
/// Begins with `State`s and a `Bookmark`, or with the changes after the revision given, and goes on with
/// `Changed`. `Compacted` is a mark: what was known is void, states and a bookmark follow.
pub struct Watch {
    session: Arc<Session>,
    name: Name,
    scope: Scope,
    resume: Option<Revision>,
    /// States were delivered that no bookmark has completed.
    partial: bool,
    feed: Option<Feed>,
}

struct Feed {
    link: Link,
    id: i64,
    events: mpsc::Receiver<Bytes>,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.link.unwatch(self.id);
    }
}

impl Watch {
    pub(super) const fn new(session: Arc<Session>, name: Name, scope: Scope, from: Option<Revision>) -> Self {
        Self {
            session,
            name,
            scope,
            resume: from,
            partial: false,
            feed: None,
        }
    }

    /// The name that is watched.
    #[must_use]
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// Everything up to this revision was delivered; a new watch may begin after it.
    #[must_use]
    pub const fn revision(&self) -> Option<Revision> {
        self.resume
    }

    /// The next message. Waits as long as nothing happens; may be dropped while it waits without losing any.
    ///
    /// # Errors
    /// `Unreachable` after the total timeout without any server: calling again goes on where it was.
    /// `Refused` and `AuthenticationFailed` are answers.
    pub async fn next(&mut self) -> Result<WatchMessage, LookupError> {
        loop {
            let Some(feed) = &mut self.feed else {
                if let Some(mark) = self.begin().await? {
                    return Ok(mark);
                }
                continue;
            };
            let Some(event) = feed.events.recv().await else {
                self.feed = None;
                continue;
            };
            match serde_json::from_slice(&event) {
                Ok(message) => {
                    if let Some(message) = self.admit(message) {
                        return Ok(message);
                    }
                }
                Err(error) => {
                    let link = feed.link.clone();
                    self.feed = None;
                    self.session.garbled(&link, &error).await;
                }
            }
        }
    }

    /// Starts the watch at a server. A message comes back where it has to begin from the state.
    async fn begin(&mut self) -> Result<Option<WatchMessage>, LookupError> {
        if self.partial {
            self.partial = false;
            return Ok(Some(WatchMessage::Compacted { oldest: Revision(0) }));
        }
        let request = Request::Watch {
            name: self.name.clone(),
            scope: self.scope,
            from: self.resume,
        };
        match self.session.watch(&request, || mpsc::channel(BUFFER_MAX)).await {
            Ok((link, id, events)) => {
                self.feed = Some(Feed { link, id, events });
                Ok(None)
            }
            Err(LookupError::Refused(NamingError::Compacted { oldest, .. })) if self.resume.is_some() => {
                self.resume = None;
                Ok(Some(WatchMessage::Compacted { oldest }))
            }
            Err(error) => Err(error),
        }
    }

    /// Keeps the place; `None` for what was delivered before.
    fn admit(&mut self, message: WatchMessage) -> Option<WatchMessage> {
        match &message {
            WatchMessage::State { .. } => self.partial = true,
            WatchMessage::Bookmark { revision } => self.advance(*revision),
            WatchMessage::Changed { revision, .. } => {
                if Some(*revision) <= self.resume {
                    return None;
                }
                self.advance(*revision);
            }
            WatchMessage::Compacted { .. } => {
                self.feed = None;
                self.resume = None;
                self.partial = false;
            }
        }
        Some(message)
    }

    fn advance(&mut self, revision: Revision) {
        self.partial = false;
        self.resume = self.resume.max(Some(revision));
        if let Some(feed) = &self.feed {
            self.session.saw(&feed.link, revision);
        }
    }
}
