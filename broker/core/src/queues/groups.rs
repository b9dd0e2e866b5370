//! Messages with one body: what one publication became in several subscriptions.
//!
//! They share the bytes in memory and one record in the store. Invariant: the record is needed as long as one
//! of them lives, and counted once.

use super::Queues;
use super::arena::NONE;

/// Messages with consecutive numbers that share a body and a record.
#[derive(Debug)]
pub(super) struct Group {
    /// The number of the first.
    pub(super) first: u64,
    /// Where each is, or [`NONE`] if it left.
    pub(super) members: Vec<u32>,
    alive: usize,
}

impl Group {
    pub(super) fn new(first: u64) -> Self {
        Self {
            first,
            members: Vec::new(),
            alive: 0,
        }
    }

    /// Adds the member with this number; those left out in between do not exist.
    pub(super) fn add(&mut self, id: u64, index: u32) {
        let Some(offset) = id.checked_sub(self.first).and_then(|at| usize::try_from(at).ok()) else {
            return;
        };
        if self.members.len() <= offset {
            self.members.resize(offset + 1, NONE);
        }
        self.members[offset] = index;
        self.alive += 1;
    }

    /// Those that live.
    pub(super) fn indices(&self) -> impl Iterator<Item = u32> {
        self.members.iter().copied().filter(|&index| index != NONE)
    }
}

impl<L: Copy, D: Copy> Queues<L, D> {
    /// The message is a member no more. Whether nobody needs its body now, as far as the group goes.
    pub(super) fn leave_group(&mut self, group: u32, id: u64) -> bool {
        let Some(found) = self.groups.at_mut(group) else {
            return true;
        };
        let offset = id
            .checked_sub(found.first)
            .and_then(|at| usize::try_from(at).ok());
        if let Some(member) = offset.and_then(|offset| found.members.get_mut(offset))
            && *member != NONE
        {
            *member = NONE;
            found.alive -= 1;
        }
        if found.alive > 0 {
            return false;
        }
        self.groups.remove(group);
        true
    }
}
