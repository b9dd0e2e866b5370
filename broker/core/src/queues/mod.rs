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
//! - a consumer never gets more than its credit, and a full queue stops the credit of its producers.
//!
//! How to drive it, under one lock: apply a batch of events, [`flush`](Queues::flush), hand the open batch
//! to the store ([`close_batch`](Queues::close_batch)), [`take_outbox`](Queues::take_outbox), and wake the
//! owners of [`take_wakes`](Queues::take_wakes).

mod arena;
mod batch;
mod compaction;
mod dispatch;
mod duplicates;
mod links;
mod publish;
mod queue;
mod record;
mod recovery;
mod settle;
mod types;

pub use duplicates::{DuplicateId, InvalidDuplicateId, MAX_DUPLICATE_ID_BYTES};
pub use record::{Record, RecordError};
pub use recovery::Recovery;
pub use types::{
    Action, Arrival, ConsumerId, Delivery, Limits, MessageRef, OwnerId, Positions, ProducerId, QueueCounts,
    QueueId, QueueLimits, Refused, Settlement,
};

use std::collections::BTreeMap;
use std::sync::Arc;

use arena::Arena;
use batch::Batches;
use compaction::Compaction;
use links::{Consumer, Owner, Place, Producer};
use queue::{Message, Queue};

/// All queues of one broker.
#[derive(Debug)]
pub struct Queues<L, D> {
    limits: Limits,
    names: BTreeMap<Arc<str>, QueueId>,
    queues: Vec<Queue>,
    messages: Arena<Message>,
    owners: Arena<Owner<L, D>>,
    consumers: Arena<Consumer<L>>,
    producers: Arena<Producer<L>>,
    batches: Batches<L, D>,
    next_id: u64,
    bytes: u64,
    stored_bytes: u64,
    dirty: Vec<QueueId>,
    blocked: Vec<QueueId>,
    wakes: Vec<OwnerId>,
    /// Producers that should get credit with the next flush.
    asking: Vec<ProducerId>,
    /// Producers that wait because of a limit of all queues.
    waiting: Vec<ProducerId>,
    compaction: Option<Compaction>,
}

impl<L: Copy, D: Copy> Queues<L, D> {
    fn empty(limits: Limits, next_position: u64) -> Self {
        Self {
            limits,
            names: BTreeMap::new(),
            queues: Vec::new(),
            messages: Arena::default(),
            owners: Arena::default(),
            consumers: Arena::default(),
            producers: Arena::default(),
            batches: Batches::new(next_position),
            next_id: 1,
            bytes: 0,
            stored_bytes: 0,
            dirty: Vec::new(),
            blocked: Vec::new(),
            wakes: Vec::new(),
            asking: Vec::new(),
            waiting: Vec::new(),
            compaction: None,
        }
    }

