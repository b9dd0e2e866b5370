//! What goes into the queues and what comes out.

use std::sync::Arc;

use bytes::Bytes;
use daymark_naming_proto::Name;

use super::arena::Key;
use super::duplicates::DuplicateId;
use crate::selector::Selector;

/// Bounds of all queues together and of each link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Queues.
    pub max_queues: usize,
    /// Duplicate ids each queue remembers. If those of all queues would take more than a quarter of `max_bytes`
    /// or of `max_stored_bytes`, the queues with most of them remember fewer.
    pub duplicate_window: usize,
    /// Memory of all messages, [`MESSAGE_OVERHEAD`] for each included, and of duplicate ids; above, producers get no more credit. What
    /// all producers together have credit for takes no more than half as much again, as far as their latest
    /// messages tell and unless one message of each takes more.
    /// Beyond twice as many, messages are refused: that takes a producer that suddenly sends far larger
    /// messages than before.
    pub max_bytes: u64,
    /// Bytes of the records that are needed; above, producers get no more credit. Default: no bound.
    pub max_stored_bytes: u64,
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
    /// Transactions one owner may have open.
    pub max_transactions: usize,
    /// Bytes of messages, and [`MESSAGE_OVERHEAD`] for each message and settlement, in one transaction.
    pub transaction_bytes: u64,
    /// Milliseconds after which an open transaction is rolled back.
    pub transaction_ms: u64,
}

/// What a message takes in memory beside its bytes, roughly.
pub const MESSAGE_OVERHEAD: u64 = 96;

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_queues: 10_000,
            duplicate_window: 20_000,
            max_bytes: 1 << 30,
            max_stored_bytes: u64::MAX,
            max_pending_bytes: 32 << 20,
            producer_credit: 1_000,
            producer_unsettled: 10_000,
            producer_credit_bytes: 4 << 20,
            outbox_messages: 1_024,
            outbox_bytes: 1 << 20,
            max_transactions: 1_000,
            transaction_bytes: 32 << 20,
            transaction_ms: 300_000,
        }
    }
}

/// Bounds of one queue.
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

/// What happens to a message for a queue that has reached a bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// It is refused with [`Refused::QueueFull`].
    #[default]
    Reject,
    /// The oldest message that waits with the lowest priority makes room. If all are out for delivery, the
    /// new one is refused.
    DropOldest,
    /// It is taken, and producers get no more credit until there is room. A full subscription holds up all
    /// producers of its topic.
    Block,
}

/// How long a queue lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lifetime {
    /// Until it is deleted.
    #[default]
    Permanent,
    /// As long as this owner, which alone takes messages from it. Nothing of it is stored: its messages do not
    /// outlive a crash.
    Owner(OwnerId),
    /// Until it is empty and its last link is gone.
    Unused,
}

/// What an operator decides about a queue, or about the subscriptions of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueSettings {
    /// How much it holds.
    pub limits: QueueLimits,
    /// What happens then. Default: [`WhenFull::Reject`].
    pub when_full: WhenFull,
    /// Deliveries of one message that may fail; then it goes to `dead_letter`. Default 10; 0: no bound.
    pub max_delivery_attempts: u32,
    /// The queue that gets what was rejected or failed too often, made when it is needed. Default `DLQ`;
    /// `None`: dropped.
    pub dead_letter: Option<Arc<str>>,
    /// The queue that gets what expired, made when it is needed. Default `None`: dropped.
    pub expiry: Option<Arc<str>>,
    /// How long it lives. Subscriptions have lifetimes of their own.
    pub lifetime: Lifetime,
    /// The name in the directory that an administrator gave it. Default `None`. Subscriptions have none.
    pub export: Option<Name>,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            limits: QueueLimits::default(),
            when_full: WhenFull::default(),
            max_delivery_attempts: 10,
            dead_letter: Some("DLQ".into()),
            expiry: None,
            lifetime: Lifetime::default(),
            export: None,
        }
    }
}

impl QueueSettings {
    /// What they mean for a subscription to the topic that has them.
    pub(super) fn of_subscription(self) -> Self {
        Self { export: None, ..self }
    }
}

/// A queue, a topic or a subscription: its number in the records, which may be used again, and its
/// generation. A stale id never means another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(pub(super) u32, pub(super) u32);

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
    /// When it is of no more use.
    pub expires_at: Option<u64>,
    /// Before that it is shown to nobody.
    pub deliver_at: Option<u64>,
}

impl Arrival {
    /// A message in memory with the usual priority and nothing special.
    #[must_use]
    pub fn new(payload: Bytes) -> Self {
        Self {
            payload,
            durable: false,
            priority: 4,
            duplicate_id: None,
            expires_at: None,
            deliver_at: None,
        }
    }
}

