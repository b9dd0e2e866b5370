//! From a message on the wire to what the queues want to know of it.
//!
//! It reads the few fields that matter and leaves the bytes alone.

use bytes::Bytes;
use daymark_amqp::message::{Header, MessageView};
use daymark_amqp::{AmqpError, DecodeError, ValueRef, condition};
use daymark_broker_core::queues::{Arrival, DuplicateId};

use super::types::DestinationKind;

/// The message annotation in which our own client numbers its messages.
const DUPLICATE_ANNOTATION: &str = "x-opt-daymark-dup-id";
/// The application property other clients use for the same.
const DUPLICATE_PROPERTY: &str = "_AMQ_DUPL_ID";
/// When a message may be shown, in milliseconds since 1970 UTC.
const DELIVERY_TIME: &str = "x-opt-delivery-time";
/// The same, in milliseconds from now.
const DELIVERY_DELAY: &str = "x-opt-delivery-delay";
/// What kind of destination Qpid JMS sends the message to.
const JMS_DESTINATION: &str = "x-opt-jms-dest";

/// A message and, from an anonymous producer, where it goes.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) arrival: Arrival,
    pub(super) to: Option<String>,
    /// What its address is said to be.
    pub(super) kind: Option<DestinationKind>,
}

/// Reads what the queues need, and with `anonymous` the address the message is for. `now` is in
/// milliseconds since 1970 UTC.
pub(super) fn read(payload: Bytes, anonymous: bool, now: u64) -> Result<Letter, AmqpError> {
    let view = MessageView::parse(&payload).map_err(malformed)?;
    let header = view.header();
    let annotations = annotations(&view)?;
    let duplicate_id = match annotations.duplicate_id {
        Some(id) => Some(id),
        None => match view.application_property(DUPLICATE_PROPERTY) {
            Some(value) => duplicate_id(DUPLICATE_PROPERTY, value)?,
            None => None,
        },
    };
    let expires_at = expires_at(&view, header, now)?;
    let to = if anonymous {
        view.to().map_err(malformed)?.map(str::to_owned)
    } else {
        None
    };
    let deliver_at = match (annotations.time, annotations.delay) {
        (Some(time), _) => Some(time),
        (None, delay) => delay.map(|delay| now.saturating_add(delay)),
    };
    let arrival = Arrival {
        durable: header.durable,
        priority: header.priority,
        duplicate_id,
        expires_at,
        deliver_at: deliver_at.filter(|time| *time > now),
        ..Arrival::new(payload)
    };
    Ok(Letter {
        arrival,
        to,
        kind: annotations.kind,
    })
}

fn malformed(error: DecodeError) -> AmqpError {
    AmqpError::new(
        condition::DECODE_ERROR,
        format!("the message is malformed: {error}"),
    )
}

#[derive(Default)]
struct Annotations {
    duplicate_id: Option<DuplicateId>,
    time: Option<u64>,
    delay: Option<u64>,
    kind: Option<DestinationKind>,
}

fn annotations(view: &MessageView<'_>) -> Result<Annotations, AmqpError> {
    let mut found = Annotations::default();
    for (key, value) in view.message_annotations() {
        match key.as_str() {
            Some(DUPLICATE_ANNOTATION) => found.duplicate_id = duplicate_id(DUPLICATE_ANNOTATION, value)?,
            Some(DELIVERY_TIME) => found.time = milliseconds(DELIVERY_TIME, &value)?,
            Some(DELIVERY_DELAY) => found.delay = milliseconds(DELIVERY_DELAY, &value)?,
            Some(JMS_DESTINATION) => found.kind = kind(&value),
            Some(_) | None => {}
        }
    }
    Ok(found)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "Qpid JMS says it with a byte")]
fn kind(value: &ValueRef<'_>) -> Option<DestinationKind> {
    match value {
        ValueRef::Byte(0 | 2) => Some(DestinationKind::Queue),
        ValueRef::Byte(1 | 3) => Some(DestinationKind::Topic),
        _ => None,
    }
}

/// The time to live counts from now on; where there is none the sender's own clock is believed.
fn expires_at(view: &MessageView<'_>, header: Header, now: u64) -> Result<Option<u64>, AmqpError> {
    if let Some(ttl) = header.ttl.filter(|ttl| *ttl > 0) {
        return Ok(Some(now.saturating_add(u64::from(ttl))));
    }
    let time = view.absolute_expiry_time().map_err(malformed)?;
    Ok(time
        .and_then(|time| u64::try_from(time).ok())
        .filter(|time| *time > 0))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "every other type is no time")]
fn milliseconds(name: &str, value: &ValueRef<'_>) -> Result<Option<u64>, AmqpError> {
    let time = match value {
        ValueRef::Null => return Ok(None),
        ValueRef::Timestamp(time) | ValueRef::Long(time) => *time,
        ValueRef::Int(time) => i64::from(*time),
        ValueRef::Uint(time) => i64::from(*time),
        ValueRef::Ulong(time) => i64::try_from(*time).unwrap_or(i64::MAX),
        other => {
            let text = format!("{name} must be a time in milliseconds, not {other:?}");
            return Err(AmqpError::new(condition::INVALID_FIELD, text));
        }
    };
    // A time in the past asks for nothing.
    Ok(u64::try_from(time).ok())
}

