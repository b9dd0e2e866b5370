//! Handing out: messages to consumers in turn, credit to producers.

use super::Queues;
use super::arena::Key;
use super::links::Place;
use super::topics::Kind;
use super::types::{
    Action, ConsumerId, Delivery, MessageRef, OwnerId, ProducerId, QueueId, Reason, WhenFull,
};
use super::walk::Walked;

/// A message for a consumer.
#[derive(Clone, Copy)]
enum Found {
    /// It is taken out of its place.
    Taken(u32),
    /// It stays: the consumer only looks.
    Copied(u32),
}

impl<L: Copy, D: Copy> Queues<L, D> {
    pub(super) fn dispatch(&mut self, queue: u32) {
        // Consumers in a row that found nothing.
        let mut misses = 0;
        while let Some((key, walks)) = self.next_in_turn(queue) {
            let found = if walks {
                self.find_by_walking(queue, key)
            } else {
                self.take_first(queue)
            };
            let from = &mut self.queues[queue as usize];
            if found.is_none() {
                misses += 1;
                if from.walkers.is_empty() || misses >= from.turn.len() {
                    self.block(queue);
                    break;
                }
            }
            if from.turn.len() > 1 {
                from.turn.rotate_left(1);
            }
            if let Some(found) = found {
                misses = 0;
                self.deliver(key, found);
            }
        }
        if !self.queues[queue as usize].draining.is_empty() {
            self.answer_drains(queue);
        }
    }

    /// The consumer at the front that can take a message, and whether it walks; those that cannot leave the
    /// turn.
    fn next_in_turn(&mut self, queue: u32) -> Option<(Key, bool)> {
        let turn = &mut self.queues[queue as usize].turn;
        while let Some(&key) = turn.front() {
            if let Some(consumer) = self.consumers.fetch_mut(key)
                && let Some(owner) = self.owners.fetch_mut(consumer.owner.0)
            {
                if consumer.credit == 0 {
                    consumer.place = Place::Out;
                } else if owner.is_open(&self.limits) {
                    return Some((key, consumer.walks));
                } else {
                    consumer.place = Place::PassedOver;
                    owner.passed_over.push(key);
                }
            }
            turn.pop_front();
        }
        None
    }

    fn take_first(&mut self, queue: u32) -> Option<Found> {
        let durable = self.batches.durable();
        loop {
            let index = self.queues[queue as usize].take(&mut self.messages, durable)?;
            let message = self.messages.at(index);
            if message.is_some_and(super::Message::has_extra) && self.is_expired(index) {
                self.discard(index, Reason::Expired);
            } else {
                return Some(Found::Taken(index));
            }
        }
    }

    fn find_by_walking(&mut self, queue: u32, key: Key) -> Option<Found> {
        loop {
            match self.walk(queue, key) {
                Walked::Found(index) if self.is_expired(index) => {
                    self.leave_queue(index);
                    self.discard(index, Reason::Expired);
                }
                Walked::Found(index) if self.consumers.fetch(key)?.browse => {
                    return Some(Found::Copied(index));
                }
                Walked::Found(index) => {
                    self.leave_queue(index);
                    return Some(Found::Taken(index));
                }
                Walked::Nothing => return None,
                Walked::Unfinished => {
                    let from = &mut self.queues[queue as usize];
                    if !std::mem::replace(&mut from.unfinished, true) {
                        self.unfinished.push(queue);
                    }
                    return None;
                }
            }
        }
    }

    /// Someone waits for a message of this queue; if there is one it is not durable yet.
    fn block(&mut self, queue: u32) {
        let found = &mut self.queues[queue as usize];
        if !found.blocked && found.counts.messages > found.counts.unsettled {
            found.blocked = true;
            self.blocked.push(queue);
        }
    }

