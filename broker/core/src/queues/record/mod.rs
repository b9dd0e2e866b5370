//! What the queues write into the journal. How that is written stands in `codec`.
//!
//! The body of a message is the last part of its record and is not copied on its way to the journal. A reader
//! refuses what it does not know: nothing is skipped.

mod codec;
mod decoder;
mod parts;

use std::sync::Arc;

use bytes::Bytes;

pub use decoder::Decoder;

use super::duplicates::DuplicateId;
use super::factories::Factory;
use super::topics::SubscriptionKey;
use super::types::{DeadLetter, Lifetime, QueueSettings};

/// Stands for no topic in a `Published` that was copied forward.
pub(super) const NO_TOPIC: u32 = u32::MAX;

/// One record for the journal.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// A queue exists.
    Queue {
        /// Its number in the other records.
        queue: u32,
        /// Its address.
        name: String,
        /// [`Lifetime::Unused`] or [`Lifetime::Permanent`].
        lifetime: Lifetime,
    },
    /// A message was stored, or copied forward; the latest record of an id counts.
    Message {
        /// Its number: the order of arrival.
        id: u64,
        /// The queue it is in.
        queue: u32,
        /// 0 to 9.
        priority: u8,
        /// How often a delivery of it failed.
        delivery_count: u32,
        /// The sender's id, remembered in the queue's duplicate window.
        duplicate_id: Option<DuplicateId>,
        /// What few messages have.
        extras: Option<Box<Extras>>,
        /// The message as it came in.
        payload: Bytes,
    },
    /// Messages were accepted or rejected, and are gone.
    Settled {
        /// Their numbers.
        ids: Vec<u64>,
    },
    /// Deliveries failed.
    Attempts {
        /// Number of the message and how often it failed so far.
        counts: Vec<(u64, u32)>,
    },
    /// The complete duplicate window of a queue, oldest first. It replaces what came before.
    Duplicates {
        /// The queue.
        queue: u32,
        /// The ids.
        ids: Vec<DuplicateId>,
    },
    /// A topic exists.
    Topic {
        /// Its number in the other records.
        queue: u32,
        /// Its address.
        name: String,
    },
    /// A durable subscription exists.
    Subscription {
        /// The number of its queue.
        queue: u32,
        /// What it asks for.
        subscription: Box<StoredSubscription>,
    },
    /// A queue, topic or subscription was deleted; its number may be used again.
    Deleted {
        /// The number.
        queue: u32,
    },
    /// A message was stored in several queues, or copied forward for those where it still is.
    Published {
        /// The number of the first message; the others follow it.
        first: u64,
        /// The topic it was published to.
        topic: u32,
        /// 0 to 9.
        priority: u8,
        /// The sender's id, remembered in the topic's duplicate window.
        duplicate_id: Option<DuplicateId>,
        /// What few messages have.
        extras: Option<Box<Extras>>,
        /// Where it is.
        references: Vec<Reference>,
        /// The message as it came in.
        payload: Bytes,
    },
    /// A message was moved to another queue and got a new number.
    Moved {
        /// Its number until now.
        id: u64,
        /// Its number from now on.
        new: u64,
        /// Where it is now.
        queue: u32,
        /// Why.
        why: Arc<DeadLetter>,
    },
    /// The key the duplicate ids are hashed with.
    Key {
        /// The key.
        key: u128,
    },
    /// What a queue, topic or subscription is set to from here on. Without one they have the defaults.
    Settings {
        /// Its number.
        queue: u32,
        /// All but the lifetime, which stands in other records.
        settings: Box<QueueSettings>,
    },
    /// What an administrator made of a connection factory.
    Factory {
        /// Its own name.
        name: String,
        /// As it is from here on; `None`: it was deleted.
        factory: Option<Box<Factory>>,
    },
}

/// What few messages have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// When it is of no more use.
    pub expires_at: Option<u64>,
    /// Before that it is shown to nobody.
    pub deliver_at: Option<u64>,
    /// Why it was moved here.
    pub dead_letter: Option<Arc<DeadLetter>>,
}

impl Extras {
    pub(super) fn new(
        expires_at: Option<u64>,
        deliver_at: Option<u64>,
        dead_letter: Option<Arc<DeadLetter>>,
    ) -> Option<Box<Self>> {
        let extras = Self {
            expires_at,
            deliver_at,
            dead_letter,
        };
        (extras != Self::default()).then(|| Box::new(extras))
    }
}

/// One of the messages of a [`Record::Published`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Its number, counted from the first.
    pub offset: u32,
    /// The queue it is in.
    pub queue: u32,
    /// How often a delivery of it failed.
    pub delivery_count: u32,
}

impl Reference {
    /// Its stored bytes.
    pub(super) const BYTES: u64 = 12;
}

/// A durable subscription as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSubscription {
    /// Its name.
    pub key: Option<SubscriptionKey>,
    /// Its topics.
    pub topic: String,
    /// Its selector.
    pub selector: Option<String>,
    /// The container whose messages it does not want.
    pub not_from: Option<String>,
    /// Whether several consumers may use it at a time.
    pub shared: bool,
}

/// A record that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A kind this version does not know.
    #[error("record kind {kind} is not known to this version")]
    UnknownKind {
        /// The kind.
        kind: u8,
    },
    /// Bytes are missing, left over, or out of range.
    #[error("a record of kind {kind} is malformed")]
    Malformed {
        /// The kind.
        kind: u8,
    },
    /// A message or window of a queue nobody recorded.
    #[error("queue number {queue} is used but was never recorded")]
    UnknownQueue {
        /// The number.
        queue: u32,
    },
}
