//! Parts of records in their stored form. Numbers are little-endian, a text is its length and its bytes.
//!
//! Whatever takes something off the front of `bytes` leaves the rest there, and returns `None` where that
//! cannot be.

use std::sync::Arc;

use daymark_naming_proto::Name;

use super::{Extras, Reference, StoredSubscription};
use crate::queues::duplicates::DuplicateId;
use crate::queues::factories::Factory;
use crate::queues::topics::SubscriptionKey;
use crate::queues::types::{DeadLetter, QueueLimits, QueueSettings, Reason, WhenFull};

pub(super) fn put_u32(head: &mut Vec<u8>, number: u32) {
    head.extend_from_slice(&number.to_le_bytes());
}

pub(super) fn put_u64(head: &mut Vec<u8>, number: u64) {
    head.extend_from_slice(&number.to_le_bytes());
}

pub(super) fn put_text(head: &mut Vec<u8>, text: &str) {
    // Nothing stored this way is that long: names and selectors have limits far below.
    put_u32(head, u32::try_from(text.len()).unwrap_or(u32::MAX));
    head.extend_from_slice(text.as_bytes());
}

/// The sum of those flags whose condition holds.
fn flags<const N: usize>(of: [(bool, u8); N]) -> u8 {
    of.iter().filter(|(on, _)| *on).map(|(_, flag)| flag).sum()
}

pub(super) fn take_u8(bytes: &mut &[u8]) -> Option<u8> {
    let (&byte, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(byte)
}

pub(super) fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u32::from_le_bytes(*number))
}

pub(super) fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*number))
}

pub(super) fn take_text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let length = usize::try_from(take_u32(bytes)?).ok()?;
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    std::str::from_utf8(text).ok()
}

/// Everything that is left, as a list.
pub(super) fn take_all<T>(bytes: &mut &[u8], one: impl Fn(&mut &[u8]) -> Option<T>) -> Option<Vec<T>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        all.push(one(bytes)?);
    }
    Some(all)
}

/// What the records of one message and of one in several queues have in common.
pub(super) struct Common {
    pub(super) priority: u8,
    pub(super) duplicate_id: Option<DuplicateId>,
    pub(super) extras: Option<Box<Extras>>,
}

const HAS_DUPLICATE_ID: u8 = 0x80;
const EXPIRES: u8 = 0x40;
const DELAYED: u8 = 0x20;
const DEAD_LETTER: u8 = 0x10;
const PRIORITY: u8 = 0x0f;

/// The priority with flags for what follows it, and that.
pub(super) fn put_common(
    head: &mut Vec<u8>,
    priority: u8,
    id: Option<&DuplicateId>,
    extras: Option<&Extras>,
) {
    let none = Extras::default();
    let extras = extras.unwrap_or(&none);
    head.push(
        priority
            | flags([
                (id.is_some(), HAS_DUPLICATE_ID),
                (extras.expires_at.is_some(), EXPIRES),
                (extras.deliver_at.is_some(), DELAYED),
                (extras.dead_letter.is_some(), DEAD_LETTER),
            ]),
    );
    if let Some(id) = id {
        id.encode(head);
    }
    for at in [extras.expires_at, extras.deliver_at].into_iter().flatten() {
        put_u64(head, at);
    }
    if let Some(why) = &extras.dead_letter {
        put_why(head, why);
    }
}

pub(super) fn take_common(bytes: &mut &[u8]) -> Option<Common> {
    let flags = take_u8(bytes)?;
    let mut common = Common {
        priority: flags & PRIORITY,
        duplicate_id: None,
        extras: None,
    };
    if flags & HAS_DUPLICATE_ID != 0 {
        common.duplicate_id = Some(DuplicateId::decode(bytes)?);
    }
    let mut time = |flag| match flags & flag {
        0 => Some(None),
        _ => take_u64(bytes).map(Some),
    };
    let (expires_at, deliver_at) = (time(EXPIRES)?, time(DELAYED)?);
    let dead_letter = match flags & DEAD_LETTER {
        0 => None,
        _ => Some(Arc::new(take_why(bytes)?)),
    };
    common.extras = Extras::new(expires_at, deliver_at, dead_letter);
    (common.priority <= 9).then_some(common)
}

