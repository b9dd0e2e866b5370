//! Reading a message in place.

use super::Header;
use crate::desc;
use crate::list::List;
use crate::read::{DecodeError, Reader, ValueRef};

type Result<T> = std::result::Result<T, DecodeError>;

/// Where the sections of a message are. Making one steps over each section once and allocates nothing.
#[derive(Clone, Copy, Debug)]
pub struct MessageView<'a> {
    message: &'a [u8],
    header: Header,
    header_len: usize,
    bare_start: usize,
    body_start: usize,
    delivery_annotations: Option<Reader<'a>>,
    message_annotations: Option<Reader<'a>>,
    properties: Option<Reader<'a>>,
    application_properties: Option<Reader<'a>>,
    footer: Option<Reader<'a>>,
    body: Option<(u64, Reader<'a>)>,
}

impl<'a> MessageView<'a> {
    /// Finds the sections.
    ///
    /// # Errors
    /// If the bytes are not a sequence of message sections in their order, or the header is malformed. The
    /// inside of other sections is checked when it is read.
    pub fn parse(message: &'a [u8]) -> Result<Self> {
        let mut view = Self {
            message,
            header: Header::default(),
            header_len: 0,
            bare_start: 0,
            body_start: message.len(),
            delivery_annotations: None,
            message_annotations: None,
            properties: None,
            application_properties: None,
            footer: None,
            body: None,
        };
        let mut reader = Reader::new(message);
        let mut last = 0;
        while !reader.is_empty() {
            let start = message.len() - reader.len();
            let code = reader.descriptor()?;
            let repeats = matches!(code, desc::DATA | desc::SEQUENCE) && code == last;
            if code <= last && !repeats {
                return Err(DecodeError::Descriptor);
            }
            last = code;
            let section = reader;
            reader.skip()?;
            view.section(code, section, start, message.len() - reader.len())?;
        }
        Ok(view)
    }

    fn section(&mut self, code: u64, mut section: Reader<'a>, start: usize, end: usize) -> Result<()> {
        match code {
            desc::HEADER => {
                self.header = Header::decode(&mut section)?;
                (self.header_len, self.bare_start) = (end, end);
            }
            desc::DELIVERY_ANNOTATIONS => {
                self.delivery_annotations = Some(section);
                self.bare_start = end;
            }
            desc::MESSAGE_ANNOTATIONS => {
                self.message_annotations = Some(section);
                self.bare_start = end;
            }
            desc::PROPERTIES => self.properties = Some(section),
            desc::APPLICATION_PROPERTIES => self.application_properties = Some(section),
            desc::DATA | desc::SEQUENCE | desc::VALUE => {
                if self.body.is_some_and(|(kind, _)| kind != code) {
                    return Err(DecodeError::Descriptor);
                }
                if self.body.is_none() {
                    self.body = Some((code, section));
                    self.body_start = start;
                }
            }
            desc::FOOTER => {
                self.footer = Some(section);
                self.body_start = self.body_start.min(start);
            }
            _ => return Err(DecodeError::Descriptor),
        }
        Ok(())
    }

    /// The header, with defaults for what was not said.
    #[must_use]
    pub const fn header(&self) -> Header {
        self.header
    }

    /// Bytes of the header section; 0 if there is none.
    #[must_use]
    pub const fn header_len(&self) -> usize {
        self.header_len
    }

    /// Where the bare message begins: after header and annotations.
    #[must_use]
    pub const fn bare_start(&self) -> usize {
        self.bare_start
    }

    /// Where the body begins.
    #[must_use]
    pub const fn body_start(&self) -> usize {
        self.body_start
    }

