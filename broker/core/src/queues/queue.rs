//! One queue: which messages are in it, in which order, and whose turn it is.
//!
//! Messages that wait are linked through the places they have in memory, so that one can leave from anywhere.
//! Those that came back stand in a map beside, by order of arrival.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::arena::{Arena, Key, NONE};
use super::duplicates::DuplicateWindow;
use super::topics::Kind;
use super::types::{Lifetime, ProducerId, QueueCounts, QueueSettings};
use super::walk::Walker;

/// The lowest and highest priority are 0 and 9.
pub(super) const PRIORITIES: usize = 10;

/// Where a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In its queue, in the line of those that were never out.
    Fresh,
    /// In its queue, among those that came back.
    Returned,
    /// In no list, for a moment.
    Loose,
    /// Out to a consumer, in that consumer's list.
    Out,
    /// A transaction will decide.
    Held,
    /// Its time has not come.
    Delayed,
}

/// A message that was not settled yet.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) payload: Bytes,
    /// Order of arrival, and the identity in the journal.
    pub(super) id: u64,
    /// Journal position of its latest record; 0: in memory only.
    pub(super) record: u64,
    pub(super) queue: u32,
    /// The consumer it is out to, or [`NONE`].
    pub(super) consumer: u32,
    /// Neighbours in the line or in that consumer's list.
    pub(super) previous: u32,
    pub(super) next: u32,
    /// Those that share its body and its record, or [`NONE`].
    pub(super) group: u32,
    attempts: u16,
    bits: u8,
    pub(super) place: Place,
}

const PRIORITY: u8 = 0x0f;
const PENDING: u8 = 0x10;
const MARKED: u8 = 0x20;
const EXTRA: u8 = 0x40;

impl Message {
    pub(super) fn new(payload: Bytes, id: u64, record: u64, queue: u32, priority: u8) -> Self {
        Self {
            payload,
            id,
            record,
            queue,
            consumer: NONE,
            previous: NONE,
            next: NONE,
            group: NONE,
            attempts: 0,
            bits: priority.min(9),
            place: Place::Loose,
        }
    }

    pub(super) fn size(&self) -> u64 {
        self.payload.len() as u64
    }

    pub(super) fn priority(&self) -> u8 {
        self.bits & PRIORITY
    }

    /// How often a delivery of it failed.
    pub(super) fn delivery_count(&self) -> u32 {
        u32::from(self.attempts)
    }

    pub(super) fn set_delivery_count(&mut self, count: u32) {
        self.attempts = u16::try_from(count).unwrap_or(u16::MAX);
    }

    fn set(&mut self, bit: u8, on: bool) {
        if on {
            self.bits |= bit;
        } else {
            self.bits &= !bit;
        }
    }

    /// Its first record may not be durable yet, so it must not be shown to anyone.
    pub(super) fn is_pending(&self) -> bool {
        self.bits & PENDING != 0
    }

    pub(super) fn set_pending(&mut self, pending: bool) {
        self.set(PENDING, pending);
    }

    pub(super) fn is_visible(&self, durable: u64) -> bool {
        !self.is_pending() || self.record <= durable
    }

    /// A walker may stand here.
    pub(super) fn mark(&mut self) {
        self.set(MARKED, true);
    }

    /// More is known of it elsewhere.
    pub(super) fn has_extra(&self) -> bool {
        self.bits & EXTRA != 0
    }

    pub(super) fn set_extra(&mut self, extra: bool) {
        self.set(EXTRA, extra);
    }
}

/// Messages of one priority that wait for a consumer.
#[derive(Debug)]
pub(super) struct Level {
    /// The line, in the order of arrival.
    pub(super) first: u32,
    last: u32,
    /// Those that came back, by order of arrival.
    pub(super) returned: BTreeMap<u64, u32>,
}

impl Default for Level {
    fn default() -> Self {
        Self {
            first: NONE,
            last: NONE,
            returned: BTreeMap::new(),
        }
    }
}

impl Level {
    fn front(&self, messages: &Arena<Message>) -> Option<u32> {
        let fresh = messages.at(self.first).map(|message| (message.id, self.first));
        match (self.returned.first_key_value(), fresh) {
            (None, fresh) => fresh.map(|(_, index)| index),
            (Some((_, &index)), None) => Some(index),
            (Some((&returned, &index)), Some((fresh, other))) => {
                Some(if returned < fresh { index } else { other })
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.first == NONE && self.returned.is_empty()
    }
}

/// A queue.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) name: Arc<str>,
    pub(super) generation: u32,
    pub(super) settings: QueueSettings,
    pub(super) kind: Kind,
    pub(super) levels: [Level; PRIORITIES],
    /// Bit n: level n may hold messages.
    pub(super) occupied: u16,
    /// Consumers that have credit, in turn. Stale ones are dropped when their turn comes.
    pub(super) turn: VecDeque<Key>,
    /// Consumers that do not simply take the first.
    pub(super) walkers: BTreeMap<Key, Box<Walker>>,
    pub(super) duplicates: DuplicateWindow,
    /// Producers that wait for room.
    pub(super) waiting: Vec<ProducerId>,
    pub(super) counts: QueueCounts,
    /// Messages for it in open transactions.
    pub(super) awaited: u64,
    /// In the list of queues to be dispatched.
    pub(super) dirty: bool,
    /// In the list of queues where someone waits for a message that is not durable yet.
    pub(super) blocked: bool,
    /// In the list of queues where a walker has not seen everything.
    pub(super) unfinished: bool,
    /// Consumers that want to be told when there is nothing left for them.
    pub(super) draining: Vec<Key>,
}

impl Queue {
    pub(super) fn new(name: &str, settings: QueueSettings, kind: Kind) -> Self {
        Self {
            name: name.into(),
            generation: 0,
            settings,
            kind,
            levels: Default::default(),
            occupied: 0,
            turn: VecDeque::new(),
            walkers: BTreeMap::new(),
            duplicates: DuplicateWindow::default(),
            waiting: Vec::new(),
            counts: QueueCounts::default(),
            awaited: 0,
            dirty: false,
            blocked: false,
            unfinished: false,
            draining: Vec::new(),
        }
    }

