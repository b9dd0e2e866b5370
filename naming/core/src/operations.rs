//! Operation ids already answered, so that a repeated write returns its first answer.
//!
//! Invariant: at most as many as the limit says, the newest; only writes that succeeded are among them.

use std::sync::Arc;

use daymark_naming_proto::{OpId, Written};
use imbl::{OrdMap, Vector};

/// The window of remembered answers. A clone is O(1).
#[derive(Clone, Default)]
pub(crate) struct Operations {
    answers: OrdMap<OpId, Arc<Written>>,
    /// Oldest first.
    order: Vector<OpId>,
}

impl Operations {
    pub(crate) fn answer(&self, op: OpId) -> Option<&Arc<Written>> {
        self.answers.get(&op)
    }

    /// Remembers an answer and forgets the oldest ones beyond `kept`. False if the id is known already.
    pub(crate) fn remember(&mut self, op: OpId, answer: Arc<Written>, kept: u64) -> bool {
        if self.answers.insert(op, answer).is_some() {
            return false;
        }
        self.order.push_back(op);
        self.shrink(kept);
        true
    }

    pub(crate) fn shrink(&mut self, kept: u64) {
        while self.order.len() as u64 > kept {
            if let Some(oldest) = self.order.pop_front() {
                self.answers.remove(&oldest);
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    /// Up to `count` answers from the `from`th on, oldest first.
    pub(crate) fn page(&self, from: usize, count: usize) -> Vec<(OpId, Arc<Written>)> {
        let ids = (from..self.order.len())
            .take(count)
            .filter_map(|at| self.order.get(at));
        ids.filter_map(|op| Some((*op, Arc::clone(self.answers.get(op)?))))
            .collect()
    }
}
