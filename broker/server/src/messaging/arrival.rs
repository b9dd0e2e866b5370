//! From a message on the wire to what the queues want to know of it.
//!
//! It reads the few fields that matter and leaves the bytes alone.

use bytes::Bytes;
use daymark_amqp::message::MessageView;
use daymark_amqp::{AmqpError, DecodeError, ValueRef, condition};
use daymark_broker_core::queues::{Arrival, DuplicateId};

/// The message annotation in which our own client numbers its messages.
const DUPLICATE_ANNOTATION: &str = "x-opt-daymark-dup-id";
/// The application property other clients use for the same.
const DUPLICATE_PROPERTY: &str = "_AMQ_DUPL_ID";

/// Reads what the queues need, and with `anonymous` the address the message is for.
pub(super) fn read(payload: Bytes, anonymous: bool) -> Result<(Arrival, Option<String>), AmqpError> {
    let view = MessageView::parse(&payload).map_err(malformed)?;
    let header = view.header();
    let duplicate_id = duplicate_id(&view)?;
    let to = if anonymous {
        view.to().map_err(malformed)?.map(str::to_owned)
    } else {
        None
    };
    let arrival = Arrival {
        durable: header.durable,
        priority: header.priority,
        duplicate_id,
        ..Arrival::new(payload.clone())
    };
    Ok((arrival, to))
}

fn malformed(error: DecodeError) -> AmqpError {
    AmqpError::new(
        condition::DECODE_ERROR,
        format!("the message is malformed: {error}"),
    )
}

#[expect(clippy::wildcard_enum_match_arm, reason = "every other type is no id")]
fn duplicate_id(view: &MessageView<'_>) -> Result<Option<DuplicateId>, AmqpError> {
    let found = match view.message_annotation(DUPLICATE_ANNOTATION) {
        Some(value) => Some((DUPLICATE_ANNOTATION, value)),
        None => view
            .application_property(DUPLICATE_PROPERTY)
            .map(|value| (DUPLICATE_PROPERTY, value)),
    };
    let Some((name, value)) = found else {
        return Ok(None);
    };
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
    use daymark_amqp::Symbol;
    use daymark_amqp::message::MessageBuilder;

    #[test]
    fn the_annotation_of_our_client_gives_the_duplicate_id() {
        let id = "0123456789abcdef0123456789abcdef";
        let annotation = Symbol::from_static(DUPLICATE_ANNOTATION);
        let message = MessageBuilder::new()
            .durable(true)
            .priority(7)
            .annotation(annotation, id.to_owned());
        let (arrival, to) = read(message.data(b"x"), false).unwrap();
        assert_eq!(arrival.duplicate_id, DuplicateId::new(id.as_bytes()).ok());
        assert!(arrival.durable && arrival.priority == 7 && to.is_none());
    }

    #[test]
    fn the_property_other_clients_use_gives_it_too() {
        let message = MessageBuilder::new().application_property(DUPLICATE_PROPERTY, "order-7".to_owned());
        let (arrival, _) = read(message.data(b"x"), false).unwrap();
        assert_eq!(arrival.duplicate_id, DuplicateId::new(b"order-7").ok());
    }

    #[test]
    fn a_duplicate_id_that_is_no_text_is_refused_by_name() {
        let message = MessageBuilder::new().application_property(DUPLICATE_PROPERTY, 7u64);
        let error = read(message.data(b"x"), false).unwrap_err();
        assert_eq!(error.condition, condition::INVALID_FIELD);
        assert!(error.to_string().contains(DUPLICATE_PROPERTY), "{error}");
    }

    #[test]
    fn bytes_that_are_no_message_are_refused() {
        let error = read(Bytes::from_static(b"garbage"), false).unwrap_err();
        assert_eq!(error.condition, condition::DECODE_ERROR);
    }
}
