//! Messages with more message annotations than they came with.
//!
//! The bare message stays byte for byte what it was.

use bytes::Bytes;
use daymark_amqp::message::{MessageBuilder, MessageView};
use daymark_amqp::{DecodeError, Symbol, Value, ValueRef};

/// The message with these annotations put in place of its own of the same names.
///
/// # Errors
/// If the message is malformed.
pub(super) fn with_annotations(payload: &Bytes, added: &[(Symbol, Value)]) -> Result<Bytes, DecodeError> {
    let view = MessageView::parse(payload)?;
    let is_added = |key: &ValueRef<'_>| added.iter().any(|(name, _)| key.as_str() == Some(name.as_str()));
    let mut sections = MessageBuilder::new().header(view.header());
    for (key, value) in view.delivery_annotations() {
        if let Some(name) = symbol(&key) {
            sections = sections.delivery_annotation(name, value.to_value()?);
        }
    }
    for (key, value) in view.message_annotations().filter(|(key, _)| !is_added(key)) {
        if let Some(name) = symbol(&key) {
            sections = sections.annotation(name, value.to_value()?);
        }
    }
    for (name, value) in added {
        sections = sections.annotation(name.clone(), value.clone());
    }
    let made = sections.data(b"");
    let before = MessageView::parse(&made)?.bare_start();
    let bare = &payload[view.bare_start()..];
    let mut message = Vec::with_capacity(before + bare.len());
    message.extend_from_slice(&made[..before]);
    message.extend_from_slice(bare);
    Ok(message.into())
}

/// Annotations are named by symbols; other keys are reserved and go.
fn symbol(key: &ValueRef<'_>) -> Option<Symbol> {
    key.as_str().and_then(|name| Symbol::new(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_are_added_or_replaced_and_the_bare_message_stays() {
        let name = |text: &'static str| Symbol::from_static(text);
        let message = MessageBuilder::new()
            .durable(true)
            .annotation(name("kept"), 1u64)
            .annotation(name("changed"), "old".to_owned())
            .subject("s")
            .application_property("p", 5u64)
            .text("body");
        let added = [
            (name("changed"), Value::from("new")),
            (name("more"), Value::from("x")),
        ];
        let rewritten = with_annotations(&message, &added).unwrap();
        let (before, after) = (
            MessageView::parse(&message).unwrap(),
            MessageView::parse(&rewritten).unwrap(),
        );
        assert_eq!(message[before.bare_start()..], rewritten[after.bare_start()..]);
        assert!(after.header().durable);
        assert_eq!(after.message_annotation("kept"), Some(ValueRef::Ulong(1)));
        assert_eq!(after.message_annotation("changed"), Some(ValueRef::String("new")));
        assert_eq!(after.message_annotation("more"), Some(ValueRef::String("x")));
        assert_eq!(after.message_annotations().count(), 3);
    }

    #[test]
    fn a_message_without_annotations_gets_its_first() {
        let message = MessageBuilder::new().text("body");
        let added = [(Symbol::from_static("a"), Value::from("b"))];
        let rewritten = with_annotations(&message, &added).unwrap();
        let view = MessageView::parse(&rewritten).unwrap();
        assert_eq!(view.message_annotation("a"), Some(ValueRef::String("b")));
        assert_eq!(rewritten[view.bare_start()..], message[..]);
    }
}