pub(super) fn put_why(head: &mut Vec<u8>, why: &DeadLetter) {
    head.push(match why.reason {
        Reason::Rejected => 0,
        Reason::Attempts => 1,
        Reason::Expired => 2,
    });
    put_u64(head, why.at);
    put_u32(head, why.attempts);
    put_text(head, &why.from);
}

pub(super) fn take_why(bytes: &mut &[u8]) -> Option<DeadLetter> {
    Some(DeadLetter {
        reason: match take_u8(bytes)? {
            0 => Reason::Rejected,
            1 => Reason::Attempts,
            2 => Reason::Expired,
            _ => return None,
        },
        at: take_u64(bytes)?,
        attempts: take_u32(bytes)?,
        from: take_text(bytes)?.into(),
    })
}

impl Reference {
    pub(super) fn put(self, head: &mut Vec<u8>) {
        [self.offset, self.queue, self.delivery_count]
            .into_iter()
            .for_each(|number| put_u32(head, number));
    }

    pub(super) fn take(bytes: &mut &[u8]) -> Option<Self> {
        Some(Self {
            offset: take_u32(bytes)?,
            queue: take_u32(bytes)?,
            delivery_count: take_u32(bytes)?,
        })
    }
}

const HAS_KEY: u8 = 1;
const HAS_CLIENT: u8 = 2;
const HAS_SELECTOR: u8 = 4;
const NO_LOCAL: u8 = 8;
const SHARED: u8 = 16;

impl StoredSubscription {
    pub(super) fn put(&self, head: &mut Vec<u8>) {
        let client = self.key.as_ref().and_then(|key| key.client.as_deref());
        head.push(flags([
            (self.key.is_some(), HAS_KEY),
            (client.is_some(), HAS_CLIENT),
            (self.selector.is_some(), HAS_SELECTOR),
            (self.not_from.is_some(), NO_LOCAL),
            (self.shared, SHARED),
        ]));
        put_text(head, &self.topic);
        let name = self.key.as_ref().map(|key| key.name.as_str());
        let texts = [name, client, self.selector.as_deref(), self.not_from.as_deref()];
        texts.into_iter().flatten().for_each(|text| put_text(head, text));
    }

    pub(super) fn take(bytes: &mut &[u8]) -> Option<Self> {
        let flags = take_u8(bytes)?;
        let topic = take_text(bytes)?.to_owned();
        let mut text = |flag| match flags & flag {
            0 => Some(None),
            _ => take_text(bytes).map(|text| Some(text.to_owned())),
        };
        let (name, client) = (text(HAS_KEY)?, text(HAS_CLIENT)?);
        let (selector, not_from) = (text(HAS_SELECTOR)?, text(NO_LOCAL)?);
        Some(Self {
            key: name.map(|name| SubscriptionKey { client, name }),
            topic,
            selector,
            not_from,
            shared: flags & SHARED != 0,
        })
    }
}

/// In the same byte as what happens when it is full.
const HAS_DEAD_LETTER: u8 = 0x80;
const HAS_EXPIRY: u8 = 0x40;
const HAS_EXPORT: u8 = 0x20;
const WHEN_FULL: u8 = 0x0f;

pub(super) fn put_settings(head: &mut Vec<u8>, settings: &QueueSettings) {
    let when_full = match settings.when_full {
        WhenFull::Reject => 0,
        WhenFull::DropOldest => 1,
        WhenFull::Block => 2,
    };
    head.push(
        when_full
            | flags([
                (settings.dead_letter.is_some(), HAS_DEAD_LETTER),
                (settings.expiry.is_some(), HAS_EXPIRY),
                (settings.export.is_some(), HAS_EXPORT),
            ]),
    );
    put_u64(head, settings.limits.max_messages);
    put_u64(head, settings.limits.max_bytes);
    put_u32(head, settings.max_delivery_attempts);
    let texts = [
        settings.dead_letter.as_deref(),
        settings.expiry.as_deref(),
        settings.export.as_ref().map(Name::as_str),
    ];
    texts.into_iter().flatten().for_each(|text| put_text(head, text));
}

