//! Local transactions: publications and settlements that take effect together or not at all.
//!
//! Until it is committed, a transaction only holds things: messages that nobody sees, and messages that are
//! out to consumers and stay so. A commit is one part of one batch, so the store has all of it or nothing.
//! Invariant: a transaction in which anything went wrong is never committed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Queues;
use super::arena::Key;
use super::batch::{Stored, Waiter};
use super::queue::Place;
use super::topics::Kind;
use super::types::{
    Arrival, ConsumerId, MESSAGE_OVERHEAD, MessageRef, OwnerId, ProducerId, QueueId, Refused, Settlement,
    WhenFull,
};

/// A transaction. A stale id never means another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(pub(super) Key);

impl TransactionId {
    /// As one number, to travel through a protocol engine.
    #[must_use]
    pub fn to_bits(self) -> u64 {
        MessageRef(self.0).to_bits()
    }

    /// From the number [`to_bits`](Self::to_bits) gave; any other number refers to no transaction, or to one
    /// of another owner, which is refused.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        Self(MessageRef::from_bits(bits).0)
    }
}

/// What a transaction holds.
#[derive(Debug)]
pub(super) struct Transaction {
    owner: OwnerId,
    ends_at: u64,
    publications: Vec<(QueueId, Arrival)>,
    settlements: Vec<Held>,
    bytes: u64,
    /// Why it can only be rolled back.
    void: Option<Refused>,
}

/// A message whose settlement was announced.
#[derive(Debug)]
struct Held {
    message: Key,
    consumer: Key,
    settlement: Settlement,
    /// The peer has forgotten the delivery.
    settled: bool,
}

impl<L: Copy, D: Copy> Queues<L, D> {
    /// A new transaction of this owner. It is rolled back when [`Limits::transaction_ms`] are over.
    ///
    /// [`Limits::transaction_ms`]: super::Limits::transaction_ms
    ///
    /// # Errors
    /// [`Refused::Gone`] without such an owner, [`Refused::TooManyTransactions`].
    pub fn begin(&mut self, owner: OwnerId) -> Result<TransactionId, Refused> {
        let limit = self.limits.max_transactions;
        let found = self
            .owners
            .fetch_mut(owner.0)
            .ok_or(Refused::Gone("the connection"))?;
        if found.transactions.len() >= limit {
            return Err(Refused::TooManyTransactions { limit });
        }
        let ends_at = self.now.saturating_add(self.limits.transaction_ms);
        let key = self.transactions.insert(Transaction {
            owner,
            ends_at,
            publications: Vec::new(),
            settlements: Vec::new(),
            bytes: 0,
            void: None,
        });
        found.transactions.push(key);
        self.overdue.insert((ends_at, TransactionId(key)));
        Ok(TransactionId(key))
    }

    /// A producer sent a message that is published with the transaction.
    ///
    /// # Errors
    /// As for [`publish`](Self::publish); [`Refused::Gone`] without such a transaction of the same owner;
    /// [`Refused::TransactionTooLarge`]; or why the transaction is void. Each of them makes it void.
    pub fn publish_in(
        &mut self,
        transaction: TransactionId,
        producer: ProducerId,
        to: Option<QueueId>,
        arrival: Arrival,
    ) -> Result<(), Refused> {
        let received = self.receive(producer, to, arrival.payload.len());
        let held = received.and_then(|(owner, _, number)| {
            let queue = self.id_of(number);
            let bytes = arrival.payload.len() as u64 + MESSAGE_OVERHEAD;
            let limit = self.limits.transaction_bytes;
            let held = self.usable(transaction, owner)?;
            held.grow(bytes, limit)?;
            held.publications.push((queue, arrival));
            self.bytes += bytes;
            self.queues[number as usize].awaited += 1;
            Ok(())
        });
        self.note(transaction, held)
    }

    /// A consumer announced how it will settle a message. With `settled` the peer has forgotten the delivery:
    /// after a rollback the message is queued again with its delivery count raised. Otherwise it is out to
    /// the consumer as before then.
    ///
    /// # Errors
    /// As for [`settle`](Self::settle); [`Refused::Gone`] without such a transaction of the same owner;
    /// [`Refused::TransactionTooLarge`]; or why the transaction is void. Each of them makes it void.
    pub fn settle_in(
        &mut self,
        transaction: TransactionId,
        consumer: ConsumerId,
        message: MessageRef,
        settlement: Settlement,
        settled: bool,
    ) -> Result<(), Refused> {
        let held = self.hold(transaction, consumer, message, settlement, settled);
        self.note(transaction, held)
    }

