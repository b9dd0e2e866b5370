//! Decoding: a cursor over bytes that borrows what it can.
//!
//! It never recurses deeper than [`MAX_DEPTH`], never makes more values than there were bytes, and never
//! reads past its slice: hostile input ends in a [`DecodeError`].

use crate::value::{Fields, Symbol, Value};
use bytes::Bytes;
use std::fmt;

/// How deep values may be nested.
pub const MAX_DEPTH: u32 = 32;

/// Why bytes are no AMQP value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end inside a value.
    Truncated,
    /// No type has this constructor.
    Constructor(u8),
    /// Values are nested deeper than [`MAX_DEPTH`].
    TooDeep,
    /// A collection claims more elements than its bytes can hold.
    TooMany,
    /// A string is not UTF-8 or a symbol is not ASCII.
    Text,
    /// A value is of another type than its place demands.
    Type(&'static str),
    /// A mandatory field is missing.
    Missing(&'static str),
    /// A value lies outside its domain.
    Range(&'static str),
    /// A described type that does not belong here, or is unknown.
    Descriptor,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("the bytes end inside a value"),
            Self::Constructor(code) => write!(f, "unknown constructor 0x{code:02x}"),
            Self::TooDeep => write!(f, "nested deeper than {MAX_DEPTH}"),
            Self::TooMany => f.write_str("more elements than bytes"),
            Self::Text => f.write_str("text is not UTF-8, or a symbol is not ASCII"),
            Self::Type(what) => write!(f, "wrong type for {what}"),
            Self::Missing(what) => write!(f, "missing {what}"),
            Self::Range(what) => write!(f, "invalid {what}"),
            Self::Descriptor => f.write_str("unexpected described type"),
        }
    }
}

impl std::error::Error for DecodeError {}

type Result<T> = std::result::Result<T, DecodeError>;