    /// The whole message.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.message
    }

    /// The properties section; all fields empty if there is none.
    ///
    /// # Errors
    /// If it is malformed.
    pub fn properties(&self) -> Result<Properties<'a>> {
        match self.properties {
            Some(mut section) => Properties::decode(section.list()?),
            None => Ok(Properties::default()),
        }
    }

    /// Only the `to` field of the properties: where an anonymous relay sends the message.
    ///
    /// # Errors
    /// If the fields up to it are malformed.
    pub fn to(&self) -> Result<Option<&'a str>> {
        let Some(mut section) = self.properties else {
            return Ok(None);
        };
        let mut list = section.list()?;
        list.item()?;
        list.item()?;
        list.text("to")
    }

    /// Only the `absolute-expiry-time` field of the properties: when the message expires, in milliseconds since
    /// 1970 UTC. What comes before it is stepped over, and what comes behind it is not looked at.
    ///
    /// # Errors
    /// If it is no timestamp, or the fields before it do not end within the section.
    pub fn absolute_expiry_time(&self) -> Result<Option<i64>> {
        const FIELDS_BEFORE: usize = 8;
        let Some(mut section) = self.properties else {
            return Ok(None);
        };
        let mut list = section.list()?;
        if list.left <= FIELDS_BEFORE {
            return Ok(None);
        }
        for _ in 0..FIELDS_BEFORE {
            list.raw()?;
        }
        list.timestamp("absolute-expiry-time")
    }

    /// The delivery annotations.
    #[must_use]
    pub fn delivery_annotations(&self) -> MapIter<'a> {
        MapIter::new(self.delivery_annotations)
    }

    /// The message annotations.
    #[must_use]
    pub fn message_annotations(&self) -> MapIter<'a> {
        MapIter::new(self.message_annotations)
    }

    /// The application properties.
    #[must_use]
    pub fn application_properties(&self) -> MapIter<'a> {
        MapIter::new(self.application_properties)
    }

    /// The footer.
    #[must_use]
    pub fn footer(&self) -> MapIter<'a> {
        MapIter::new(self.footer)
    }

    /// The message annotation `key`; `None` also if the map is malformed before it.
    #[must_use]
    pub fn message_annotation(&self, key: &str) -> Option<ValueRef<'a>> {
        self.message_annotations().lookup(key)
    }

    /// The application property `key`; `None` also if the map is malformed before it.
    #[must_use]
    pub fn application_property(&self, key: &str) -> Option<ValueRef<'a>> {
        self.application_properties().lookup(key)
    }

    /// The body.
    ///
    /// # Errors
    /// If its first section is of another type than its descriptor demands.
    pub fn body(&self) -> Result<Body<'a>> {
        let Some((kind, mut section)) = self.body else {
            return Ok(Body::Empty);
        };
        let item = section.item()?;
        match kind {
            desc::DATA => {
                let ValueRef::Binary(first) = item else {
                    return Err(DecodeError::Type("data"));
                };
                Ok(Body::Data(first))
            }
            desc::SEQUENCE => Ok(Body::Sequence(item)),
            _ => Ok(Body::Value(item)),
        }
    }

    /// All data sections of the body, in order.
    #[must_use]
    pub const fn data_sections(&self) -> DataSections<'a> {
        DataSections {
            rest: Reader::new(self.message.split_at(self.body_start).1),
        }
    }
}

/// The body of a message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Body<'a> {
    /// No body section.
    Empty,
    /// The first data section; [`MessageView::data_sections`] gives them all.
    Data(&'a [u8]),
    /// The first sequence section: a list.
    Sequence(ValueRef<'a>),
    /// A value.
    Value(ValueRef<'a>),
}

/// The data sections of a body.
#[derive(Clone, Debug)]
pub struct DataSections<'a> {
    rest: Reader<'a>,
}

impl<'a> Iterator for DataSections<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.descriptor().ok()? != desc::DATA {
            return None;
        }
        if let ValueRef::Binary(data) = self.rest.item().ok()? {
            Some(data)
        } else {
            None
        }
    }
}

/// The pairs of a map. Ends early where the map is malformed.
#[derive(Clone, Debug)]
pub struct MapIter<'a> {
    list: Option<List<'a>>,
}

impl<'a> MapIter<'a> {
    fn new(section: Option<Reader<'a>>) -> Self {
        Self {
            list: section.and_then(|mut section| section.map().ok()),
        }
    }

    fn lookup(mut self, key: &str) -> Option<ValueRef<'a>> {
        self.find(|(k, _)| k.as_str() == Some(key))
            .map(|(_, value)| value)
    }
}

impl<'a> Iterator for MapIter<'a> {
    type Item = (ValueRef<'a>, ValueRef<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let list = self.list.as_mut().filter(|list| !list.is_empty())?;
        let pair = list.item().and_then(|key| Ok((key, list.item()?)));
        if pair.is_err() {
            self.list = None;
        }
        pair.ok()
    }
}

/// The properties section, borrowed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Properties<'a> {
    /// Id of the message: string, ulong, uuid or binary.
    pub message_id: Option<ValueRef<'a>>,
    /// Who made it.
    pub user_id: Option<&'a [u8]>,
    /// Where it goes.
    pub to: Option<&'a str>,
    /// Its subject.
    pub subject: Option<&'a str>,
    /// Where answers go.
    pub reply_to: Option<&'a str>,
    /// Id it answers.
    pub correlation_id: Option<ValueRef<'a>>,
    /// MIME type of the body.
    pub content_type: Option<&'a str>,
    /// Encoding of the body.
    pub content_encoding: Option<&'a str>,
    /// Milliseconds since the epoch at which it expires.
    pub absolute_expiry_time: Option<i64>,
    /// Milliseconds since the epoch at which it was made.
    pub creation_time: Option<i64>,
    /// Its group.
    pub group_id: Option<&'a str>,
    /// Its place in the group.
    pub group_sequence: Option<u32>,
    /// The group of answers.
    pub reply_to_group_id: Option<&'a str>,
}

impl<'a> Properties<'a> {
    fn decode(mut list: List<'a>) -> Result<Self> {
        let some = |value: ValueRef<'a>| (value != ValueRef::Null).then_some(value);
        Ok(Self {
            message_id: some(list.item()?),
            user_id: list.binary("user-id")?,
            to: list.text("to")?,
            subject: list.text("subject")?,
            reply_to: list.text("reply-to")?,
            correlation_id: some(list.item()?),
            content_type: list.text("content-type")?,
            content_encoding: list.text("content-encoding")?,
            absolute_expiry_time: list.timestamp("absolute-expiry-time")?,
            creation_time: list.timestamp("creation-time")?,
            group_id: list.text("group-id")?,
            group_sequence: list.uint("group-sequence")?,
            reply_to_group_id: list.text("reply-to-group-id")?,
        })
    }
}
