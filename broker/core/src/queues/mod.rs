//! Queues: which message goes to whom, when a sender is told that its message is safe, and what has to be
//! stored for that.
//!
//! [`Queues`] takes what happened (a message came in, a consumer gave credit or settled, the store finished
//! a batch) and leaves in each owner's outbox what has to be done. It never touches a socket, a file or a
//! clock, and knows nothing of the protocol: `L` is the owner's name for a link and `D` for a delivery on it.
//!
//! Invariants:
//! - a durable message is acknowledged, and shown to a consumer, only after its record is durable;
//! - a settlement is confirmed only after its record is durable, if the message has one;
//! - a message that was out when the broker ended is counted as delivered once more after recovery, if any
//!   batch was stored since it was sent;
//! - within a queue and priority, messages leave in the order they came, and one that comes back takes its
//!   old place;
//! - a consumer never gets more than its credit, and a full queue stops the credit of its producers or refuses
//!   what they send, as its settings say;
//! - a transaction is one part of one batch: it is stored, and takes effect, as a whole or not at all;
//! - what was accepted is only ever dropped where the settings say so.
//!
//! A subscription is a queue that gets what is published to the topics its pattern matches. A message in
//! several of them has one body, in memory and in the store.
//!
//! Times are milliseconds since the Unix epoch and come in with [`tick`](Queues::tick).
//!
//! How to drive it, under one lock: apply a batch of events, [`flush`](Queues::flush), hand the open batch
//! to the store ([`close_batch`](Queues::close_batch)), [`take_outbox`](Queues::take_outbox), and wake the
//! owners of [`take_wakes`](Queues::take_wakes).

mod arena;
mod attach;
mod batch;
mod compaction;
mod discard;
mod dispatch;
mod duplicates;
mod factories;
mod groups;
mod lifetime;
mod links;
mod peek;
mod places;
mod publish;
mod queue;
mod record;
mod recovery;
mod router;
mod settle;
mod time;
mod topics;
mod transactions;
mod types;
mod walk;

pub use duplicates::{DuplicateId, InvalidDuplicateId, MAX_DUPLICATE_ID_BYTES};
pub use factories::{Factory, MAX_FACTORIES};
pub use peek::Peeked;
pub use record::{Decoder, Extras as StoredExtras, Record, RecordError, Reference, StoredSubscription};
pub use recovery::Recovery;
pub use topics::{Subscribed, Subscription, SubscriptionKey};
pub use transactions::TransactionId;
pub use types::{
    Action, Arrival, ConsumerId, ConsumerOptions, DeadLetter, Delivery, Lifetime, Limits, MESSAGE_OVERHEAD,
    MessageRef, OwnerId, Positions, ProducerId, QueueCounts, QueueId, QueueLimits, QueueSettings, Reason,
    Refused, Settlement, WhenFull,
};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arena::Arena;
use batch::Batches;
use compaction::Compaction;
use groups::Group;
use links::{Consumer, Owner, Producer};
use queue::{Message, Queue};
use router::Router;
use time::Extras;
use transactions::Transaction;

use crate::selector::Properties;

/// Shows the properties of a stored message to a selector: its payload, and how often a delivery of it
/// failed before.
pub type ReadProperties = fn(payload: &[u8], delivery_count: u32, with: &mut dyn FnMut(&dyn Properties));

