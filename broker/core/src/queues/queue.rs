//! One queue: which messages are in it, in which order, and whose turn it is.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::arena::Key;
use super::duplicates::DuplicateWindow;
use super::types::{ProducerId, QueueCounts, QueueLimits};

/// The lowest and highest priority are 0 and 9.
pub(super) const PRIORITIES: usize = 10;

/// A message that was not settled yet.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) payload: Bytes,
    /// Order of arrival, and the identity in the journal.
    pub(super) id: u64,
    /// Journal position of its latest record; 0: in memory only.
    pub(super) record: u64,
    pub(super) queue: u32,
    /// The consumer it is out to, or [`NONE`](super::arena::NONE).
    pub(super) consumer: u32,
    /// Neighbours in that consumer's list.
    pub(super) previous: u32,
    pub(super) next: u32,
    pub(super) delivery_count: u32,
    pub(super) priority: u8,
    /// Its first record may not be durable yet, so it must not be shown to anyone.
    pub(super) pending: bool,
}

impl Message {
    pub(super) fn size(&self) -> u64 {
        self.payload.len() as u64
    }
}

/// Messages of one priority that wait for a consumer.
#[derive(Debug, Default)]
struct Level {
    /// In the order of arrival.
    fresh: VecDeque<(u64, u32)>,
    /// Those that came back, by order of arrival.
    returned: BTreeMap<u64, u32>,
}

impl Level {
    fn front(&self) -> Option<u32> {
        match (self.returned.first_key_value(), self.fresh.front()) {
            (None, fresh) => fresh.map(|&(_, index)| index),
            (Some((_, &index)), None) => Some(index),
            (Some((&returned, &index)), Some(&(fresh, other))) => {
                Some(if returned < fresh { index } else { other })
            }
        }
    }

    fn pop(&mut self) {
        let from_returned = match (self.returned.first_key_value(), self.fresh.front()) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some((returned, _)), Some((fresh, _))) => returned < fresh,
        };
        if from_returned {
            self.returned.pop_first();
        } else {
            self.fresh.pop_front();
        }
    }

    fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.returned.is_empty()
    }
}

/// A queue.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) name: Arc<str>,
    pub(super) limits: QueueLimits,
    levels: [Level; PRIORITIES],
    /// Bit n: level n may hold messages.
    occupied: u16,
    /// Consumers that have credit, in turn. Stale ones are dropped when their turn comes.
    pub(super) turn: VecDeque<Key>,
    pub(super) duplicates: DuplicateWindow,
    /// Producers that wait for room.
    pub(super) waiting: Vec<ProducerId>,
    pub(super) counts: QueueCounts,
    /// In the list of queues to be dispatched.
    pub(super) dirty: bool,
    /// In the list of queues where someone waits for a message that is not durable yet.
    pub(super) blocked: bool,
    /// Consumers that want to be told when there is nothing left for them.
    pub(super) draining: Vec<Key>,
}

impl Queue {
    pub(super) fn new(name: &str, limits: QueueLimits) -> Self {
        Self {
            name: name.into(),
            limits,
            levels: Default::default(),
            occupied: 0,
            turn: VecDeque::new(),
            duplicates: DuplicateWindow::default(),
            waiting: Vec::new(),
            counts: QueueCounts::default(),
            dirty: false,
            blocked: false,
            draining: Vec::new(),
        }
    }

    /// Puts a message that just arrived behind all others of its priority.
    pub(super) fn push(&mut self, priority: u8, id: u64, index: u32) {
        self.occupied |= 1 << priority;
        self.levels[usize::from(priority)].fresh.push_back((id, index));
    }

    /// Puts a message back where it was.
    pub(super) fn put_back(&mut self, priority: u8, id: u64, index: u32) {
        self.occupied |= 1 << priority;
        self.levels[usize::from(priority)].returned.insert(id, index);
    }

    /// The first message of the highest priority for which `ready` holds, taken out. Within a priority
    /// nothing overtakes: a first message that is not ready hides those behind it.
    pub(super) fn take(&mut self, mut ready: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut left = self.occupied;
        while left != 0 {
            let priority = left.ilog2() as usize;
            left &= !(1 << priority);
            let level = &mut self.levels[priority];
            match level.front() {
                None => self.occupied &= !(1 << priority),
                Some(index) if ready(index) => {
                    level.pop();
                    if level.is_empty() {
                        self.occupied &= !(1 << priority);
                    }
                    return Some(index);
                }
                Some(_) => {}
            }
        }
        None
    }

    pub(super) fn is_full(&self) -> bool {
        self.counts.messages >= self.limits.max_messages || self.counts.bytes >= self.limits.max_bytes
    }

    /// Whether it emptied enough to let producers go on: below three quarters of each limit, so that
    /// credit does not come one message at a time.
    pub(super) fn has_room(&self) -> bool {
        let below = |count: u64, limit: u64| count == 0 || count < limit - limit / 4;
        below(self.counts.messages, self.limits.max_messages)
            && below(self.counts.bytes, self.limits.max_bytes)
    }

    pub(super) fn added(&mut self, bytes: u64) {
        self.counts.messages += 1;
        self.counts.bytes += bytes;
    }

    pub(super) fn removed(&mut self, bytes: u64) {
        self.counts.messages -= 1;
        self.counts.bytes -= bytes;
    }

    /// Recovery saw messages in the order of their records; this makes it the order of arrival again.
    pub(super) fn sort(&mut self) {
        for level in &mut self.levels {
            level.fresh.make_contiguous().sort_unstable();
        }
    }
}
