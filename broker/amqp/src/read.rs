//! Decoding: a cursor over bytes that borrows what it can.
//!
//! It never recurses deeper than [`MAX_DEPTH`], never makes more values than there were bytes, and never
//! reads past its slice: hostile input ends in a [`DecodeError`].

use crate::desc;
use crate::list::List;
use crate::value::{Symbol, Value};
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

    /// The whole encoding of the next value.
    pub(crate) fn raw(&mut self) -> Result<&'a [u8]> {
        let start = self.rest;
        self.skip()?;
        Ok(start.split_at(start.len() - self.rest.len()).0)
    }

    /// The next value, borrowed.
    #[inline]
    pub(crate) fn item(&mut self) -> Result<ValueRef<'a>> {
        let code = *self.rest.first().ok_or(DecodeError::Truncated)?;
        if code == 0x45 || code == 0 || code >= 0xc0 {
            return self.raw().map(ValueRef::Compound);
        }
        self.rest = self.rest.split_at(1).1;
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
        let mut budget = 1_024 + 2 * self.rest.len();
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
            return desc::by_name(name).ok_or(DecodeError::Descriptor);
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
        let before = self.body.len();
        if code == 0 {
            descriptor = Some(self.body.value_at(depth + 1, budget)?);
            code = self.body.byte()?;
        }
        // Every element gets a copy of the descriptor, so each pays for its bytes.
        let price = before - self.body.len();
        if code == 0 {
            return Err(DecodeError::Constructor(0));
        }
        let mut items = Vec::with_capacity(self.count.min(64));
        for _ in 0..self.count {
            let item = self.body.body(code, depth + 1, budget)?;
            items.push(match &descriptor {
                None => item,
                Some(d) => {
                    *budget = budget.checked_sub(price).ok_or(DecodeError::TooMany)?;
                    Value::Described(Box::new(d.clone()), Box::new(item))
                }
            });
        }
        Ok(items)
    }
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
