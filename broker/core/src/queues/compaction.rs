//! Making room in the store: whatever must survive and lies in its oldest part is recorded again at the end.
//!
//! It goes in steps, so that serving is never held up. Invariant: after the last step's records are durable,
//! no record before the given position is needed.

use super::Queues;
use super::batch::RECORD_OVERHEAD;
use super::queue::{Message, Place};
use super::record::{Extras, NO_TOPIC, Record, Reference};

/// How far a compaction has come.
#[derive(Debug)]
pub(super) struct Compaction {
    before: u64,
    queue: u32,
    message: u32,
}

/// Places looked at in one step at most, so that a step is short even where little is live.
const PLACES_PER_STEP: u32 = 16_384;

impl<L: Copy, D: Copy> Queues<L, D> {
    /// Starts recording again what lies before `before`, which must be durable. A compaction already under
    /// way is replaced.
    pub fn start_compaction(&mut self, before: u64) {
        self.compaction = Some(Compaction {
            before: before.min(self.batches.durable() + 1),
            queue: 0,
            message: 0,
        });
        self.record_key();
        self.record_factories();
    }

    /// Records again about `bytes` more. Returns the position before which nothing is needed once the open
    /// batch is durable, when everything is done; `None` before, and when no compaction is under way.
    pub fn compact(&mut self, bytes: u64) -> Option<u64> {
        let mut step = self.compaction.take()?;
        let limit = self.batches.pending_bytes().saturating_add(bytes);
        let queues_done = self.compact_queues(&mut step, limit);
        if queues_done && self.compact_messages(&mut step, limit) {
            return Some(step.before);
        }
        self.compaction = Some(step);
        None
    }

    fn compact_queues(&mut self, step: &mut Compaction, limit: u64) -> bool {
        while (step.queue as usize) < self.queues.len() {
            if self.batches.pending_bytes() > limit {
                return false;
            }
            self.record_queue(step.queue);
            self.compact_duplicates(step.queue, step.before);
            step.queue += 1;
        }
        true
    }

    /// Records the key of the duplicate windows, if there is one.
    pub(super) fn record_key(&mut self) {
        if let Some(key) = self.key {
            self.batches.push(Record::Key { key }, 16);
        }
    }

    fn compact_duplicates(&mut self, queue: u32, before: u64) {
        let window = &mut self.queues[queue as usize].duplicates;
        if !window.reaches_below(before) {
            return;
        }
        let ids: Vec<_> = window.stored_ids().cloned().collect();
        let bytes = ids.len() as u64 * 17;
        let position = self.batches.push(Record::Duplicates { queue, ids }, bytes);
        let window = &mut self.queues[queue as usize].duplicates;
        window.moved_to(position);
    }

    fn compact_messages(&mut self, step: &mut Compaction, limit: u64) -> bool {
        let end = self.messages.capacity();
        let pause = step.message.saturating_add(PLACES_PER_STEP).min(end);
        while step.message < pause && self.batches.pending_bytes() <= limit {
            let index = step.message;
            step.message += 1;
            let old = |message: &Message| message.record != 0 && message.record < step.before;
            if self.messages.at(index).is_some_and(old) {
                self.rewrite(index);
            }
        }
        step.message >= end
    }

    /// Records a message again, with all those that share its record.
    pub(super) fn rewrite(&mut self, index: u32) {
        let Some(message) = self.messages.at(index) else {
            return;
        };
        // The duplicate window has records of its own.
        let (duplicate_id, priority, bytes) = (None, message.priority(), message.size());
        let payload = message.payload.clone();
        let extra = message.has_extra().then(|| self.extras.find(index)).flatten();
        let extras = extra
            .and_then(|extra| Extras::new(extra.expires_at, extra.deliver_at, extra.dead_letter.clone()));
        let Some(group) = self.groups.at(message.group) else {
            let record = Record::Message {
                id: message.id,
                queue: message.queue,
                priority,
                delivery_count: count_after_crash(message),
                duplicate_id,
                extras,
                payload,
            };
            let position = self.batches.push(record, bytes);
            self.move_record(index, position);
            return;
        };
        let members: Vec<u32> = group.indices().collect();
        let record = Record::Published {
            first: group.first,
            topic: NO_TOPIC,
            priority,
            duplicate_id,
            extras,
            references: members
                .iter()
                .filter_map(|&at| self.reference(group.first, at))
                .collect(),
            payload,
        };
        let position = self
            .batches
            .push(record, bytes + members.len() as u64 * Reference::BYTES);
        for member in members {
            self.move_record(member, position);
        }
    }

    fn reference(&self, first: u64, index: u32) -> Option<Reference> {
        let message = self.messages.at(index)?;
        Some(Reference {
            offset: u32::try_from(message.id - first).ok()?,
            queue: message.queue,
            delivery_count: count_after_crash(message),
        })
    }

    /// The message has a new record. If the one before is durable it stays visible while the copy is not.
    fn move_record(&mut self, index: u32, position: u64) {
        let durable = self.batches.durable();
        if let Some(message) = self.messages.at_mut(index) {
            message.set_pending(message.is_pending() && message.record > durable);
            message.record = position;
        }
    }

    /// Bytes the store would take if it held nothing but what is needed.
    #[must_use]
    pub fn needed_bytes(&self) -> u64 {
        let queues = self.queues.len() as u64 * RECORD_OVERHEAD;
        self.stored_bytes + self.windows.stored + queues + self.factory_bytes()
    }
}

/// One that is out counts as failed if this broker ends before it is settled.
fn count_after_crash(message: &Message) -> u32 {
    let out = matches!(message.place, Place::Out | Place::Held);
    message.delivery_count() + u32::from(out)
}
