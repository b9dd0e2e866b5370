//! Operation ids already answered, so that a repeated write returns its first answer.
//!
//! Invariant: at most as many as the limit says, the newest, none older than the limit says; only writes that
//! succeeded are among them. The time is that of the commands, so every replica forgets the same ones.

use std::sync::Arc;

use daymark_naming_proto::{OpId, Written};
use imbl::{OrdMap, Vector};

use crate::limits::Limits;

/// The answer to a write, and the time of its command.
#[derive(Clone)]
pub(crate) struct Answered {
    pub(crate) written: Arc<Written>,
    pub(crate) at_unix_ms: u64,
}

/// The window of remembered answers. A clone is O(1).
#[derive(Clone, Default)]
pub(crate) struct Operations {
    answers: OrdMap<OpId, Answered>,
    /// Oldest first.
    order: Vector<OpId>,
    /// The latest time of a command that was remembered: the clock may step back when the leader changes.
    now_unix_ms: u64,
}

impl Operations {
    /// A window that is empty and has seen this time.
    pub(crate) fn at(now_unix_ms: u64) -> Self {
        Self {
            now_unix_ms,
            ..Self::default()
        }
    }

    pub(crate) const fn now_unix_ms(&self) -> u64 {
        self.now_unix_ms
    }

    pub(crate) fn answer(&self, op: OpId) -> Option<&Arc<Written>> {
        self.answers.get(&op).map(|answer| &answer.written)
    }

    /// Remembers an answer and forgets the oldest ones. False if the id is known already.
    pub(crate) fn remember(&mut self, op: OpId, answer: Answered, limits: &Limits) -> bool {
        self.now_unix_ms = self.now_unix_ms.max(answer.at_unix_ms);
        if self.answers.insert(op, answer).is_some() {
            return false;
        }
        self.order.push_back(op);
        self.shrink(limits);
        true
    }

    pub(crate) fn shrink(&mut self, limits: &Limits) {
        while let Some(oldest) = self.order.front() {
            let is_too_many = self.order.len() as u64 > limits.operations_kept;
            if !is_too_many && !self.is_too_old(oldest, limits) {
                return;
            }
            if let Some(oldest) = self.order.pop_front() {
                self.answers.remove(&oldest);
            }
        }
    }

    fn is_too_old(&self, op: &OpId, limits: &Limits) -> bool {
        let at_unix_ms = self.answers.get(op).map_or(0, |answer| answer.at_unix_ms);
        self.now_unix_ms.saturating_sub(at_unix_ms) > limits.operations_kept_ms
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    /// Up to `count` answers from the `from`th on, oldest first.
    pub(crate) fn page(&self, from: usize, count: usize) -> Vec<(OpId, Answered)> {
        let ids = (from..self.order.len())
            .take(count)
            .filter_map(|at| self.order.get(at));
        ids.filter_map(|op| Some((*op, self.answers.get(op)?.clone())))
            .collect()
    }
}