/// A value borrowed from a message: scalars by value, text and binary as slices, the rest as raw bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValueRef<'a> {
    /// The absence of a value.
    Null,
    /// `boolean`.
    Bool(bool),
    /// `ubyte`.
    Ubyte(u8),
    /// `ushort`.
    Ushort(u16),
    /// `uint`.
    Uint(u32),
    /// `ulong`.
    Ulong(u64),
    /// `byte`.
    Byte(i8),
    /// `short`.
    Short(i16),
    /// `int`.
    Int(i32),
    /// `long`.
    Long(i64),
    /// `float`.
    Float(f32),
    /// `double`.
    Double(f64),
    /// `decimal32`.
    Decimal32([u8; 4]),
    /// `decimal64`.
    Decimal64([u8; 8]),
    /// `decimal128`.
    Decimal128([u8; 16]),
    /// `char`.
    Char(char),
    /// `timestamp`: milliseconds since the Unix epoch.
    Timestamp(i64),
    /// `uuid`.
    Uuid([u8; 16]),
    /// `binary`.
    Binary(&'a [u8]),
    /// `string`.
    String(&'a str),
    /// `symbol`.
    Symbol(&'a str),
    /// A list, map, array or described value: its whole encoding.
    Compound(&'a [u8]),
}

impl<'a> ValueRef<'a> {
    /// The text of a string or symbol.
    #[must_use]
    pub fn as_str(self) -> Option<&'a str> {
        if let Self::String(text) | Self::Symbol(text) = self {
            Some(text)
        } else {
            None
        }
    }

    /// The value of an integer or timestamp of any width, if it fits.
    #[must_use]
    #[expect(clippy::wildcard_enum_match_arm, reason = "every other type is no integer")]
    pub fn as_i64(self) -> Option<i64> {
        match self {
            Self::Ubyte(v) => Some(v.into()),
            Self::Ushort(v) => Some(v.into()),
            Self::Uint(v) => Some(v.into()),
            Self::Ulong(v) => i64::try_from(v).ok(),
            Self::Byte(v) => Some(v.into()),
            Self::Short(v) => Some(v.into()),
            Self::Int(v) => Some(v.into()),
            Self::Long(v) | Self::Timestamp(v) => Some(v),
            _ => None,
        }
    }

    /// The value owned.
    ///
    /// # Errors
    /// If a compound value is malformed inside.
    pub fn to_value(self) -> Result<Value> {
        Ok(match self {
            Self::Null => Value::Null,
            Self::Bool(v) => Value::Bool(v),
            Self::Ubyte(v) => Value::Ubyte(v),
            Self::Ushort(v) => Value::Ushort(v),
            Self::Uint(v) => Value::Uint(v),
            Self::Ulong(v) => Value::Ulong(v),
            Self::Byte(v) => Value::Byte(v),
            Self::Short(v) => Value::Short(v),
            Self::Int(v) => Value::Int(v),
            Self::Long(v) => Value::Long(v),
            Self::Float(v) => Value::Float(v),
            Self::Double(v) => Value::Double(v),
            Self::Decimal32(v) => Value::Decimal32(v),
            Self::Decimal64(v) => Value::Decimal64(v),
            Self::Decimal128(v) => Value::Decimal128(v),
            Self::Char(v) => Value::Char(v),
            Self::Timestamp(v) => Value::Timestamp(v),
            Self::Uuid(v) => Value::Uuid(v),
            Self::Binary(v) => Value::Binary(Bytes::copy_from_slice(v)),
            Self::String(v) => Value::String(v.to_owned()),
            Self::Symbol(v) => Value::Symbol(Symbol::new(v).ok_or(DecodeError::Text)?),
            Self::Compound(raw) => Reader::new(raw).value()?,
        })
    }
}

/// A cursor over encoded values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) const fn len(&self) -> usize {
        self.rest.len()
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let (head, tail) = self.rest.split_at_checked(n).ok_or(DecodeError::Truncated)?;
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.rest = tail;
        Ok(*head)
    }

    fn byte(&mut self) -> Result<u8> {
        let (&head, tail) = self.rest.split_first().ok_or(DecodeError::Truncated)?;
        self.rest = tail;
        Ok(head)
    }

    fn len32(&mut self) -> Result<usize> {
        usize::try_from(u32::from_be_bytes(self.array()?)).map_err(|_| DecodeError::Truncated)
    }

    /// Steps over one value without looking inside.
    pub(crate) fn skip(&mut self) -> Result<()> {
        let mut pending = 1_usize;
        while pending > 0 {
            let code = self.byte()?;
            if code == 0 {
                pending += 1; // A described value is two values: descriptor and value.
                continue;
            }
            self.skip_body(code)?;
            pending -= 1;
        }
        Ok(())
    }

    fn skip_body(&mut self, code: u8) -> Result<()> {
        let size = match code >> 4 {
            0x4 => 0,
            0x5 => 1,
            0x6 => 2,
            0x7 => 4,
            0x8 => 8,
            0x9 => 16,
            0xa | 0xc | 0xe => self.byte()?.into(),
            0xb | 0xd | 0xf => self.len32()?,
            _ => return Err(DecodeError::Constructor(code)),
        };
        self.take(size).map(drop)
    }

    /// The next value, borrowed.
    pub(crate) fn item(&mut self) -> Result<ValueRef<'a>> {
        let start = self.rest;
        let code = self.byte()?;
        if code == 0x45 || code == 0 || code >= 0xc0 {
            self.rest = start;
            self.skip()?;
            let used = start.len() - self.rest.len();
            return Ok(ValueRef::Compound(&start[..used]));
        }
        self.scalar(code)
    }

    #[inline]
    fn scalar(&mut self, code: u8) -> Result<ValueRef<'a>> {
        Ok(match code {
            0x40 => ValueRef::Null,
            0x41 => ValueRef::Bool(true),
            0x42 => ValueRef::Bool(false),
            0x43 => ValueRef::Uint(0),
            0x44 => ValueRef::Ulong(0),
            0x50 => ValueRef::Ubyte(self.byte()?),
            0x51 => ValueRef::Byte(i8::from_be_bytes(self.array()?)),
            0x52 => ValueRef::Uint(self.byte()?.into()),
            0x53 => ValueRef::Ulong(self.byte()?.into()),
            0x54 => ValueRef::Int(i8::from_be_bytes(self.array()?).into()),
            0x55 => ValueRef::Long(i8::from_be_bytes(self.array()?).into()),
            0x56 => ValueRef::Bool(self.boolean()?),
            0x60 => ValueRef::Ushort(u16::from_be_bytes(self.array()?)),
            0x61 => ValueRef::Short(i16::from_be_bytes(self.array()?)),
            0x70 => ValueRef::Uint(u32::from_be_bytes(self.array()?)),
            0x71 => ValueRef::Int(i32::from_be_bytes(self.array()?)),
            0x72 => ValueRef::Float(f32::from_be_bytes(self.array()?)),
            0x73 => ValueRef::Char(self.character()?),
            0x74 => ValueRef::Decimal32(self.array()?),
            0x80 => ValueRef::Ulong(u64::from_be_bytes(self.array()?)),
            0x81 => ValueRef::Long(i64::from_be_bytes(self.array()?)),
            0x82 => ValueRef::Double(f64::from_be_bytes(self.array()?)),
            0x83 => ValueRef::Timestamp(i64::from_be_bytes(self.array()?)),
            0x84 => ValueRef::Decimal64(self.array()?),
            0x94 => ValueRef::Decimal128(self.array()?),
            0x98 => ValueRef::Uuid(self.array()?),
            0xa0 | 0xb0 => ValueRef::Binary(self.variable(code)?),
            0xa1 | 0xb1 => ValueRef::String(text(self.variable(code)?)?),
            0xa3 | 0xb3 => ValueRef::Symbol(ascii(self.variable(code)?)?),
            _ => return Err(DecodeError::Constructor(code)),
        })
    }

    fn variable(&mut self, code: u8) -> Result<&'a [u8]> {
        let size = if code < 0xb0 {
            self.byte()?.into()
        } else {
            self.len32()?
        };
        self.take(size)
    }

    fn boolean(&mut self) -> Result<bool> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Range("boolean")),
        }
    }

    fn character(&mut self) -> Result<char> {
        char::from_u32(u32::from_be_bytes(self.array()?)).ok_or(DecodeError::Range("char"))
    }

    /// The next value, owned. Elements are bounded by the bytes left, nesting by [`MAX_DEPTH`].
    pub(crate) fn value(&mut self) -> Result<Value> {
        let mut budget = self.rest.len();
        self.value_at(0, &mut budget)
    }

    fn value_at(&mut self, depth: u32, budget: &mut usize) -> Result<Value> {
        let code = self.byte()?;
        self.body(code, depth, budget)
    }

    fn body(&mut self, code: u8, depth: u32, budget: &mut usize) -> Result<Value> {
        if depth > MAX_DEPTH {
            return Err(DecodeError::TooDeep);
        }
        *budget = budget.checked_sub(1).ok_or(DecodeError::TooMany)?;
        match code {
            0x00 => {
                let descriptor = self.value_at(depth + 1, budget)?;
                let value = self.value_at(depth + 1, budget)?;
                Ok(Value::Described(Box::new(descriptor), Box::new(value)))
            }
            0x45 => Ok(Value::List(Vec::new())),
            0xc0 | 0xd0 => self.compound_body(code)?.list(depth, budget).map(Value::List),
            0xc1 | 0xd1 => self.compound_body(code)?.map(depth, budget).map(Value::Map),
            0xe0 | 0xf0 => self
                .compound_body(code)?
                .elements(depth, budget)
                .map(Value::Array),
            _ => self.scalar(code)?.to_value(),
        }
    }

    /// Size and count of a compound value whose constructor has been read.
    fn compound_body(&mut self, code: u8) -> Result<Compound<'a>> {
        let wide = code & 0x10 != 0;
        let size = if wide { self.len32()? } else { self.byte()?.into() };
        let mut body = Reader::new(self.take(size)?);
        let count = if wide { body.len32()? } else { body.byte()?.into() };
        // Every element but those of an array takes a byte at least.
        if code < 0xe0 && count > body.len() {
            return Err(DecodeError::TooMany);
        }
        Ok(Compound { count, body })
    }

    /// Enters a list.
    pub(crate) fn list(&mut self) -> Result<List<'a>> {
        let code = self.byte()?;
        match code {
            0x45 => Ok(List {
                left: 0,
                body: Reader::new(&[]),
            }),
            0xc0 | 0xd0 => {
                let compound = self.compound_body(code)?;
                Ok(List {
                    left: compound.count,
                    body: compound.body,
                })
            }
            _ => Err(DecodeError::Type("list")),
        }
    }

    /// Enters a map; the iterator yields keys and values in turn.
    pub(crate) fn map(&mut self) -> Result<List<'a>> {
        let code = self.byte()?;
        if code != 0xc1 && code != 0xd1 {
            return Err(DecodeError::Type("map"));
        }
        let compound = self.compound_body(code)?;
        if !compound.count.is_multiple_of(2) {
            return Err(DecodeError::Range("map"));
        }
        Ok(List {
            left: compound.count,
            body: compound.body,
        })
    }

    /// Reads the constructor of a described type and gives its numeric code; names are accepted too.
    pub(crate) fn descriptor(&mut self) -> Result<u64> {
        if self.byte()? != 0 {
            return Err(DecodeError::Descriptor);
        }
        let item = self.item()?;
        if let ValueRef::Ulong(code) = item {
            return Ok(code);
        }
        if let ValueRef::Symbol(name) = item {
            return descriptor_code(name).ok_or(DecodeError::Descriptor);
        }
        Err(DecodeError::Descriptor)
    }
}

