//! Messages as programs make and read them.
//!
//! It decides how a message is written in AMQP and which sections are read. It never keeps more than one copy
//! of a body of bytes.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use daymark_amqp::message::{Body as WireBody, Header, MessageBuilder, MessageView, Properties};
use daymark_amqp::{DecodeError, Symbol, Value, ValueRef};

use super::destination::{Destination, Kind};

/// The message annotation that carries a message's duplicate id.
pub(super) const DUPLICATE_ID: &str = "x-opt-daymark-dup-id";

/// The message annotations that JMS clients write and read.
const MESSAGE_TYPE: Symbol = Symbol::from_static("x-opt-jms-msg-type");
const DESTINATION_TYPE: Symbol = Symbol::from_static("x-opt-jms-dest");
const REPLY_TYPE: &str = "x-opt-jms-reply-to";
const DELIVERY_TIME: Symbol = Symbol::from_static("x-opt-delivery-time");

/// The identity of one message: a broker stores it once, however often it is sent.
///
/// In text and on the wire it is 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DuplicateId(pub u128);

impl DuplicateId {
    /// A random one.
    #[must_use]
    pub fn random() -> Self {
        Self(fastrand::u128(..))
    }
}

impl fmt::Display for DuplicateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A text that is not 1 to 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a duplicate id is 1 to 32 hexadecimal digits")]
pub struct InvalidDuplicateId;

impl FromStr for DuplicateId {
    type Err = InvalidDuplicateId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let valid = (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
        u128::from_str_radix(text, 16)
            .ok()
            .filter(|_| valid)
            .map(Self)
            .ok_or(InvalidDuplicateId)
    }
}

/// What a message carries. For JMS clients it is a message, text, bytes, map, stream or object message.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Body {
    /// Nothing.
    #[default]
    Empty,
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Bytes),
    /// Named values, in order.
    Map(Vec<(String, Value)>),
    /// A row of values.
    Stream(Vec<Value>),
    /// Any other AMQP value.
    Value(Value),
}

impl Body {
    /// The number by which JMS clients know what it is.
    const fn jms_type(&self) -> i8 {
        match self {
            Self::Empty => 0,
            Self::Value(_) => 1,
            Self::Map(_) => 2,
            Self::Bytes(_) => 3,
            Self::Stream(_) => 4,
            Self::Text(_) => 5,
        }
    }
}

/// A message. Persistent, of priority 4 and without an end unless something else is said.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// What it carries.
    pub body: Body,
    /// Whether it outlives the broker's process. Default true.
    pub durable: bool,
    /// 0 to 9, the higher the sooner. Default 4.
    pub priority: u8,
    /// How long it is worth delivering. Default for ever.
    pub ttl: Option<Duration>,
    /// Its subject.
    pub subject: Option<String>,
    /// Its id, as the program gives it.
    pub message_id: Option<String>,
    /// The id of the message it answers.
    pub correlation_id: Option<String>,
    /// Where answers go. A temporary destination of this connection is written with the address that it has
    /// when the message goes out.
    pub reply_to: Option<Destination>,
    /// How long the broker keeps it before it may be delivered, counted from when it is first sent. Default
    /// not at all. Not told to those who receive it.
    pub delivery_delay: Option<Duration>,
    /// The MIME type of the body.
    pub content_type: Option<String>,
    /// The program's own properties, in order.
    pub properties: Vec<(String, Value)>,
    /// Its identity. Made when it is sent where none is given: a clone that is sent again is another
    /// message, unless it was given the same id.
    pub duplicate_id: Option<DuplicateId>,
}

impl Default for Message {
    fn default() -> Self {
        Self {
            body: Body::Empty,
            durable: true,
            priority: 4,
            ttl: None,
            subject: None,
            message_id: None,
            correlation_id: None,
            reply_to: None,
            delivery_delay: None,
            content_type: None,
            properties: Vec::new(),
            duplicate_id: None,
        }
    }
}