    /// The queue of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<QueueId> {
        self.names.get(name).copied()
    }

    /// The queue of this name, made if there is none; `limits` replace those it had.
    ///
    /// # Errors
    /// [`Refused::TooManyQueues`]; [`Refused::Nameless`] if the name is empty.
    pub fn declare(&mut self, name: &str, limits: QueueLimits) -> Result<QueueId, Refused> {
        if let Some(id) = self.find(name) {
            self.queues[id.0 as usize].limits = limits;
            return Ok(id);
        }
        if name.is_empty() {
            return Err(Refused::Nameless);
        }
        if self.queues.len() >= self.limits.max_queues {
            return Err(Refused::TooManyQueues {
                limit: self.limits.max_queues,
            });
        }
        let id = self.add_queue(name, limits);
        let record = Record::Queue {
            queue: id.0,
            name: name.to_owned(),
        };
        self.batches.push(record, name.len() as u64);
        Ok(id)
    }

    fn add_queue(&mut self, name: &str, limits: QueueLimits) -> QueueId {
        let queue = Queue::new(name, limits);
        // `max_queues` keeps this far below 2^32.
        let id = QueueId(u32::try_from(self.queues.len()).unwrap_or(u32::MAX));
        self.names.insert(Arc::clone(&queue.name), id);
        self.queues.push(queue);
        id
    }

    /// Someone with an outbox.
    pub fn add_owner(&mut self) -> OwnerId {
        OwnerId(self.owners.insert(Owner::new()))
    }

    /// The owner is gone with all its links. What was out to its consumers is queued again, with the
    /// delivery count raised.
    pub fn remove_owner(&mut self, owner: OwnerId) {
        let Some(found) = self.owners.fetch_mut(owner.0) else {
            return;
        };
        let consumers = std::mem::take(&mut found.consumers);
        let producers = std::mem::take(&mut found.producers);
        for key in consumers {
            self.detach_consumer(ConsumerId(key));
        }
        for key in producers {
            self.detach_producer(ProducerId(key));
        }
        self.owners.remove(owner.0.index);
    }

    /// A consumer without credit. `settled`: its deliveries say so, and nobody else will settle them.
    ///
    /// # Errors
    /// [`Refused::Gone`] if there is no such owner or queue.
    pub fn attach_consumer(
        &mut self,
        owner: OwnerId,
        link: L,
        queue: QueueId,
        settled: bool,
    ) -> Result<ConsumerId, Refused> {
        let found = self
            .owners
            .fetch_mut(owner.0)
            .ok_or(Refused::Gone("the connection"))?;
        let from = self
            .queues
            .get_mut(queue.0 as usize)
            .ok_or(Refused::Gone("the queue"))?;
        from.counts.consumers += 1;
        let key = self.consumers.insert(Consumer::new(owner, link, queue, settled));
        found.consumers.push(key);
        Ok(ConsumerId(key))
    }

    /// The consumer is gone. What was out to it is queued again, with the delivery count raised.
    pub fn detach_consumer(&mut self, consumer: ConsumerId) {
        let Some(found) = self.consumers.fetch(consumer.0) else {
            return;
        };
        let (owner, queue, first) = (found.owner, found.queue, found.first);
        self.requeue_all(first);
        self.consumers.remove(consumer.0.index);
        let queue = &mut self.queues[queue.0 as usize];
        queue.counts.consumers -= 1;
        queue.turn.retain(|&key| key != consumer.0);
        queue.draining.retain(|&key| key != consumer.0);
        if let Some(owner) = self.owners.fetch_mut(owner.0) {
            owner.consumers.retain(|&key| key != consumer.0);
            owner.passed_over.retain(|&key| key != consumer.0);
        }
    }

    /// A producer, for one queue or, with `None`, for whatever queue each message names. It gets its first
    /// credit with the next flush.
    ///
    /// # Errors
    /// [`Refused::Gone`] if there is no such owner or queue.
    pub fn attach_producer(
        &mut self,
        owner: OwnerId,
        link: L,
        queue: Option<QueueId>,
    ) -> Result<ProducerId, Refused> {
        let found = self
            .owners
            .fetch_mut(owner.0)
            .ok_or(Refused::Gone("the connection"))?;
        if let Some(queue) = queue {
            let to = self
                .queues
                .get_mut(queue.0 as usize)
                .ok_or(Refused::Gone("the queue"))?;
            to.counts.producers += 1;
        }
        let key = self.producers.insert(Producer::new(owner, link, queue));
        found.producers.push(key);
        self.ask(ProducerId(key));
        Ok(ProducerId(key))
    }

    /// The producer is gone. Its messages stay.
    pub fn detach_producer(&mut self, producer: ProducerId) {
        let Some(gone) = self.producers.remove_key(producer.0) else {
            return;
        };
        if let Some(queue) = gone.queue.filter(|_| !gone.anonymous) {
            self.queues[queue.0 as usize].counts.producers -= 1;
        }
        if gone.asked {
            if let Some(queue) = gone.held_by {
                let waiting = &mut self.queues[queue.0 as usize].waiting;
                waiting.retain(|&other| other != producer);
            }
            self.asking.retain(|&other| other != producer);
            self.waiting.retain(|&other| other != producer);
        }
        if let Some(owner) = self.owners.fetch_mut(gone.owner.0) {
            owner.producers.retain(|&key| key != producer.0);
        }
    }

    /// The consumer takes `credit` messages from now on, not counting those its owner has already taken
    /// out of the outbox and sent. With `drain` it wants to be told when there is nothing left for it.
    pub fn set_credit(&mut self, consumer: ConsumerId, credit: u32, drain: bool) {
        let Some(found) = self.consumers.fetch_mut(consumer.0) else {
            return;
        };
        let Some(owner) = self.owners.fetch_mut(found.owner.0) else {
            return;
        };
        if found.drained_at.take() == Some(owner.taken) {
            // Its answer was not sent yet, and would void the credit given now.
            let stale = |action: &Action<L, D>| matches!(action, Action::Drained { consumer: of, .. } if *of == consumer);
            owner.outbox.retain(|action| !stale(action));
        }
        found.credit = credit.saturating_sub(found.boxed_in(owner.taken));
        let queue = &mut self.queues[found.queue.0 as usize];
        if drain && !found.drain {
            queue.draining.push(consumer.0);
        } else if !drain && found.drain {
            queue.draining.retain(|&key| key != consumer.0);
        }
        found.drain = drain;
        if found.credit > 0 && found.place == Place::Out {
            found.place = Place::InTurn;
            queue.turn.push_back(consumer.0);
        }
        if found.credit > 0 || drain {
            let queue = found.queue;
            self.mark_dirty(queue);
        }
    }

    /// Whether the owner can send now. While it cannot, its consumers are passed over.
    pub fn set_writable(&mut self, owner: OwnerId, writable: bool) {
        if let Some(owner) = self.owners.fetch_mut(owner.0) {
            owner.writable = writable;
        }
        if writable {
            self.readmit(owner);
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
            self.queues[queue.0 as usize].dirty = false;
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
        while let Some(waiters) = self.batches.pop_durable(upto) {
            for waiter in &waiters {
                self.tell(*waiter);
            }
            self.batches.recycle(waiters);
        }
        for queue in std::mem::take(&mut self.blocked) {
            self.queues[queue.0 as usize].blocked = false;
            self.mark_dirty(queue);
        }
    }

    fn tell(&mut self, waiter: batch::Waiter<L, D>) {
        let batch::Waiter {
            owner,
            link,
            delivery,
            stored,
        } = waiter;
        let action = match stored {
            batch::Stored::Message(producer) => {
                self.answered(producer);
                Action::Accepted { link, delivery }
            }
            batch::Stored::Settlement(settlement) => Action::Confirmed {
                link,
                delivery,
                settlement,
            },
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

    fn mark_dirty(&mut self, queue: QueueId) {
        let found = &mut self.queues[queue.0 as usize];
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

    /// Messages in all queues, those out for delivery included.
    #[must_use]
    pub fn message_count(&self) -> u64 {
        self.messages.len() as u64
    }

    /// Their bytes.
    #[must_use]
    pub fn byte_count(&self) -> u64 {
        self.bytes
    }

    /// Bytes of the records a recovery could not do without.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    /// Queues.
    #[must_use]
    pub fn queue_count(&self) -> usize {
        self.queues.len()
    }

    /// The counts of every queue, by name.
    pub fn counts(&self) -> impl Iterator<Item = (&str, &QueueCounts)> {
        let by_name = self.names.iter();
        by_name.map(|(name, id)| (&**name, &self.queues[id.0 as usize].counts))
    }
}
