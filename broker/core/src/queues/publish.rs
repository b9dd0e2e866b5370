//! Taking in: a message of a producer becomes part of its queue.

use super::Queues;
use super::arena::NONE;
use super::batch::{RECORD_OVERHEAD, Stored, Waiter};
use super::queue::{Message, PRIORITIES};
use super::record::Record;
use super::types::{Arrival, ProducerId, QueueId, Refused};

impl<L: Copy, D: Copy> Queues<L, D> {
    /// A producer sent a message. `to` names the queue for an anonymous producer and is not needed for one
    /// that is bound. `delivery` is its name for the delivery; `None` if it wants no answer.
    ///
    /// # Errors
    /// [`Refused::Gone`] without such a producer or queue; [`Refused::OutOfMemory`]. The credit is spent.
    pub fn publish(
        &mut self,
        producer: ProducerId,
        to: Option<QueueId>,
        arrival: Arrival,
        delivery: Option<D>,
    ) -> Result<(), Refused> {
        let from = self
            .producers
            .fetch_mut(producer.0)
            .ok_or(Refused::Gone("the producer"))?;
        if from.anonymous && to.is_some() {
            from.queue = to;
        }
        let queue = from.queue.filter(|queue| (queue.0 as usize) < self.queues.len());
        let (owner, link) = (from.owner, from.link);
        if from.sent(arrival.payload.len() as u64) {
            self.ask(producer);
        }
        let queue = queue.ok_or(Refused::Gone("the queue"))?;
        if self.bytes >= self.limits.max_bytes.saturating_mul(2) {
            return Err(Refused::OutOfMemory {
                bytes: self.bytes,
                limit: self.limits.max_bytes,
            });
        }
        let waiter = delivery.map(|delivery| Waiter {
            owner,
            link,
            delivery,
            stored: Stored::Message(producer),
        });
        if waiter.is_some()
            && let Some(from) = self.producers.fetch_mut(producer.0)
        {
            from.unanswered += 1;
        }
        self.store(queue, arrival, waiter);
        Ok(())
    }

    /// The producer has `left` credit at most: messages it sent did not get as far as
    /// [`publish`](Self::publish).
    pub fn credit_left(&mut self, producer: ProducerId, left: u32) {
        if let Some(found) = self.producers.fetch_mut(producer.0)
            && found.left(left)
        {
            self.ask(producer);
        }
    }

    fn store(&mut self, queue: QueueId, arrival: Arrival, waiter: Option<Waiter<L, D>>) {
        let to = &mut self.queues[queue.0 as usize];
        if let Some(id) = &arrival.duplicate_id
            && to.duplicates.knows(id)
        {
            to.counts.duplicates += 1;
            // The first one may still be on its way to the store.
            let told = waiter.and_then(|waiter| self.batches.wait_for_all(waiter));
            told.into_iter().for_each(|waiter| self.tell(waiter));
            return;
        }
        to.counts.received += 1;
        let record = self.admit(queue, arrival);
        match waiter {
            Some(waiter) if record != 0 => self.batches.wait(waiter),
            Some(waiter) => self.tell(waiter),
            None => {}
        }
        self.mark_dirty(queue);
    }

    /// Makes the message part of the queue and returns its record's position, 0 if it needs none.
    fn admit(&mut self, queue: QueueId, arrival: Arrival) -> u64 {
        let Arrival {
            payload,
            durable,
            priority,
            duplicate_id,
        } = arrival;
        let id = self.next_id;
        self.next_id += 1;
        let size = payload.len() as u64;
        let highest = u8::try_from(PRIORITIES - 1).unwrap_or(u8::MAX);
        let priority = priority.min(highest);
        let record = if durable {
            self.stored_bytes += size + RECORD_OVERHEAD;
            let record = Record::Message {
                id,
                queue: queue.0,
                priority,
                delivery_count: 0,
                duplicate_id: duplicate_id.clone(),
                payload: payload.clone(),
            };
            self.batches.push(record, size)
        } else {
            0
        };
        let place = self.messages.insert(Message {
            payload,
            id,
            record,
            queue: queue.0,
            consumer: NONE,
            previous: NONE,
            next: NONE,
            delivery_count: 0,
            priority,
            pending: durable,
        });
        self.bytes += size;
        let to = &mut self.queues[queue.0 as usize];
        to.added(size);
        to.push(priority, id, place.index);
        if let Some(duplicate_id) = duplicate_id {
            to.duplicates
                .remember(duplicate_id, record, self.limits.duplicate_window);
        }
        record
    }
}
