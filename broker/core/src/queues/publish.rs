//! Taking in: a message of a producer becomes part of its queue, or of the subscriptions of its topic.

use std::sync::Arc;

use bytes::Bytes;

use super::Queues;
use super::arena::Key;
use super::batch::{RECORD_OVERHEAD, Stored, Waiter};
use super::groups::Group;
use super::queue::Message;
use super::record::{Extras, NO_TOPIC, Record, Reference};
use super::time::Extra;
use super::topics::Kind;
use super::types::{Arrival, DeadLetter, OwnerId, ProducerId, QueueId, Refused, WhenFull};

/// Why a message is not taken in.
pub(super) enum Unwanted {
    /// It was stored before.
    Duplicate,
    Refused(Refused),
}

impl<L: Copy, D: Copy> Queues<L, D> {
    /// A producer sent a message. `to` names the queue or topic for an anonymous producer and is not needed
    /// for one that is bound. `delivery` is its name for the delivery; `None` if it wants no answer.
    ///
    /// # Errors
    /// [`Refused::Gone`] without such a producer or queue; [`Refused::QueueFull`] as the settings say;
    /// [`Refused::OutOfMemory`]. The credit is spent.
    pub fn publish(
        &mut self,
        producer: ProducerId,
        to: Option<QueueId>,
        arrival: Arrival,
        delivery: Option<D>,
    ) -> Result<(), Refused> {
        let (owner, link, number) = self.receive(producer, to, arrival.payload.len())?;
        let stored = match self.take_in(number, owner, arrival, false) {
            Ok(stored) => Some(stored),
            Err(Unwanted::Duplicate) => None,
            Err(Unwanted::Refused(refused)) => return Err(refused),
        };
        let Some(delivery) = delivery else {
            return Ok(());
        };
        if let Some(from) = self.producers.fetch_mut(producer.0) {
            from.unanswered += 1;
        }
        let waiter = Waiter {
            owner,
            link,
            stored: Stored::Message(producer, delivery),
        };
        match stored {
            Some(true) => self.batches.wait(waiter),
            Some(false) => self.tell(waiter),
            None => self.tell_after_first_copy(waiter),
        }
        Ok(())
    }

    /// Something was stored before, and may still be on its way to the store.
    pub(super) fn tell_after_first_copy(&mut self, waiter: Waiter<L, D>) {
        if let Some(waiter) = self.batches.wait_for_all(waiter) {
            self.tell(waiter);
        }
    }

