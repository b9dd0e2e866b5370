//! What the queues write into the journal, and its stored form.
//!
//! Numbers are little-endian. A message's body is the last part of its record and is not copied here.
//! A reader refuses what it does not know: nothing is skipped.

use std::sync::Arc;

use bytes::Bytes;

use super::duplicates::DuplicateId;
use super::topics::SubscriptionKey;
use super::types::{DeadLetter, Lifetime, Reason};

const QUEUE: u8 = 1;
const MESSAGE: u8 = 2;
const SETTLED: u8 = 3;
const ATTEMPTS: u8 = 4;
const DUPLICATES: u8 = 5;
const TOPIC: u8 = 6;
const SUBSCRIPTION: u8 = 7;
const DELETED: u8 = 8;
const PUBLISHED: u8 = 9;
const MOVED: u8 = 10;
const KEY: u8 = 11;
/// A queue with [`Lifetime::Unused`].
const PASSING_QUEUE: u8 = 12;

/// Stands for no topic in a `Published` that was copied forward.
pub(super) const NO_TOPIC: u32 = u32::MAX;

const HAS_DUPLICATE_ID: u8 = 0x80;
const EXPIRES: u8 = 0x40;
const DELAYED: u8 = 0x20;
const DEAD_LETTER: u8 = 0x10;
const PRIORITY: u8 = 0x0f;

/// One record for the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// A record as it lies in the journal. The payload of a message stays borrowed.
pub(super) enum Stored<'a> {
    Queue {
        queue: u32,
        name: &'a str,
        lifetime: Lifetime,
    },
    Message {
        id: u64,
        queue: u32,
        priority: u8,
        delivery_count: u32,
        duplicate_id: Option<DuplicateId>,
        extras: Option<Box<Extras>>,
        payload: &'a [u8],
    },
    Settled {
        ids: &'a [u8],
    },
    Attempts {
        counts: &'a [u8],
    },
    Duplicates {
        queue: u32,
        ids: Vec<DuplicateId>,
    },
    Topic {
        queue: u32,
        name: &'a str,
    },
    Subscription {
        queue: u32,
        subscription: StoredSubscription,
    },
    Deleted {
        queue: u32,
    },
    Published {
        first: u64,
        topic: u32,
        priority: u8,
        duplicate_id: Option<DuplicateId>,
        extras: Option<Box<Extras>>,
        references: &'a [u8],
        payload: &'a [u8],
    },
    Moved {
        id: u64,
        new: u64,
        queue: u32,
        why: DeadLetter,
    },
    Key {
        key: u128,
    },
}

