//! Who watches what, and the way of every change to them.
//!
//! Each change set is filtered and encoded once for every watched place it touches, and the same bytes go to
//! all who watch there. Invariant: a watcher gets every change set after its start that touches what it
//! watches, once, whole and in order, or is told `Compacted` and nothing more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use daymark_naming_core::{Directory, spread_ms};
use daymark_naming_proto::{Change, ChangeSet, Name, NamingError, Revision, Scope, WatchMessage};

use crate::mailbox::{Event, Mailbox};
use crate::state::State;

/// Names of the state that are taken at a time.
const PAGE: usize = 256;

/// The watches of this server.
pub(crate) struct Hub {
    registry: Mutex<Registry>,
    state: Arc<State>,
    watches_max: usize,
}

/// The watches of one place, by the connection whose they are.
type Place = BTreeMap<Seat, Connection>;

/// A connection among those that watch: where its mailbox lies, which stays while a watch of it is there.
type Seat = usize;

fn seat(mailbox: &Arc<Mailbox>) -> Seat {
    Arc::as_ptr(mailbox).addr()
}

#[derive(Default)]
struct Registry {
    object: BTreeMap<Name, Place>,
    one_level: BTreeMap<Name, Place>,
    subtree: BTreeMap<Name, Place>,
    count: usize,
    last_id: u64,
    closed: bool,
}

/// What one connection watches at one place.
struct Connection {
    mailbox: Arc<Mailbox>,
    /// Each watch with the revision up to which it has the changes otherwise.
    watches: BTreeMap<u64, Revision>,
    /// The newest of these revisions.
    newest: Revision,
    /// All watches, once an event was for all of them.
    all: Option<Arc<[u64]>>,
}

impl Connection {
    const fn new(mailbox: Arc<Mailbox>) -> Self {
        Self {
            mailbox,
            watches: BTreeMap::new(),
            newest: Revision(0),
            all: None,
        }
    }

    fn add(&mut self, id: u64, after: Revision) {
        self.watches.insert(id, after);
        self.newest = self.newest.max(after);
        self.all = None;
    }

    fn remove(&mut self, id: u64) -> bool {
        self.all = None;
        self.watches.remove(&id).is_some()
    }

    /// The watches that have to hear of this revision.
    fn concerned(&mut self, revision: Revision) -> Arc<[u64]> {
        if self.newest < revision {
            let all = || self.watches.keys().copied().collect();
            return self.all.get_or_insert_with(all).clone();
        }
        let concerned = self.watches.iter().filter(|(_, after)| **after < revision);
        concerned.map(|(&id, _)| id).collect()
    }
}

/// A watch that goes on until this is dropped.
pub(crate) struct Ticket {
    hub: Arc<Hub>,
    id: u64,
    name: Name,
    scope: Scope,
    seat: Seat,
}

impl Ticket {
    /// The number under which events of the watch come.
    pub(crate) const fn id(&self) -> u64 {
        self.id
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.hub
            .registry()
            .remove(self.scope, &self.name, self.seat, &[self.id]);
    }
}

/// A watch that begins: what comes first, then whatever is in the mailbox.
pub(crate) struct Watching {
    pub(crate) ticket: Ticket,
    pub(crate) first: First,
}

/// What a watch begins with, made as it is asked for: the state of one root and a bookmark, or what was missed.
pub(crate) struct First(Part);

enum Part {
    State(Page),
    Missed(Box<dyn Iterator<Item = WatchMessage> + Send>),
    Over,
}

/// A part of the state, and where the next one begins.
struct Page {
    root: Arc<Directory>,
    name: Name,
    scope: Scope,
    changes: std::vec::IntoIter<Change>,
    /// The last name of this part; `None` before the first part.
    last: Option<Name>,
    is_last: bool,
}

impl Iterator for First {
    type Item = WatchMessage;

    fn next(&mut self) -> Option<WatchMessage> {
        match &mut self.0 {
            Part::Over => None,
            Part::Missed(missed) => missed.next(),
            Part::State(page) => Some(match page.next() {
                Some(change) => WatchMessage::State { change },
                None => {
                    let revision = page.root.revision();
                    // The root is not kept beyond its use.
                    self.0 = Part::Over;
                    WatchMessage::Bookmark { revision }
                }
            }),
        }
    }
}

impl Page {
    fn first(root: Arc<Directory>, name: Name, scope: Scope) -> Self {
        Self {
            root,
            name,
            scope,
            changes: Vec::new().into_iter(),
            last: None,
            is_last: false,
        }
    }

