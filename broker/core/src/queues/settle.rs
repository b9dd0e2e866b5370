//! What becomes of a message that is out for delivery: removed, queued again where it was, or moved.

use bytes::Bytes;

use super::Queues;
use super::arena::{Key, NONE};
use super::batch::{RECORD_OVERHEAD, Stored, Waiter};
use super::queue::{Message, Place};
use super::types::{ConsumerId, MessageRef, Reason, Refused, Settlement};
use super::walk::Walker;

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
        self.settle_and(consumer, message, settlement, None, confirm)
    }

    /// As [`settle`](Self::settle), and the message reads `payload` from now on: what a modification of its
    /// annotations made of it.
    ///
    /// # Errors
    /// [`Refused::Gone`] unless the message is out to this consumer.
    pub fn settle_amended(
        &mut self,
        consumer: ConsumerId,
        message: MessageRef,
        settlement: Settlement,
        payload: Bytes,
        confirm: Option<D>,
    ) -> Result<(), Refused> {
        self.settle_and(consumer, message, settlement, Some(payload), confirm)
    }

    fn settle_and(
        &mut self,
        consumer: ConsumerId,
        message: MessageRef,
        settlement: Settlement,
        payload: Option<Bytes>,
        confirm: Option<D>,
    ) -> Result<(), Refused> {
        let by = self
            .consumers
            .fetch(consumer.0)
            .ok_or(Refused::Gone("the consumer"))?;
        let waiter = confirm.map(|delivery| Waiter {
            owner: by.owner,
            link: by.link,
            stored: Stored::Settlement(settlement, delivery),
        });
        if by.browse {
            waiter.into_iter().for_each(|waiter| self.tell(waiter));
            return Ok(());
        }
        let stored = self.is_out_to(consumer, message)?;
        self.take_from_consumer(message.0.index);
        if let Some(payload) = payload {
            self.amend(message.0.index, payload);
        }
        let lasting = self.apply(message.0.index, consumer.0, settlement);
        match waiter {
            Some(waiter) if stored && lasting => self.batches.wait(waiter),
            Some(waiter) => self.tell(waiter),
            None => {}
        }
        Ok(())
    }

    /// Whether the message has a record, if it is out to this consumer.
    pub(super) fn is_out_to(&self, consumer: ConsumerId, message: MessageRef) -> Result<bool, Refused> {
        match self.messages.fetch(message.0) {
            Some(found) if found.consumer == consumer.0.index => Ok(found.record != 0),
            Some(_) | None => Err(Refused::Gone("the message")),
        }
    }

    /// Does what a settlement of a message that is in no list says. Whether that has to last: the message
    /// must never be seen again where it was.
    pub(super) fn apply(&mut self, index: u32, by: Key, settlement: Settlement) -> bool {
        match settlement {
            Settlement::Accepted => self.accept(index),
            Settlement::Rejected => {
                if let Some(message) = self.messages.at(index) {
                    self.queues[message.queue as usize].counts.rejected += 1;
                }
                self.discard(index, Reason::Rejected);
                true
            }
            Settlement::Released => self.requeue(index),
            Settlement::Failed => self.fail(index),
            Settlement::Undeliverable { failed } => {
                self.never_again(index, by);
                if failed {
                    self.fail(index)
                } else {
                    self.requeue(index)
                }
            }
        }
    }

    fn accept(&mut self, index: u32) -> bool {
        let Some(message) = self.remove_message(index) else {
            return false;
        };
        let queue = &mut self.queues[message.queue as usize];
        queue.counts.accepted += 1;
        if queue.counts.messages == 0 {
            self.end_if_unused(message.queue);
        }
        true
    }

    /// The consumer gets this message no more: it has to look at what it takes from now on.
    fn never_again(&mut self, index: u32, by: Key) {
        let Some(message) = self.messages.at_mut(index) else {
            return;
        };
        let Some(consumer) = self.consumers.fetch_mut(by) else {
            return;
        };
        if !consumer.walks {
            consumer.walks = true;
            let queue = &mut self.queues[consumer.queue as usize];
            queue.walkers.insert(by, Box::new(Walker::new(false)));
        }
        message.set_extra(true);
        let refused_by = &mut self.extras.entry(index).refused_by;
        // Those that are gone never come back.
        refused_by.retain(|&other| self.consumers.fetch(other).is_some());
        refused_by.push(by);
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
            message.place = Place::Out;
            message.consumer = consumer;
            message.previous = last;
            message.next = NONE;
            self.queues[message.queue as usize].counts.unsettled += 1;
        }
    }

    /// The reverse of [`give_to`](Self::give_to). The message is in no list then.
    pub(super) fn take_from_consumer(&mut self, index: u32) {
        let Some(message) = self.messages.at_mut(index) else {
            return;
        };
        let (previous, next) = (message.previous, message.next);
        let consumer = std::mem::replace(&mut message.consumer, NONE);
        message.place = Place::Loose;
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

    /// Removes a message that is in no list for good.
    pub(super) fn remove_message(&mut self, index: u32) -> Option<Message> {
        let message = self.messages.remove(index)?;
        if message.has_extra() {
            self.extras.remove(index);
        }
        let size = message.size();
        if message.group == NONE || self.leave_group(message.group, message.id) {
            self.bytes -= size;
            if message.record != 0 {
                self.stored_bytes -= size + RECORD_OVERHEAD;
            }
        }
        if message.record != 0 {
            self.batches.settle(message.id);
        }
        self.queues[message.queue as usize].removed(size);
        self.room_again(message.queue);
        Some(message)
    }

    /// Lets producers go on if the queue has room for them again.
    pub(super) fn room_again(&mut self, number: u32) {
        let queue = &mut self.queues[number as usize];
        if queue.counts.held && queue.has_room() {
            queue.counts.held = false;
            self.asking.append(&mut queue.waiting);
        }
    }

    /// Puts a message that is in no list back where it was, unless its time is over. Returns `false`: that
    /// need not last.
    pub(super) fn requeue(&mut self, index: u32) -> bool {
        let Some(message) = self.messages.at(index) else {
            return false;
        };
        if message.has_extra() && self.is_expired(index) {
            self.discard(index, Reason::Expired);
            return true;
        }
        self.queues[message.queue as usize].counts.requeued += 1;
        self.put_in_queue(index, true);
        false
    }

    /// A delivery of a message that is in no list failed. Whether that moved it for good.
    pub(super) fn fail(&mut self, index: u32) -> bool {
        let Some(message) = self.messages.at_mut(index) else {
            return false;
        };
        let count = message.delivery_count() + 1;
        message.set_delivery_count(count);
        let most = self.queues[message.queue as usize].settings.max_delivery_attempts;
        if most > 0 && count >= most {
            self.discard(index, Reason::Attempts);
            return true;
        }
        if message.record != 0 {
            self.batches.attempt(message.id, count);
        }
        self.requeue(index)
    }

    /// Puts back everything in a consumer's list, whose first message is `first`.
    pub(super) fn requeue_all(&mut self, first: u32, failed: bool) {
        let mut index = first;
        while let Some(message) = self.messages.at(index) {
            let next = message.next;
            self.take_from_consumer(index);
            if failed {
                self.fail(index);
            } else {
                self.requeue(index);
            }
            index = next;
        }
    }
}
