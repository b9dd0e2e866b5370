//! A handle that always holds the current binding of a name, updated by push.
//!
//! It decides how a name stands: bound, known but unavailable, or unbound. While no server can be reached it
//! keeps the last answer. It never asks in a loop: a name is read again only when a watch says so, and, behind
//! a link, at a slow pace.

use std::sync::Arc;
use std::time::Duration;

use daymark_naming_proto::{
    Binding, Change, ChangeKind, Epoch, GroupName, Name, NamingError, Object, Scope, WatchMessage,
    Withholding,
};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use super::error::LookupError;
use super::{Naming, Watch, after};

/// How often a name that leads through links is resolved again, in case a link in between has changed.
const LINK_REFRESH: Duration = Duration::from_secs(5);

/// The pause after the directory refused to be watched.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// How a followed name stands.
#[derive(Clone, Debug)]
pub enum Following {
    /// No server has answered yet.
    Unknown,
    /// It is bound.
    Bound(Arc<Binding>),
    /// A group exports it, but not now.
    Unavailable {
        /// The group.
        group: GroupName,
        /// The epoch under which it was exported.
        epoch: Epoch,
        /// Why, and since when.
        withheld: Withholding,
    },
    /// Nothing is bound there.
    Unbound,
}

impl std::fmt::Display for Following {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unknown => f.write_str("no naming server has answered"),
            Self::Bound(binding) => write!(f, "it is bound (revision {})", binding.revision),
            Self::Unavailable {
                group,
                epoch,
                withheld,
            } => write!(
                f,
                "it is unavailable ({}): group {group}, epoch {epoch}, since revision {}",
                withheld.reason, withheld.since
            ),
            Self::Unbound => f.write_str("nothing is bound there"),
        }
    }
}

/// Follows one name. Clones share the work; it ends with the last of them.
#[derive(Clone)]
pub struct Follow {
    name: Name,
    state: watch::Receiver<Following>,
    _task: Arc<Task>,
}

struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Follow {
    pub(super) fn new(naming: Naming, name: Name) -> Self {
        let (sender, state) = watch::channel(Following::Unknown);
        let follower = Follower {
            main: naming.watch(&name, Scope::Object, None),
            behind: None,
            naming,
            name: name.clone(),
            state: sender,
            bookmarked: false,
        };
        let task = tokio::spawn(follower.run()).abort_handle();
        Self {
            name,
            state,
            _task: Arc::new(Task(task)),
        }
    }

    /// The name.
    #[must_use]
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// How the name stands now.
    #[must_use]
    pub fn current(&self) -> Following {
        self.state.borrow().clone()
    }

    /// Waits until the name stands differently than this handle last said, and says how.
    pub async fn changed(&mut self) -> Following {
        if self.state.changed().await.is_err() {
            // Only a runtime that shuts down ends the task while a handle lives.
            std::future::pending::<()>().await;
        }
        self.state.borrow_and_update().clone()
    }

    /// Waits until the name is bound.
    ///
    /// # Errors
    /// `NotBoundInTime` with how it stood at the end.
    pub async fn wait_bound(&mut self, timeout: Duration) -> Result<Arc<Binding>, LookupError> {
        let deadline = after(Instant::now(), timeout);
        loop {
            if let Following::Bound(binding) = &*self.state.borrow_and_update() {
                return Ok(Arc::clone(binding));
            }
            if !matches!(timeout_at(deadline, self.state.changed()).await, Ok(Ok(()))) {
                return Err(LookupError::NotBoundInTime {
                    name: self.name.clone(),
                    waited_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
                    last: self.current(),
                });
            }
        }
    }
}

struct Follower {
    naming: Naming,
    name: Name,
    main: Watch,
    /// What the name leads to, where it is a link.
    behind: Option<Watch>,
    state: watch::Sender<Following>,
    /// Whether the states since the last beginning are complete.
    bookmarked: bool,
}

impl Follower {
    async fn run(mut self) {
        loop {
            let refresh = tokio::time::sleep(LINK_REFRESH);
            let linked = self.behind.is_some();
            let message = tokio::select! {
                message = self.main.next() => message,
                message = next_behind(&mut self.behind) => {
                    // Whatever happened there, the walk decides.
                    if message.is_ok() {
                        self.resolve().await;
                    }
                    message.map(|_| WatchMessage::Bookmark { revision: self.naming.revision_seen() })
                }
                () = refresh, if linked => {
                    self.resolve().await;
                    continue;
                }
            };
            match message {
                Ok(message) => self.on_message(message).await,
                Err(LookupError::Unreachable { .. }) => {}
                Err(error) => {
                    tracing::debug!(name = %self.name, %error, "cannot be followed now");
                    tokio::time::sleep(REFUSED_PAUSE).await;
                }
            }
        }
    }

    async fn on_message(&mut self, message: WatchMessage) {
        match message {
            WatchMessage::State { change } => {
                self.bookmarked = true;
                self.on_change(change).await;
            }
            WatchMessage::Bookmark { .. } => {
                // No state came before it: there is nothing at the name.
                if !self.bookmarked {
                    self.bookmarked = true;
                    self.resolve().await;
                }
            }
            WatchMessage::Changed { changes, .. } => {
                self.bookmarked = true;
                for change in changes {
                    self.on_change(change).await;
                }
            }
            WatchMessage::Compacted { .. } => self.bookmarked = false,
        }
    }

    async fn on_change(&mut self, change: Change) {
        if change.name != self.name {
            return;
        }
        match change.kind {
            ChangeKind::Bound { binding } | ChangeKind::Rebound { binding } => {
                if matches!(binding.object, Object::Link { .. }) {
                    self.resolve().await;
                } else {
                    self.behind = None;
                    self.set(Following::Bound(binding));
                }
            }
            ChangeKind::Unbound => {
                self.behind = None;
                self.set(Following::Unbound);
            }
            ChangeKind::Withheld {
                group,
                epoch,
                withheld,
            } => {
                self.behind = None;
                self.set(Following::Unavailable {
                    group,
                    epoch,
                    withheld,
                });
            }
        }
    }

    /// Reads the name through its links, and watches what is behind them.
    async fn resolve(&mut self) {
        let (end, state) = match self.naming.lookup(&self.name).await {
            Ok(binding) => (Some(binding.name.clone()), Following::Bound(Arc::new(binding))),
            Err(LookupError::Refused(NamingError::NameUnavailable {
                name,
                reason,
                group,
                epoch,
                since,
                since_unix_ms,
                eta_ms,
                ..
            })) => {
                let withheld = Withholding {
                    reason,
                    since,
                    since_unix_ms,
                    eta_ms,
                };
                let state = Following::Unavailable {
                    group,
                    epoch,
                    withheld,
                };
                (Some(name), state)
            }
            Err(LookupError::Refused(NamingError::NameNotFound { name, .. })) => {
                (Some(name), Following::Unbound)
            }
            // Nothing is known anew: the last answer stays.
            Err(_) => return,
        };
        let end = end.filter(|end| *end != self.name);
        if end.as_ref() != self.behind.as_ref().map(Watch::name) {
            self.behind = end.map(|end| self.naming.watch(&end, Scope::Object, None));
        }
        self.set(state);
    }

    fn set(&self, state: Following) {
        tracing::debug!(name = %self.name, %state, "followed");
        self.state.send_replace(state);
    }
}

async fn next_behind(watch: &mut Option<Watch>) -> Result<WatchMessage, LookupError> {
    match watch {
        Some(watch) => watch.next().await,
        None => std::future::pending().await,
    }
}