#[expect(clippy::wildcard_enum_match_arm, reason = "every other type is no id")]
fn duplicate_id(name: &str, value: ValueRef<'_>) -> Result<Option<DuplicateId>, AmqpError> {
    let id = match value {
        ValueRef::Null => return Ok(None),
        ValueRef::String(text) | ValueRef::Symbol(text) => DuplicateId::new(text.as_bytes()),
        ValueRef::Binary(bytes) => DuplicateId::new(bytes),
        ValueRef::Uuid(bytes) => DuplicateId::new(&bytes),
        other => {
            let text = format!("{name} must be a string, symbol, binary or uuid, not {other:?}");
            return Err(AmqpError::new(condition::INVALID_FIELD, text));
        }
    };
    let invalid = |error| AmqpError::new(condition::INVALID_FIELD, format!("{name}: {error}"));
    id.map(Some).map_err(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use daymark_amqp::message::MessageBuilder;
    use daymark_amqp::{Symbol, Value};

    fn letter(message: Bytes) -> Letter {
        read(message, false, 1_000_000).unwrap()
    }

    #[test]
    fn the_annotation_of_our_client_gives_the_duplicate_id() {
        let id = "0123456789abcdef0123456789abcdef";
        let annotation = Symbol::from_static(DUPLICATE_ANNOTATION);
        let message = MessageBuilder::new()
            .durable(true)
            .priority(7)
            .annotation(annotation, id.to_owned());
        let found = letter(message.data(b"x"));
        let arrival = found.arrival;
        assert_eq!(arrival.duplicate_id, DuplicateId::new(id.as_bytes()).ok());
        assert!(arrival.durable && arrival.priority == 7 && found.to.is_none());
        assert_eq!((arrival.expires_at, arrival.deliver_at), (None, None));
    }

    #[test]
    fn the_property_other_clients_use_gives_it_too() {
        let message = MessageBuilder::new().application_property(DUPLICATE_PROPERTY, "order-7".to_owned());
        let arrival = letter(message.data(b"x")).arrival;
        assert_eq!(arrival.duplicate_id, DuplicateId::new(b"order-7").ok());
    }

    #[test]
    fn a_duplicate_id_that_is_no_text_is_refused_by_name() {
        let message = MessageBuilder::new().application_property(DUPLICATE_PROPERTY, 7u64);
        let error = read(message.data(b"x"), false, 0).unwrap_err();
        assert_eq!(error.condition, condition::INVALID_FIELD);
        assert!(error.to_string().contains(DUPLICATE_PROPERTY), "{error}");
    }

    #[test]
    fn bytes_that_are_no_message_are_refused() {
        let error = read(Bytes::from_static(b"garbage"), false, 0).unwrap_err();
        assert_eq!(error.condition, condition::DECODE_ERROR);
    }

    #[test]
    fn a_time_to_live_counts_from_the_arrival_and_goes_before_the_senders_clock() {
        let message = MessageBuilder::new().ttl(500).absolute_expiry_time(7);
        assert_eq!(letter(message.text("x")).arrival.expires_at, Some(1_000_500));
        let message = MessageBuilder::new().absolute_expiry_time(2_000_000);
        assert_eq!(letter(message.text("x")).arrival.expires_at, Some(2_000_000));
        let full = MessageBuilder::new()
            .message_id("ID:a-1".to_owned())
            .to("news")
            .subject("order")
            .correlation_id(7u64);
        assert_eq!(letter(full.text("x")).arrival.expires_at, None);
        let full = MessageBuilder::new()
            .message_id("ID:a-1".to_owned())
            .to("news")
            .correlation_id(7u64)
            .absolute_expiry_time(2_000_000)
            .group_id("g");
        assert_eq!(letter(full.text("x")).arrival.expires_at, Some(2_000_000));
    }

    #[test]
    fn a_delivery_time_lies_ahead_or_is_none() {
        let at = |name, value| {
            let message = MessageBuilder::new().annotation(Symbol::from_static(name), value);
            letter(message.text("x")).arrival.deliver_at
        };
        assert_eq!(at(DELIVERY_TIME, Value::Long(1_000_100)), Some(1_000_100));
        assert_eq!(at(DELIVERY_TIME, Value::Timestamp(999_999)), None);
        assert_eq!(at(DELIVERY_TIME, Value::Long(-1)), None);
        assert_eq!(at(DELIVERY_DELAY, Value::Int(50)), Some(1_000_050));
    }

    #[test]
    fn an_anonymous_message_says_where_it_goes_and_what_that_is() {
        let message = MessageBuilder::new()
            .to("news")
            .annotation(Symbol::from_static(JMS_DESTINATION), Value::Byte(1));
        let found = read(message.text("x"), true, 0).unwrap();
        assert_eq!(
            (found.to.as_deref(), found.kind),
            (Some("news"), Some(DestinationKind::Topic))
        );
    }
}