struct Compound<'a> {
    count: usize,
    body: Reader<'a>,
}

impl Compound<'_> {
    fn list(mut self, depth: u32, budget: &mut usize) -> Result<Vec<Value>> {
        let mut items = Vec::with_capacity(self.count.min(64));
        for _ in 0..self.count {
            items.push(self.body.value_at(depth + 1, budget)?);
        }
        Ok(items)
    }

    fn map(mut self, depth: u32, budget: &mut usize) -> Result<Vec<(Value, Value)>> {
        if !self.count.is_multiple_of(2) {
            return Err(DecodeError::Range("map"));
        }
        let mut pairs = Vec::with_capacity((self.count / 2).min(64));
        for _ in 0..self.count / 2 {
            let key = self.body.value_at(depth + 1, budget)?;
            pairs.push((key, self.body.value_at(depth + 1, budget)?));
        }
        Ok(pairs)
    }

    fn elements(mut self, depth: u32, budget: &mut usize) -> Result<Vec<Value>> {
        let mut code = self.body.byte()?;
        let mut descriptor = None;
        if code == 0 {
            descriptor = Some(self.body.value_at(depth + 1, budget)?);
            code = self.body.byte()?;
        }
        if code == 0 {
            return Err(DecodeError::Constructor(0));
        }
        let mut items = Vec::with_capacity(self.count.min(64));
        for _ in 0..self.count {
            let item = self.body.body(code, depth + 1, budget)?;
            items.push(match &descriptor {
                None => item,
                Some(d) => {
                    *budget = budget.checked_sub(1).ok_or(DecodeError::TooMany)?;
                    Value::Described(Box::new(d.clone()), Box::new(item))
                }
            });
        }
        Ok(items)
    }
}

