//! The connections of this broker: who they are, when they were last heard, and how to end one.
//!
//! It decides whether a container id is free. It never touches a socket: a connection that is to end finds
//! the reason here when it is woken. Invariant: an id that somebody asked to have alone is held by one
//! connection that asked so, and a connection that ended holds none.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use daymark_amqp::{AmqpError, LinkId, condition};
use tokio::sync::Notify;

/// All connections.
#[derive(Debug)]
pub(super) struct Registry {
    /// Times are kept as milliseconds since then.
    started: Instant,
    /// Silence after which a connection owes a sign of life; none if it owes nothing.
    overdue: Option<Duration>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    open: BTreeMap<u64, Arc<Entry>>,
    /// The connections of each container id.
    containers: BTreeMap<String, Vec<u64>>,
    /// Connections that wait for a container id.
    waiting: Vec<u64>,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: u64,
    pub(super) remote: SocketAddr,
    pub(super) since: SystemTime,
    pub(super) waker: Arc<Notify>,
    container: OnceLock<String>,
    user: OnceLock<String>,
    /// When bytes last came in.
    heard: AtomicU64,
    /// There are orders; checked without the lock.
    ordered: AtomicBool,
    orders: Mutex<Vec<Order>>,
}

/// What a connection is told to do by others.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Order {
    /// Close, with this error.
    Close(AmqpError),
    /// End one link, with this error.
    Detach(LinkId, AmqpError),
}

impl Entry {
    /// The container id, once the peer said it.
    pub(super) fn container(&self) -> Option<&str> {
        self.container.get().map(String::as_str)
    }

    /// The user of SASL PLAIN, if that was used.
    pub(super) fn user(&self) -> Option<&str> {
        self.user.get().map(String::as_str)
    }

    pub(super) fn know_user(&self, user: &str) {
        // A second attempt at SASL does not change who it is.
        let _ = self.user.set(user.to_owned());
    }

    /// Tells the connection to do something; it is woken.
    pub(super) fn order(&self, order: Order) {
        held(&self.orders).push(order);
        self.ordered.store(true, Ordering::Release);
        self.waker.notify_one();
    }

    /// What the connection was told since it last asked.
    pub(super) fn orders(&self) -> Vec<Order> {
        if !self.ordered.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        std::mem::take(&mut held(&self.orders))
    }
}

/// Whether a container id can be had.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// It is the connection's now.
    Granted,
    /// Somebody has it. The connection is woken when that changes.
    Busy,
}

impl Registry {
    /// `idle_timeout`: silence after which a connection is given up. Peers are told half of it, so after
    /// that half one that lives has said something.
    pub(super) fn new(idle_timeout: Option<Duration>) -> Self {
        Self {
            started: Instant::now(),
            overdue: idle_timeout.map(|idle| idle / 2),
            inner: Mutex::default(),
        }
    }

    pub(super) fn add(&self, remote: SocketAddr, waker: Arc<Notify>) -> Arc<Entry> {
        let mut inner = held(&self.inner);
        inner.next += 1;
        let entry = Arc::new(Entry {
            id: inner.next,
            remote,
            since: SystemTime::now(),
            waker,
            container: OnceLock::new(),
            user: OnceLock::new(),
            heard: AtomicU64::new(self.now(Instant::now())),
            ordered: AtomicBool::new(false),
            orders: Mutex::default(),
        });
        inner.open.insert(entry.id, Arc::clone(&entry));
        entry
    }

    /// Bytes came in on the connection.
    pub(super) fn heard(&self, entry: &Entry, now: Instant) {
        entry.heard.store(self.now(now), Ordering::Relaxed);
    }

    fn now(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.started);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// Gives the connection its container id. If it wants to be the only one of that id, others are in its
    /// way: those that owe a sign of life are ended, and it waits for the rest.
    pub(super) fn claim(&self, entry: &Entry, container: &str, alone: bool, now: Instant) -> Claim {
        let mut inner = held(&self.inner);
        let holders = inner.containers.get(container).cloned().unwrap_or_default();
        if alone {
            let overdue: Vec<u64> = holders
                .iter()
                .copied()
                .filter(|id| self.is_overdue(&inner, *id, now))
                .collect();
            for id in &overdue {
                inner.evict(container, *id);
            }
            if overdue.len() < holders.len() {
                if !inner.waiting.contains(&entry.id) {
                    inner.waiting.push(entry.id);
                }
                return Claim::Busy;
            }
        }
        inner.waiting.retain(|id| *id != entry.id);
        let holders = inner.containers.entry(container.to_owned()).or_default();
        holders.push(entry.id);
        let _ = entry.container.set(container.to_owned());
        Claim::Granted
    }

