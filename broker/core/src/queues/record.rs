//! What the queues write into the journal, and its stored form.
//!
//! Numbers are little-endian. A message's body is the last part of its record and is not copied here.
//! A reader refuses what it does not know: nothing is skipped.

use bytes::Bytes;

use super::duplicates::DuplicateId;

const QUEUE: u8 = 1;
const MESSAGE: u8 = 2;
const SETTLED: u8 = 3;
const ATTEMPTS: u8 = 4;
const DUPLICATES: u8 = 5;

const HAS_DUPLICATE_ID: u8 = 0x80;

/// One record for the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A queue exists.
    Queue {
        /// Its number in the other records.
        queue: u32,
        /// Its address.
        name: String,
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
    },
    Message {
        id: u64,
        queue: u32,
        priority: u8,
        delivery_count: u32,
        duplicate_id: Option<DuplicateId>,
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
}

impl Record {
    /// Writes everything but a message's payload into `head`, which is cleared first. The stored record is
    /// `head` followed by the payload. Returns the record's kind and the payload.
    pub fn encode(&self, head: &mut Vec<u8>) -> (u8, &[u8]) {
        head.clear();
        match self {
            Self::Queue { queue, name } => {
                head.extend_from_slice(&queue.to_le_bytes());
                (QUEUE, name.as_bytes())
            }
            Self::Message {
                id,
                queue,
                priority,
                delivery_count,
                duplicate_id,
                payload,
            } => {
                let flag = if duplicate_id.is_some() {
                    HAS_DUPLICATE_ID
                } else {
                    0
                };
                head.extend_from_slice(&id.to_le_bytes());
                head.extend_from_slice(&queue.to_le_bytes());
                head.extend_from_slice(&delivery_count.to_le_bytes());
                head.push(priority | flag);
                if let Some(duplicate_id) = duplicate_id {
                    duplicate_id.encode(head);
                }
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
        }
    }
}

impl<'a> Stored<'a> {
    pub(super) fn decode(kind: u8, body: &'a [u8]) -> Result<Self, RecordError> {
        let decoded = match kind {
            QUEUE => Self::decode_queue(body),
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
            _ => return Err(RecordError::UnknownKind { kind }),
        };
        decoded.ok_or(RecordError::Malformed { kind })
    }

    fn decode_queue(body: &'a [u8]) -> Option<Self> {
        let (queue, name) = take_u32(body)?;
        let name = std::str::from_utf8(name).ok()?;
        Some(Self::Queue { queue, name })
    }

    fn decode_message(body: &'a [u8]) -> Option<Self> {
        let (id, rest) = take_u64(body)?;
        let (queue, rest) = take_u32(rest)?;
        let (delivery_count, rest) = take_u32(rest)?;
        let (&flags, mut rest) = rest.split_first()?;
        let duplicate_id = if flags & HAS_DUPLICATE_ID != 0 {
            Some(DuplicateId::decode(&mut rest)?)
        } else {
            None
        };
        let priority = flags & !HAS_DUPLICATE_ID;
        (priority <= 9).then_some(Self::Message {
            id,
            queue,
            priority,
            delivery_count,
            duplicate_id,
            payload: rest,
        })
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
