//! Making room in the store: whatever must survive and lies in its oldest part is recorded again at the end.
//!
//! It goes in steps, so that serving is never held up. Invariant: after the last step's records are durable,
//! no record before the given position is needed.

use super::Queues;
use super::arena::NONE;
use super::batch::RECORD_OVERHEAD;
use super::record::Record;
use super::types::QueueId;

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
        while let Some(queue) = self.queues.get(step.queue as usize) {
            if self.batches.pending_bytes() > limit {
                return false;
            }
            let name = queue.name.to_string();
            let bytes = name.len() as u64;
            let queue = step.queue;
            self.batches.push(Record::Queue { queue, name }, bytes);
            self.compact_duplicates(QueueId(queue), step.before);
            step.queue += 1;
        }
        true
    }

    fn compact_duplicates(&mut self, queue: QueueId, before: u64) {
        let window = &mut self.queues[queue.0 as usize].duplicates;
        if !window.reaches_below(before) {
            return;
        }
        let ids: Vec<_> = window.stored_ids().cloned().collect();
        let bytes = ids.len() as u64 * 17;
        let record = Record::Duplicates { queue: queue.0, ids };
        let position = self.batches.push(record, bytes);
        window.moved_to(position);
    }

    fn compact_messages(&mut self, step: &mut Compaction, limit: u64) -> bool {
        let end = self.messages.capacity();
        let pause = step.message.saturating_add(PLACES_PER_STEP).min(end);
        let durable = self.batches.durable();
        while step.message < pause && self.batches.pending_bytes() <= limit {
            let index = step.message;
            step.message += 1;
            let Some(message) = self.messages.at_mut(index) else {
                continue;
            };
            if message.record == 0 || message.record >= step.before {
                continue;
            }
            // Its first record is durable, so it stays visible while the copy is not.
            message.pending &= message.record > durable;
            let record = Record::Message {
                id: message.id,
                queue: message.queue,
                priority: message.priority,
                // One that is out counts as failed if this broker ends before it is settled.
                delivery_count: message.delivery_count + u32::from(message.consumer != NONE),
                // The duplicate window has records of its own.
                duplicate_id: None,
                payload: message.payload.clone(),
            };
            let bytes = message.size();
            message.record = self.batches.push(record, bytes);
        }
        step.message >= end
    }

    /// Bytes the store would take if it held nothing but what is needed.
    #[must_use]
    pub fn needed_bytes(&self) -> u64 {
        let queues = self.queues.len() as u64 * RECORD_OVERHEAD;
        self.stored_bytes + queues
    }
}