/// What a consumer wants.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConsumerOptions {
    /// Its deliveries are sent settled, and nobody else will settle them.
    pub settled: bool,
    /// It gets copies, each once, and takes nothing away. What it settles is of no account.
    pub browse: bool,
    /// It gets only what matches.
    pub selector: Option<Selector>,
}

/// What a consumer did with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Done: the message is removed.
    Accepted,
    /// The message is unusable: it goes to the dead letters.
    Rejected,
    /// Not touched: it is queued again where it was.
    Released,
    /// The delivery failed: it is queued again where it was, with its delivery count raised, or goes to the
    /// dead letters if that was the last attempt.
    Failed,
    /// As released or, if `failed`, as failed; and this consumer never gets it again.
    Undeliverable {
        /// Whether the delivery count is raised.
        failed: bool,
    },
}

/// Why a message is where it is, if that is not where it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The reason.
    pub reason: Reason,
    /// The queue, or the topic of the subscription, it was in.
    pub from: Arc<str>,
    /// When that was.
    pub at: u64,
    /// How many deliveries had failed.
    pub attempts: u32,
}

/// Why a message was moved away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A consumer rejected it.
    Rejected,
    /// Too many deliveries failed.
    Attempts,
    /// Its time was over.
    Expired,
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
    /// Why it is here, if it was moved.
    pub dead_letter: Option<Arc<DeadLetter>>,
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
    /// Let a producer send this many messages from now on: more than before, or fewer. What it had sent before it
    /// heard of that is taken all the same.
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
    /// Tell a peer that its transaction is committed and will survive.
    Committed {
        /// The link it was committed on.
        link: L,
        /// The peer's name for the commit.
        delivery: D,
    },
    /// Tell a peer that its transaction was rolled back because a message in it was stored before, which will
    /// survive.
    RolledBack {
        /// The link it was to be committed on.
        link: L,
        /// The peer's name for the commit.
        delivery: D,
        /// [`Refused::DuplicateInTransaction`].
        why: Refused,
    },
    /// Tell a peer what was asked for on this link: it will survive.
    Safe {
        /// The link.
        link: L,
    },
    /// End a link: its queue was deleted.
    Ended {
        /// The link.
        link: L,
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
    /// The queue has reached a bound.
    #[error("{queue} is full")]
    QueueFull {
        /// Its name.
        queue: Arc<str>,
    },
    /// Something is used, and what was asked for needs it unused.
    #[error("{0} is in use")]
    InUse(&'static str),
    /// Something that lives as long as its owner gives messages to nobody else.
    #[error("only the connection that a temporary queue or topic was made for receives from it")]
    Foreign,
    /// There is no such subscription.
    #[error("there is no such subscription")]
    NotSubscribed,
    /// A topic or a pattern that cannot be one.
    #[error("{topic:?} is no topic: {why}")]
    InvalidTopic {
        /// What was given.
        topic: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A message of the transaction was stored before: nothing of the transaction was.
    #[error(
        "the transaction was rolled back: a message for {queue} has a duplicate id that was stored before"
    )]
    DuplicateInTransaction {
        /// Where the message would have gone.
        queue: Arc<str>,
    },
    /// Two messages of the transaction have one duplicate id: nothing of it was stored, now or before.
    #[error(
        "the transaction was rolled back: two of its own messages for {queue} have one id, so that the second repeats the first"
    )]
    RepeatedInTransaction {
        /// Where the messages would have gone.
        queue: Arc<str>,
    },
    /// The transaction was open for too long.
    #[error("the transaction was rolled back after {limit_ms} ms")]
    TransactionTimedOut {
        /// The limit.
        limit_ms: u64,
    },
    /// The transaction took more than it may.
    #[error("the transaction was rolled back: it took more than {limit} bytes")]
    TransactionTooLarge {
        /// The limit.
        limit: u64,
    },
    /// An owner has as many transactions open as it may.
    #[error("{limit} transactions are open, and no more are permitted")]
    TooManyTransactions {
        /// The limit.
        limit: usize,
    },
    /// As many queues exist as may.
    #[error("{limit} queues exist, and no more are permitted")]
    TooManyQueues {
        /// The limit.
        limit: usize,
    },
    /// As many connection factories were declared as may be.
    #[error("{limit} connection factories are declared, and no more are permitted")]
    TooManyFactories {
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
    /// Messages whose time was over.
    pub expired: u64,
    /// Messages that went to the dead letters, expired ones included.
    pub dead_lettered: u64,
    /// Messages dropped because nobody wanted them as dead letters, or to make room.
    pub dropped: u64,
    /// Messages that wait for their time, out of those in it.
    pub delayed: u64,
    /// Whether a limit of this queue keeps producers back.
    pub held: bool,
}
