//! The state that reads are answered from: one root, replaced whole by the apply task.
//!
//! Invariant: directory and index of one [`Published`] are of the same revision, and a revision is announced
//! only after the root that holds it was put in place.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwap, Guard};
use bytes::Bytes;
use daymark_naming_core::Directory;
use daymark_naming_proto::{
    Binding, Change, ChangeKind, ChangeSet, Name, NamingError, ObjectKind, Revision, Scope, WatchMessage,
};
use tokio::sync::watch;

/// A binding with its JSON document, which is written once and then shared by every answer.
pub(crate) struct Encoded {
    binding: Arc<Binding>,
    json: OnceLock<Bytes>,
}

impl Encoded {
    pub(crate) fn new(binding: Arc<Binding>) -> Self {
        Self {
            binding,
            json: OnceLock::new(),
        }
    }

    /// The JSON document.
    ///
    /// # Errors
    /// `ServiceUnavailable` for a binding that has no JSON form, which no accepted one is.
    pub(crate) fn json(&self) -> Result<Bytes, NamingError> {
        if let Some(json) = self.json.get() {
            return Ok(json.clone());
        }
        let json = to_json(&*self.binding)?;
        Ok(self.json.get_or_init(|| json).clone())
    }

    /// The revision that last changed the binding.
    pub(crate) fn revision(&self) -> Revision {
        self.binding.revision
    }
}

/// The JSON document of an answer.
pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> Result<Bytes, NamingError> {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .map_err(|error| NamingError::ServiceUnavailable {
            reason: format!("the answer has no JSON form: {error}"),
        })
}

/// A name that is found by its text, so that a lookup need not parse it.
#[derive(Clone, PartialEq, Eq)]
struct Key(Name);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_str().hash(state);
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        self.0.as_str()
    }
}

/// Bindings by the canonical text of their name. Links are not in it: a lookup follows them. What is not
/// found here may still be found by a walk.
#[derive(Clone, Default)]
pub(crate) struct Index(imbl::HashMap<Key, Arc<Encoded>>);

impl Index {
    /// Everything that is bound in `directory`.
    pub(crate) fn of(directory: &Directory) -> Self {
        let mut index = Self::default();
        for message in directory.watch_state(&Name::root(), Scope::Subtree) {
            if let WatchMessage::State { change } = message {
                index.take(&change);
            }
        }
        index
    }

    pub(crate) fn follow(&mut self, changes: &ChangeSet) {
        for change in &changes.changes {
            self.take(change);
        }
    }

    fn take(&mut self, change: &Change) {
        match &change.kind {
            ChangeKind::Bound { binding } | ChangeKind::Rebound { binding }
                if binding.object.kind() != ObjectKind::Link =>
            {
                let encoded = Arc::new(Encoded::new(binding.clone()));
                self.0.insert(Key(change.name.clone()), encoded);
            }
            ChangeKind::Bound { .. }
            | ChangeKind::Rebound { .. }
            | ChangeKind::Unbound
            | ChangeKind::Withheld { .. } => {
                self.0.remove(change.name.as_str());
            }
        }
    }

    fn find(&self, text: &str) -> Option<&Arc<Encoded>> {
        self.0.get(text)
    }
}

/// One revision of everything that reads need.
#[derive(Clone)]
pub(crate) struct Published {
    pub(crate) directory: Directory,
    pub(crate) index: Index,
}

impl Published {
    pub(crate) fn new(directory: Directory) -> Self {
        let index = Index::of(&directory);
        Self { directory, index }
    }

    /// The binding with this canonical name, where a lookup of it would lead straight there.
    pub(crate) fn straight(&self, text: &str) -> Option<&Arc<Encoded>> {
        self.index.find(text)
    }

    /// The binding of a name, links followed.
    pub(crate) fn lookup(&self, name: &Name) -> Result<Arc<Encoded>, NamingError> {
        if let Some(found) = self.straight(name.as_str()) {
            return Ok(found.clone());
        }
        self.directory
            .lookup(name)
            .map(|binding| Arc::new(Encoded::new(binding)))
    }

    pub(crate) fn revision(&self) -> Revision {
        self.directory.revision()
    }
}

/// Where the apply task puts each new root and everybody else reads it.
pub(crate) struct State {
    current: ArcSwap<Published>,
    revision: watch::Sender<Revision>,
}

impl State {
    pub(crate) fn new(published: Published) -> Self {
        let revision = published.revision();
        Self {
            current: ArcSwap::from_pointee(published),
            revision: watch::Sender::new(revision),
        }
    }

    /// The root now. Not to be held across a wait.
    pub(crate) fn load(&self) -> Guard<Arc<Published>> {
        self.current.load()
    }

    /// The root now, to be kept.
    pub(crate) fn load_full(&self) -> Arc<Published> {
        self.current.load_full()
    }

    /// Puts a new root in place and tells everybody who waits for one.
    pub(crate) fn publish(&self, published: Published) {
        let revision = published.revision();
        self.current.store(Arc::new(published));
        self.revision.send_if_modified(|seen| {
            let newer = *seen != revision;
            *seen = revision;
            newer
        });
    }

    /// Tells of each new revision.
    pub(crate) fn revisions(&self) -> watch::Receiver<Revision> {
        self.revision.subscribe()
    }
}