/// The fields of a list (or the keys and values of a map), one by one; missing ones at the end read as null.
#[derive(Clone, Copy, Debug)]
pub(crate) struct List<'a> {
    left: usize,
    body: Reader<'a>,
}

impl<'a> List<'a> {
    pub(crate) const fn is_empty(&self) -> bool {
        self.left == 0
    }

    #[inline]
    pub(crate) fn item(&mut self) -> Result<ValueRef<'a>> {
        if self.left == 0 {
            return Ok(ValueRef::Null);
        }
        self.left -= 1;
        self.body.item()
    }

    /// The bytes of the next field, `None` if it is null or missing.
    pub(crate) fn raw(&mut self) -> Result<Option<Reader<'a>>> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let start = self.body;
        self.body.skip()?;
        let used = start.len() - self.body.len();
        let raw = &start.rest[..used];
        Ok((raw != [0x40]).then_some(Reader::new(raw)))
    }

    pub(crate) fn uint(&mut self, what: &'static str) -> Result<Option<u32>> {
        let item = self.item()?;
        if let ValueRef::Uint(v) = item {
            Ok(Some(v))
        } else {
            null_or(item, what)
        }
    }

    pub(crate) fn ushort(&mut self, what: &'static str) -> Result<Option<u16>> {
        let item = self.item()?;
        if let ValueRef::Ushort(v) = item {
            Ok(Some(v))
        } else {
            null_or(item, what)
        }
    }

    pub(crate) fn ubyte(&mut self, what: &'static str) -> Result<Option<u8>> {
        let item = self.item()?;
        if let ValueRef::Ubyte(v) = item {
            Ok(Some(v))
        } else {
            null_or(item, what)
        }
    }

    pub(crate) fn ulong(&mut self, what: &'static str) -> Result<Option<u64>> {
        let item = self.item()?;
        if let ValueRef::Ulong(v) = item {
            Ok(Some(v))
        } else {
            null_or(item, what)
        }
    }

    pub(crate) fn boolean(&mut self, what: &'static str) -> Result<bool> {
        let item = self.item()?;
        if let ValueRef::Bool(v) = item {
            Ok(v)
        } else {
            null_or(item, what).map(Option::unwrap_or_default)
        }
    }

    pub(crate) fn binary(&mut self, what: &'static str) -> Result<Option<&'a [u8]>> {
        let item = self.item()?;
        if let ValueRef::Binary(v) = item {
            Ok(Some(v))
        } else {
            null_or(item, what)
        }
    }

    pub(crate) fn timestamp(&mut self, what: &'static str) -> Result<Option<i64>> {
        let item = self.item()?;
        if let ValueRef::Timestamp(v) = item {
            Ok(Some(v))
        } else {
            null_or(item, what)
        }
    }

    /// Text; strings and symbols are both accepted, as peers mix them up.
    pub(crate) fn text(&mut self, what: &'static str) -> Result<Option<&'a str>> {
        let item = self.item()?;
        if let ValueRef::String(v) | ValueRef::Symbol(v) = item {
            Ok(Some(v))
        } else {
            null_or(item, what)
        }
    }

    pub(crate) fn string(&mut self, what: &'static str) -> Result<Option<String>> {
        Ok(self.text(what)?.map(str::to_owned))
    }

    pub(crate) fn symbol(&mut self, what: &'static str) -> Result<Option<Symbol>> {
        self.text(what)?
            .map(|v| Symbol::new(v).ok_or(DecodeError::Text))
            .transpose()
    }

    /// A field that is one symbol or an array of symbols.
    pub(crate) fn symbols(&mut self, what: &'static str) -> Result<Vec<Symbol>> {
        let value = self.item()?.to_value()?;
        if let Value::Array(items) | Value::List(items) = value {
            return items.into_iter().map(|item| into_symbol(item, what)).collect();
        }
        if value == Value::Null {
            Ok(Vec::new())
        } else {
            Ok(vec![into_symbol(value, what)?])
        }
    }

    /// A map from symbols to values; keys that are strings are taken as symbols.
    pub(crate) fn fields(&mut self, what: &'static str) -> Result<Fields> {
        let value = self.item()?.to_value()?;
        into_fields(value, what)
    }
}

/// A field of a type not asked for: fine if it is null.
fn null_or<T>(item: ValueRef<'_>, what: &'static str) -> Result<Option<T>> {
    if item == ValueRef::Null {
        Ok(None)
    } else {
        Err(DecodeError::Type(what))
    }
}

fn into_symbol(value: Value, what: &'static str) -> Result<Symbol> {
    if let Value::Symbol(symbol) = value {
        return Ok(symbol);
    }
    value
        .as_str()
        .and_then(Symbol::new)
        .ok_or(DecodeError::Type(what))
}

pub(crate) fn into_fields(value: Value, what: &'static str) -> Result<Fields> {
    let Value::Map(pairs) = value else {
        return if value == Value::Null {
            Ok(Fields::new())
        } else {
            Err(DecodeError::Type(what))
        };
    };
    let mut fields = Fields::new();
    for (key, value) in pairs {
        fields.push(into_symbol(key, what)?, value);
    }
    Ok(fields)
}

fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| DecodeError::Text)
}

