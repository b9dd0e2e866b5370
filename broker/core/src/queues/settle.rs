//! What becomes of a message that is out for delivery: removed, or queued again where it was.

use super::Queues;
use super::arena::NONE;
use super::batch::{RECORD_OVERHEAD, Stored, Waiter};
use super::types::{ConsumerId, MessageRef, Refused, Settlement};

impl<L: Copy, D: Copy> Queues<L, D> {
    /// A consumer settled a message. With `confirm` its owner is told when that will survive a crash.
    ///
    /// # Errors
    /// [`Refused::Gone`] unless the message is out to this consumer.
    pub fn settle(
        &mut self,
        consumer: ConsumerId,
        message: MessageRef,
        settlement: Settlement,
        confirm: Option<D>,
    ) -> Result<(), Refused> {
        let by = self
            .consumers
            .fetch(consumer.0)
            .ok_or(Refused::Gone("the consumer"))?;
        let waiter = confirm.map(|delivery| Waiter {
            owner: by.owner,
            link: by.link,
            delivery,
            stored: Stored::Settlement(settlement),
        });
        let out = self.messages.fetch(message.0);
        let stored = match out {
            Some(found) if found.consumer == consumer.0.index => found.record != 0,
            Some(_) | None => return Err(Refused::Gone("the message")),
        };
        let index = message.0.index;
        self.take_from_consumer(index);
        let removed = match settlement {
            Settlement::Accepted => self.remove_settled(index, true),
            Settlement::Rejected => self.remove_settled(index, false),
            Settlement::Released => self.requeue(index, false),
            Settlement::Failed => self.requeue(index, true),
        };
        match waiter {
            Some(waiter) if stored && removed => self.batches.wait(waiter),
            Some(waiter) => self.tell(waiter),
            None => {}
        }
        Ok(())
    }

    /// Counts a message as out to a consumer.
    pub(super) fn give_to(&mut self, consumer: u32, index: u32) {
        let Some(to) = self.consumers.at_mut(consumer) else {
            return;
        };
        let last = std::mem::replace(&mut to.last, index);
        if last == NONE {
            to.first = index;
        } else if let Some(neighbour) = self.messages.at_mut(last) {
            neighbour.next = index;
        }
        if let Some(message) = self.messages.at_mut(index) {
            message.consumer = consumer;
            message.previous = last;
            message.next = NONE;
            self.queues[message.queue as usize].counts.unsettled += 1;
        }
    }

    /// The reverse of [`give_to`](Self::give_to).
    fn take_from_consumer(&mut self, index: u32) {
        let Some(message) = self.messages.at_mut(index) else {
            return;
        };
        let (previous, next) = (message.previous, message.next);
        let consumer = std::mem::replace(&mut message.consumer, NONE);
        self.queues[message.queue as usize].counts.unsettled -= 1;
        if let Some(neighbour) = self.messages.at_mut(previous) {
            neighbour.next = next;
        } else if let Some(from) = self.consumers.at_mut(consumer) {
            from.first = next;
        }
        if let Some(neighbour) = self.messages.at_mut(next) {
            neighbour.previous = previous;
        } else if let Some(from) = self.consumers.at_mut(consumer) {
            from.last = previous;
        }
    }

    fn remove_settled(&mut self, index: u32, accepted: bool) -> bool {
        let Some(message) = self.messages.remove(index) else {
            return false;
        };
        let size = message.size();
        self.bytes -= size;
        if message.record != 0 {
            self.stored_bytes -= size + RECORD_OVERHEAD;
            self.batches.settle(message.id);
        }
        let queue = &mut self.queues[message.queue as usize];
        queue.removed(size);
        if accepted {
            queue.counts.accepted += 1;
        } else {
            queue.counts.rejected += 1;
        }
        if queue.counts.held && queue.has_room() {
            queue.counts.held = false;
            self.asking.append(&mut queue.waiting);
        }
        true
    }

    /// Puts a message that is out to nobody back where it was. Never removes it: returns `false`.
    fn requeue(&mut self, index: u32, failed: bool) -> bool {
        let Some(message) = self.messages.at_mut(index) else {
            return false;
        };
        if failed {
            message.delivery_count = message.delivery_count.saturating_add(1);
            if message.record != 0 {
                self.batches.attempt(message.id, message.delivery_count);
            }
        }
        let queue = super::QueueId(message.queue);
        let (priority, id) = (message.priority, message.id);
        let to = &mut self.queues[queue.0 as usize];
        to.counts.requeued += 1;
        to.put_back(priority, id, index);
        self.mark_dirty(queue);
        false
    }

    /// Puts back everything in a consumer's list, whose first message is `first`.
    pub(super) fn requeue_all(&mut self, first: u32) {
        let mut index = first;
        while let Some(message) = self.messages.at(index) {
            let next = message.next;
            self.take_from_consumer(index);
            self.requeue(index, true);
            index = next;
        }
    }
}