    /// The records of it, and of the messages in it, are stored.
    pub(super) fn is_stored(&self) -> bool {
        match &self.kind {
            Kind::Queue | Kind::Topic(_) => !matches!(self.settings.lifetime, Lifetime::Owner(_)),
            Kind::Subscription(subscription) => subscription.durable,
            Kind::Free => false,
        }
    }

    /// Puts a message behind all others of its priority.
    pub(super) fn push(&mut self, messages: &mut Arena<Message>, index: u32) {
        let Some(message) = messages.at_mut(index) else {
            return;
        };
        message.place = Place::Fresh;
        message.next = NONE;
        let priority = message.priority();
        let level = &mut self.levels[usize::from(priority)];
        message.previous = level.last;
        let last = std::mem::replace(&mut level.last, index);
        match messages.at_mut(last) {
            Some(neighbour) => neighbour.next = index,
            None => level.first = index,
        }
        self.occupied |= 1 << priority;
    }

    /// Puts a message back where it was.
    pub(super) fn put_back(&mut self, messages: &mut Arena<Message>, index: u32) {
        let Some(message) = messages.at_mut(index) else {
            return;
        };
        message.place = Place::Returned;
        let (priority, id) = (message.priority(), message.id);
        self.occupied |= 1 << priority;
        self.levels[usize::from(priority)].returned.insert(id, index);
        for walker in self.walkers.values_mut() {
            walker.came_back(priority, id);
        }
    }

    /// Takes a message out of the line, or from among those that came back.
    pub(super) fn unlink(&mut self, messages: &mut Arena<Message>, index: u32) {
        let Some(message) = messages.at_mut(index) else {
            return;
        };
        let level = &mut self.levels[usize::from(message.priority())];
        if message.place == Place::Returned {
            level.returned.remove(&message.id);
            return;
        }
        let (previous, next) = (message.previous, message.next);
        if message.bits & MARKED != 0 {
            message.set(MARKED, false);
            let priority = message.priority();
            for walker in self.walkers.values_mut() {
                walker.step_back(priority, index, previous);
            }
            if let Some(neighbour) = messages.at_mut(previous) {
                neighbour.mark();
            }
        }
        match messages.at_mut(previous) {
            Some(neighbour) => neighbour.next = next,
            None => level.first = next,
        }
        match messages.at_mut(next) {
            Some(neighbour) => neighbour.previous = previous,
            None => level.last = previous,
        }
    }

    /// The first message of the highest priority that may be shown, taken out. Within a priority nothing
    /// overtakes: a first message that is not durable yet hides those behind it.
    pub(super) fn take(&mut self, messages: &mut Arena<Message>, durable: u64) -> Option<u32> {
        let mut left = self.occupied;
        while left != 0 {
            let priority = left.ilog2() as usize;
            left &= !(1 << priority);
            match self.levels[priority].front(messages) {
                None => self.occupied &= !(1 << priority),
                Some(index)
                    if messages
                        .at(index)
                        .is_some_and(|message| message.is_visible(durable)) =>
                {
                    self.unlink(messages, index);
                    if self.levels[priority].is_empty() {
                        self.occupied &= !(1 << priority);
                    }
                    return Some(index);
                }
                Some(_) => {}
            }
        }
        None
    }

    /// The oldest message that waits with the lowest priority.
    pub(super) fn least(&self, messages: &Arena<Message>) -> Option<u32> {
        self.levels.iter().find_map(|level| level.front(messages))
    }

    pub(super) fn is_full(&self) -> bool {
        let limits = &self.settings.limits;
        self.counts.messages >= limits.max_messages || self.counts.bytes >= limits.max_bytes
    }

    /// Whether it emptied enough to let producers go on: below three quarters of each limit, so that
    /// credit does not come one message at a time.
    pub(super) fn has_room(&self) -> bool {
        let below = |count: u64, limit: u64| count == 0 || count < limit - limit / 4;
        let limits = &self.settings.limits;
        below(self.counts.messages, limits.max_messages) && below(self.counts.bytes, limits.max_bytes)
    }

    pub(super) fn added(&mut self, bytes: u64) {
        self.counts.messages += 1;
        self.counts.bytes += bytes;
    }

    pub(super) fn removed(&mut self, bytes: u64) {
        self.counts.messages -= 1;
        self.counts.bytes -= bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_takes_no_more_than_eighty_bytes_beside_its_own() {
        assert_eq!(size_of::<Message>(), 72);
        assert_eq!(size_of::<Option<Message>>(), 72);
    }
}
