//! Looking at messages without touching them.

use bytes::Bytes;

use super::Queues;
use super::arena::Arena;
use super::queue::{Level, Message};
use super::types::{ConsumerId, MessageRef, QueueId};
use crate::selector::Selector;

/// A message that waits in a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peeked {
    /// Its number: the order of arrival in all queues.
    pub number: u64,
    /// All its sections, as they came in.
    pub payload: Bytes,
    /// How often a delivery of it failed.
    pub delivery_count: u32,
}

/// Messages looked at in one call: what comes behind them is not found.
const LOOKS: usize = 100_000;

impl<L: Copy, D: Copy> Queues<L, D> {
    /// The first `limit` messages that wait for a consumer, in the order in which they would be delivered, of
    /// those that a selector chooses among the first 100,000. Messages that are out for delivery, delayed or
    /// not yet durable are not shown.
    #[must_use]
    pub fn peek(&self, queue: QueueId, selector: Option<&Selector>, limit: usize) -> Vec<Peeked> {
        let Some(found) = self.living(queue) else {
            return Vec::new();
        };
        let durable = self.batches.durable();
        let in_order = found.levels.iter().rev();
        in_order
            .flat_map(|level| waiting(level, &self.messages))
            .take(LOOKS)
            .filter(|message| message.is_visible(durable) && self.chooses(selector, message))
            .take(limit)
            .map(|message| Peeked {
                number: message.id,
                payload: message.payload.clone(),
                delivery_count: message.delivery_count(),
            })
            .collect()
    }

    fn chooses(&self, selector: Option<&Selector>, message: &Message) -> bool {
        selector.is_none_or(|selector| {
            let mut chosen = false;
            (self.read)(&message.payload, message.delivery_count(), &mut |properties| {
                chosen = selector.matches(properties);
            });
            chosen
        })
    }

    /// The sections of a message that is out to this consumer.
    #[must_use]
    pub fn payload(&self, consumer: ConsumerId, message: MessageRef) -> Option<&Bytes> {
        self.is_out_to(consumer, message).ok()?;
        self.messages.fetch(message.0).map(|message| &message.payload)
    }
}

/// The messages of one priority: those that came back take their old places in the line.
fn waiting<'a>(level: &'a Level, messages: &'a Arena<Message>) -> impl Iterator<Item = &'a Message> {
    let mut line =
        std::iter::successors(messages.at(level.first), |message| messages.at(message.next)).peekable();
    let mut returned = level
        .returned
        .values()
        .filter_map(|index| messages.at(*index))
        .peekable();
    std::iter::from_fn(move || match (line.peek(), returned.peek()) {
        (Some(fresh), Some(back)) if back.id < fresh.id => returned.next(),
        (Some(_), _) => line.next(),
        (None, _) => returned.next(),
    })
}