/// All queues of one broker.
#[derive(Debug)]
pub struct Queues<L, D> {
    limits: Limits,
    names: BTreeMap<Arc<str>, u32>,
    topics: BTreeMap<Arc<str>, u32>,
    subscriptions: BTreeMap<(SubscriptionKey, bool), u32>,
    router: Router,
    queues: Vec<Queue>,
    /// Numbers of queues that were deleted.
    free: Vec<u32>,
    factories: BTreeMap<String, Factory>,
    messages: Arena<Message>,
    groups: Arena<Group>,
    extras: Extras,
    owners: Arena<Owner<L, D>>,
    consumers: Arena<Consumer<L>>,
    producers: Arena<Producer<L>>,
    transactions: Arena<Transaction>,
    /// When each transaction has to end.
    overdue: BTreeSet<(u64, TransactionId)>,
    batches: Batches<L, D>,
    read: ReadProperties,
    /// What the duplicate windows of all queues take.
    windows: duplicates::Sizes,
    /// Makes the places of duplicate ids unpredictable.
    key: Option<u128>,
    now: u64,
    next_id: u64,
    bytes: u64,
    stored_bytes: u64,
    dirty: Vec<u32>,
    blocked: Vec<u32>,
    /// Queues in which a walker has not seen everything.
    unfinished: Vec<u32>,
    wakes: Vec<OwnerId>,
    /// Producers that should get credit with the next flush.
    asking: Vec<ProducerId>,
    /// Producers that wait because of a limit of all queues.
    waiting: Vec<ProducerId>,
    /// Which limits of all queues were reached and not left behind since: memory, stored bytes, bytes that wait
    /// for the store.
    reached: [bool; 3],
    compaction: Option<Compaction>,
}

impl<L: Copy, D: Copy> Queues<L, D> {
    fn empty(limits: Limits, next_position: u64) -> Self {
        Self {
            limits,
            names: BTreeMap::new(),
            topics: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            router: Router::default(),
            queues: Vec::new(),
            free: Vec::new(),
            factories: BTreeMap::new(),
            messages: Arena::default(),
            groups: Arena::default(),
            extras: Extras::default(),
            owners: Arena::default(),
            consumers: Arena::default(),
            producers: Arena::default(),
            transactions: Arena::default(),
            overdue: BTreeSet::new(),
            batches: Batches::new(next_position),
            read: walk::read_nothing,
            windows: duplicates::Sizes::default(),
            key: None,
            now: 0,
            next_id: 1,
            bytes: 0,
            stored_bytes: 0,
            dirty: Vec::new(),
            blocked: Vec::new(),
            unfinished: Vec::new(),
            wakes: Vec::new(),
            asking: Vec::new(),
            waiting: Vec::new(),
            reached: [false; 3],
            compaction: None,
        }
    }

    /// Appends what the owner has to do to `into`.
    pub fn take_outbox(&mut self, owner: OwnerId, into: &mut Vec<Action<L, D>>) {
        let Some(found) = self.owners.fetch_mut(owner.0) else {
            return;
        };
        into.append(&mut found.outbox);
        found.taken += 1;
        found.deliveries = 0;
        found.bytes = 0;
        found.to_wake = false;
        if !found.passed_over.is_empty() {
            self.readmit(owner);
            self.flush();
        }
    }

    /// Calls `wake` for each owner whose outbox was filled since it was last taken.
    pub fn take_wakes(&mut self, mut wake: impl FnMut(OwnerId)) {
        for owner in self.wakes.drain(..) {
            // An owner that took its outbox after it was listed has nothing to be woken for.
            if self.owners.fetch(owner.0).is_some_and(|found| found.to_wake) {
                wake(owner);
            }
        }
    }

    /// Hands messages to consumers and credit to producers, as far as both permit.
    pub fn flush(&mut self) {
        while let Some(queue) = self.dirty.pop() {
            self.queues[queue as usize].dirty = false;
            self.dispatch(queue);
        }
        self.grant();
    }

    /// Shows the records of the open batch to `encode`, in order, and counts them as handed to the store.
    /// `None` if there are none. The first one must get the position that was promised to
    /// [`Recovery::finish`] or follows the batch before.
    pub fn close_batch(&mut self, encode: impl FnMut(&Record)) -> Option<Positions> {
        self.batches.close(encode)
    }

    /// The position of the last record that was handed to the store; 0 if there was none.
    #[must_use]
    pub fn last_position(&self) -> u64 {
        self.batches.last_position()
    }

