//! What goes into the queues and what comes out.

use bytes::Bytes;

use super::arena::Key;
use super::duplicates::DuplicateId;

/// Bounds of all queues together and of each link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Queues.
    pub max_queues: usize,
    /// Duplicate ids each queue remembers.
    pub duplicate_window: usize,
    /// Bytes of all messages; above, producers get no more credit. Beyond twice as many, messages are
    /// refused: that takes a producer that suddenly sends far larger messages than before.
    pub max_bytes: u64,
    /// Bytes that wait for the store; above, producers get no more credit.
    pub max_pending_bytes: u64,
    /// Messages a producer may send ahead.
    pub producer_credit: u32,
    /// Messages a producer may have out that were not answered yet, those it has credit for included. What
    /// it sends to waits for the store longer than it takes to send.
    pub producer_unsettled: u32,
    /// Bytes a producer may send ahead, judged by the size of its latest messages.
    pub producer_credit_bytes: u64,
    /// Deliveries that may wait in one owner's outbox before it is passed over.
    pub outbox_messages: usize,
    /// Bytes of deliveries that may wait in one owner's outbox before it is passed over.
    pub outbox_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_queues: 10_000,
            duplicate_window: 20_000,
            max_bytes: 1 << 30,
            max_pending_bytes: 32 << 20,
            producer_credit: 1_000,
            producer_unsettled: 10_000,
            producer_credit_bytes: 4 << 20,
            outbox_messages: 1_024,
            outbox_bytes: 1 << 20,
        }
    }
}

/// Bounds of one queue. Reaching one stops credit to its producers; it never refuses a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Messages. Default: no bound.
    pub max_messages: u64,
    /// Bytes. Default: no bound.
    pub max_bytes: u64,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self {
            max_messages: u64::MAX,
            max_bytes: u64::MAX,
        }
    }
}

/// A queue. Its number is the one in the records and never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(pub(super) u32);

/// Someone with links and an outbox: a connection. A stale id never means another owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerId(pub(super) Key);

impl OwnerId {
    /// A small number that no other living owner has.
    #[must_use]
    pub fn index(self) -> usize {
        self.0.index as usize
    }
}

/// A link that takes messages. A stale id never means another consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConsumerId(pub(super) Key);

/// A link that brings messages. A stale id never means another producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId(pub(super) Key);

/// A message out for delivery. A stale one never means another message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageRef(pub(super) Key);

impl MessageRef {
    /// As one number, to travel through a protocol engine.
    #[must_use]
    pub fn to_bits(self) -> u64 {
        u64::from(self.0.generation) << 32 | u64::from(self.0.index)
    }

    /// From the number [`to_bits`](Self::to_bits) gave; any other number refers to no message, or to one
    /// that only its own consumer can settle.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        let low = u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        let high = u32::try_from(bits >> 32).unwrap_or(u32::MAX);
        Self(Key {
            index: low,
            generation: high,
        })
    }
}

/// A message that comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// All its sections, as they came in.
    pub payload: Bytes,
    /// Whether it has to survive a crash before it is acknowledged.
    pub durable: bool,
    /// 0 to 9, 9 first; higher numbers count as 9.
    pub priority: u8,
    /// The sender's id for it, if it has one.
    pub duplicate_id: Option<DuplicateId>,
}

/// What a consumer did with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Done: the message is removed.
    Accepted,
    /// The message is unusable: it is removed.
    Rejected,
    /// Not touched: it is queued again where it was.
    Released,
    /// The delivery failed: it is queued again where it was, with its delivery count raised.
    Failed,
}

/// One delivery to a consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery<L> {
    /// The consumer's link.
    pub link: L,
    /// To settle it with.
    pub message: MessageRef,
    /// All its sections, as they came in.
    pub payload: Bytes,
    /// How often a delivery of it failed before.
    pub delivery_count: u32,
    /// Send it settled, and once it is sent settle it as accepted here.
    pub settled: bool,
}

/// What an owner has to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<L, D> {
    /// Send a message.
    Deliver(Delivery<L>),
    /// Tell a producer that its message is accepted: it is as safe as it asked for.
    Accepted {
        /// The producer's link.
        link: L,
        /// Its name for the delivery.
        delivery: D,
    },
    /// Tell a consumer that its settlement took effect and will survive.
    Confirmed {
        /// The consumer's link.
        link: L,
        /// Its name for the delivery.
        delivery: D,
        /// What took effect.
        settlement: Settlement,
    },
    /// Let a producer send this many messages from now on.
    Credit {
        /// The producer's link.
        link: L,
        /// Messages, all told.
        credit: u32,
    },
    /// Tell a consumer that all there was has been sent: its remaining credit is void.
    Drained {
        /// The consumer's link.
        link: L,
        /// The consumer.
        consumer: ConsumerId,
    },
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The owner, link or queue is gone.
    #[error("{0} is gone")]
    Gone(&'static str),
    /// A queue without a name was asked for.
    #[error("a queue needs a name")]
    Nameless,
    /// As many queues exist as may.
    #[error("{limit} queues exist, and no more are permitted")]
    TooManyQueues {
        /// The limit.
        limit: usize,
    },
    /// The messages take more than twice the permitted bytes.
    #[error("all messages together take {bytes} bytes, far above the limit of {limit}")]
    OutOfMemory {
        /// Bytes in use.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
}

/// The journal positions of one batch, both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Positions {
    /// Of the first record.
    pub first: u64,
    /// Of the last record.
    pub last: u64,
}

/// Counts of one queue; totals since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// Messages in it, those out for delivery included.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Messages out for delivery.
    pub unsettled: u64,
    /// Consumers.
    pub consumers: u64,
    /// Producers bound to it; anonymous ones are not counted.
    pub producers: u64,
    /// Messages that came in and were kept.
    pub received: u64,
    /// Messages whose duplicate id was known.
    pub duplicates: u64,
    /// Messages accepted by consumers.
    pub accepted: u64,
    /// Messages rejected by consumers.
    pub rejected: u64,
    /// Messages queued again.
    pub requeued: u64,
    /// Whether a limit of this queue keeps producers back.
    pub held: bool,
}
