//! Each kind of record in its stored form.

use std::sync::Arc;

use bytes::Bytes;

use super::parts::{
    Common, put_common, put_factory, put_settings, put_text, put_u32, put_u64, put_why, take_all,
    take_common, take_factory, take_settings, take_text, take_u32, take_u64, take_why,
};
use super::{Record, RecordError, Reference, StoredSubscription};
use crate::queues::duplicates::DuplicateId;
use crate::queues::types::Lifetime;

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
const SETTINGS: u8 = 13;
const FACTORY: u8 = 14;

impl Record {
    /// Writes everything but a name or a message's payload into `head`, which is cleared first, and returns
    /// the record's kind and that. The stored record is `head` followed by it.
    pub fn encode(&self, head: &mut Vec<u8>) -> (u8, &[u8]) {
        head.clear();
        (self.kind(), self.put(head))
    }

    fn put(&self, head: &mut Vec<u8>) -> &[u8] {
        match self {
            Self::Queue { queue, name, .. } | Self::Topic { queue, name } => {
                put_u32(head, *queue);
                name.as_bytes()
            }
            Self::Subscription { queue, subscription } => {
                put_u32(head, *queue);
                subscription.put(head);
                &[]
            }
            Self::Settings { queue, settings } => {
                put_u32(head, *queue);
                put_settings(head, settings);
                &[]
            }
            Self::Deleted { queue } => {
                put_u32(head, *queue);
                &[]
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
                put_u64(head, *id);
                put_u32(head, *queue);
                put_u32(head, *delivery_count);
                put_common(head, *priority, duplicate_id.as_ref(), extras.as_deref());
                payload
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
                put_u64(head, *first);
                put_u32(head, *topic);
                put_common(head, *priority, duplicate_id.as_ref(), extras.as_deref());
                // As many as there are queues, and those are fewer than 2^32.
                put_u32(head, u32::try_from(references.len()).unwrap_or(u32::MAX));
                references.iter().for_each(|reference| reference.put(head));
                payload
            }
            Self::Moved { id, new, queue, why } => {
                put_u64(head, *id);
                put_u64(head, *new);
                put_u32(head, *queue);
                put_why(head, why);
                &[]
            }
            Self::Settled { ids } => {
                ids.iter().for_each(|id| put_u64(head, *id));
                &[]
            }
            Self::Attempts { counts } => {
                for (id, count) in counts {
                    put_u64(head, *id);
                    put_u32(head, *count);
                }
                &[]
            }
            Self::Duplicates { queue, ids } => {
                put_u32(head, *queue);
                ids.iter().for_each(|id| id.encode(head));
                &[]
            }
            Self::Key { key } => {
                head.extend_from_slice(&key.to_le_bytes());
                &[]
            }
            Self::Factory { name, factory } => {
                put_text(head, name);
                put_factory(head, factory.as_deref());
                &[]
            }
        }
    }

    /// The number its kind is stored as.
    pub(in crate::queues) fn kind(&self) -> u8 {
        match self {
            Self::Queue {
                lifetime: Lifetime::Permanent | Lifetime::Owner(_),
                ..
            } => QUEUE,
            Self::Queue {
                lifetime: Lifetime::Unused,
                ..
            } => PASSING_QUEUE,
            Self::Message { .. } => MESSAGE,
            Self::Settled { .. } => SETTLED,
            Self::Attempts { .. } => ATTEMPTS,
            Self::Duplicates { .. } => DUPLICATES,
            Self::Topic { .. } => TOPIC,
            Self::Subscription { .. } => SUBSCRIPTION,
            Self::Deleted { .. } => DELETED,
            Self::Published { .. } => PUBLISHED,
            Self::Moved { .. } => MOVED,
            Self::Key { .. } => KEY,
            Self::Settings { .. } => SETTINGS,
            Self::Factory { .. } => FACTORY,
        }
    }

    /// The record that was stored as these bytes. `keep` makes the body of a message one's own.
    ///
    /// # Errors
    /// [`RecordError::UnknownKind`], [`RecordError::Malformed`].
    pub(in crate::queues) fn decode(
        kind: u8,
        bytes: &[u8],
        keep: impl FnMut(&[u8]) -> Bytes,
    ) -> Result<Self, RecordError> {
        let decoded = match kind {
            MESSAGE => Self::decode_message(bytes, keep),
            PUBLISHED => Self::decode_published(bytes, keep),
            QUEUE..=FACTORY => Self::decode_other(kind, bytes),
            _ => return Err(RecordError::UnknownKind { kind }),
        };
        decoded.ok_or(RecordError::Malformed { kind })
    }