    fn is_overdue(&self, inner: &Inner, id: u64, now: Instant) -> bool {
        let Some(entry) = inner.open.get(&id) else {
            return true;
        };
        let silent = self.now(now).saturating_sub(entry.heard.load(Ordering::Relaxed));
        self.overdue
            .is_some_and(|overdue| Duration::from_millis(silent) > overdue)
    }

    /// The connection has no container id any more: its close was read, or it is over. Whoever waits for the
    /// id may try again.
    pub(super) fn release(&self, entry: &Entry) {
        let mut inner = held(&self.inner);
        inner.waiting.retain(|id| *id != entry.id);
        if let Some(container) = entry.container() {
            inner.free(container, entry.id);
        }
    }

    pub(super) fn remove(&self, entry: &Entry) {
        self.release(entry);
        held(&self.inner).open.remove(&entry.id);
    }

    /// How many connections are open: their peers said who they are, and were taken in.
    pub(super) fn opened(&self) -> usize {
        held(&self.inner).containers.values().map(Vec::len).sum()
    }

    /// All connections, the oldest first.
    pub(super) fn all(&self) -> Vec<Arc<Entry>> {
        held(&self.inner).open.values().cloned().collect()
    }

    pub(super) fn find(&self, id: u64) -> Option<Arc<Entry>> {
        held(&self.inner).open.get(&id).cloned()
    }
}

impl Inner {
    /// Takes the id away from a connection that seems dead, and ends it.
    fn evict(&mut self, container: &str, id: u64) {
        self.free(container, id);
        if let Some(entry) = self.open.get(&id) {
            let text = "another connection took over this container id, and nothing was heard here";
            entry.order(Order::Close(AmqpError::new(condition::CONNECTION_FORCED, text)));
        }
    }

    fn free(&mut self, container: &str, id: u64) {
        let Some(holders) = self.containers.get_mut(container) else {
            return;
        };
        let before = holders.len();
        holders.retain(|holder| *holder != id);
        if holders.len() == before {
            return;
        }
        if holders.is_empty() {
            self.containers.remove(container);
        }
        for id in &self.waiting {
            if let Some(entry) = self.open.get(id) {
                entry.waker.notify_one();
            }
        }
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change leaves the lists whole, so a panic elsewhere does not matter.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry() -> Registry {
        Registry::new(Some(Duration::from_secs(60)))
    }

    fn enter(registry: &Registry) -> Arc<Entry> {
        registry.add(([127, 0, 0, 1], 5).into(), Arc::new(Notify::new()))
    }

    #[test]
    fn a_container_id_is_busy_until_its_holder_lets_go() {
        let registry = registry();
        let now = Instant::now();
        let (first, second) = (enter(&registry), enter(&registry));
        assert_eq!(registry.claim(&first, "a", true, now), Claim::Granted);
        assert_eq!(registry.claim(&second, "a", true, now), Claim::Busy);
        assert_eq!(registry.claim(&second, "b", true, now), Claim::Granted);
        registry.release(&first);
        let third = enter(&registry);
        assert_eq!(registry.claim(&third, "a", true, now), Claim::Granted);
    }

    #[test]
    fn a_holder_that_owes_a_sign_of_life_is_ended_for_its_successor() {
        let registry = registry();
        let (first, second) = (enter(&registry), enter(&registry));
        let now = Instant::now();
        assert_eq!(registry.claim(&first, "a", true, now), Claim::Granted);
        let soon = now + Duration::from_secs(29);
        assert_eq!(registry.claim(&second, "a", true, soon), Claim::Busy);
        assert_eq!(first.orders(), []);
        let late = now + Duration::from_secs(32);
        assert_eq!(registry.claim(&second, "a", true, late), Claim::Granted);
        let orders = first.orders();
        let [Order::Close(error)] = &orders[..] else {
            panic!("{orders:?}");
        };
        assert_eq!(error.condition, condition::CONNECTION_FORCED);
        registry.remove(&first);
        registry.heard(&second, late);
        assert_eq!(registry.claim(&enter(&registry), "a", true, late), Claim::Busy);
    }

    #[test]
    fn who_does_not_ask_to_be_alone_shares() {
        let registry = registry();
        let now = Instant::now();
        let (first, second) = (enter(&registry), enter(&registry));
        assert_eq!(registry.claim(&first, "a", true, now), Claim::Granted);
        assert_eq!(registry.claim(&second, "a", false, now), Claim::Granted);
    }
}