impl Message {
    /// A message of text.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            body: Body::Text(text.into()),
            ..Self::default()
        }
    }

    /// A message of bytes.
    #[must_use]
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self {
            body: Body::Bytes(bytes.into()),
            ..Self::default()
        }
    }

    /// A message of named values.
    #[must_use]
    pub fn map<N: Into<String>, V: Into<Value>>(entries: impl IntoIterator<Item = (N, V)>) -> Self {
        let entries = entries
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()));
        Self {
            body: Body::Map(entries.collect()),
            ..Self::default()
        }
    }

    /// A message of a row of values.
    #[must_use]
    pub fn stream<V: Into<Value>>(values: impl IntoIterator<Item = V>) -> Self {
        Self {
            body: Body::Stream(values.into_iter().map(Into::into).collect()),
            ..Self::default()
        }
    }

    /// The message with one more property. AMQP allows simple values.
    #[must_use]
    pub fn with_property(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.properties.push((name.into(), value.into()));
        self
    }

    /// The message with this subject.
    #[must_use]
    pub fn with_subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// The message with this priority.
    #[must_use]
    pub const fn with_priority(mut self, priority: u8) -> Self {
        self.priority = priority;
        self
    }

    /// The message with this time to live. At most 49 days; longer means for ever.
    #[must_use]
    pub const fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// The message, answered there.
    #[must_use]
    pub fn with_reply_to(mut self, destination: &Destination) -> Self {
        self.reply_to = Some(destination.clone());
        self
    }

    /// The message as an answer to another, by its correlation id or else its message id.
    #[must_use]
    pub fn answering(mut self, request: &Self) -> Self {
        let id = request.correlation_id.as_ref().or(request.message_id.as_ref());
        self.correlation_id = id.cloned();
        self
    }

    /// The message, delivered only after this time.
    #[must_use]
    pub const fn with_delivery_delay(mut self, delay: Duration) -> Self {
        self.delivery_delay = Some(delay);
        self
    }

    /// The message, lost with the broker's process.
    #[must_use]
    pub const fn non_persistent(mut self) -> Self {
        self.durable = false;
        self
    }

    /// The message under this identity: to send it again after `SendError::OutcomeUnknown`.
    #[must_use]
    pub const fn with_duplicate_id(mut self, id: DuplicateId) -> Self {
        self.duplicate_id = Some(id);
        self
    }

    /// The first property of this name.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&Value> {
        let found = self.properties.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value)
    }

    /// The text of a body of text.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        if let Body::Text(text) = &self.body {
            Some(text)
        } else {
            None
        }
    }

    /// The bytes of a body of bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> Option<&Bytes> {
        if let Body::Bytes(bytes) = &self.body {
            Some(bytes)
        } else {
            None
        }
    }

    /// The message as it goes over the wire; `to` where its link does not say where it goes.
    pub(super) fn encode(&self, id: DuplicateId, to: Option<&Destination>) -> Bytes {
        let header = Header {
            durable: self.durable,
            priority: self.priority,
            ttl: self.ttl.and_then(|ttl| u32::try_from(ttl.as_millis()).ok()),
            ..Header::default()
        };
        let mut builder = MessageBuilder::new()
            .header(header)
            .annotation(MESSAGE_TYPE, Value::Byte(self.body.jms_type()))
            .annotation(Symbol::from_static(DUPLICATE_ID), id.to_string());
        if let Some(delay) = self.delivery_delay {
            builder = builder.annotation(DELIVERY_TIME, Value::Long(ms_since_epoch(delay)));
        }
        if let Some(to) = to {
            builder = builder
                .annotation(DESTINATION_TYPE, Value::Byte(to.kind() as i8))
                .to(to.address());
        }
        if let Some(reply_to) = &self.reply_to {
            builder = builder
                .annotation(
                    Symbol::from_static(REPLY_TYPE),
                    Value::Byte(reply_to.kind() as i8),
                )
                .reply_to(reply_to.address());
        }
        self.encode_rest(builder)
    }

    fn encode_rest(&self, mut builder: MessageBuilder) -> Bytes {
        if let Some(id) = &self.message_id {
            builder = builder.message_id(id.as_str());
        }
        if let Some(id) = &self.correlation_id {
            builder = builder.correlation_id(id.as_str());
        }
        if let Some(subject) = &self.subject {
            builder = builder.subject(subject);
        }
        if let Some(kind) = self.content_type.as_deref().and_then(Symbol::new) {
            builder = builder.content_type(kind);
        }
        for (name, value) in &self.properties {
            builder = builder.application_property(name, value.clone());
        }
        match &self.body {
            Body::Empty => builder.value(&Value::Null),
            Body::Text(text) => builder.text(text),
            Body::Bytes(bytes) => builder.data(bytes),
            Body::Map(entries) => {
                let pair = |(name, value): &(String, Value)| (name.as_str().into(), value.clone());
                builder.value(&Value::Map(entries.iter().map(pair).collect()))
            }
            Body::Stream(values) => builder.sequence(values),
            Body::Value(value) => builder.value(value),
        }
    }

    /// Reads a message that came over the wire; bodies of bytes share its memory.
    pub(super) fn decode(payload: &Bytes) -> Result<Self, DecodeError> {
        let view = MessageView::parse(payload)?;
        let header = view.header();
        let properties = view.properties()?;
        Ok(Self {
            body: body(&view, payload)?,
            durable: header.durable,
            priority: header.priority,
            ttl: header.ttl.map(|ms| Duration::from_millis(ms.into())),
            duplicate_id: duplicate_id(&view).and_then(|id| id.parse().ok()),
            properties: application_properties(&view)?,
            reply_to: properties.reply_to.map(|address| reply_to(&view, address)),
            ..Self::described(&properties)
        })
    }

    fn described(properties: &Properties<'_>) -> Self {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Self {
            subject: owned(properties.subject),
            message_id: properties.message_id.map(printed),
            correlation_id: properties.correlation_id.map(printed),
            content_type: owned(properties.content_type),
            ..Self::default()
        }
    }
}