    fn decode_message(mut bytes: &[u8], mut keep: impl FnMut(&[u8]) -> Bytes) -> Option<Self> {
        let rest = &mut bytes;
        let (id, queue, delivery_count) = (take_u64(rest)?, take_u32(rest)?, take_u32(rest)?);
        let Common {
            priority,
            duplicate_id,
            extras,
        } = take_common(rest)?;
        Some(Self::Message {
            id,
            queue,
            priority,
            delivery_count,
            duplicate_id,
            extras,
            payload: keep(rest),
        })
    }

    fn decode_published(mut bytes: &[u8], mut keep: impl FnMut(&[u8]) -> Bytes) -> Option<Self> {
        let rest = &mut bytes;
        let (first, topic) = (take_u64(rest)?, take_u32(rest)?);
        let Common {
            priority,
            duplicate_id,
            extras,
        } = take_common(rest)?;
        let count = take_u32(rest)?;
        let references = (0..count).map(|_| Reference::take(rest)).collect::<Option<_>>()?;
        Some(Self::Published {
            first,
            topic,
            priority,
            duplicate_id,
            extras,
            references,
            payload: keep(rest),
        })
    }

    /// Every kind but the two that hold a message's body.
    fn decode_other(kind: u8, mut bytes: &[u8]) -> Option<Self> {
        let rest = &mut bytes;
        let decoded = match kind {
            QUEUE | PASSING_QUEUE => Self::Queue {
                queue: take_u32(rest)?,
                name: take_name(rest)?,
                lifetime: if kind == QUEUE {
                    Lifetime::Permanent
                } else {
                    Lifetime::Unused
                },
            },
            TOPIC => Self::Topic {
                queue: take_u32(rest)?,
                name: take_name(rest)?,
            },
            SUBSCRIPTION => Self::Subscription {
                queue: take_u32(rest)?,
                subscription: Box::new(StoredSubscription::take(rest)?),
            },
            SETTINGS => Self::Settings {
                queue: take_u32(rest)?,
                settings: Box::new(take_settings(rest)?),
            },
            DELETED => Self::Deleted {
                queue: take_u32(rest)?,
            },
            MOVED => Self::Moved {
                id: take_u64(rest)?,
                new: take_u64(rest)?,
                queue: take_u32(rest)?,
                why: Arc::new(take_why(rest)?),
            },
            SETTLED => Self::Settled {
                ids: take_all(rest, take_u64)?,
            },
            ATTEMPTS => Self::Attempts {
                counts: take_all(rest, |rest| Some((take_u64(rest)?, take_u32(rest)?)))?,
            },
            DUPLICATES => Self::Duplicates {
                queue: take_u32(rest)?,
                ids: take_all(rest, DuplicateId::decode)?,
            },
            KEY => Self::Key {
                key: u128::from_le_bytes(std::mem::take(rest).try_into().ok()?),
            },
            FACTORY => Self::Factory {
                name: take_text(rest)?.to_owned(),
                factory: take_factory(rest)?.map(Box::new),
            },
            _ => return None,
        };
        rest.is_empty().then_some(decoded)
    }
}