impl Record {
    /// Writes everything but a message's payload into `head`, which is cleared first. The stored record is
    /// `head` followed by the payload. Returns the record's kind and the payload.
    pub fn encode(&self, head: &mut Vec<u8>) -> (u8, &[u8]) {
        head.clear();
        match self {
            Self::Queue {
                queue,
                name,
                lifetime,
            } => {
                head.extend_from_slice(&queue.to_le_bytes());
                let kind = match lifetime {
                    Lifetime::Permanent | Lifetime::Owner(_) => QUEUE,
                    Lifetime::Unused => PASSING_QUEUE,
                };
                (kind, name.as_bytes())
            }
            Self::Message {
                id,
                queue,
                priority,
                delivery_count,
                duplicate_id,
                extras,
                payload,
            } => {
                head.extend_from_slice(&id.to_le_bytes());
                head.extend_from_slice(&queue.to_le_bytes());
                head.extend_from_slice(&delivery_count.to_le_bytes());
                encode_flags(head, *priority, duplicate_id.as_ref(), extras.as_deref());
                (MESSAGE, payload)
            }
            Self::Settled { ids } => {
                ids.iter()
                    .for_each(|id| head.extend_from_slice(&id.to_le_bytes()));
                (SETTLED, &[])
            }
            Self::Attempts { counts } => {
                for (id, count) in counts {
                    head.extend_from_slice(&id.to_le_bytes());
                    head.extend_from_slice(&count.to_le_bytes());
                }
                (ATTEMPTS, &[])
            }
            Self::Duplicates { queue, ids } => {
                head.extend_from_slice(&queue.to_le_bytes());
                ids.iter().for_each(|id| id.encode(head));
                (DUPLICATES, &[])
            }
            Self::Topic { queue, name } => {
                head.extend_from_slice(&queue.to_le_bytes());
                (TOPIC, name.as_bytes())
            }
            Self::Subscription { queue, subscription } => {
                head.extend_from_slice(&queue.to_le_bytes());
                subscription.encode(head);
                (SUBSCRIPTION, &[])
            }
            Self::Deleted { queue } => {
                head.extend_from_slice(&queue.to_le_bytes());
                (DELETED, &[])
            }
            Self::Published {
                first,
                topic,
                priority,
                duplicate_id,
                extras,
                references,
                payload,
            } => {
                head.extend_from_slice(&first.to_le_bytes());
                head.extend_from_slice(&topic.to_le_bytes());
                encode_flags(head, *priority, duplicate_id.as_ref(), extras.as_deref());
                // As many as there are queues, and those are fewer than 2^32.
                let count = u32::try_from(references.len()).unwrap_or(u32::MAX);
                head.extend_from_slice(&count.to_le_bytes());
                for reference in references {
                    head.extend_from_slice(&reference.offset.to_le_bytes());
                    head.extend_from_slice(&reference.queue.to_le_bytes());
                    head.extend_from_slice(&reference.delivery_count.to_le_bytes());
                }
                (PUBLISHED, payload)
            }
            Self::Moved { id, new, queue, why } => {
                head.extend_from_slice(&id.to_le_bytes());
                head.extend_from_slice(&new.to_le_bytes());
                head.extend_from_slice(&queue.to_le_bytes());
                encode_why(head, why);
                (MOVED, &[])
            }
            Self::Key { key } => {
                head.extend_from_slice(&key.to_le_bytes());
                (KEY, &[])
            }
        }
    }
}

/// The priority with flags for what follows it, and that.
fn encode_flags(head: &mut Vec<u8>, priority: u8, id: Option<&DuplicateId>, extras: Option<&Extras>) {
    let flag = |on: bool, flag: u8| if on { flag } else { 0 };
    let Some(extras) = extras else {
        head.push(priority | flag(id.is_some(), HAS_DUPLICATE_ID));
        if let Some(id) = id {
            id.encode(head);
        }
        return;
    };
    head.push(
        priority
            | flag(id.is_some(), HAS_DUPLICATE_ID)
            | flag(extras.expires_at.is_some(), EXPIRES)
            | flag(extras.deliver_at.is_some(), DELAYED)
            | flag(extras.dead_letter.is_some(), DEAD_LETTER),
    );
    if let Some(id) = id {
        id.encode(head);
    }
    for at in [extras.expires_at, extras.deliver_at].into_iter().flatten() {
        head.extend_from_slice(&at.to_le_bytes());
    }
    if let Some(why) = &extras.dead_letter {
        encode_why(head, why);
    }
}

type Flags = (u8, Option<DuplicateId>, Option<Box<Extras>>);

fn decode_flags(body: &[u8]) -> Option<(Flags, &[u8])> {
    let (&flags, mut rest) = body.split_first()?;
    let id = if flags & HAS_DUPLICATE_ID != 0 {
        Some(DuplicateId::decode(&mut rest)?)
    } else {
        None
    };
    let mut time = |flag| {
        if flags & flag == 0 {
            return Some(None);
        }
        let (at, after) = take_u64(rest)?;
        rest = after;
        Some(Some(at))
    };
    let (expires_at, deliver_at) = (time(EXPIRES)?, time(DELAYED)?);
    let dead_letter = if flags & DEAD_LETTER != 0 {
        Some(Arc::new(decode_why(&mut rest)?))
    } else {
        None
    };
    let priority = flags & PRIORITY;
    let extras = Extras::new(expires_at, deliver_at, dead_letter);
    (priority <= 9).then_some(((priority, id, extras), rest))
}

