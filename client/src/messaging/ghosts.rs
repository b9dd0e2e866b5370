//! Settlements that a lost connection left without an answer.
//!
//! It decides that a message the program has settled is not shown to it a second time: when it is delivered
//! again, the same outcome is given silently. Invariant: it keeps a limited number, the newest.

use std::collections::BTreeMap;

use super::destination::Destination;
use super::error::SettleError;
use super::inbound::Settling;

/// The most settlements remembered.
const GHOSTS_MAX: usize = 8_192;

/// By address and duplicate id, so that any consumer of the connection recognises them.
#[derive(Default)]
pub(super) struct Ghosts {
    entries: BTreeMap<Key, Ghost>,
    /// By age.
    order: BTreeMap<u64, Key>,
    next: u64,
}

type Key = (String, Box<str>);

struct Ghost {
    settling: Settling,
    consumer: u64,
    number: u64,
}

impl Ghosts {
    /// Remembers a settlement of this consumer. The oldest is forgotten where there are too many.
    pub(super) fn keep(
        &mut self,
        address: &Destination,
        duplicate_id: Box<str>,
        consumer: u64,
        settling: Settling,
    ) {
        let key = (address.address(), duplicate_id);
        let number = self.next;
        self.next += 1;
        let ghost = Ghost {
            settling,
            consumer,
            number,
        };
        if let Some(mut earlier) = self.entries.insert(key.clone(), ghost) {
            self.order.remove(&earlier.number);
            earlier.settling.answer(Err(SettleError::OutcomeUnknown));
        }
        self.order.insert(number, key);
        if self.order.len() > GHOSTS_MAX {
            let oldest = self.order.pop_first();
            if let Some(mut ghost) = oldest.and_then(|(_, key)| self.entries.remove(&key)) {
                ghost.settling.answer(Err(SettleError::OutcomeUnknown));
            }
        }
    }

    /// The settlement to give a message that was delivered again.
    pub(super) fn recognise(&mut self, address: &Destination, duplicate_id: &str) -> Option<Settling> {
        if self.entries.is_empty() {
            return None;
        }
        let key = (address.address(), Box::from(duplicate_id));
        let ghost = self.entries.remove(&key)?;
        self.order.remove(&ghost.number);
        Some(ghost.settling)
    }

    /// The broker delivers nothing of this consumer's past again: who waits gets an answer. The settlements
    /// stay remembered, in case a message comes late.
    pub(super) fn answer(&mut self, consumer: u64, answer: &impl Fn() -> SettleError) {
        for ghost in self
            .entries
            .values_mut()
            .filter(|ghost| ghost.consumer == consumer)
        {
            ghost.settling.answer(Err(answer()));
        }
    }

    /// The connection is over.
    pub(super) fn end(self) {
        for (_, mut ghost) in self.entries {
            ghost.settling.answer(Err(SettleError::OutcomeUnknown));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use daymark_amqp::Outcome;
    use tokio::sync::oneshot;

    fn q() -> Destination {
        Destination::queue("q")
    }

    fn settling(reply: Option<super::super::inbound::SettleReply>) -> Settling {
        Settling {
            duplicate_id: None,
            outcome: Outcome::Accepted,
            reply,
        }
    }

    #[test]
    fn a_settled_message_is_recognised_once_at_its_address() {
        let mut ghosts = Ghosts::default();
        ghosts.keep(&q(), "1".into(), 7, settling(None));
        assert!(ghosts.recognise(&Destination::queue("other"), "1").is_none());
        assert!(ghosts.recognise(&q(), "1").is_some());
        assert!(ghosts.recognise(&q(), "1").is_none());
        assert!(ghosts.order.is_empty());
    }

    #[test]
    fn an_answered_settlement_is_still_recognised_when_its_message_comes_late() {
        let mut ghosts = Ghosts::default();
        let (reply, mut answer) = oneshot::channel();
        ghosts.keep(&q(), "1".into(), 7, settling(Some(reply)));
        ghosts.answer(8, &|| SettleError::NotRedelivered);
        assert!(answer.try_recv().is_err());
        ghosts.answer(7, &|| SettleError::NotRedelivered);
        assert!(matches!(answer.try_recv(), Ok(Err(SettleError::NotRedelivered))));
        assert!(ghosts.recognise(&q(), "1").is_some());
    }

    #[test]
    fn the_oldest_is_forgotten_and_told_so() {
        let mut ghosts = Ghosts::default();
        let (reply, mut answer) = oneshot::channel();
        ghosts.keep(&q(), "first".into(), 7, settling(Some(reply)));
        for number in 0..GHOSTS_MAX {
            ghosts.keep(&q(), number.to_string().into(), 7, settling(None));
        }
        assert!(matches!(answer.try_recv(), Ok(Err(SettleError::OutcomeUnknown))));
        assert_eq!(ghosts.entries.len(), GHOSTS_MAX);
    }
}