    fn next(&mut self) -> Option<Change> {
        if let Some(change) = self.changes.next() {
            return Some(change);
        }
        if self.is_last {
            return None;
        }
        let changes = self
            .root
            .watch_page(&self.name, self.scope, self.last.as_ref(), PAGE);
        self.is_last = changes.len() < PAGE;
        self.last = changes.last().map(|change| change.name.clone());
        self.changes = changes.into_iter();
        self.changes.next()
    }
}

impl Registry {
    fn places(&mut self, scope: Scope) -> &mut BTreeMap<Name, Place> {
        match scope {
            Scope::Object => &mut self.object,
            Scope::OneLevel => &mut self.one_level,
            Scope::Subtree => &mut self.subtree,
        }
    }

    fn remove(&mut self, scope: Scope, name: &Name, seat: Seat, ids: &[u64]) {
        let places = self.places(scope);
        let Some(place) = places.get_mut(name) else {
            return;
        };
        let Some(connection) = place.get_mut(&seat) else {
            return;
        };
        let removed = ids.iter().filter(|id| connection.remove(**id)).count();
        if connection.watches.is_empty() {
            place.remove(&seat);
        }
        if place.is_empty() {
            places.remove(name);
        }
        self.count -= removed;
    }

    /// The watched places that a change touches.
    fn touched(&self, name: &Name) -> Vec<(Scope, Name)> {
        let mut touched = Vec::new();
        if self.object.contains_key(name) {
            touched.push((Scope::Object, name.clone()));
        }
        if !self.one_level.is_empty()
            && let Some(above) = name.parent()
            && self.one_level.contains_key(&above)
        {
            touched.push((Scope::OneLevel, above));
        }
        if !self.subtree.is_empty() {
            let above = (0..=name.components().len()).map(|count| name.prefix(count));
            let watched = above.filter(|prefix| self.subtree.contains_key(prefix));
            touched.extend(watched.map(|prefix| (Scope::Subtree, prefix)));
        }
        touched
    }
}

