//! What is due: messages that expire, messages whose time has come, transactions that took too long.
//!
//! Most messages have nothing of that; what the others have is kept beside them. Invariant: every message
//! marked as having something extra has an entry, and every timer belongs to such an entry.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Queues;
use super::arena::Key;
use super::queue::Place;
use super::types::{DeadLetter, Reason};

/// What few messages have.
#[derive(Debug, Default)]
pub(super) struct Extra {
    pub(super) expires_at: Option<u64>,
    pub(super) deliver_at: Option<u64>,
    pub(super) dead_letter: Option<Arc<DeadLetter>>,
    /// Consumers that must not get it again.
    pub(super) refused_by: Vec<Key>,
}

/// The extras of all messages, by their index, and the times among them.
#[derive(Debug, Default)]
pub(super) struct Extras {
    of: BTreeMap<u32, Extra>,
    timers: BTreeSet<(u64, u32)>,
}

impl Extras {
    pub(super) fn find(&self, index: u32) -> Option<&Extra> {
        self.of.get(&index)
    }

    /// The extras of a message, made if there are none. Its times are added with [`insert`](Self::insert).
    pub(super) fn entry(&mut self, index: u32) -> &mut Extra {
        self.of.entry(index).or_default()
    }

    pub(super) fn insert(&mut self, index: u32, extra: Extra) {
        let times = [extra.expires_at, extra.deliver_at];
        self.timers
            .extend(times.into_iter().flatten().map(|at| (at, index)));
        self.of.insert(index, extra);
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<Extra> {
        let extra = self.of.remove(&index)?;
        for at in [extra.expires_at, extra.deliver_at].into_iter().flatten() {
            self.timers.remove(&(at, index));
        }
        Some(extra)
    }

    pub(super) fn is_refused(&self, index: u32, by: Key) -> bool {
        self.find(index)
            .is_some_and(|extra| extra.refused_by.contains(&by))
    }

    fn pop_due(&mut self, now: u64) -> Option<u32> {
        let &(at, index) = self.timers.first()?;
        if at > now {
            return None;
        }
        self.timers.pop_first();
        Some(index)
    }

    fn next(&self) -> Option<u64> {
        self.timers.first().map(|&(at, _)| at)
    }
}

impl<L: Copy, D: Copy> Queues<L, D> {
    /// It is `now`, in milliseconds since the Unix epoch. Does what is due; [`flush`](Self::flush) follows.
    /// Call it before other events, so that they count from the right time, and when
    /// [`deadline`](Self::deadline) has passed. A clock that goes back delays, and undoes nothing.
    pub fn tick(&mut self, now: u64) {
        self.now = self.now.max(now);
        while let Some(index) = self.extras.pop_due(self.now) {
            self.due(index);
        }
        self.end_overdue_transactions();
        for queue in std::mem::take(&mut self.unfinished) {
            self.queues[queue as usize].unfinished = false;
            self.mark_dirty(queue);
        }
    }

    /// When [`tick`](Self::tick) has something to do, in milliseconds since the Unix epoch; a time that has
    /// passed means at once.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        if !self.unfinished.is_empty() {
            return Some(self.now);
        }
        let transactions = self.overdue.first().map(|&(at, _)| at);
        [self.extras.next(), transactions].into_iter().flatten().min()
    }

    /// Whether its time is over.
    pub(super) fn is_expired(&self, index: u32) -> bool {
        let extra = self.extras.find(index);
        extra
            .and_then(|extra| extra.expires_at)
            .is_some_and(|at| at <= self.now)
    }

    fn due(&mut self, index: u32) {
        let Some(place) = self.messages.at(index).map(|message| message.place) else {
            return;
        };
        if self.is_expired(index) {
            // One that is out may still be accepted; if it comes back it expires then.
            if !matches!(place, Place::Out | Place::Held | Place::Loose) {
                self.leave_queue(index);
                self.discard(index, Reason::Expired);
            }
            return;
        }
        if place == Place::Delayed {
            self.leave_queue(index);
            self.put_in_queue(index, true);
        }
    }

    /// Takes a message that is out to nobody from its place in its queue.
    pub(super) fn leave_queue(&mut self, index: u32) {
        let Some(message) = self.messages.at_mut(index) else {
            return;
        };
        let queue = &mut self.queues[message.queue as usize];
        match message.place {
            Place::Fresh | Place::Returned => queue.unlink(&mut self.messages, index),
            Place::Delayed => queue.counts.delayed -= 1,
            Place::Out | Place::Held | Place::Loose => return,
        }
        if let Some(message) = self.messages.at_mut(index) {
            message.place = Place::Loose;
        }
    }

    /// Puts a message in its queue: among the delayed if its time has not come, `back` where it was, or
    /// behind all others.
    pub(super) fn put_in_queue(&mut self, index: u32, back: bool) {
        let Some(message) = self.messages.at_mut(index) else {
            return;
        };
        let number = message.queue;
        let queue = &mut self.queues[number as usize];
        let extra = message.has_extra().then(|| self.extras.find(index)).flatten();
        let due = extra.and_then(|extra| extra.deliver_at);
        if due.is_some_and(|at| at > self.now) {
            message.place = Place::Delayed;
            queue.counts.delayed += 1;
            return;
        }
        if back {
            queue.put_back(&mut self.messages, index);
        } else {
            queue.push(&mut self.messages, index);
        }
        self.mark_dirty(number);
    }
}
