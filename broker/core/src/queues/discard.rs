//! Messages nobody can use where they are: to another queue with the reason, or dropped.
//!
//! Invariant: a message that was moved once is not moved back to where it came from by the same rule: what
//! the dead letter queue itself discards is dropped.

use std::sync::Arc;

use super::Queues;
use super::types::{DeadLetter, QueueSettings, Reason};

impl<L: Copy, D: Copy> Queues<L, D> {
    /// Discards a message that is in no list.
    pub(super) fn discard(&mut self, index: u32, reason: Reason) {
        let Some(message) = self.messages.at(index) else {
            return;
        };
        let number = message.queue;
        let attempts = message.delivery_count();
        let queue = &mut self.queues[number as usize];
        let address = match reason {
            Reason::Expired => {
                queue.counts.expired += 1;
                queue.settings.expiry.clone()
            }
            Reason::Rejected | Reason::Attempts => queue.settings.dead_letter.clone(),
        };
        let from = Arc::clone(queue.origin());
        let target = address
            .map(|address| self.destination(&address))
            .filter(|&target| target != number);
        if let Some(target) = target {
            self.queues[number as usize].counts.dead_lettered += 1;
            let why = DeadLetter {
                reason,
                from,
                at: self.now,
                attempts,
            };
            self.move_to(index, target, why);
        } else {
            self.queues[number as usize].counts.dropped += 1;
            self.remove_message(index);
        }
        if self.queues[number as usize].counts.messages == 0 {
            self.end_if_unused(number);
        }
    }

    /// The queue of this name, made if there is none: nothing is lost because queues are scarce.
    fn destination(&mut self, name: &str) -> u32 {
        match self.find(name) {
            Some(found) => found.0,
            None => self.make_queue(name, QueueSettings::default()).0,
        }
    }
}