/// Milliseconds since 1970 at the end of this delay.
fn ms_since_epoch(delay: Duration) -> i64 {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(now.saturating_add(delay).as_millis()).unwrap_or(i64::MAX)
}

/// Where answers go; a queue, unless the sender wrote otherwise.
fn reply_to(view: &MessageView<'_>, address: &str) -> Destination {
    let number = view.message_annotation(REPLY_TYPE).and_then(ValueRef::as_i64);
    Destination::of(number.and_then(Kind::from_number).unwrap_or(Kind::Queue), address)
}

/// The duplicate id of a message, as its sender wrote it.
pub(super) fn duplicate_id<'a>(view: &MessageView<'a>) -> Option<&'a str> {
    view.message_annotation(DUPLICATE_ID).and_then(ValueRef::as_str)
}

fn application_properties(view: &MessageView<'_>) -> Result<Vec<(String, Value)>, DecodeError> {
    view.application_properties()
        .filter_map(|(name, value)| Some((name.as_str()?.to_owned(), value)))
        .map(|(name, value)| Ok((name, value.to_value()?)))
        .collect()
}

fn body(view: &MessageView<'_>, payload: &Bytes) -> Result<Body, DecodeError> {
    Ok(match view.body()? {
        WireBody::Empty => Body::Empty,
        WireBody::Data(first) => {
            let mut sections = view.data_sections();
            let single = sections.next().is_some() && sections.next().is_none();
            Body::Bytes(if single {
                payload.slice_ref(first)
            } else {
                view.data_sections().collect::<Vec<_>>().concat().into()
            })
        }
        WireBody::Sequence(list) => {
            let value = list.to_value()?;
            if let Value::List(values) = value {
                Body::Stream(values)
            } else {
                Body::Value(value)
            }
        }
        WireBody::Value(ValueRef::String(text)) => Body::Text(text.to_owned()),
        WireBody::Value(ValueRef::Binary(bytes)) => Body::Bytes(payload.slice_ref(bytes)),
        WireBody::Value(ValueRef::Null) => Body::Empty,
        WireBody::Value(value) => named_values(value.to_value()?),
    })
}

/// A map whose keys are all text is a body of named values.
fn named_values(value: Value) -> Body {
    let Value::Map(pairs) = value else {
        return Body::Value(value);
    };
    if pairs.iter().any(|(name, _)| name.as_str().is_none()) {
        return Body::Value(Value::Map(pairs));
    }
    let named = |(name, value): (Value, Value)| Some((name.as_str()?.to_owned(), value));
    Body::Map(pairs.into_iter().filter_map(named).collect())
}

