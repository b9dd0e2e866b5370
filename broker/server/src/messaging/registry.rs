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
    /// Of which run of a client it is.
    instance: OnceLock<String>,
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
    /// Say this error and be gone at once: a successor waits for the name and for what the connection holds.
    GiveWay(AmqpError),
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

    fn give_way(&self) {
        let text = "another connection took over this container id, and nothing was heard here";
        self.order(Order::GiveWay(AmqpError::new(condition::CONNECTION_FORCED, text)));
    }

    /// What the connection was told since it last asked.
    pub(super) fn orders(&self) -> Vec<Order> {
        if !self.ordered.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        std::mem::take(&mut held(&self.orders))
    }
}

/// What a connection calls itself.
#[derive(Debug)]
pub(super) struct Name<'a> {
    pub(super) container: &'a str,
    /// Which run of a client it belongs to, where the client says so: nobody else can know it.
    pub(super) instance: Option<&'a str>,
    /// It wants to be the only one of its container id.
    pub(super) alone: bool,
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
            instance: OnceLock::new(),
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

    /// Gives the connection its name, once nobody is in its way. If it wants to be the only one of its container
    /// id, all others are; otherwise its own predecessors are, which have the same `instance`. Of those, the
    /// predecessors and whoever owes a sign of life are ended; it waits until all of them are gone.
    pub(super) fn claim(&self, entry: &Entry, name: &Name<'_>, now: Instant) -> Claim {
        let mut inner = held(&self.inner);
        let holders = inner.containers.get(name.container).cloned().unwrap_or_default();
        let mut is_busy = false;
        for id in holders {
            let Some(holder) = inner.open.get(&id) else {
                continue;
            };
            let is_predecessor =
                name.instance.is_some() && holder.instance.get().map(String::as_str) == name.instance;
            if is_predecessor || (name.alone && self.is_overdue(holder, now)) {
                holder.give_way();
            }
            is_busy |= is_predecessor || name.alone;
        }
        if is_busy {
            if !inner.waiting.contains(&entry.id) {
                inner.waiting.push(entry.id);
            }
            return Claim::Busy;
        }
        inner.waiting.retain(|id| *id != entry.id);
        let holders = inner.containers.entry(name.container.to_owned()).or_default();
        holders.push(entry.id);
        let _ = entry.container.set(name.container.to_owned());
        if let Some(instance) = name.instance {
            let _ = entry.instance.set(instance.to_owned());
        }
        Claim::Granted
    }

    fn is_overdue(&self, holder: &Entry, now: Instant) -> bool {
        let silent = self.now(now).saturating_sub(holder.heard.load(Ordering::Relaxed));
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

    fn name(container: &str, alone: bool) -> Name<'_> {
        Name {
            container,
            instance: None,
            alone,
        }
    }

    #[test]
    fn a_container_id_is_busy_until_its_holder_lets_go() {
        let registry = registry();
        let now = Instant::now();
        let (first, second) = (enter(&registry), enter(&registry));
        assert_eq!(registry.claim(&first, &name("a", true), now), Claim::Granted);
        assert_eq!(registry.claim(&second, &name("a", true), now), Claim::Busy);
        assert_eq!(registry.claim(&second, &name("b", true), now), Claim::Granted);
        registry.release(&first);
        let third = enter(&registry);
        assert_eq!(registry.claim(&third, &name("a", true), now), Claim::Granted);
    }

    #[test]
    fn a_holder_that_owes_a_sign_of_life_is_ended_for_its_successor() {
        let registry = registry();
        let (first, second) = (enter(&registry), enter(&registry));
        let now = Instant::now();
        assert_eq!(registry.claim(&first, &name("a", true), now), Claim::Granted);
        let soon = now + Duration::from_secs(29);
        assert_eq!(registry.claim(&second, &name("a", true), soon), Claim::Busy);
        assert_eq!(first.orders(), []);
        let late = now + Duration::from_secs(32);
        assert_eq!(registry.claim(&second, &name("a", true), late), Claim::Busy);
        assert!(has_given_way(&first));
        registry.remove(&first);
        assert_eq!(registry.claim(&second, &name("a", true), late), Claim::Granted);
        registry.heard(&second, late);
        assert_eq!(
            registry.claim(&enter(&registry), &name("a", true), late),
            Claim::Busy
        );
    }

    fn has_given_way(entry: &Entry) -> bool {
        matches!(&entry.orders()[..], [Order::GiveWay(error)] if error.condition == condition::CONNECTION_FORCED)
    }

    #[test]
    fn a_predecessor_of_the_same_client_is_ended_at_once_and_others_are_left_alone() {
        let registry = registry();
        let now = Instant::now();
        let [first, other, second] = [(); 3].map(|()| enter(&registry));
        let of = |instance| Name {
            instance: Some(instance),
            ..name("a", false)
        };
        assert_eq!(registry.claim(&first, &of("one"), now), Claim::Granted);
        assert_eq!(registry.claim(&other, &of("two"), now), Claim::Granted);
        assert_eq!(registry.claim(&second, &of("one"), now), Claim::Busy);
        assert!(has_given_way(&first));
        assert!(other.orders().is_empty());
        registry.remove(&first);
        assert_eq!(registry.claim(&second, &of("one"), now), Claim::Granted);
    }

    #[test]
    fn who_does_not_ask_to_be_alone_shares() {
        let registry = registry();
        let now = Instant::now();
        let (first, second) = (enter(&registry), enter(&registry));
        assert_eq!(registry.claim(&first, &name("a", true), now), Claim::Granted);
        assert_eq!(registry.claim(&second, &name("a", false), now), Claim::Granted);
    }
}