fn encode_text(head: &mut Vec<u8>, text: &str) {
    // Nothing stored this way is that long: names and selectors have limits far below.
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    head.extend_from_slice(&length.to_le_bytes());
    head.extend_from_slice(text.as_bytes());
}

fn decode_text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let (length, rest) = take_u32(bytes)?;
    let (text, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    std::str::from_utf8(text).ok()
}

fn encode_why(head: &mut Vec<u8>, why: &DeadLetter) {
    head.push(match why.reason {
        Reason::Rejected => 0,
        Reason::Attempts => 1,
        Reason::Expired => 2,
    });
    head.extend_from_slice(&why.at.to_le_bytes());
    head.extend_from_slice(&why.attempts.to_le_bytes());
    encode_text(head, &why.from);
}

fn decode_why(bytes: &mut &[u8]) -> Option<DeadLetter> {
    let (&reason, rest) = bytes.split_first()?;
    let reason = match reason {
        0 => Reason::Rejected,
        1 => Reason::Attempts,
        2 => Reason::Expired,
        _ => return None,
    };
    let (at, rest) = take_u64(rest)?;
    let (attempts, rest) = take_u32(rest)?;
    *bytes = rest;
    let from = decode_text(bytes)?.into();
    Some(DeadLetter {
        reason,
        from,
        at,
        attempts,
    })
}

const HAS_KEY: u8 = 1;
const HAS_CLIENT: u8 = 2;
const HAS_SELECTOR: u8 = 4;
const NO_LOCAL: u8 = 8;
const SHARED: u8 = 16;

impl StoredSubscription {
    fn encode(&self, head: &mut Vec<u8>) {
        let flag = |on: bool, flag: u8| if on { flag } else { 0 };
        let client = self.key.as_ref().and_then(|key| key.client.as_deref());
        head.push(
            flag(self.key.is_some(), HAS_KEY)
                | flag(client.is_some(), HAS_CLIENT)
                | flag(self.selector.is_some(), HAS_SELECTOR)
                | flag(self.not_from.is_some(), NO_LOCAL)
                | flag(self.shared, SHARED),
        );
        encode_text(head, &self.topic);
        let name = self.key.as_ref().map(|key| key.name.as_str());
        let texts = [name, client, self.selector.as_deref(), self.not_from.as_deref()];
        texts
            .into_iter()
            .flatten()
            .for_each(|text| encode_text(head, text));
    }

    fn decode(body: &[u8]) -> Option<Self> {
        let (&flags, mut rest) = body.split_first()?;
        let topic = decode_text(&mut rest)?.to_owned();
        let mut text = |flag| {
            if flags & flag == 0 {
                return Some(None);
            }
            decode_text(&mut rest).map(|text| Some(text.to_owned()))
        };
        let (name, client) = (text(HAS_KEY)?, text(HAS_CLIENT)?);
        let (selector, not_from) = (text(HAS_SELECTOR)?, text(NO_LOCAL)?);
        rest.is_empty().then_some(Self {
            key: name.map(|name| SubscriptionKey { client, name }),
            topic,
            selector,
            not_from,
            shared: flags & SHARED != 0,
        })
    }
}

impl<'a> Stored<'a> {
    pub(super) fn decode(kind: u8, body: &'a [u8]) -> Result<Self, RecordError> {
        let decoded = match kind {
            QUEUE => Self::decode_queue(body, Lifetime::Permanent),
            PASSING_QUEUE => Self::decode_queue(body, Lifetime::Unused),
            MESSAGE => Self::decode_message(body),
            SETTLED => body
                .len()
                .is_multiple_of(8)
                .then_some(Self::Settled { ids: body }),
            ATTEMPTS => body
                .len()
                .is_multiple_of(12)
                .then_some(Self::Attempts { counts: body }),
            DUPLICATES => Self::decode_duplicates(body),
            TOPIC => Self::decode_topic(body),
            SUBSCRIPTION => Self::decode_subscription(body),
            DELETED => Self::decode_deleted(body),
            PUBLISHED => Self::decode_published(body),
            MOVED => Self::decode_moved(body),
            KEY => Self::decode_key(body),
            _ => return Err(RecordError::UnknownKind { kind }),
        };
        decoded.ok_or(RecordError::Malformed { kind })
    }

