//! What a selector may see of a message: its application properties and the JMS headers made of its sections.
//!
//! It decides which AMQP field a JMS name stands for, the way Qpid JMS maps them. It never changes a message.

use std::cell::OnceCell;
use std::fmt::Write;

use daymark_amqp::ValueRef;
use daymark_amqp::message::{Header, MessageView, Properties as Fields};
use daymark_broker_core::selector::{Properties, Value};

/// Shows the properties of a stored message to `with`. A message that cannot be read shows none.
pub(super) fn read(payload: &[u8], delivery_count: u32, with: &mut dyn FnMut(&dyn Properties)) {
    let Ok(view) = MessageView::parse(payload) else {
        return with(&Nothing);
    };
    with(&Shown {
        header: view.header(),
        view,
        delivery_count,
        fields: OnceCell::new(),
        message_id: OnceCell::new(),
        correlation_id: OnceCell::new(),
    });
}

struct Nothing;

impl Properties for Nothing {
    fn value(&self, _: &str) -> Value<'_> {
        Value::Null
    }
}

struct Shown<'a> {
    view: MessageView<'a>,
    header: Header,
    delivery_count: u32,
    fields: OnceCell<Option<Fields<'a>>>,
    message_id: OnceCell<Option<String>>,
    correlation_id: OnceCell<Option<String>>,
}

impl Properties for Shown<'_> {
    fn value(&self, name: &str) -> Value<'_> {
        if name.starts_with("JMS") {
            return self.jms(name);
        }
        self.view.application_property(name).map_or(Value::Null, value)
    }
}

