//! Who is connected: owners, their consumers and producers, and what they say of themselves.

use super::Queues;
use super::links::{Consumer, Owner, Place, Producer};
use super::topics::Kind;
use super::types::{Action, ConsumerId, ConsumerOptions, OwnerId, ProducerId, QueueId, Refused};
use super::walk::Walker;

impl<L: Copy, D: Copy> Queues<L, D> {
    /// Someone with an outbox.
    pub fn add_owner(&mut self) -> OwnerId {
        OwnerId(self.owners.insert(Owner::new()))
    }

    /// What the owner calls itself: messages it publishes are local to subscriptions it makes.
    pub fn set_container(&mut self, owner: OwnerId, container: &str) {
        if let Some(found) = self.owners.fetch_mut(owner.0) {
            found.container = Some(container.into());
        }
    }

    /// The owner is gone with all its links. What was out to its consumers is queued again, with the
    /// delivery count raised, or goes to the dead letters if that was the last attempt. Its transactions are
    /// rolled back, its temporary queues deleted.
    pub fn remove_owner(&mut self, owner: OwnerId) {
        let Some(found) = self.owners.fetch_mut(owner.0) else {
            return;
        };
        let transactions = std::mem::take(&mut found.transactions);
        let consumers = std::mem::take(&mut found.consumers);
        let producers = std::mem::take(&mut found.producers);
        let queues = std::mem::take(&mut found.queues);
        for transaction in transactions {
            self.abandon(transaction);
        }
        for key in consumers {
            self.end_consumer(ConsumerId(key), true);
        }
        for key in producers {
            self.detach_producer(ProducerId(key));
        }
        for queue in queues {
            let _ = self.delete(queue, false);
        }
        self.owners.remove(owner.0.index);
    }

    /// A consumer without credit.
    ///
    /// # Errors
    /// [`Refused::Gone`] if there is no such owner or queue, [`Refused::InUse`] for a second consumer of a
    /// subscription that is not shared, [`Refused::Foreign`] if the queue goes with another owner.
    pub fn attach_consumer(
        &mut self,
        owner: OwnerId,
        link: L,
        queue: QueueId,
        options: ConsumerOptions,
    ) -> Result<ConsumerId, Refused> {
        let from = self.living(queue).ok_or(Refused::Gone("the queue"))?;
        self.check_taker(queue.0, owner)?;
        let mut selector = options.selector;
        match &from.kind {
            Kind::Subscription(subscription) => {
                if !subscription.shared && from.counts.consumers > 0 {
                    return Err(Refused::InUse("the subscription"));
                }
                // What it asks for was chosen when the messages came in.
                selector = None;
            }
            Kind::Queue => {}
            Kind::Topic(_) | Kind::Free => return Err(Refused::Gone("the queue")),
        }
        let found = self
            .owners
            .fetch_mut(owner.0)
            .ok_or(Refused::Gone("the connection"))?;
        let walks = options.browse || selector.is_some();
        let mut consumer = Consumer::new(owner, link, queue.0);
        consumer.settled = options.settled;
        consumer.browse = options.browse;
        consumer.walks = walks;
        consumer.selector = selector.map(Box::new);
        let key = self.consumers.insert(consumer);
        found.consumers.push(key);
        let from = &mut self.queues[queue.0 as usize];
        from.counts.consumers += 1;
        if walks {
            from.walkers.insert(key, Box::new(Walker::new(options.browse)));
        }
        Ok(ConsumerId(key))
    }

    /// The consumer is gone, in order: what was out to it is queued again as if it had never left.
    pub fn detach_consumer(&mut self, consumer: ConsumerId) {
        self.end_consumer(consumer, false);
    }

    /// The consumer is gone without a word: what was out to it counts as failed once more.
    pub fn lose_consumer(&mut self, consumer: ConsumerId) {
        self.end_consumer(consumer, true);
    }

    fn end_consumer(&mut self, consumer: ConsumerId, failed: bool) {
        let Some(found) = self.consumers.fetch(consumer.0) else {
            return;
        };
        let (owner, number, first) = (found.owner, found.queue, found.first);
        self.requeue_all(first, failed);
        self.consumers.remove(consumer.0.index);
        let queue = &mut self.queues[number as usize];
        queue.counts.consumers -= 1;
        queue.turn.retain(|&key| key != consumer.0);
        queue.draining.retain(|&key| key != consumer.0);
        queue.walkers.remove(&consumer.0);
        if let Some(owner) = self.owners.fetch_mut(owner.0) {
            owner.consumers.retain(|&key| key != consumer.0);
            owner.passed_over.retain(|&key| key != consumer.0);
        }
        self.end_if_unused(number);
    }

    /// A producer, for one queue or topic or, with `None`, for whatever each message names. It gets its first
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
        if let Some(queue) = queue {
            self.living(queue).ok_or(Refused::Gone("the queue"))?;
        }
        let found = self
            .owners
            .fetch_mut(owner.0)
            .ok_or(Refused::Gone("the connection"))?;
        let key = self.producers.insert(Producer::new(owner, link, queue));
        found.producers.push(key);
        if let Some(queue) = queue {
            self.queues[queue.0 as usize].counts.producers += 1;
        }
        self.ask(ProducerId(key));
        Ok(ProducerId(key))
    }

    /// The producer is gone. Its messages stay.
    pub fn detach_producer(&mut self, producer: ProducerId) {
        let Some(gone) = self.producers.remove_key(producer.0) else {
            return;
        };
        if gone.asked {
            if let Some(queue) = gone.held_by {
                let waiting = &mut self.queues[queue as usize].waiting;
                waiting.retain(|&other| other != producer);
            }
            self.asking.retain(|&other| other != producer);
            self.waiting.retain(|&other| other != producer);
        }
        if let Some(owner) = self.owners.fetch_mut(gone.owner.0) {
            owner.producers.retain(|&key| key != producer.0);
        }
        if let Some(queue) = gone.queue.filter(|_| !gone.anonymous)
            && let Some(found) = self.living_mut(queue)
        {
            found.counts.producers -= 1;
            self.end_if_unused(queue.0);
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
        let queue = &mut self.queues[found.queue as usize];
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
}
