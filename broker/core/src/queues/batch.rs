//! Records on their way to the store, and who waits for them.
//!
//! Positions are counted here, in step with the store's own sequence numbers: batches are handed over in
//! order, and become durable in order. Invariant: a waiter is told only after its position is durable.

use std::collections::VecDeque;
use std::sync::Arc;

use super::record::Record;
use super::types::{OwnerId, Positions, ProducerId, Settlement};

/// Stored bytes of a record beside its payload, roughly; for limits and compaction, not for layout.
pub(super) const RECORD_OVERHEAD: u64 = 32;

/// Someone to be told when a position is durable.
#[derive(Clone, Debug)]
pub(super) struct Waiter<L, D> {
    pub(super) owner: OwnerId,
    pub(super) link: L,
    pub(super) stored: Stored<D>,
}

/// What somebody waits for, with the peer's name for it.
#[derive(Clone, Debug)]
pub(super) enum Stored<D> {
    /// A message of this producer.
    Message(ProducerId, D),
    /// A consumer's settlement.
    Settlement(Settlement, D),
    /// A transaction.
    Transaction(D),
    /// The first copy of a message for this queue, which a transaction was rolled back for.
    FirstCopy(Arc<str>, D),
    /// Whatever came before.
    Everything,
}

#[derive(Debug)]
struct InFlight<L, D> {
    last: u64,
    bytes: u64,
    waiters: Vec<Waiter<L, D>>,
}

/// The batch being filled and those the store has.
#[derive(Debug)]
pub(super) struct Batches<L, D> {
    /// Position of the first record of the open batch.
    first: u64,
    records: Vec<Record>,
    /// Messages to be recorded as settled with this batch.
    settled: Vec<u64>,
    /// Failed deliveries to be recorded with this batch.
    attempts: Vec<(u64, u32)>,
    /// Deliveries that count as failed if the broker ends before they are settled. They make no batch of
    /// their own: they go with the next one, so that they cost no sync.
    begun: Vec<(u64, u32)>,
    waiters: Vec<Waiter<L, D>>,
    bytes: u64,
    in_flight: VecDeque<InFlight<L, D>>,
    durable: u64,
    pending_bytes: u64,
    spare: Vec<Vec<Waiter<L, D>>>,
}

/// Deliveries noted before they make a batch of their own after all.
const BEGUN_MAX: usize = 10_000;

/// Emptied waiter lists kept for the next batches.
const SPARE_LISTS: usize = 64;

impl<L: Copy, D: Copy> Batches<L, D> {
    /// `next` is the position the store will give to the next record; everything before is durable.
    pub(super) fn new(next: u64) -> Self {
        Self {
            first: next,
            records: Vec::new(),
            settled: Vec::new(),
            attempts: Vec::new(),
            begun: Vec::new(),
            waiters: Vec::new(),
            bytes: 0,
            in_flight: VecDeque::new(),
            durable: next.saturating_sub(1),
            pending_bytes: 0,
            spare: Vec::new(),
        }
    }

    /// Position of the record pushed next.
    pub(super) fn next_position(&self) -> u64 {
        self.first + self.records.len() as u64
    }

    /// Position of the last record handed over.
    pub(super) fn last_position(&self) -> u64 {
        self.first - 1
    }

    pub(super) fn push(&mut self, record: Record, bytes: u64) -> u64 {
        let position = self.next_position();
        self.records.push(record);
        self.bytes += bytes + RECORD_OVERHEAD;
        position
    }

    pub(super) fn settle(&mut self, id: u64) {
        self.settled.push(id);
        self.bytes += 8;
    }

    pub(super) fn attempt(&mut self, id: u64, count: u32) {
        self.attempts.push((id, count));
        self.bytes += 12;
    }

    /// Notes that the delivery of a message began; `count` is what it will count if it fails.
    pub(super) fn begin(&mut self, id: u64, count: u32) {
        self.begun.push((id, count));
        if self.begun.len() >= BEGUN_MAX {
            self.bytes += 12 * self.begun.len() as u64;
            self.attempts.append(&mut self.begun);
        }
    }

    /// Tells `waiter` once the open batch is durable.
    pub(super) fn wait(&mut self, waiter: Waiter<L, D>) {
        self.waiters.push(waiter);
    }

    /// Tells `waiter` once everything recorded so far is durable. Gives it back if it already is.
    pub(super) fn wait_for_all(&mut self, waiter: Waiter<L, D>) -> Option<Waiter<L, D>> {
        if !self.is_open_empty() {
            self.waiters.push(waiter);
        } else if let Some(last) = self.in_flight.back_mut() {
            last.waiters.push(waiter);
        } else {
            return Some(waiter);
        }
        None
    }

    fn is_open_empty(&self) -> bool {
        self.records.is_empty() && self.settled.is_empty() && self.attempts.is_empty()
    }

    /// Shows the open batch to `encode`, record by record, and counts it as handed over.
    pub(super) fn close(&mut self, mut encode: impl FnMut(&Record)) -> Option<Positions> {
        if self.is_open_empty() {
            return None;
        }
        if !self.settled.is_empty() {
            let ids = std::mem::take(&mut self.settled);
            self.records.push(Record::Settled { ids });
        }
        self.bytes += 12 * self.begun.len() as u64;
        self.attempts.append(&mut self.begun);
        if !self.attempts.is_empty() {
            let counts = std::mem::take(&mut self.attempts);
            self.records.push(Record::Attempts { counts });
        }
        self.records.iter().for_each(&mut encode);
        let positions = Positions {
            first: self.first,
            last: self.next_position() - 1,
        };
        self.first = self.next_position();
        self.records.clear();
        let fresh = self.spare.pop().unwrap_or_default();
        self.in_flight.push_back(InFlight {
            last: positions.last,
            bytes: self.bytes,
            waiters: std::mem::replace(&mut self.waiters, fresh),
        });
        self.pending_bytes += std::mem::take(&mut self.bytes);
        Some(positions)
    }

    /// Takes out one batch that is durable up to `upto`; the list of its waiters goes back, empty, with
    /// [`recycle`](Self::recycle).
    pub(super) fn pop_durable(&mut self, upto: u64) -> Option<Vec<Waiter<L, D>>> {
        if self.in_flight.front()?.last > upto {
            return None;
        }
        let done = self.in_flight.pop_front()?;
        self.durable = done.last;
        self.pending_bytes -= done.bytes;
        Some(done.waiters)
    }

    pub(super) fn recycle(&mut self, waiters: Vec<Waiter<L, D>>) {
        if self.spare.len() < SPARE_LISTS {
            self.spare.push(waiters);
        }
    }

    /// Bytes in the open batch.
    pub(super) fn open_bytes(&self) -> u64 {
        self.bytes
    }

    /// The last durable position.
    pub(super) fn durable(&self) -> u64 {
        self.durable
    }

    /// Bytes handed over and not yet durable, and those in the open batch.
    pub(super) fn pending_bytes(&self) -> u64 {
        self.pending_bytes + self.bytes
    }
}