impl Shown<'_> {
    fn jms(&self, name: &str) -> Value<'_> {
        match name {
            "JMSDeliveryMode" => Value::Text(if self.header.durable {
                "PERSISTENT"
            } else {
                "NON_PERSISTENT"
            }),
            "JMSPriority" => Value::Int(i64::from(self.header.priority)),
            "JMSRedelivered" => Value::Bool(self.deliveries() > 0),
            "JMSXDeliveryCount" => Value::Int(self.deliveries() + 1),
            _ => self
                .fields()
                .map_or(Value::Null, |fields| self.field(fields, name)),
        }
    }

    fn field<'s>(&'s self, fields: &'s Fields<'s>, name: &str) -> Value<'s> {
        let text = |text: Option<&'s str>| text.map_or(Value::Null, Value::Text);
        match name {
            "JMSType" => text(fields.subject),
            "JMSTimestamp" => fields.creation_time.map_or(Value::Null, Value::Int),
            "JMSExpiration" => fields.absolute_expiry_time.map_or(Value::Null, Value::Int),
            "JMSMessageID" => {
                let made = || fields.message_id.as_ref().and_then(|id| id_text(id, true));
                text(self.message_id.get_or_init(made).as_deref())
            }
            "JMSCorrelationID" => {
                let made = || fields.correlation_id.as_ref().and_then(|id| id_text(id, false));
                text(self.correlation_id.get_or_init(made).as_deref())
            }
            "JMSXGroupID" => text(fields.group_id),
            "JMSXGroupSeq" => fields
                .group_sequence
                .map_or(Value::Null, |n| Value::Int(i64::from(n))),
            "JMSXUserID" => text(fields.user_id.and_then(|id| std::str::from_utf8(id).ok())),
            // A property that a program made up under JMS's own letters is looked up all the same.
            _ => self.view.application_property(name).map_or(Value::Null, value),
        }
    }

    fn fields(&self) -> Option<&Fields<'_>> {
        self.fields.get_or_init(|| self.view.properties().ok()).as_ref()
    }

    fn deliveries(&self) -> i64 {
        i64::from(self.header.delivery_count.saturating_add(self.delivery_count))
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "selectors know no other kinds")]
fn value(value: ValueRef<'_>) -> Value<'_> {
    match value {
        ValueRef::Bool(value) => Value::Bool(value),
        ValueRef::Ubyte(value) => Value::Int(value.into()),
        ValueRef::Ushort(value) => Value::Int(value.into()),
        ValueRef::Uint(value) => Value::Int(value.into()),
        ValueRef::Ulong(value) => Value::Int(i64::try_from(value).unwrap_or(i64::MAX)),
        ValueRef::Byte(value) => Value::Int(value.into()),
        ValueRef::Short(value) => Value::Int(value.into()),
        ValueRef::Int(value) => Value::Int(value.into()),
        ValueRef::Long(value) | ValueRef::Timestamp(value) => Value::Int(value),
        ValueRef::Float(value) => Value::Float(value.into()),
        ValueRef::Double(value) => Value::Float(value),
        ValueRef::String(text) | ValueRef::Symbol(text) => Value::Text(text),
        _ => Value::Null,
    }
}

/// The text JMS programs know an id by. `of_message`: JMS wants its own prefix before the id of a message.
#[expect(clippy::wildcard_enum_match_arm, reason = "no other type is an id")]
fn id_text(id: &ValueRef<'_>, of_message: bool) -> Option<String> {
    Some(match id {
        ValueRef::String(text) if text.starts_with("ID:") || !of_message => (*text).to_owned(),
        ValueRef::String(text) => format!("ID:AMQP_NO_PREFIX:{text}"),
        ValueRef::Ulong(number) => format!("ID:AMQP_ULONG:{number}"),
        ValueRef::Uuid(bytes) => {
            let hex = hex(bytes, false);
            let (a, b, c, d, e) = (&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
            format!("ID:AMQP_UUID:{a}-{b}-{c}-{d}-{e}")
        }
        ValueRef::Binary(bytes) => format!("ID:AMQP_BINARY:{}", hex(bytes, true)),
        _ => return None,
    })
}

fn hex(bytes: &[u8], upper: bool) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = if upper {
                write!(text, "{byte:02X}")
            } else {
                write!(text, "{byte:02x}")
            };
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use daymark_amqp::message::MessageBuilder;
    use daymark_broker_core::selector::Selector;

    fn matches(selector: &str, payload: &[u8], delivery_count: u32) -> bool {
        let selector = Selector::parse(selector).unwrap();
        let mut found = false;
        read(payload, delivery_count, &mut |properties| {
            found = selector.matches(properties)
        });
        found
    }

    #[test]
    fn jms_names_stand_for_the_fields_that_qpid_jms_puts_them_in() {
        let message = MessageBuilder::new()
            .durable(true)
            .priority(7)
            .message_id("ID:a-1".to_owned())
            .correlation_id(7u64)
            .subject("order")
            .creation_time(1_000)
            .group_id("g")
            .application_property("color", "red".to_owned())
            .application_property("weight", 2.5f64)
            .text("x");
        for selector in [
            "color = 'red' AND weight > 2",
            "JMSDeliveryMode = 'PERSISTENT' AND JMSPriority = 7",
            "JMSMessageID = 'ID:a-1' AND JMSCorrelationID = 'ID:AMQP_ULONG:7'",
            "JMSType LIKE 'ord%' AND JMSTimestamp BETWEEN 999 AND 1001",
            "JMSXGroupID = 'g' AND JMSXDeliveryCount = 3",
            "absent IS NULL",
        ] {
            assert!(matches(selector, &message, 2), "{selector}");
        }
        assert!(!matches("color = 'blue'", &message, 0));
    }

    #[test]
    fn ids_that_are_no_text_read_as_jms_writes_them() {
        let id = |value: ValueRef<'_>| id_text(&value, true).unwrap();
        assert_eq!(id(ValueRef::String("7")), "ID:AMQP_NO_PREFIX:7");
        assert_eq!(id(ValueRef::Binary(&[1, 0xab])), "ID:AMQP_BINARY:01AB");
        assert_eq!(
            id(ValueRef::Uuid([0x11; 16])),
            "ID:AMQP_UUID:11111111-1111-1111-1111-111111111111"
        );
    }

    #[test]
    fn garbage_matches_nothing_that_asks_for_something() {
        assert!(!matches("a = 1", b"garbage", 0));
        assert!(matches("a IS NULL", b"garbage", 0));
    }
}