pub(super) fn take_settings(bytes: &mut &[u8]) -> Option<QueueSettings> {
    let flags = take_u8(bytes)?;
    let when_full = match flags & WHEN_FULL {
        0 => WhenFull::Reject,
        1 => WhenFull::DropOldest,
        2 => WhenFull::Block,
        _ => return None,
    };
    let limits = QueueLimits {
        max_messages: take_u64(bytes)?,
        max_bytes: take_u64(bytes)?,
    };
    let max_delivery_attempts = take_u32(bytes)?;
    let mut text = |flag| match flags & flag {
        0 => Some(None),
        _ => take_text(bytes).map(Some),
    };
    let (dead_letter, expiry) = (text(HAS_DEAD_LETTER)?, text(HAS_EXPIRY)?);
    let export = text(HAS_EXPORT)?.map(str::parse).transpose().ok()?;
    Some(QueueSettings {
        limits,
        when_full,
        max_delivery_attempts,
        dead_letter: dead_letter.map(Arc::from),
        expiry: expiry.map(Arc::from),
        export,
        ..QueueSettings::default()
    })
}

/// As JSON: a setting that a later version adds has its default in what was stored before. Nothing for none.
pub(super) fn put_factory(head: &mut Vec<u8>, factory: Option<&Factory>) {
    if let Some(factory) = factory {
        // A map with keys that are texts always has a JSON form, and a vector takes it.
        let _ = serde_json::to_writer(head, factory);
    }
}

/// Everything that is left, as a factory or none.
pub(super) fn take_factory(bytes: &mut &[u8]) -> Option<Option<Factory>> {
    let json = std::mem::take(bytes);
    if json.is_empty() {
        return Some(None);
    }
    serde_json::from_slice(json).ok().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(settings: &QueueSettings) -> Vec<u8> {
        let mut head = Vec::new();
        put_settings(&mut head, settings);
        head
    }

    #[test]
    fn settings_with_and_without_a_name_in_the_directory_are_read_as_they_were_written() {
        let longest = "a".repeat(255) + "/" + &"b".repeat(255);
        for export in [
            None,
            Some("jms/orders"),
            Some("'a/b'/\\\"c"),
            Some(longest.as_str()),
        ] {
            for dead_letter in [None, Some("DLQ".into())] {
                let settings = QueueSettings {
                    dead_letter,
                    export: export.map(|name| name.parse().expect("a name")),
                    ..QueueSettings::default()
                };
                let bytes = stored(&settings);
                assert_eq!(take_settings(&mut bytes.as_slice()), Some(settings));
            }
        }
    }

    /// Written before a destination could have a name that is not configured.
    #[test]
    fn settings_of_an_older_version_have_no_name_in_the_directory() {
        let mut bytes = vec![0xc2]; // Both queues named, producers blocked when full.
        put_u64(&mut bytes, 5);
        put_u64(&mut bytes, u64::MAX);
        put_u32(&mut bytes, 4);
        put_text(&mut bytes, "DLQ");
        put_text(&mut bytes, "late");
        let settings = QueueSettings {
            limits: QueueLimits {
                max_messages: 5,
                max_bytes: u64::MAX,
            },
            when_full: WhenFull::Block,
            max_delivery_attempts: 4,
            expiry: Some("late".into()),
            ..QueueSettings::default()
        };
        assert_eq!(take_settings(&mut bytes.as_slice()).as_ref(), Some(&settings));
        assert_eq!(stored(&settings), bytes);
    }

    #[test]
    fn settings_with_a_name_that_is_none_are_refused() {
        let settings = QueueSettings {
            export: "ab".parse().ok(),
            ..QueueSettings::default()
        };
        let mut bytes = stored(&settings);
        let end = bytes.len();
        bytes[end - 2..].copy_from_slice(b"'a"); // A quote that never closes.
        assert_eq!(take_settings(&mut bytes.as_slice()), None);
    }
}