/// A message id of any of the types AMQP allows, as text.
#[expect(clippy::wildcard_enum_match_arm, reason = "every other type is no id")]
fn printed(id: ValueRef<'_>) -> String {
    if let Some(text) = id.as_str() {
        return text.to_owned();
    }
    if let ValueRef::Ulong(number) = id {
        return number.to_string();
    }
    let bytes = match &id {
        ValueRef::Uuid(bytes) => bytes,
        ValueRef::Binary(bytes) => *bytes,
        // The types above are all that AMQP allows.
        _ => &[][..],
    };
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_what_is_read() {
        let id = DuplicateId(0xbeef);
        let message = Message {
            message_id: Some("m".into()),
            correlation_id: Some("c".into()),
            reply_to: Some(Destination::of(Kind::TemporaryQueue, "answers")),
            content_type: Some("text/plain".into()),
            ..Message::text("hello")
        };
        let message = message
            .with_subject("greeting")
            .with_property("n", 7_i64)
            .with_property("who", "duke")
            .with_priority(9)
            .with_ttl(Duration::from_secs(3))
            .with_duplicate_id(id);
        assert_eq!(Message::decode(&message.encode(id, None)), Ok(message));
        let bytes = Message::bytes(&b"\0\xff"[..])
            .non_persistent()
            .with_duplicate_id(id);
        assert_eq!(Message::decode(&bytes.encode(id, None)), Ok(bytes));
        let empty = Message::default().with_duplicate_id(id);
        assert_eq!(Message::decode(&empty.encode(id, None)), Ok(empty));
    }

    #[test]
    fn every_kind_of_body_is_read_as_it_was_sent_and_named_for_jms() {
        let entries = [("n", Value::Int(7)), ("who", "duke".into())];
        let bodies = [
            (Message::default(), 0),
            (
                Message {
                    body: Body::Value(Value::Ulong(9)),
                    ..Message::default()
                },
                1,
            ),
            (Message::map(entries), 2),
            (Message::bytes(&b"\0\x01"[..]), 3),
            (Message::stream([Value::Bool(true), Value::Int(300)]), 4),
            (Message::text("text"), 5),
        ];
        for (message, number) in bodies {
            let payload = message.encode(DuplicateId(1), None);
            let view = MessageView::parse(&payload).expect("a message");
            let kind = view
                .message_annotation(MESSAGE_TYPE.as_str())
                .and_then(ValueRef::as_i64);
            assert_eq!(kind, Some(number));
            let read = Message::decode(&payload).expect("a message");
            assert_eq!(read.body, message.body);
        }
    }

    #[test]
    fn what_a_message_says_of_its_way_is_written_as_jms_clients_do() {
        let request = Message::text("?")
            .with_reply_to(&Destination::of(Kind::TemporaryTopic, "t"))
            .with_delivery_delay(Duration::from_secs(3600));
        let payload = request.encode(DuplicateId(1), Some(&Destination::topic("there")));
        let view = MessageView::parse(&payload).expect("a message");
        let number = |key: &str| view.message_annotation(key).and_then(ValueRef::as_i64);
        assert_eq!(view.to(), Ok(Some("there")));
        assert_eq!(number("x-opt-jms-dest"), Some(1));
        assert_eq!(number("x-opt-jms-reply-to"), Some(3));
        let due = number("x-opt-delivery-time").expect("a time");
        let left = due - ms_since_epoch(Duration::ZERO);
        assert!((3_500_000..=3_600_000).contains(&left), "{left}");
        let reply_to = Message::decode(&payload)
            .expect("a message")
            .reply_to
            .expect("a place");
        assert!(reply_to.is_topic() && reply_to.is_temporary());
    }

    #[test]
    fn a_message_is_persistent_unless_it_says_otherwise() {
        let payload = Message::text("x").encode(DuplicateId::random(), None);
        let view = MessageView::parse(&payload).expect("a message");
        assert!(view.header().durable);
        assert_eq!(duplicate_id(&view).map(str::len), Some(32));
    }

    #[test]
    fn duplicate_ids_read_as_they_print() {
        let id = DuplicateId::random();
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "+1", "g", &"0".repeat(33)] {
            assert_eq!(text.parse::<DuplicateId>(), Err(InvalidDuplicateId));
        }
    }

    #[test]
    fn bytes_that_are_no_message_are_refused() {
        assert!(Message::decode(&Bytes::from_static(b"\0\x53\x77")).is_err());
        assert!(Message::decode(&Bytes::from_static(b"hello")).is_err());
    }
}