    fn deliver(&mut self, key: Key, found: Found) {
        let (index, copied) = match found {
            Found::Taken(index) => (index, false),
            Found::Copied(index) => (index, true),
        };
        let place = self.messages.key(index);
        let (Some(consumer), Some(message)) = (self.consumers.fetch_mut(key), self.messages.at_mut(index))
        else {
            return;
        };
        let Some(owner) = self.owners.fetch_mut(consumer.owner.0) else {
            return;
        };
        message.set_pending(false);
        let delivery_count = message.delivery_count();
        if message.record != 0 && !copied {
            self.batches.begin(message.id, delivery_count.saturating_add(1));
        }
        consumer.put_in_box(owner.taken);
        owner.deliveries += 1;
        owner.bytes += message.payload.len();
        let extra = if message.has_extra() {
            self.extras.find(index)
        } else {
            None
        };
        let delivery = Delivery {
            link: consumer.link,
            message: MessageRef(place),
            payload: message.payload.clone(),
            delivery_count,
            settled: consumer.settled,
            dead_letter: extra.and_then(|extra| extra.dead_letter.clone()),
        };
        let owner = consumer.owner;
        self.post(owner, Action::Deliver(delivery));
        if !copied {
            self.give_to(key.index, index);
        }
    }

    /// Tells those who drain and cannot be given more. The queue was just dispatched: whoever still stands
    /// in turn found nothing.
    fn answer_drains(&mut self, queue: u32) {
        let found = &mut self.queues[queue as usize];
        let unfinished = found.unfinished;
        let waiting = std::mem::take(&mut found.draining);
        for key in waiting {
            let Some(consumer) = self.consumers.fetch_mut(key) else {
                continue;
            };
            let may_get_more = consumer.place == Place::PassedOver || unfinished && consumer.walks;
            if may_get_more && consumer.credit > 0 {
                self.queues[queue as usize].draining.push(key);
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
            self.queues[queue as usize].turn.push_back(key);
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
        if !self.waiting.is_empty() && !self.is_at_limit() {
            self.asking.append(&mut self.waiting);
        }
        let share = self.share();
        while let Some(producer) = self.asking.pop() {
            let Some(found) = self.producers.fetch(producer.0) else {
                continue;
            };
            let queue = found.queue;
            if self.is_at_limit() {
                self.waiting.push(producer);
                continue;
            }
            if let Some(holding) = queue.and_then(|queue| self.held_up_by(queue)) {
                let queue = &mut self.queues[holding as usize];
                queue.counts.held = true;
                queue.waiting.push(producer);
                if let Some(found) = self.producers.fetch_mut(producer.0) {
                    found.held_by = Some(holding);
                }
                continue;
            }
            let Some(found) = self.producers.fetch_mut(producer.0) else {
                continue;
            };
            let window = found.fitting_window(&self.limits, share);
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

    /// What each producer may send: together they may send what half of the memory takes.
    fn share(&self) -> u64 {
        self.limits.max_bytes / 2 / (self.producers.len() as u64).max(1)
    }

    /// The messages of this producer are larger than was thought when it was given its credit. It keeps what suits
    /// them, and nothing where there is no room.
    pub(super) fn take_credit_back(&mut self, producer: ProducerId) {
        let (share, full) = (self.share(), self.is_at_limit());
        let Some(found) = self.producers.fetch_mut(producer.0) else {
            return;
        };
        let fitting = found.fitting_window(&self.limits, share);
        let window = if full { 0 } else { fitting };
        if window < found.credit {
            (found.window, found.credit) = (window, window);
            let (owner, link, credit) = (found.owner, found.link, found.credit);
            self.post(owner, Action::Credit { link, credit });
        }
        if full {
            self.ask(producer);
        }
    }

    /// The queue that has to get room before its producers get credit.
    fn held_up_by(&mut self, queue: QueueId) -> Option<u32> {
        let found = self.living(queue)?;
        match found.kind {
            Kind::Topic(_) => self.holding(queue.0),
            Kind::Queue | Kind::Subscription(_) | Kind::Free => {
                let block = found.settings.when_full == WhenFull::Block;
                (block && (found.counts.held || found.is_full())).then_some(queue.0)
            }
        }
    }

    /// Whether all queues together have reached a limit. Each is left behind at three quarters of it, so that
    /// credit does not come one message at a time.
    fn is_at_limit(&mut self) -> bool {
        let limits = &self.limits;
        let figures = [
            (self.memory(), limits.max_bytes),
            (self.needed_bytes(), limits.max_stored_bytes),
            (self.batches.pending_bytes(), limits.max_pending_bytes),
        ];
        for (reached, (figure, limit)) in self.reached.iter_mut().zip(figures) {
            *reached = figure >= limit || *reached && figure >= limit - limit / 4;
        }
        self.reached.contains(&true)
    }
}
