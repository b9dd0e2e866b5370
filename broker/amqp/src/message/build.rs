//! Making a message.

use super::Header;
use crate::desc;
use crate::value::{Fields, Symbol, Value};
use crate::write::{
    ListWriter, put_binary, put_compound, put_fields, put_list, put_string, put_timestamp, put_uint,
    put_ulong, put_value,
};
use bytes::Bytes;

/// Collects the sections of a message; the body comes last and gives the bytes.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct MessageBuilder {
    header: Header,
    delivery_annotations: Fields,
    message_annotations: Fields,
    message_id: Option<Value>,
    user_id: Option<Bytes>,
    to: Option<String>,
    subject: Option<String>,
    reply_to: Option<String>,
    correlation_id: Option<Value>,
    content_type: Option<Symbol>,
    content_encoding: Option<Symbol>,
    absolute_expiry_time: Option<i64>,
    creation_time: Option<i64>,
    group_id: Option<String>,
    group_sequence: Option<u32>,
    reply_to_group_id: Option<String>,
    application_properties: Vec<(String, Value)>,
}

impl MessageBuilder {
    /// A message of which nothing is said yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the whole header.
    pub const fn header(mut self, header: Header) -> Self {
        self.header = header;
        self
    }

    /// Survive a restart of the broker. Default false.
    pub const fn durable(mut self, durable: bool) -> Self {
        self.header.durable = durable;
        self
    }

    /// Priority. Default 4.
    pub const fn priority(mut self, priority: u8) -> Self {
        self.header.priority = priority;
        self
    }

    /// Milliseconds to live.
    pub const fn ttl(mut self, milliseconds: u32) -> Self {
        self.header.ttl = Some(milliseconds);
        self
    }

    /// Adds a delivery annotation, for the next hop only.
    pub fn delivery_annotation(mut self, key: Symbol, value: impl Into<Value>) -> Self {
        self.delivery_annotations.insert(key, value);
        self
    }

    /// Adds a message annotation.
    pub fn annotation(mut self, key: Symbol, value: impl Into<Value>) -> Self {
        self.message_annotations.insert(key, value);
        self
    }

    /// Id of the message: string, ulong, uuid or binary.
    pub fn message_id(mut self, id: impl Into<Value>) -> Self {
        self.message_id = Some(id.into());
        self
    }

    /// Who makes it.
    pub fn user_id(mut self, user: impl Into<Bytes>) -> Self {
        self.user_id = Some(user.into());
        self
    }

    /// Where it goes.
    pub fn to(mut self, address: impl Into<String>) -> Self {
        self.to = Some(address.into());
        self
    }

    /// Its subject.
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// Where answers go.
    pub fn reply_to(mut self, address: impl Into<String>) -> Self {
        self.reply_to = Some(address.into());
        self
    }

    /// Id it answers.
    pub fn correlation_id(mut self, id: impl Into<Value>) -> Self {
        self.correlation_id = Some(id.into());
        self
    }

    /// MIME type of the body.
    pub fn content_type(mut self, content_type: Symbol) -> Self {
        self.content_type = Some(content_type);
        self
    }

    /// Encoding of the body.
    pub fn content_encoding(mut self, encoding: Symbol) -> Self {
        self.content_encoding = Some(encoding);
        self
    }

    /// Milliseconds since the epoch at which it expires.
    pub const fn absolute_expiry_time(mut self, milliseconds: i64) -> Self {
        self.absolute_expiry_time = Some(milliseconds);
        self
    }

    /// Milliseconds since the epoch at which it is made.
    pub const fn creation_time(mut self, milliseconds: i64) -> Self {
        self.creation_time = Some(milliseconds);
        self
    }

    /// Its group.
    pub fn group_id(mut self, group: impl Into<String>) -> Self {
        self.group_id = Some(group.into());
        self
    }

    /// Its place in the group.
    pub const fn group_sequence(mut self, sequence: u32) -> Self {
        self.group_sequence = Some(sequence);
        self
    }

    /// The group of answers.
    pub fn reply_to_group_id(mut self, group: impl Into<String>) -> Self {
        self.reply_to_group_id = Some(group.into());
        self
    }

    /// Adds an application property. AMQP allows simple values only, no list, map or array.
    pub fn application_property(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.application_properties.push((name.into(), value.into()));
        self
    }

    /// The message with a body of bytes.
    #[must_use]
    pub fn data(&self, data: &[u8]) -> Bytes {
        let mut buf = self.sections(data.len() + 8);
        section(&mut buf, desc::DATA);
        put_binary(&mut buf, data);
        buf.into()
    }

    /// The message with a body of text.
    #[must_use]
    pub fn text(&self, text: &str) -> Bytes {
        let mut buf = self.sections(text.len() + 8);
        section(&mut buf, desc::VALUE);
        put_string(&mut buf, text);
        buf.into()
    }

    /// The message with any value as its body.
    #[must_use]
    pub fn value(&self, value: &Value) -> Bytes {
        let mut buf = self.sections(64);
        section(&mut buf, desc::VALUE);
        put_value(&mut buf, value);
        buf.into()
    }

    /// The message with a list of values as its body, in one amqp-sequence section.
    #[must_use]
    pub fn sequence(&self, values: &[Value]) -> Bytes {
        let mut buf = self.sections(64);
        section(&mut buf, desc::SEQUENCE);
        put_list(&mut buf, values);
        buf.into()
    }

    fn sections(&self, body: usize) -> Vec<u8> {
        let mut buf = Vec::with_capacity(128 + body);
        if self.header != Header::default() {
            self.header.put(&mut buf);
        }
        put_map(&mut buf, desc::DELIVERY_ANNOTATIONS, &self.delivery_annotations);
        put_map(&mut buf, desc::MESSAGE_ANNOTATIONS, &self.message_annotations);
        self.put_properties(&mut buf);
        if !self.application_properties.is_empty() {
            section(&mut buf, desc::APPLICATION_PROPERTIES);
            put_compound(&mut buf, 0xc1, self.application_properties.len() * 2, |buf| {
                for (name, value) in &self.application_properties {
                    put_string(buf, name);
                    put_value(buf, value);
                }
            });
        }
        buf
    }

    fn put_properties(&self, buf: &mut Vec<u8>) {
        let start = buf.len();
        let mut list = ListWriter::described(buf, desc::PROPERTIES);
        list.option(self.message_id.as_ref(), put_value);
        list.option(self.user_id.as_ref(), |buf, user| put_binary(buf, user));
        list.string(self.to.as_deref());
        list.string(self.subject.as_deref());
        list.string(self.reply_to.as_deref());
        list.option(self.correlation_id.as_ref(), put_value);
        list.symbol(self.content_type.as_ref());
        list.symbol(self.content_encoding.as_ref());
        list.option(self.absolute_expiry_time, put_timestamp);
        list.option(self.creation_time, put_timestamp);
        list.string(self.group_id.as_deref());
        list.option(self.group_sequence, put_uint);
        list.string(self.reply_to_group_id.as_deref());
        if list.finish() == 0 {
            buf.truncate(start);
        }
    }
}

fn section(buf: &mut Vec<u8>, descriptor: u64) {
    buf.push(0);
    put_ulong(buf, descriptor);
}

fn put_map(buf: &mut Vec<u8>, descriptor: u64, fields: &Fields) {
    if !fields.is_empty() {
        section(buf, descriptor);
        put_fields(buf, fields);
    }
}
