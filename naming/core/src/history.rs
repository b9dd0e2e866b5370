//! The last changes, for watches that resume.
//!
//! Invariant: one `ChangeSet` for each revision after `oldest`, without gaps, those that touched no name
//! included. It is not part of a snapshot: after a restore, the snapshot's revision is the oldest to resume after.

use std::sync::Arc;

use daymark_naming_proto::{Change, ChangeKind, ChangeSet, NamingError, Revision};
use imbl::Vector;

use crate::limits::{Limits, attribute_bytes, object_bytes};

/// What a change costs beside its texts.
const CHANGE_BYTES: u64 = 64;

/// Change sets by revision. A clone is O(1).
#[derive(Clone)]
pub(crate) struct History {
    /// The revision before the first one kept.
    oldest: Revision,
    sets: Vector<Arc<ChangeSet>>,
    bytes: u64,
}

impl History {
    /// An empty history that goes on after `oldest`.
    pub(crate) fn after(oldest: Revision) -> Self {
        Self {
            oldest,
            sets: Vector::new(),
            bytes: 0,
        }
    }

    pub(crate) const fn oldest(&self) -> Revision {
        self.oldest
    }

    pub(crate) fn last(&self) -> Option<&Arc<ChangeSet>> {
        self.sets.last()
    }

    /// Appends the changes of the next revision.
    pub(crate) fn push(&mut self, set: ChangeSet, limits: &Limits) {
        self.bytes += set_bytes(&set);
        self.sets.push_back(Arc::new(set));
        self.shrink(limits);
    }

    /// Forgets the oldest changes beyond the limits, but never the last one.
    pub(crate) fn shrink(&mut self, limits: &Limits) {
        let is_over = |history: &Self| {
            history.sets.len() as u64 > limits.changes_kept || history.bytes > limits.change_bytes_kept
        };
        while self.sets.len() > 1 && is_over(self) {
            if let Some(forgotten) = self.sets.pop_front() {
                self.bytes -= set_bytes(&forgotten);
                self.oldest = forgotten.revision;
            }
        }
    }

    /// The changes after `from`, in order.
    pub(crate) fn changes_after(
        &self,
        from: Revision,
        newest: Revision,
    ) -> Result<impl Iterator<Item = Arc<ChangeSet>> + use<>, NamingError> {
        if from < self.oldest {
            return Err(NamingError::Compacted {
                from,
                oldest: self.oldest,
            });
        }
        if from > newest {
            return Err(NamingError::Lagging {
                have: newest,
                want: from,
            });
        }
        let skipped = usize::try_from(from.0 - self.oldest.0).unwrap_or(usize::MAX);
        let sets = self.sets.clone();
        Ok((skipped..sets.len()).filter_map(move |at| sets.get(at).cloned()))
    }
}

fn set_bytes(set: &ChangeSet) -> u64 {
    CHANGE_BYTES + set.changes.iter().map(change_bytes).sum::<u64>()
}

fn change_bytes(change: &Change) -> u64 {
    let bytes = match &change.kind {
        ChangeKind::Bound { binding } | ChangeKind::Rebound { binding } => {
            object_bytes(&binding.object) + attribute_bytes(&binding.attributes)
        }
        ChangeKind::Unbound | ChangeKind::Withheld { .. } => 0,
    };
    CHANGE_BYTES + change.name.as_str().len() as u64 + bytes
}
