//! Handing out: messages to consumers in turn, credit to producers.

use super::Queues;
use super::arena::Key;
use super::links::Place;
use super::types::{Action, ConsumerId, Delivery, MessageRef, OwnerId, ProducerId, QueueId};

impl<L: Copy, D: Copy> Queues<L, D> {
    pub(super) fn dispatch(&mut self, queue: QueueId) {
        while let Some(key) = self.next_in_turn(queue) {
            let Some(index) = self.take_ready(queue) else {
                self.block(queue);
                break;
            };
            let turn = &mut self.queues[queue.0 as usize].turn;
            if turn.len() > 1 {
                turn.rotate_left(1);
            }
            self.deliver(key, index);
        }
        if !self.queues[queue.0 as usize].draining.is_empty() {
            self.answer_drains(queue);
        }
    }

    /// The consumer at the front that can take a message; those that cannot leave the turn.
    fn next_in_turn(&mut self, queue: QueueId) -> Option<Key> {
        let turn = &mut self.queues[queue.0 as usize].turn;
        while let Some(&key) = turn.front() {
            if let Some(consumer) = self.consumers.fetch_mut(key)
                && let Some(owner) = self.owners.fetch_mut(consumer.owner.0)
            {
                if consumer.credit == 0 {
                    consumer.place = Place::Out;
                } else if owner.is_open(&self.limits) {
                    return Some(key);
                } else {
                    consumer.place = Place::PassedOver;
                    owner.passed_over.push(key);
                }
            }
            turn.pop_front();
        }
        None
    }

    fn take_ready(&mut self, queue: QueueId) -> Option<u32> {
        let durable = self.batches.durable();
        let messages = &self.messages;
        self.queues[queue.0 as usize].take(|index| {
            messages
                .at(index)
                .is_some_and(|message| !message.pending || message.record <= durable)
        })
    }

    /// Someone waits for a message of this queue; if there is one it is not durable yet.
    fn block(&mut self, queue: QueueId) {
        let found = &mut self.queues[queue.0 as usize];
        if !found.blocked && found.counts.messages > found.counts.unsettled {
            found.blocked = true;
            self.blocked.push(queue);
        }
    }

    fn deliver(&mut self, key: Key, index: u32) {
        let place = self.messages.key(index);
        let (Some(consumer), Some(message)) = (self.consumers.fetch_mut(key), self.messages.at_mut(index))
        else {
            return;
        };
        let Some(owner) = self.owners.fetch_mut(consumer.owner.0) else {
            return;
        };
        message.pending = false;
        if message.record != 0 {
            self.batches
                .begin(message.id, message.delivery_count.saturating_add(1));
        }
        consumer.put_in_box(owner.taken);
        owner.deliveries += 1;
        owner.bytes += message.payload.len();
        let delivery = Delivery {
            link: consumer.link,
            message: MessageRef(place),
            payload: message.payload.clone(),
            delivery_count: message.delivery_count,
            settled: consumer.settled,
        };
        let owner = consumer.owner;
        self.post(owner, Action::Deliver(delivery));
        self.give_to(key.index, index);
    }

    /// Tells those who drain and cannot be given more. The queue was just dispatched: whoever still stands
    /// in turn found nothing.
    fn answer_drains(&mut self, queue: QueueId) {
        let waiting = std::mem::take(&mut self.queues[queue.0 as usize].draining);
        for key in waiting {
            let Some(consumer) = self.consumers.fetch_mut(key) else {
                continue;
            };
            if consumer.place == Place::PassedOver && consumer.credit > 0 {
                self.queues[queue.0 as usize].draining.push(key);
                continue;
            }
            consumer.credit = 0;
            consumer.drain = false;
            let (owner, link) = (consumer.owner, consumer.link);
            consumer.drained_at = self.owners.fetch(owner.0).map(|owner| owner.taken);
            let consumer = ConsumerId(key);
            self.post(owner, Action::Drained { link, consumer });
        }
    }

    /// Consumers that were passed over stand in turn again, if their owner can take something now.
    pub(super) fn readmit(&mut self, owner: OwnerId) {
        let Some(found) = self.owners.fetch_mut(owner.0) else {
            return;
        };
        if !found.is_open(&self.limits) {
            return;
        }
        for key in std::mem::take(&mut found.passed_over) {
            let Some(consumer) = self.consumers.fetch_mut(key) else {
                continue;
            };
            consumer.place = Place::InTurn;
            let queue = consumer.queue;
            self.queues[queue.0 as usize].turn.push_back(key);
            self.mark_dirty(queue);
        }
    }

    /// The producer wants credit with the next flush.
    pub(super) fn ask(&mut self, producer: ProducerId) {
        if let Some(found) = self.producers.fetch_mut(producer.0)
            && !found.asked
        {
            found.asked = true;
            self.asking.push(producer);
        }
    }

    /// One message of the producer was answered.
    pub(super) fn answered(&mut self, producer: ProducerId) {
        if let Some(found) = self.producers.fetch_mut(producer.0) {
            found.unanswered = found.unanswered.saturating_sub(1);
            if std::mem::take(&mut found.behind) {
                self.asking.push(producer);
            }
        }
    }

    /// Gives credit to those who asked, or makes them wait for room.
    pub(super) fn grant(&mut self) {
        if !self.waiting.is_empty() && self.has_room() {
            self.asking.append(&mut self.waiting);
        }
        while let Some(producer) = self.asking.pop() {
            let Some(found) = self.producers.fetch_mut(producer.0) else {
                continue;
            };
            if self.bytes >= self.limits.max_bytes
                || self.batches.pending_bytes() >= self.limits.max_pending_bytes
            {
                self.waiting.push(producer);
                continue;
            }
            if let Some(queue) = found.queue {
                let queue = &mut self.queues[queue.0 as usize];
                if queue.counts.held || queue.is_full() {
                    queue.counts.held = true;
                    queue.waiting.push(producer);
                    found.held_by = found.queue;
                    continue;
                }
            }
            let window = found.fitting_window(&self.limits);
            found.behind = found.unanswered.saturating_add(window) > self.limits.producer_unsettled;
            if found.behind {
                continue;
            }
            found.asked = false;
            found.window = window;
            found.credit = found.window;
            let (owner, link, credit) = (found.owner, found.link, found.credit);
            self.post(owner, Action::Credit { link, credit });
        }
    }

    fn has_room(&self) -> bool {
        let below = |count: u64, limit: u64| count < limit - limit / 4;
        below(self.bytes, self.limits.max_bytes)
            && below(self.batches.pending_bytes(), self.limits.max_pending_bytes)
    }
}