    fn decode_queue(body: &'a [u8], lifetime: Lifetime) -> Option<Self> {
        let (queue, name) = take_u32(body)?;
        let name = std::str::from_utf8(name).ok()?;
        Some(Self::Queue {
            queue,
            name,
            lifetime,
        })
    }

    fn decode_topic(body: &'a [u8]) -> Option<Self> {
        let (queue, name) = take_u32(body)?;
        let name = std::str::from_utf8(name).ok()?;
        Some(Self::Topic { queue, name })
    }

    fn decode_message(body: &'a [u8]) -> Option<Self> {
        let (id, rest) = take_u64(body)?;
        let (queue, rest) = take_u32(rest)?;
        let (delivery_count, rest) = take_u32(rest)?;
        let ((priority, duplicate_id, extras), payload) = decode_flags(rest)?;
        Some(Self::Message {
            id,
            queue,
            priority,
            delivery_count,
            duplicate_id,
            extras,
            payload,
        })
    }

    fn decode_subscription(body: &'a [u8]) -> Option<Self> {
        let (queue, rest) = take_u32(body)?;
        let subscription = StoredSubscription::decode(rest)?;
        Some(Self::Subscription { queue, subscription })
    }

    fn decode_deleted(body: &'a [u8]) -> Option<Self> {
        let (queue, rest) = take_u32(body)?;
        rest.is_empty().then_some(Self::Deleted { queue })
    }

    fn decode_published(body: &'a [u8]) -> Option<Self> {
        let (first, rest) = take_u64(body)?;
        let (topic, rest) = take_u32(rest)?;
        let ((priority, duplicate_id, extras), rest) = decode_flags(rest)?;
        let (count, rest) = take_u32(rest)?;
        let bytes = usize::try_from(u64::from(count) * Reference::BYTES).ok()?;
        let (references, payload) = rest.split_at_checked(bytes)?;
        Some(Self::Published {
            first,
            topic,
            priority,
            duplicate_id,
            extras,
            references,
            payload,
        })
    }

    fn decode_moved(body: &'a [u8]) -> Option<Self> {
        let (id, rest) = take_u64(body)?;
        let (new, rest) = take_u64(rest)?;
        let (queue, mut rest) = take_u32(rest)?;
        let why = decode_why(&mut rest)?;
        rest.is_empty().then_some(Self::Moved { id, new, queue, why })
    }

    fn decode_key(body: &'a [u8]) -> Option<Self> {
        let key = u128::from_le_bytes(body.try_into().ok()?);
        Some(Self::Key { key })
    }

    fn decode_duplicates(body: &'a [u8]) -> Option<Self> {
        let (queue, mut rest) = take_u32(body)?;
        let mut ids = Vec::new();
        while !rest.is_empty() {
            ids.push(DuplicateId::decode(&mut rest)?);
        }
        Some(Self::Duplicates { queue, ids })
    }
}

/// The messages of a stored `Published`.
pub(super) fn references(bytes: &[u8]) -> impl Iterator<Item = Reference> {
    bytes.as_chunks::<12>().0.iter().filter_map(|bytes| {
        let (offset, rest) = take_u32(bytes)?;
        let (queue, rest) = take_u32(rest)?;
        let (delivery_count, _) = take_u32(rest)?;
        Some(Reference {
            offset,
            queue,
            delivery_count,
        })
    })
}

/// The message numbers of a stored `Settled`.
pub(super) fn settled_ids(ids: &[u8]) -> impl Iterator<Item = u64> {
    ids.as_chunks().0.iter().map(|id| u64::from_le_bytes(*id))
}

/// The pairs of a stored `Attempts`.
pub(super) fn attempt_counts(counts: &[u8]) -> impl Iterator<Item = (u64, u32)> {
    counts.as_chunks::<12>().0.iter().filter_map(|pair| {
        let (id, rest) = take_u64(pair)?;
        Some((id, take_u32(rest)?.0))
    })
}

fn take_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u32::from_le_bytes(*number), rest))
}

fn take_u64(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u64::from_le_bytes(*number), rest))
}