    fn hold(
        &mut self,
        transaction: TransactionId,
        consumer: ConsumerId,
        message: MessageRef,
        settlement: Settlement,
        settled: bool,
    ) -> Result<(), Refused> {
        let by = self
            .consumers
            .fetch(consumer.0)
            .ok_or(Refused::Gone("the consumer"))?;
        let (owner, browse) = (by.owner, by.browse);
        let limit = self.limits.transaction_bytes;
        self.usable(transaction, owner)?;
        if browse {
            return Ok(());
        }
        self.is_out_to(consumer, message)?;
        let held = self.usable(transaction, owner)?;
        held.grow(MESSAGE_OVERHEAD, limit)?;
        held.settlements.push(Held {
            message: message.0,
            consumer: consumer.0,
            settlement,
            settled,
        });
        self.bytes += MESSAGE_OVERHEAD;
        self.take_from_consumer(message.0.index);
        self.count_held(message.0, 1);
        if let Some(message) = self.messages.fetch_mut(message.0) {
            message.place = Place::Held;
        }
        Ok(())
    }

    /// A message a transaction holds counts as out for delivery.
    fn count_held(&mut self, message: Key, change: i64) {
        if let Some(found) = self.messages.fetch(message) {
            let counts = &mut self.queues[found.queue as usize].counts;
            counts.unsettled = counts.unsettled.saturating_add_signed(change);
        }
    }

    fn usable(&mut self, transaction: TransactionId, owner: OwnerId) -> Result<&mut Transaction, Refused> {
        let found = self.transactions.fetch_mut(transaction.0);
        let found = found.filter(|found| found.owner == owner);
        let found = found.ok_or(Refused::Gone("the transaction"))?;
        match &found.void {
            Some(why) => Err(why.clone()),
            None => Ok(found),
        }
    }

    /// Whatever goes wrong in a transaction makes it void.
    fn note(&mut self, transaction: TransactionId, result: Result<(), Refused>) -> Result<(), Refused> {
        if let Err(why) = &result
            && let Some(found) = self.transactions.fetch_mut(transaction.0)
        {
            found.void.get_or_insert_with(|| why.clone());
        }
        result
    }

    /// Makes everything in the transaction happen, at once and together. With `confirm` its owner is told on
    /// `link` when that will survive a crash; or that a message in it was stored before and nothing happened,
    /// when that message will survive a crash.
    ///
    /// # Errors
    /// Nothing happened and the transaction is rolled back: [`Refused::TransactionTimedOut`],
    /// [`Refused::QueueFull`], [`Refused::RepeatedInTransaction`], what went wrong in it before, or, without
    /// `confirm`, [`Refused::DuplicateInTransaction`].
    /// [`Refused::Gone`] without such a transaction of this owner.
    pub fn commit(
        &mut self,
        owner: OwnerId,
        transaction: TransactionId,
        link: L,
        confirm: Option<D>,
    ) -> Result<(), Refused> {
        let waiter = |stored| Waiter { owner, link, stored };
        let possible = self.usable(transaction, owner).map(|_| ());
        if let Err(why) = possible.and_then(|()| self.check_commit(transaction)) {
            let _ = self.rollback(owner, transaction);
            return match (why, confirm) {
                (Refused::DuplicateInTransaction { queue }, Some(delivery)) => {
                    self.tell_after_first_copy(waiter(Stored::FirstCopy(queue, delivery)));
                    Ok(())
                }
                (why, _) => Err(why),
            };
        }
        let Some(done) = self.close_transaction(transaction.0) else {
            return Err(Refused::Gone("the transaction"));
        };
        let mut lasting = false;
        for held in done.settlements {
            lasting |= self.settle_held(held);
        }
        for (queue, arrival) in done.publications {
            // It was checked before that it is no duplicate and that there is room.
            lasting |= matches!(self.take_in(queue.0, owner, arrival, true), Ok(true));
            self.await_no_more(queue);
        }
        match confirm.map(|delivery| waiter(Stored::Transaction(delivery))) {
            Some(waiter) if lasting => self.batches.wait(waiter),
            Some(waiter) => self.tell(waiter),
            None => {}
        }
        Ok(())
    }

    /// Whether everything in the transaction can be done.
    fn check_commit(&mut self, transaction: TransactionId) -> Result<(), Refused> {
        let Some(found) = self.transactions.fetch_mut(transaction.0) else {
            return Err(Refused::Gone("the transaction"));
        };
        let owner = found.owner;
        let publications = std::mem::take(&mut found.publications);
        let checked = self
            .check_duplicates(&publications)
            .and_then(|()| self.check_room(owner, &publications));
        if let Some(found) = self.transactions.fetch_mut(transaction.0) {
            found.publications = publications;
        }
        checked
    }

    fn check_duplicates(&mut self, publications: &[(QueueId, Arrival)]) -> Result<(), Refused> {
        let mut seen = BTreeSet::new();
        for (queue, arrival) in publications {
            let to = self.living_mut(*queue).ok_or(Refused::Gone("the queue"))?;
            if let Some(id) = &arrival.duplicate_id {
                let name = Arc::clone(&to.name);
                if to.duplicates.knows(id) {
                    to.counts.duplicates += 1;
                    return Err(Refused::DuplicateInTransaction { queue: name });
                }
                if !seen.insert((*queue, id)) {
                    return Err(Refused::RepeatedInTransaction { queue: name });
                }
            }
        }
        Ok(())
    }

