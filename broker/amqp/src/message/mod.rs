//! Messages: a view that borrows, a header that can be rewritten, and a builder.
//!
//! The view finds where sections begin and reads single fields when asked. It never copies or changes the
//! bare message (properties, application properties, body, footer): that passes from sender to receiver as it
//! came.

mod build;
mod view;

pub use build::MessageBuilder;
pub use view::{Body, DataSections, MapIter, MessageView, Properties};

use crate::desc;
use crate::read::{DecodeError, Reader};
use crate::write::{ListWriter, put_bool, put_ubyte, put_uint};
use bytes::Bytes;

/// The header section: how a message is to be handled on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Survive a restart of the broker. Default false.
    pub durable: bool,
    /// 0 to 9 and above. Default 4.
    pub priority: u8,
    /// Milliseconds to live.
    pub ttl: Option<u32>,
    /// Nobody has acquired it before. Default false.
    pub first_acquirer: bool,
    /// Failed deliveries so far. Default 0.
    pub delivery_count: u32,
}

impl Default for Header {
    fn default() -> Self {
        Self {
            durable: false,
            priority: 4,
            ttl: None,
            first_acquirer: false,
            delivery_count: 0,
        }
    }
}

impl Header {
    /// The section's bytes; fields with their default are left out.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut buf = Vec::with_capacity(24);
        self.put(&mut buf);
        buf
    }

    fn put(&self, buf: &mut Vec<u8>) {
        let mut list = ListWriter::described(buf, desc::HEADER);
        list.option(self.durable.then_some(true), put_bool);
        list.option((self.priority != 4).then_some(self.priority), put_ubyte);
        list.option(self.ttl, put_uint);
        list.option(self.first_acquirer.then_some(true), put_bool);
        list.option(
            (self.delivery_count != 0).then_some(self.delivery_count),
            put_uint,
        );
        list.finish();
    }

    fn decode(section: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut list = section.list()?;
        Ok(Self {
            durable: list.boolean("durable")?,
            priority: list.ubyte("priority")?.unwrap_or(4),
            ttl: list.uint("ttl")?,
            first_acquirer: list.boolean("first-acquirer")?,
            delivery_count: list.uint("delivery-count")?.unwrap_or(0),
        })
    }
}

/// A message with another header: the new header's bytes for [`crate::Outgoing::head`], and the rest as a
/// slice of the same memory.
///
/// # Errors
/// If the first section is malformed.
pub fn with_header(payload: &Bytes, header: &Header) -> Result<(Vec<u8>, Bytes), DecodeError> {
    let skip = header_len(payload)?;
    Ok((header.encode(), payload.slice(skip..)))
}

/// How many bytes the header section takes; 0 if there is none.
///
/// # Errors
/// If the first section is malformed.
pub fn header_len(message: &[u8]) -> Result<usize, DecodeError> {
    let mut reader = Reader::new(message);
    if reader.is_empty() || reader.descriptor()? != desc::HEADER {
        return Ok(0);
    }
    reader.skip()?;
    Ok(message.len() - reader.len())
}

/// The body of the first section with this descriptor.
pub(crate) fn section_body(message: &[u8], wanted: u64) -> Result<Option<Reader<'_>>, DecodeError> {
    let mut reader = Reader::new(message);
    while !reader.is_empty() {
        if reader.descriptor()? == wanted {
            return Ok(Some(reader));
        }
        reader.skip()?;
    }
    Ok(None)
}