    /// Counts a message against its producer's credit and says where it is to go.
    pub(super) fn receive(
        &mut self,
        producer: ProducerId,
        to: Option<QueueId>,
        bytes: usize,
    ) -> Result<(OwnerId, L, u32), Refused> {
        let from = self
            .producers
            .fetch_mut(producer.0)
            .ok_or(Refused::Gone("the producer"))?;
        if from.anonymous && to.is_some() {
            from.queue = to;
        }
        let (owner, link, queue) = (from.owner, from.link, from.queue);
        let wants_more = from.sent(bytes as u64);
        // Sizes vary: what they come to on average is not worth a word to the producer.
        if from.promised_bytes() / 2 > self.limits.producer_credit_bytes {
            self.take_credit_back(producer);
        }
        if wants_more {
            self.ask(producer);
        }
        let queue = queue.filter(|&queue| self.living(queue).is_some());
        let queue = queue.ok_or(Refused::Gone("the queue"))?;
        let used = self.memory();
        if used >= self.limits.max_bytes.saturating_mul(2) {
            return Err(Refused::OutOfMemory {
                bytes: used,
                limit: self.limits.max_bytes,
            });
        }
        Ok((owner, link, queue.0))
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

    /// Makes the message part of a queue or of subscriptions, all or none. Whether the open batch has to be
    /// durable before it is acknowledged. One that is `forced` is not refused for want of room.
    pub(super) fn take_in(
        &mut self,
        number: u32,
        from: OwnerId,
        arrival: Arrival,
        forced: bool,
    ) -> Result<bool, Unwanted> {
        let to = &mut self.queues[number as usize];
        if let Some(id) = &arrival.duplicate_id
            && to.duplicates.knows(id)
        {
            to.counts.duplicates += 1;
            return Err(Unwanted::Duplicate);
        }
        if matches!(to.kind, Kind::Topic(_)) {
            let targets = self.targets(number, from, &arrival);
            for &target in &targets {
                self.make_room(target, forced)?;
            }
            self.queues[number as usize].counts.received += 1;
            return Ok(self.fan_out(number, &targets, arrival));
        }
        if to.is_full() {
            self.make_room(number, forced)?;
        }
        Ok(self.admit(number, arrival))
    }

    /// Makes room for one more, if the queue is full and its settings want that.
    fn make_room(&mut self, number: u32, forced: bool) -> Result<(), Unwanted> {
        if self.queues[number as usize].settings.when_full == WhenFull::DropOldest {
            self.drop_oldest(number);
        }
        let queue = &self.queues[number as usize];
        if forced || queue.settings.when_full == WhenFull::Block || !queue.is_full() {
            return Ok(());
        }
        Err(Unwanted::Refused(self.full(number)))
    }

    fn drop_oldest(&mut self, number: u32) {
        while let queue = &self.queues[number as usize]
            && queue.is_full()
            && let Some(least) = queue.least(&self.messages)
        {
            self.leave_queue(least);
            self.remove_message(least);
            self.queues[number as usize].counts.dropped += 1;
        }
    }

    pub(super) fn full(&self, number: u32) -> Refused {
        let queue = Arc::clone(&self.queues[number as usize].name);
        Refused::QueueFull { queue }
    }

    /// Makes the message part of the queue. Whether it has a record.
    fn admit(&mut self, number: u32, arrival: Arrival) -> bool {
        let Arrival {
            payload,
            durable,
            priority,
            duplicate_id,
            expires_at,
            deliver_at,
        } = arrival;
        let id = self.next_id;
        self.next_id += 1;
        let size = payload.len() as u64;
        let priority = priority.min(9);
        let to = &mut self.queues[number as usize];
        to.counts.received += 1;
        let extras = Extras::new(expires_at, deliver_at, None);
        let has_extras = extras.is_some();
        let record = if durable && to.is_stored() {
            self.stored_bytes += size + RECORD_OVERHEAD;
            let record = Record::Message {
                id,
                queue: number,
                priority,
                delivery_count: 0,
                duplicate_id: duplicate_id.clone(),
                extras,
                payload: payload.clone(),
            };
            self.batches.push(record, size)
        } else {
            0
        };
        let message = Message::new(payload, id, record, number, priority);
        self.bytes += size;
        self.insert(message, has_extras.then_some((expires_at, deliver_at)));
        if let Some(duplicate_id) = duplicate_id {
            self.remember(number, duplicate_id, record);
        }
        record != 0
    }

    /// Puts a new message into its queue, behind all others.
    fn insert(&mut self, mut message: Message, times: Option<(Option<u64>, Option<u64>)>) -> Key {
        let number = message.queue;
        message.set_pending(message.record != 0);
        message.set_extra(times.is_some());
        self.queues[number as usize].added(message.size());
        let place = self.messages.insert(message);
        if let Some((expires_at, deliver_at)) = times {
            let extra = Extra {
                expires_at,
                deliver_at,
                ..Extra::default()
            };
            self.extras.insert(place.index, extra);
            self.put_in_queue(place.index, false);
        } else {
            self.queues[number as usize].push(&mut self.messages, place.index);
            self.mark_dirty(number);
        }
        place
    }

    /// Makes a message part of several subscriptions. Whether it has a record.
    fn fan_out(&mut self, topic: u32, targets: &[u32], arrival: Arrival) -> bool {
        let stored = |number: &&u32| arrival.durable && self.queues[**number as usize].is_stored();
        let (stored, fleeting): (Vec<u32>, Vec<u32>) = targets.iter().partition(stored);
        let mut record = 0;
        let lasts = self.queues[topic as usize].is_stored();
        if !stored.is_empty() {
            record = self.record_published(topic, &stored, &arrival);
            self.spread(&stored, &arrival, record);
        }
        if !fleeting.is_empty() {
            self.spread(&fleeting, &arrival, 0);
        }
        if let Some(duplicate_id) = arrival.duplicate_id {
            self.remember(topic, duplicate_id, if lasts { record } else { 0 });
        }
        record != 0
    }

    /// One record for the messages that [`spread`](Self::spread) makes next.
    fn record_published(&mut self, topic: u32, targets: &[u32], arrival: &Arrival) -> u64 {
        let size = arrival.payload.len() as u64;
        let references = (0..).zip(targets).map(|(offset, &queue)| Reference {
            offset,
            queue,
            delivery_count: 0,
        });
        // A topic that is not stored is not named in what is, nor are its duplicates remembered there.
        let lasts = self.queues[topic as usize].is_stored();
        let duplicate_id = arrival.duplicate_id.clone().filter(|_| lasts);
        let record = Record::Published {
            first: self.next_id,
            topic: if lasts { topic } else { NO_TOPIC },
            priority: arrival.priority.min(9),
            duplicate_id,
            extras: Extras::new(arrival.expires_at, arrival.deliver_at, None),
            references: references.collect(),
            payload: arrival.payload.clone(),
        };
        self.stored_bytes += size + RECORD_OVERHEAD;
        self.batches
            .push(record, size + targets.len() as u64 * Reference::BYTES)
    }

    fn spread(&mut self, targets: &[u32], arrival: &Arrival, record: u64) {
        self.bytes += arrival.payload.len() as u64;
        let times = (arrival.expires_at, arrival.deliver_at);
        let times = (times != (None, None)).then_some(times);
        let group = (targets.len() > 1).then(|| self.groups.insert(Group::new(self.next_id)).index);
        for &number in targets {
            let id = self.next_id;
            self.next_id += 1;
            let payload = arrival.payload.clone();
            let mut message = Message::new(payload, id, record, number, arrival.priority);
            if let Some(group) = group {
                message.group = group;
            }
            self.queues[number as usize].counts.received += 1;
            let place = self.insert(message, times);
            if let Some(group) = group.and_then(|group| self.groups.at_mut(group)) {
                group.add(id, place.index);
            }
        }
    }

    /// Moves a message that is in no line to another queue, behind all others there.
    pub(super) fn move_to(&mut self, index: u32, target: u32, why: DeadLetter) {
        let Some(message) = self.messages.at_mut(index) else {
            return;
        };
        let (old, group, size) = (message.id, message.group, message.size());
        let new = self.next_id;
        self.next_id += 1;
        message.id = new;
        message.group = super::arena::NONE;
        let from = std::mem::replace(&mut message.queue, target);
        message.set_delivery_count(0);
        message.set_extra(true);
        let stored = message.record != 0;
        let why = Arc::new(why);
        // The body stays where it is in the store; beside the rest of its group it counts as one more.
        if group != super::arena::NONE && !self.leave_group(group, old) {
            self.bytes += size;
            if stored {
                self.stored_bytes += size + RECORD_OVERHEAD;
            }
        }
        if stored {
            let record = Record::Moved {
                id: old,
                new,
                queue: target,
                why: Arc::clone(&why),
            };
            self.batches.push(record, why.from.len() as u64);
        }
        self.extras.remove(index);
        self.extras.entry(index).dead_letter = Some(why);
        self.queues[from as usize].removed(size);
        self.room_again(from);
        let to = &mut self.queues[target as usize];
        to.added(size);
        to.counts.received += 1;
        self.put_in_queue(index, false);
    }

    /// Replaces the body of a message that is in no line.
    pub(super) fn amend(&mut self, index: u32, payload: Bytes) {
        let Some(message) = self.messages.at_mut(index) else {
            return;
        };
        let before = message.size();
        let (id, group, queue) = (message.id, message.group, message.queue);
        message.payload = payload;
        message.group = super::arena::NONE;
        let after = message.size();
        let stored = message.record != 0;
        let alone = group == super::arena::NONE || self.leave_group(group, id);
        if alone {
            self.bytes -= before;
            if stored {
                self.stored_bytes -= before + RECORD_OVERHEAD;
            }
        }
        self.bytes += after;
        let counts = &mut self.queues[queue as usize].counts;
        counts.bytes = counts.bytes - before + after;
        if stored {
            self.stored_bytes += after + RECORD_OVERHEAD;
            self.rewrite(index);
        }
    }
}
