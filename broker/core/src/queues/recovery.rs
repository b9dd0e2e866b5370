//! Building the queues again from the records in the store.

use std::sync::Arc;

use super::arena::NONE;
use super::batch::{Batches, RECORD_OVERHEAD};
use super::duplicates::DuplicateId;
use super::groups::Group;
use super::places::Places;
use super::queue::{Message, Queue};
use super::record::{Decoder, Extras, NO_TOPIC, Record, RecordError, Reference, StoredSubscription};
use super::time::Extra;
use super::topics::{Kind, Routes, Wanted};
use super::types::{DeadLetter, Lifetime, Limits, QueueSettings};
use super::{Queues, ReadProperties};
use crate::selector::Selector;

/// Queue numbers are dense and start at 0; one this high was not written by us.
const MAX_QUEUE_NUMBER: u32 = 1 << 20;

/// Queues that are being read back. Show it every record in order, then [`finish`](Self::finish).
#[derive(Debug)]
pub struct Recovery<L, D> {
    queues: Queues<L, D>,
    /// Where the message of each id is.
    places: Places,
    highest_id: u64,
    key: Option<u128>,
    decoder: Decoder,
}

impl<L: Copy, D: Copy> Recovery<L, D> {
    /// Nothing was read yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            queues: Queues::empty(limits, 1),
            places: Places::default(),
            highest_id: 0,
            key: None,
            decoder: Decoder::default(),
        }
    }

    /// How selectors see messages. Without it they see no properties.
    #[must_use]
    pub fn reading(mut self, read: ReadProperties) -> Self {
        self.queues.read = read;
        self
    }

    /// The key to hash duplicate ids with, chosen at random. One that was stored before is kept instead.
    #[must_use]
    pub fn keyed(mut self, key: u128) -> Self {
        self.key = Some(key);
        self
    }

    /// Reads the record at `position` and takes it in.
    ///
    /// # Errors
    /// [`RecordError`] if it cannot be understood. The queues are of no use then.
    pub fn record(&mut self, position: u64, kind: u8, body: &[u8]) -> Result<(), RecordError> {
        let record = self.decoder.decode(kind, body)?;
        self.apply(position, record)
    }

    /// Takes in the record at `position`, which a [`Decoder`] has read.
    ///
    /// # Errors
    /// [`RecordError`] if it does not agree with the records before. The queues are of no use then.
    pub fn apply(&mut self, position: u64, record: Record) -> Result<(), RecordError> {
        let kind = record.kind();
        match record {
            Record::Queue {
                queue,
                name,
                lifetime,
            } => self.name(kind, queue, &name, Some(lifetime)),
            Record::Topic { queue, name } => self.name(kind, queue, &name, None),
            Record::Subscription { queue, subscription } => self.subscription(kind, queue, *subscription),
            Record::Settings { queue, settings } => self.settings(queue, *settings),
            Record::Deleted { queue } => self.deleted(queue),
            Record::Message {
                id,
                queue,
                priority,
                delivery_count,
                duplicate_id,
                extras,
                payload,
            } => {
                self.duplicate(queue, duplicate_id, position)?;
                self.queues.stored_bytes += payload.len() as u64 + RECORD_OVERHEAD;
                let mut message = Message::new(payload, id, position, queue, priority);
                message.set_delivery_count(delivery_count);
                self.message(message, extras.as_deref());
                Ok(())
            }
            Record::Published {
                first,
                topic,
                priority,
                duplicate_id,
                extras,
                references,
                payload,
            } => {
                if topic != NO_TOPIC {
                    self.duplicate(topic, duplicate_id, position)?;
                }
                let pattern = Message::new(payload, first, position, NONE, priority);
                self.published(&pattern, extras.as_deref(), &references)
            }
            Record::Settled { ids } => {
                ids.into_iter().for_each(|id| self.forget(id));
                Ok(())
            }
            Record::Attempts { counts } => {
                counts.into_iter().for_each(|(id, count)| self.attempt(id, count));
                Ok(())
            }
            Record::Duplicates { queue, ids } => self.window(queue, ids, position),
            Record::Moved { id, new, queue, why } => self.moved(id, new, queue, why),
            Record::Key { key } => {
                self.queues.key = Some(key);
                Ok(())
            }
            Record::Factory { name, factory } => {
                match factory {
                    Some(factory) => self.queues.factories.insert(name, *factory),
                    None => self.queues.factories.remove(&name),
                };
                Ok(())
            }
        }
    }

    /// A queue with a lifetime, or a topic.
    fn name(
        &mut self,
        kind: u8,
        number: u32,
        name: &str,
        lifetime: Option<Lifetime>,
    ) -> Result<(), RecordError> {
        self.place(number)?;
        let names = match lifetime {
            Some(_) => &mut self.queues.names,
            None => &mut self.queues.topics,
        };
        let taken = names.get(name).copied();
        let found = &mut self.queues.queues[number as usize];
        if taken != Some(number) {
            if name.is_empty() || !matches!(found.kind, Kind::Free) || taken.is_some() {
                return Err(RecordError::Malformed { kind });
            }
            found.name = name.into();
            names.insert(Arc::clone(&found.name), number);
            found.kind = match lifetime {
                Some(_) => Kind::Queue,
                None => Kind::Topic(Routes::default()),
            };
        }
        found.settings.lifetime = lifetime.unwrap_or_default();
        Ok(())
    }

    fn subscription(&mut self, kind: u8, number: u32, stored: StoredSubscription) -> Result<(), RecordError> {
        self.place(number)?;
        let malformed = RecordError::Malformed { kind };
        let selector = stored.selector.map(|text| Selector::parse(&text)).transpose();
        let wanted = Wanted {
            key: stored.key,
            topic: stored.topic,
            selector: selector.map_err(|_| malformed)?,
            not_from: stored.not_from.map(Into::into),
            durable: true,
            shared: stored.shared,
        };
        match &self.queues.queues[number as usize].kind {
            Kind::Free => {
                let settings = self.queues.queues[number as usize].settings.clone();
                self.queues.enter_subscription(wanted, settings, Some(number));
                Ok(())
            }
            // A compaction recorded it again.
            Kind::Subscription(found) if found.key == wanted.key && found.is_same(&wanted) => Ok(()),
            Kind::Subscription(_) | Kind::Queue | Kind::Topic(_) => Err(malformed),
        }
    }

    /// They may come before the name, as that may.
    fn settings(&mut self, number: u32, settings: QueueSettings) -> Result<(), RecordError> {
        self.place(number)?;
        let found = &mut self.queues.queues[number as usize].settings;
        *found = QueueSettings {
            lifetime: found.lifetime,
            ..settings
        };
        Ok(())
    }

    /// What was in it is recorded as settled in the same batch.
    fn deleted(&mut self, number: u32) -> Result<(), RecordError> {
        self.place(number)?;
        self.queues.free_number(number);
        Ok(())
    }

    /// Makes room for a queue of this number. Its name may come later: a compaction records the names again
    /// behind messages that came while it went on.
    fn place(&mut self, queue: u32) -> Result<(), RecordError> {
        if queue >= MAX_QUEUE_NUMBER {
            return Err(RecordError::UnknownQueue { queue });
        }
        while self.queues.queues.len() <= queue as usize {
            let free = Queue::new("", QueueSettings::default(), Kind::Free);
            self.queues.queues.push(free);
        }
        Ok(())
    }

    fn duplicate(&mut self, queue: u32, id: Option<DuplicateId>, position: u64) -> Result<(), RecordError> {
        self.place(queue)?;
        if let Some(id) = id {
            let capacity = self.queues.limits.duplicate_window;
            let window = &mut self.queues.queues[queue as usize].duplicates;
            window.recall(id, position, capacity);
        }
        Ok(())
    }

    fn window(&mut self, queue: u32, ids: Vec<DuplicateId>, position: u64) -> Result<(), RecordError> {
        self.place(queue)?;
        self.queues.queues[queue as usize].duplicates.clear();
        ids.into_iter()
            .try_for_each(|id| self.duplicate(queue, Some(id), position))
    }

    fn message(&mut self, mut message: Message, extras: Option<&Extras>) -> u32 {
        self.highest_id = self.highest_id.max(message.id);
        message.set_extra(extras.is_some());
        let id = message.id;
        let index = self.queues.messages.insert(message).index;
        if let Some(extras) = extras {
            let extra = Extra {
                expires_at: extras.expires_at,
                deliver_at: extras.deliver_at,
                dead_letter: extras.dead_letter.clone(),
                refused_by: Vec::new(),
            };
            self.queues.extras.insert(index, extra);
        }
        // The latest record of a message counts.
        let earlier = self.places.insert(id, index);
        self.remove(earlier);
        index
    }

    /// One message for each reference, all like the pattern.
    fn published(
        &mut self,
        pattern: &Message,
        extras: Option<&Extras>,
        references: &[Reference],
    ) -> Result<(), RecordError> {
        if references.is_empty() {
            return Ok(());
        }
        self.queues.stored_bytes += pattern.size() + RECORD_OVERHEAD;
        let group = (references.len() > 1).then(|| self.queues.groups.insert(Group::new(pattern.id)).index);
        for reference in references {
            self.place(reference.queue)?;
            let id = pattern.id + u64::from(reference.offset);
            let payload = pattern.payload.clone();
            let (record, priority) = (pattern.record, pattern.priority());
            let mut message = Message::new(payload, id, record, reference.queue, priority);
            message.set_delivery_count(reference.delivery_count);
            message.group = group.unwrap_or(NONE);
            let index = self.message(message, extras);
            if let Some(group) = group.and_then(|group| self.queues.groups.at_mut(group)) {
                group.add(id, index);
            }
        }
        Ok(())
    }

    fn moved(&mut self, id: u64, new: u64, queue: u32, why: Arc<DeadLetter>) -> Result<(), RecordError> {
        self.place(queue)?;
        self.highest_id = self.highest_id.max(new);
        let Some(index) = self.places.remove(id) else {
            return Ok(()); // It was recorded again behind this, or settled.
        };
        let Some(message) = self.queues.messages.at_mut(index) else {
            return Ok(());
        };
        message.id = new;
        message.queue = queue;
        message.set_delivery_count(0);
        message.set_extra(true);
        let (group, size) = (std::mem::replace(&mut message.group, NONE), message.size());
        if group != NONE && !self.queues.leave_group(group, id) {
            self.queues.stored_bytes += size + RECORD_OVERHEAD;
        }
        self.queues.extras.remove(index);
        self.queues.extras.entry(index).dead_letter = Some(why);
        let earlier = self.places.insert(new, index);
        self.remove(earlier);
        Ok(())
    }

    /// The message was settled. One that was never shown was settled before the oldest record that is left.
    fn forget(&mut self, id: u64) {
        self.highest_id = self.highest_id.max(id);
        let place = self.places.remove(id);
        self.remove(place);
    }

    fn remove(&mut self, place: Option<u32>) {
        let Some((index, message)) = place.and_then(|at| Some((at, self.queues.messages.remove(at)?))) else {
            return;
        };
        if message.has_extra() {
            self.queues.extras.remove(index);
        }
        if message.group == NONE || self.queues.leave_group(message.group, message.id) {
            self.queues.stored_bytes -= message.size() + RECORD_OVERHEAD;
        }
    }

    fn attempt(&mut self, id: u64, count: u32) {
        let place = self.places.get(id);
        if let Some(message) = place.and_then(|index| self.queues.messages.at_mut(index)) {
            message.set_delivery_count(message.delivery_count().max(count));
        }
    }

    /// Everything was shown. `next_position` is what the store will give to the next record.
    ///
    /// # Errors
    /// [`RecordError::UnknownQueue`] if a queue was used and never named.
    pub fn finish(self, next_position: u64) -> Result<Queues<L, D>, RecordError> {
        let mut queues = self.queues;
        queues.batches = Batches::new(next_position);
        queues.next_id = self.highest_id + 1;
        queues.line_up(&self.places.into_order())?;
        queues.free_numbers()?;
        if queues.key.is_none() && self.key.is_some() {
            queues.key = self.key;
            queues.record_key();
        }
        let key = queues.key.unwrap_or_default();
        for queue in &mut queues.queues {
            queue.duplicates.set_key(key);
            queue.duplicates.recalled();
            queues.windows += queue.duplicates.sizes();
        }
        queues.bound_windows();
        Ok(queues)
    }
}