/// The rest is a name.
fn take_name(rest: &mut &[u8]) -> Option<String> {
    std::str::from_utf8(std::mem::take(rest)).ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use daymark_naming_proto::{FactorySettings, SETTING_MS_MAX};

    use super::*;
    use crate::queues::factories::Factory;
    use crate::queues::record::Extras;
    use crate::queues::topics::SubscriptionKey;
    use crate::queues::types::{DeadLetter, QueueLimits, QueueSettings, Reason, WhenFull};

    /// One of each kind, with everything in it that there can be.
    fn one_of_each() -> Vec<Record> {
        let why = Arc::new(DeadLetter {
            reason: Reason::Attempts,
            from: "orders".into(),
            at: 7,
            attempts: 3,
        });
        let extras = Extras::new(Some(1), Some(2), Some(Arc::clone(&why)));
        let duplicate_id = DuplicateId::new(b"order-7").ok();
        let reference = Reference {
            offset: 1,
            queue: 2,
            delivery_count: 3,
        };
        let key = SubscriptionKey {
            client: Some("c".into()),
            name: "n".into(),
        };
        let (payload, queue) = (Bytes::from_static(b"body"), 3);
        vec![
            Record::Queue {
                queue,
                name: "orders".into(),
                lifetime: Lifetime::Unused,
            },
            Record::Topic {
                queue,
                name: "news".into(),
            },
            Record::Subscription {
                queue,
                subscription: Box::new(StoredSubscription {
                    key: Some(key),
                    topic: "news.#".into(),
                    selector: Some("a = 1".into()),
                    not_from: Some("c".into()),
                    shared: true,
                }),
            },
            Record::Settings {
                queue,
                settings: Box::new(QueueSettings {
                    limits: QueueLimits {
                        max_messages: 5,
                        max_bytes: 6,
                    },
                    when_full: WhenFull::DropOldest,
                    max_delivery_attempts: 4,
                    dead_letter: None,
                    expiry: Some("late".into()),
                    export: "jms/'a/b'".parse().ok(),
                    ..QueueSettings::default()
                }),
            },
            Record::Deleted { queue },
            Record::Message {
                id: 9,
                queue,
                priority: 9,
                delivery_count: 2,
                duplicate_id: duplicate_id.clone(),
                extras: extras.clone(),
                payload: payload.clone(),
            },
            Record::Published {
                first: 9,
                topic: queue,
                priority: 0,
                duplicate_id: duplicate_id.clone(),
                extras,
                references: vec![reference, reference],
                payload,
            },
            Record::Moved {
                id: 1,
                new: 2,
                queue,
                why,
            },
            Record::Settled { ids: vec![1, 2] },
            Record::Attempts {
                counts: vec![(1, 2), (3, 4)],
            },
            Record::Duplicates {
                queue,
                ids: duplicate_id.into_iter().collect(),
            },
            Record::Key { key: 1 << 100 },
            Record::Factory {
                name: "jms".into(),
                factory: Some(Box::new(factory())),
            },
            Record::Factory {
                name: "jms".into(),
                factory: None,
            },
        ]
    }

    /// One with no setting at its default.
    fn factory() -> Factory {
        Factory {
            export: "jms/'a/b'".parse().expect("a name"),
            settings: FactorySettings {
                reconnect_enabled: false,
                reconnect_period_ms: 1,
                reconnect_interval_ms: 2,
                reconnect_interval_multiplier: 1.7,
                max_reconnect_interval_ms: 3,
                reconnect_attempts: 0,
                initial_connect_attempts: -1,
                connect_timeout_ms: 4,
                client_failure_check_period_ms: 100,
                connection_ttl_ms: SETTING_MS_MAX,
                call_timeout_ms: 5,
                call_failover_timeout_ms: 6,
                request_blocking_time_ms: 0,
            },
        }
    }

    fn stored(record: &Record) -> (u8, Vec<u8>) {
        let mut head = Vec::new();
        let (kind, rest) = record.encode(&mut head);
        let rest = rest.to_vec();
        (kind, [head, rest].concat())
    }

    #[test]
    fn every_record_is_read_as_it_was_written() {
        for record in one_of_each() {
            let (kind, bytes) = stored(&record);
            assert_eq!(Record::decode(kind, &bytes, Bytes::copy_from_slice), Ok(record));
        }
    }

    #[test]
    fn a_record_cut_short_is_refused_or_is_a_shorter_one_and_one_too_long_is_no_other() {
        for record in one_of_each() {
            let (kind, bytes) = stored(&record);
            for length in 0..bytes.len() {
                let read = Record::decode(kind, &bytes[..length], Bytes::copy_from_slice);
                assert_ne!(read.as_ref(), Ok(&record));
            }
            let longer = [&bytes[..], b"?"].concat();
            let read = Record::decode(kind, &longer, Bytes::copy_from_slice);
            assert_ne!(read, Ok(record));
        }
    }

    #[test]
    fn a_kind_nobody_knows_is_refused_by_number() {
        let read = Record::decode(99, b"", Bytes::copy_from_slice);
        assert_eq!(read, Err(RecordError::UnknownKind { kind: 99 }));
    }
}