    /// Whether no queue would refuse one of these.
    fn check_room(&mut self, owner: OwnerId, publications: &[(QueueId, Arrival)]) -> Result<(), Refused> {
        let mut wanted = BTreeMap::<u32, (u64, u64)>::new();
        for (queue, arrival) in publications {
            let topic = matches!(self.queues[queue.0 as usize].kind, Kind::Topic(_));
            let targets = if topic {
                self.targets(queue.0, owner, arrival)
            } else {
                vec![queue.0]
            };
            for target in targets {
                let (messages, bytes) = wanted.entry(target).or_default();
                *messages += 1;
                *bytes += arrival.payload.len() as u64;
            }
        }
        for (number, (messages, bytes)) in wanted {
            let queue = &self.queues[number as usize];
            let limits = &queue.settings.limits;
            let fits = queue.counts.messages.saturating_add(messages) <= limits.max_messages
                && queue.counts.bytes.saturating_add(bytes) <= limits.max_bytes;
            if queue.settings.when_full == WhenFull::Reject && !fits {
                return Err(self.full(number));
            }
        }
        Ok(())
    }

    /// Undoes everything in the transaction: its messages are gone, and what it would have settled is out to
    /// its consumers again, or queued again.
    ///
    /// # Errors
    /// [`Refused::Gone`] without such a transaction of this owner.
    pub fn rollback(&mut self, owner: OwnerId, transaction: TransactionId) -> Result<(), Refused> {
        let found = self.transactions.fetch(transaction.0);
        if found.is_none_or(|found| found.owner != owner) {
            return Err(Refused::Gone("the transaction"));
        }
        self.abandon(transaction.0);
        Ok(())
    }

    /// Rolls a transaction back, whoever asks.
    pub(super) fn abandon(&mut self, transaction: Key) {
        if let Some(gone) = self.close_transaction(transaction) {
            gone.settlements.into_iter().for_each(|held| self.let_go(held));
            for (queue, _) in gone.publications {
                self.await_no_more(queue);
            }
        }
    }

    /// A message of an open transaction arrived in its queue, or never will. Until then the queue is in use.
    fn await_no_more(&mut self, queue: QueueId) {
        if let Some(found) = self.living_mut(queue) {
            found.awaited -= 1;
            self.end_if_unused(queue.0);
        }
    }

    fn close_transaction(&mut self, transaction: Key) -> Option<Transaction> {
        let gone = self.transactions.remove_key(transaction)?;
        self.overdue.remove(&(gone.ends_at, TransactionId(transaction)));
        self.bytes -= gone.bytes;
        if let Some(owner) = self.owners.fetch_mut(gone.owner.0) {
            owner.transactions.retain(|&other| other != transaction);
        }
        Some(gone)
    }

    /// Rolls back what took too long. Its owner hears of it when it goes on with the transaction.
    pub(super) fn end_overdue_transactions(&mut self) {
        while let Some(&(at, transaction)) = self.overdue.first()
            && at <= self.now
        {
            self.overdue.pop_first();
            let Some(found) = self.transactions.fetch_mut(transaction.0) else {
                continue;
            };
            let limit_ms = self.limits.transaction_ms;
            found
                .void
                .get_or_insert(Refused::TransactionTimedOut { limit_ms });
            let publications = std::mem::take(&mut found.publications);
            self.bytes -= std::mem::take(&mut found.bytes);
            let settlements = std::mem::take(&mut found.settlements);
            settlements.into_iter().for_each(|held| self.let_go(held));
            for (queue, _) in publications {
                self.await_no_more(queue);
            }
        }
    }

    /// Settles a message as it was announced. Whether that has to last.
    fn settle_held(&mut self, held: Held) -> bool {
        let Some(message) = self.messages.fetch(held.message) else {
            return false; // Its queue was deleted meanwhile.
        };
        let stored = message.record != 0;
        self.count_held(held.message, -1);
        self.apply(held.message.index, held.consumer, held.settlement) && stored
    }

    /// The transaction decides nothing about the message any more.
    fn let_go(&mut self, held: Held) {
        if self.messages.fetch(held.message).is_none() {
            return;
        }
        self.count_held(held.message, -1);
        if !held.settled && self.consumers.fetch(held.consumer).is_some() {
            self.give_to(held.consumer.index, held.message.index);
        } else {
            self.fail(held.message.index);
        }
    }
}

impl Transaction {
    fn grow(&mut self, bytes: u64, limit: u64) -> Result<(), Refused> {
        if self.bytes + bytes > limit {
            return Err(Refused::TransactionTooLarge { limit });
        }
        self.bytes += bytes;
        Ok(())
    }
}