    /// The store made everything up to this position durable.
    pub fn durable(&mut self, upto: u64) {
        while let Some(mut waiters) = self.batches.pop_durable(upto) {
            for waiter in waiters.drain(..) {
                self.tell(waiter);
            }
            self.batches.recycle(waiters);
        }
        for queue in std::mem::take(&mut self.blocked) {
            self.queues[queue as usize].blocked = false;
            self.mark_dirty(queue);
        }
    }

    /// Tells `owner` with [`Action::Safe`] once all that has been decided so far will survive.
    pub fn tell_when_safe(&mut self, owner: OwnerId, link: L) {
        let waiter = batch::Waiter {
            owner,
            link,
            stored: batch::Stored::Everything,
        };
        if let Some(waiter) = self.batches.wait_for_all(waiter) {
            self.tell(waiter);
        }
    }

    fn tell(&mut self, waiter: batch::Waiter<L, D>) {
        let batch::Waiter { owner, link, stored } = waiter;
        let action = match stored {
            batch::Stored::Message(producer, delivery) => {
                self.answered(producer);
                Action::Accepted { link, delivery }
            }
            batch::Stored::Settlement(settlement, delivery) => Action::Confirmed {
                link,
                delivery,
                settlement,
            },
            batch::Stored::Transaction(delivery) => Action::Committed { link, delivery },
            batch::Stored::FirstCopy(queue, delivery) => {
                let why = Refused::DuplicateInTransaction { queue };
                Action::RolledBack { link, delivery, why }
            }
            batch::Stored::Everything => Action::Safe { link },
        };
        self.post(owner, action);
    }

    fn post(&mut self, owner: OwnerId, action: Action<L, D>) {
        if let Some(found) = self.owners.fetch_mut(owner.0) {
            found.outbox.push(action);
            if !found.to_wake {
                found.to_wake = true;
                self.wakes.push(owner);
            }
        }
    }

    fn mark_dirty(&mut self, queue: u32) {
        let found = &mut self.queues[queue as usize];
        if !found.dirty {
            found.dirty = true;
            self.dirty.push(queue);
        }
    }

    /// Bytes that wait for the store are far above their limit: read nothing more from producers.
    #[must_use]
    pub fn is_store_overloaded(&self) -> bool {
        self.batches.pending_bytes() > self.limits.max_pending_bytes.saturating_mul(2)
    }

    /// Bytes of records that are not yet durable.
    #[must_use]
    pub fn pending_bytes(&self) -> u64 {
        self.batches.pending_bytes()
    }

    /// Bytes of records in the open batch.
    #[must_use]
    pub fn open_bytes(&self) -> u64 {
        self.batches.open_bytes()
    }

    /// Messages in all queues, those out for delivery included.
    #[must_use]
    pub fn message_count(&self) -> u64 {
        self.messages.len() as u64
    }

    /// Their bytes; a body in several queues counts once.
    #[must_use]
    pub fn byte_count(&self) -> u64 {
        self.bytes
    }

    /// What they take in memory, with the duplicate ids.
    fn memory(&self) -> u64 {
        self.bytes + self.messages.len() as u64 * MESSAGE_OVERHEAD + self.windows.memory
    }

    /// Bytes of the records a recovery could not do without.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    /// Queues, without topics and subscriptions.
    #[must_use]
    pub fn queue_count(&self) -> usize {
        self.names.len()
    }

    /// The counts of every queue, by name.
    pub fn counts(&self) -> impl Iterator<Item = (&str, &QueueCounts)> {
        let by_name = self.names.iter();
        by_name.map(|(name, id)| (&**name, &self.queues[*id as usize].counts))
    }

    /// The counts of every topic, by name: they tell of what was published and by how many.
    pub fn topic_counts(&self) -> impl Iterator<Item = (&str, &QueueCounts)> {
        let by_name = self.topics.iter();
        by_name.map(|(name, id)| (&**name, &self.queues[*id as usize].counts))
    }

    /// The counts of one queue, topic or subscription.
    #[must_use]
    pub fn counts_of(&self, queue: QueueId) -> Option<&QueueCounts> {
        self.living(queue).map(|queue| &queue.counts)
    }
}
