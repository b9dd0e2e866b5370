//! Building the queues again from the records in the store.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::Queues;
use super::arena::NONE;
use super::batch::{Batches, RECORD_OVERHEAD};
use super::duplicates::DuplicateId;
use super::queue::{Message, Queue};
use super::record::{RecordError, Stored, attempt_counts, settled_ids};
use super::types::{Limits, QueueId, QueueLimits};

/// Queue numbers are dense and start at 0; one this high was not written by us.
const MAX_QUEUE_NUMBER: u32 = 1 << 20;

/// Spreads message numbers, which we gave out ourselves one after the other.
#[derive(Debug, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        // The golden ratio of 2^64 spreads neighbours over the high bits; the table wants them low as well.
        self.0 = (self.0 ^ number)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .rotate_left(29);
    }
}

/// Small payloads share blocks of memory, as they do when they come from a socket.
#[derive(Debug, Default)]
struct Copies(BytesMut);

impl Copies {
    const BLOCK: usize = 64 << 10;

    fn copy(&mut self, payload: &[u8]) -> Bytes {
        if payload.len() > Self::BLOCK / 8 {
            return Bytes::copy_from_slice(payload);
        }
        if self.0.capacity() < payload.len() {
            self.0 = BytesMut::with_capacity(Self::BLOCK);
        }
        self.0.extend_from_slice(payload);
        self.0.split().freeze()
    }
}

/// Queues that are being read back. Show it every record in order, then [`finish`](Self::finish).
#[derive(Debug)]
pub struct Recovery<L, D> {
    queues: Queues<L, D>,
    /// Where the message of each id is.
    places: HashMap<u64, u32, BuildHasherDefault<IdHasher>>,
    highest_id: u64,
    copies: Copies,
}

impl<L: Copy, D: Copy> Recovery<L, D> {
    /// Nothing was read yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            queues: Queues::empty(limits, 1),
            places: HashMap::default(),
            highest_id: 0,
            copies: Copies::default(),
        }
    }

    /// Takes in the record at `position`.
    ///
    /// # Errors
    /// [`RecordError`] if it cannot be understood. The queues are of no use then.
    pub fn record(&mut self, position: u64, kind: u8, body: &[u8]) -> Result<(), RecordError> {
        match Stored::decode(kind, body)? {
            Stored::Queue { queue, name } => self.name(kind, queue, name),
            Stored::Message {
                id,
                queue,
                priority,
                delivery_count,
                duplicate_id,
                payload,
            } => {
                self.duplicate(queue, duplicate_id, position)?;
                let message = Message {
                    payload: self.copies.copy(payload),
                    id,
                    record: position,
                    queue,
                    consumer: NONE,
                    previous: NONE,
                    next: NONE,
                    delivery_count,
                    priority,
                    pending: false,
                };
                self.message(message);
                Ok(())
            }
            Stored::Settled { ids } => {
                settled_ids(ids).for_each(|id| self.forget(id));
                Ok(())
            }
            Stored::Attempts { counts } => {
                attempt_counts(counts).for_each(|(id, count)| self.attempt(id, count));
                Ok(())
            }
            Stored::Duplicates { queue, ids } => self.window(queue, ids, position),
        }
    }

    fn name(&mut self, kind: u8, queue: u32, name: &str) -> Result<(), RecordError> {
        self.place(queue)?;
        let taken = self.queues.find(name);
        if taken == Some(QueueId(queue)) {
            return Ok(());
        }
        let found = &mut self.queues.queues[queue as usize];
        if name.is_empty() || !found.name.is_empty() || taken.is_some() {
            return Err(RecordError::Malformed { kind });
        }
        found.name = name.into();
        let name = Arc::clone(&found.name);
        self.queues.names.insert(name, QueueId(queue));
        Ok(())
    }

    /// Makes room for a queue of this number. Its name may come later: a compaction records the names again
    /// behind messages that came while it went on.
    fn place(&mut self, queue: u32) -> Result<(), RecordError> {
        if queue >= MAX_QUEUE_NUMBER {
            return Err(RecordError::UnknownQueue { queue });
        }
        while self.queues.queues.len() <= queue as usize {
            self.queues.queues.push(Queue::new("", QueueLimits::default()));
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

    fn message(&mut self, message: Message) {
        self.highest_id = self.highest_id.max(message.id);
        self.queues.stored_bytes += message.size() + RECORD_OVERHEAD;
        let id = message.id;
        let place = self.queues.messages.insert(message);
        // The latest record of a message counts.
        let earlier = self.places.insert(id, place.index);
        self.remove(earlier);
    }

    /// The message was settled. One that was never shown was settled before the oldest record that is left.
    fn forget(&mut self, id: u64) {
        self.highest_id = self.highest_id.max(id);
        let place = self.places.remove(&id);
        self.remove(place);
    }

    fn remove(&mut self, place: Option<u32>) {
        if let Some(message) = place.and_then(|index| self.queues.messages.remove(index)) {
            self.queues.stored_bytes -= message.size() + RECORD_OVERHEAD;
        }
    }

    fn attempt(&mut self, id: u64, count: u32) {
        let place = self.places.get(&id);
        if let Some(message) = place.and_then(|&index| self.queues.messages.at_mut(index)) {
            message.delivery_count = message.delivery_count.max(count);
        }
    }

    /// Everything was shown. `next_position` is what the store will give to the next record.
    ///
    /// # Errors
    /// [`RecordError::UnknownQueue`] if a queue was used and never named.
    pub fn finish(self, next_position: u64) -> Result<Queues<L, D>, RecordError> {
        let mut queues = self.queues;
        if let Some(unnamed) = queues.queues.iter().position(|queue| queue.name.is_empty()) {
            let queue = u32::try_from(unnamed).unwrap_or(MAX_QUEUE_NUMBER);
            return Err(RecordError::UnknownQueue { queue });
        }
        queues.batches = Batches::new(next_position);
        queues.next_id = self.highest_id + 1;
        for index in 0..queues.messages.capacity() {
            let Some(message) = queues.messages.at(index) else {
                continue;
            };
            let queue = message.queue;
            let to = &mut queues.queues[queue as usize];
            to.added(message.size());
            to.push(message.priority, message.id, index);
            queues.bytes += message.size();
        }
        for queue in &mut queues.queues {
            queue.sort();
            queue.duplicates.recalled();
        }
        Ok(queues)
    }
}