fn ascii(bytes: &[u8]) -> Result<&str> {
    if bytes.is_ascii() {
        text(bytes)
    } else {
        Err(DecodeError::Text)
    }
}

macro_rules! descriptors {
    ($($name:ident = $code:literal $symbol:literal),+ $(,)?) => {
        /// Numeric descriptors of the described types we know.
        pub(crate) mod desc {
            $(pub(crate) const $name: u64 = $code;)+
        }

        fn descriptor_code(symbol: &str) -> Option<u64> {
            match symbol {
                $($symbol => Some($code),)+
                _ => None,
            }
        }
    };
}

descriptors! {
    OPEN = 0x10 "amqp:open:list",
    BEGIN = 0x11 "amqp:begin:list",
    ATTACH = 0x12 "amqp:attach:list",
    FLOW = 0x13 "amqp:flow:list",
    TRANSFER = 0x14 "amqp:transfer:list",
    DISPOSITION = 0x15 "amqp:disposition:list",
    DETACH = 0x16 "amqp:detach:list",
    END = 0x17 "amqp:end:list",
    CLOSE = 0x18 "amqp:close:list",
    ERROR = 0x1d "amqp:error:list",
    RECEIVED = 0x23 "amqp:received:list",
    ACCEPTED = 0x24 "amqp:accepted:list",
    REJECTED = 0x25 "amqp:rejected:list",
    RELEASED = 0x26 "amqp:released:list",
    MODIFIED = 0x27 "amqp:modified:list",
    SOURCE = 0x28 "amqp:source:list",
    TARGET = 0x29 "amqp:target:list",
    COORDINATOR = 0x30 "amqp:coordinator:list",
    DECLARE = 0x31 "amqp:declare:list",
    DISCHARGE = 0x32 "amqp:discharge:list",
    DECLARED = 0x33 "amqp:declared:list",
    TRANSACTIONAL = 0x34 "amqp:transactional-state:list",
    SASL_MECHANISMS = 0x40 "amqp:sasl-mechanisms:list",
    SASL_INIT = 0x41 "amqp:sasl-init:list",
    SASL_CHALLENGE = 0x42 "amqp:sasl-challenge:list",
    SASL_RESPONSE = 0x43 "amqp:sasl-response:list",
    SASL_OUTCOME = 0x44 "amqp:sasl-outcome:list",
    HEADER = 0x70 "amqp:header:list",
    DELIVERY_ANNOTATIONS = 0x71 "amqp:delivery-annotations:map",
    MESSAGE_ANNOTATIONS = 0x72 "amqp:message-annotations:map",
    PROPERTIES = 0x73 "amqp:properties:list",
    APPLICATION_PROPERTIES = 0x74 "amqp:application-properties:map",
    DATA = 0x75 "amqp:data:binary",
    SEQUENCE = 0x76 "amqp:amqp-sequence:list",
    VALUE = 0x77 "amqp:amqp-value:*",
    FOOTER = 0x78 "amqp:footer:map",
    NO_LOCAL = 0x0000_468c_0000_0003 "apache.org:no-local-filter:list",
    SELECTOR = 0x0000_468c_0000_0004 "apache.org:selector-filter:string",
}
