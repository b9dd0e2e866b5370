//! Owners with their outboxes, consumers with their credit, producers with theirs.

use std::sync::Arc;

use super::arena::{Key, NONE};
use super::types::{Action, Limits, OwnerId, QueueId};
use crate::selector::Selector;

/// A connection.
#[derive(Debug)]
pub(super) struct Owner<L, D> {
    pub(super) outbox: Vec<Action<L, D>>,
    /// Deliveries in the outbox, and their bytes.
    pub(super) deliveries: usize,
    pub(super) bytes: usize,
    /// Counts how often the outbox was taken.
    pub(super) taken: u64,
    /// What the owner says: it can send now.
    pub(super) writable: bool,
    /// In the list of owners to be woken.
    pub(super) to_wake: bool,
    /// Consumers that were passed over because the outbox was full or the owner could not send.
    pub(super) passed_over: Vec<Key>,
    pub(super) consumers: Vec<Key>,
    pub(super) producers: Vec<Key>,
    pub(super) transactions: Vec<Key>,
    /// Queues that go with it.
    pub(super) queues: Vec<QueueId>,
    /// What it calls itself.
    pub(super) container: Option<Arc<str>>,
}

impl<L, D> Owner<L, D> {
    pub(super) fn new() -> Self {
        Self {
            outbox: Vec::new(),
            deliveries: 0,
            bytes: 0,
            taken: 0,
            writable: true,
            to_wake: false,
            passed_over: Vec::new(),
            consumers: Vec::new(),
            producers: Vec::new(),
            transactions: Vec::new(),
            queues: Vec::new(),
            container: None,
        }
    }

    /// Whether its outbox may take another delivery.
    pub(super) fn is_open(&self, limits: &Limits) -> bool {
        self.writable && self.deliveries < limits.outbox_messages && self.bytes < limits.outbox_bytes
    }
}

/// Where a consumer stands. In its queue's turn only with credit, and in one list at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In no list: it has no credit.
    Out,
    /// In its queue's turn.
    InTurn,
    /// Among those its owner could not take anything for.
    PassedOver,
}

/// A link that takes messages from one queue.
#[derive(Debug)]
pub(super) struct Consumer<L> {
    pub(super) owner: OwnerId,
    pub(super) link: L,
    pub(super) queue: u32,
    pub(super) credit: u32,
    /// Deliveries in the outbox, if it is still the outbox numbered `boxed_at`.
    boxed: u32,
    boxed_at: u64,
    pub(super) settled: bool,
    /// It only looks.
    pub(super) browse: bool,
    /// It has a walker in its queue.
    pub(super) walks: bool,
    pub(super) selector: Option<Box<Selector>>,
    pub(super) drain: bool,
    /// Number of the outbox in which it was last told that it is drained.
    pub(super) drained_at: Option<u64>,
    pub(super) place: Place,
    /// Messages out to it, in the order of delivery.
    pub(super) first: u32,
    pub(super) last: u32,
}

impl<L> Consumer<L> {
    pub(super) fn new(owner: OwnerId, link: L, queue: u32) -> Self {
        Self {
            owner,
            link,
            queue,
            credit: 0,
            boxed: 0,
            boxed_at: 0,
            settled: false,
            browse: false,
            walks: false,
            selector: None,
            drain: false,
            drained_at: None,
            place: Place::Out,
            first: NONE,
            last: NONE,
        }
    }

    /// Counts a delivery into the outbox numbered `taken`.
    pub(super) fn put_in_box(&mut self, taken: u64) {
        self.boxed = self.boxed_in(taken) + 1;
        self.boxed_at = taken;
        self.credit -= 1;
    }

    /// Deliveries that are still in the outbox numbered `taken`.
    pub(super) fn boxed_in(&self, taken: u64) -> u32 {
        if self.boxed_at == taken { self.boxed } else { 0 }
    }
}

/// A link that brings messages.
#[derive(Debug)]
pub(super) struct Producer<L> {
    pub(super) owner: OwnerId,
    pub(super) link: L,
    /// The queue it is bound to; for an anonymous one the queue of its latest message.
    pub(super) queue: Option<QueueId>,
    pub(super) anonymous: bool,
    /// Messages it may still send.
    pub(super) credit: u32,
    /// What it was last given.
    pub(super) window: u32,
    /// Running mean of its message sizes.
    pub(super) mean_bytes: u64,
    /// Already asked for credit: in a list of those to be given some, or of those waiting for room, or
    /// `behind`.
    pub(super) asked: bool,
    /// The queue in whose list of those waiting for room it was put last.
    pub(super) held_by: Option<u32>,
    /// Messages that were not answered yet.
    pub(super) unanswered: u32,
    /// It asked, and gets no credit before some of these are answered.
    pub(super) behind: bool,
}

/// Credit of a producer that has not sent anything, so that its message size is not known.
pub(super) const FIRST_CREDIT: u32 = 32;
/// What its first messages are thought to take.
const FIRST_BYTES: u64 = 64 << 10;

impl<L> Producer<L> {
    pub(super) fn new(owner: OwnerId, link: L, queue: Option<QueueId>) -> Self {
        Self {
            owner,
            link,
            queue,
            anonymous: queue.is_none(),
            credit: 0,
            window: 0,
            mean_bytes: 0,
            asked: false,
            held_by: None,
            unanswered: 0,
            behind: false,
        }
    }

    /// Counts a message against the credit and says whether it is time for more.
    pub(super) fn sent(&mut self, bytes: u64) -> bool {
        self.mean_bytes = if self.mean_bytes == 0 {
            bytes
        } else {
            (self.mean_bytes * 7 + bytes) / 8
        };
        self.left(self.credit.saturating_sub(1))
    }

    /// What it may still send takes, as far as its latest messages tell.
    pub(super) fn promised_bytes(&self) -> u64 {
        self.mean_bytes.saturating_mul(u64::from(self.credit))
    }

    /// Takes note of the credit that is left and says whether it is time for more.
    pub(super) fn left(&mut self, credit: u32) -> bool {
        self.credit = self.credit.min(credit);
        self.credit <= self.window / 2
    }

    /// The window that suits its messages and takes no more than `share` bytes, if that is one message at
    /// least.
    pub(super) fn fitting_window(&self, limits: &Limits, share: u64) -> u32 {
        let bytes = limits.producer_credit_bytes.min(share);
        let messages = limits.producer_credit.min(limits.producer_unsettled);
        let (size, messages) = match self.mean_bytes {
            0 => (FIRST_BYTES, messages.min(FIRST_CREDIT)),
            mean => (mean, messages),
        };
        let by_bytes = u32::try_from(bytes / size).unwrap_or(u32::MAX);
        by_bytes.clamp(1, messages.max(1))
    }
}
