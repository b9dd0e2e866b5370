//! Operation ids already answered, so that a repeated write returns its first answer.
//!
//! Invariant: at most as many as the limit says, the newest, none older than the limit says; only writes that
//! succeeded are among them. The time is that of the newest command among them, so every replica forgets the
//! same ones, and a clock that was wrong once does no lasting harm.

use std::sync::Arc;

use daymark_naming_proto::{OpId, Written};
use imbl::{OrdMap, Vector};

use crate::limits::Limits;

/// The answer to a write, and the time of its command.
pub(crate) struct Answered {
    pub(crate) written: Arc<Written>,
    pub(crate) at_unix_ms: u64,
}

/// The window of remembered answers. A clone is O(1).
#[derive(Clone, Default)]
pub(crate) struct Operations {
    answers: OrdMap<OpId, Arc<Written>>,
    /// With the times of their commands, oldest first.
    order: Vector<(OpId, u64)>,
}

impl Operations {
    pub(crate) fn answer(&self, op: OpId) -> Option<&Arc<Written>> {
        self.answers.get(&op)
    }

    /// Remembers an answer and forgets the oldest ones.
    pub(crate) fn remember(&mut self, op: OpId, answer: Answered, limits: &Limits) {
        self.push(op, answer);
        self.shrink(limits);
    }

    /// Remembers an answer and forgets none. False if the id is known already.
    pub(crate) fn push(&mut self, op: OpId, answer: Answered) -> bool {
        if self.answers.insert(op, answer.written).is_some() {
            return false;
        }
        self.order.push_back((op, answer.at_unix_ms));
        true
    }

    pub(crate) fn shrink(&mut self, limits: &Limits) {
        let now_unix_ms = self.order.back().map_or(0, |(_, at_unix_ms)| *at_unix_ms);
        while let Some(&(oldest, at_unix_ms)) = self.order.front() {
            let is_too_many = self.order.len() as u64 > limits.operations_kept;
            let age_ms = now_unix_ms.saturating_sub(at_unix_ms);
            if !is_too_many && age_ms <= limits.operations_kept_ms {
                return;
            }
            self.order.pop_front();
            self.answers.remove(&oldest);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    /// Up to `count` answers from the `from`th on, oldest first.
    pub(crate) fn page(&self, from: usize, count: usize) -> Vec<(OpId, Answered)> {
        let kept = (from..self.order.len())
            .take(count)
            .filter_map(|at| self.order.get(at));
        kept.filter_map(|&(op, at_unix_ms)| {
            let written = self.answers.get(&op)?.clone();
            Some((op, Answered { written, at_unix_ms }))
        })
        .collect()
    }
}