impl<L: Copy, D: Copy> Queues<L, D> {
    /// Records came in the order of the store; this puts messages into their queues in the order of arrival.
    fn line_up(&mut self, order: &[(u64, u32)]) -> Result<(), RecordError> {
        for &(_, index) in order {
            let Some(message) = self.messages.at(index) else {
                continue;
            };
            let (queue, size, alone) = (message.queue, message.size(), message.group == NONE);
            let to = &mut self.queues[queue as usize];
            if !to.is_stored() {
                return Err(RecordError::UnknownQueue { queue });
            }
            to.added(size);
            if alone {
                self.bytes += size;
            }
            self.put_in_queue(index, false);
        }
        for index in 0..self.groups.capacity() {
            let first = self.groups.at(index).and_then(|group| group.indices().next());
            self.bytes += first.and_then(|at| self.messages.at(at)).map_or(0, Message::size);
        }
        Ok(())
    }

    /// Numbers that nothing is stored under can be used again.
    fn free_numbers(&mut self) -> Result<(), RecordError> {
        for (number, queue) in (0..).zip(&self.queues) {
            if !matches!(queue.kind, Kind::Free) {
                continue;
            }
            if queue.duplicates.stored_ids().next().is_some() {
                return Err(RecordError::UnknownQueue { queue: number });
            }
            self.free.push(number);
        }
        // The lowest first.
        self.free.reverse();
        Ok(())
    }
}