impl Hub {
    pub(crate) fn new(state: Arc<State>, watches_max: usize) -> Self {
        Self {
            registry: Mutex::default(),
            state,
            watches_max,
        }
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        // No change is ever half done when something panics.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches at this time.
    pub(crate) fn count(&self) -> usize {
        self.registry().count
    }

    /// Begins a watch whose events go to `mailbox`.
    ///
    /// # Errors
    /// `Lagging` when `from` lies in the future, `LimitExceeded`, or `ServiceUnavailable` while it stops.
    pub(crate) fn watch(
        self: &Arc<Self>,
        name: Name,
        scope: Scope,
        from: Option<Revision>,
        mailbox: Arc<Mailbox>,
    ) -> Result<Watching, NamingError> {
        let (ticket, published) = self.register(name, scope, mailbox)?;
        let first = match from {
            None => Part::State(Page::first(published, ticket.name.clone(), scope)),
            Some(from) => Part::Missed(resumed(&published, ticket.name.clone(), scope, from)?),
        };
        Ok(Watching {
            ticket,
            first: First(first),
        })
    }

    /// The root is read while the registry is locked: whatever is delivered before is in it, whatever is newer
    /// is delivered after.
    fn register(
        self: &Arc<Self>,
        name: Name,
        scope: Scope,
        mailbox: Arc<Mailbox>,
    ) -> Result<(Ticket, Arc<Directory>), NamingError> {
        let mut registry = self.registry();
        if registry.closed {
            return Err(NamingError::ServiceUnavailable {
                reason: "this server stops".to_owned(),
            });
        }
        if registry.count >= self.watches_max {
            return Err(NamingError::LimitExceeded {
                what: "watches of this server".to_owned(),
                limit: self.watches_max as u64,
            });
        }
        let published = self.state.load_full();
        registry.last_id += 1;
        registry.count += 1;
        let id = registry.last_id;
        let after = published.revision();
        let place = registry.places(scope).entry(name.clone()).or_default();
        let seat = seat(&mailbox);
        let connection = place.entry(seat).or_insert_with(|| Connection::new(mailbox));
        connection.add(id, after);
        drop(registry);
        let ticket = Ticket {
            hub: self.clone(),
            id,
            name,
            scope,
            seat,
        };
        Ok((ticket, published))
    }

    /// Sends one change set to everybody it concerns. `oldest` is for those who cannot take it.
    fn deliver(&self, set: &ChangeSet, oldest: Revision) {
        let mut registry = self.registry();
        if registry.count == 0 {
            return;
        }
        let mut by_place: BTreeMap<(Name, &'static str), (Scope, Vec<Change>)> = BTreeMap::new();
        for change in &set.changes {
            for (scope, place) in registry.touched(&change.name) {
                let entry = by_place.entry((place, scope.as_str()));
                entry
                    .or_insert_with(|| (scope, Vec::new()))
                    .1
                    .push(change.clone());
            }
        }
        for ((name, _), (scope, changes)) in by_place {
            let Some(place) = registry.places(scope).get_mut(&name) else {
                continue;
            };
            for (seat, ids) in deliver_at(place, set.revision, changes, oldest) {
                registry.remove(scope, &name, seat, &ids);
            }
        }
    }

    /// Ends every watch with `Compacted`.
    fn end_all(&self, oldest: Revision) {
        let mut registry = self.registry();
        let Some(event) = compacted(oldest) else {
            return;
        };
        for scope in [Scope::Object, Scope::OneLevel, Scope::Subtree] {
            for (_, connection) in std::mem::take(registry.places(scope)).into_values().flatten() {
                let ids = connection.watches.into_keys().collect();
                // The last word of a watch is always taken.
                let _ = connection.mailbox.push(&ids, &event);
            }
        }
        registry.count = 0;
    }

    /// Ends every watch without a word, and begins none any more.
    pub(crate) fn close(&self) {
        let mut registry = self.registry();
        registry.closed = true;
        for scope in [Scope::Object, Scope::OneLevel, Scope::Subtree] {
            for connection in registry.places(scope).values().flat_map(BTreeMap::values) {
                connection.mailbox.close();
            }
        }
    }
}

/// Sends the changes of one place to its watchers and returns those that were too slow.
fn deliver_at(
    place: &mut Place,
    revision: Revision,
    changes: Vec<Change>,
    oldest: Revision,
) -> Vec<(Seat, Arc<[u64]>)> {
    let watchers: usize = place.values().map(|connection| connection.watches.len()).sum();
    let message = WatchMessage::Changed {
        revision,
        spread_ms: spread_ms(&changes, watchers as u64),
        changes,
    };
    let event = match Event::of(&message) {
        Ok(event) => Arc::new(event),
        Err(error) => {
            tracing::error!(%revision, %error, "a change cannot be told");
            return Vec::new();
        }
    };
    let mut slow = Vec::new();
    for (&seat, connection) in place {
        let ids = connection.concerned(revision);
        if !ids.is_empty() && connection.mailbox.push(&ids, &event).is_err() {
            if let Some(last) = compacted(oldest) {
                let _ = connection.mailbox.push(&ids, &last);
            }
            slow.push((seat, ids));
        }
    }
    slow
}

fn compacted(oldest: Revision) -> Option<Arc<Event>> {
    Event::of(&WatchMessage::Compacted { oldest }).ok().map(Arc::new)
}

/// What a watch that resumes has missed.
fn resumed(
    published: &Directory,
    name: Name,
    scope: Scope,
    from: Revision,
) -> Result<Box<dyn Iterator<Item = WatchMessage> + Send>, NamingError> {
    let sets = match published.changes_after(from) {
        Ok(sets) => sets,
        Err(NamingError::Compacted { oldest, .. }) => {
            return Ok(Box::new(std::iter::once(WatchMessage::Compacted { oldest })));
        }
        Err(error) => return Err(error),
    };
    let missed = sets.filter_map(move |set| {
        let covered = set
            .changes
            .iter()
            .filter(|change| scope.covers(&name, &change.name));
        let changes: Vec<Change> = covered.cloned().collect();
        (!changes.is_empty()).then_some(WatchMessage::Changed {
            revision: set.revision,
            changes,
            spread_ms: 0,
        })
    });
    Ok(Box::new(missed))
}

/// Follows the state and delivers every change, in order. Runs until it is dropped.
pub(crate) async fn follow(hub: Arc<Hub>, from: Revision) {
    let mut revisions = hub.state.revisions();
    let mut delivered = from;
    loop {
        let published = hub.state.load_full();
        let oldest = published.oldest_resumable();
        match published.changes_after(delivered) {
            Ok(sets) => {
                for set in sets {
                    hub.deliver(&set, oldest);
                    tokio::task::consume_budget().await;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "changes came faster than they could be told");
                hub.end_all(oldest);
            }
        }
        delivered = published.revision();
        drop(published);
        if revisions.changed().await.is_err() {
            return;
        }
    }
}
