//! AMQP values held in memory: symbols, field maps and the full type system.
//!
//! These own their data; the hot path reads borrowed values (see [`crate::ValueRef`]) instead.

use bytes::Bytes;
use std::borrow::Cow;
use std::fmt;

/// An AMQP symbol: an ASCII name from a constrained domain, such as a capability or an error condition.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Symbol(Cow<'static, str>);

impl Symbol {
    /// A symbol known when the program is compiled.
    ///
    /// # Panics
    /// If `name` is not ASCII; in a constant this is a compile error.
    #[must_use]
    pub const fn from_static(name: &'static str) -> Self {
        assert!(name.is_ascii(), "symbols are ASCII");
        Self(Cow::Borrowed(name))
    }

    /// A symbol made at run time; `None` if `name` is not ASCII.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Option<Self> {
        let name = name.into();
        name.is_ascii().then_some(Self(Cow::Owned(name)))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ":{}", self.0)
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl PartialEq<str> for Symbol {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for Symbol {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

/// A map from symbols to values, in the order it was written: properties, capabilities' details, error info.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fields(Vec<(Symbol, Value)>);

impl Fields {
    /// No fields.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The value of `key`, if present.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.iter().find(|(k, _)| k.as_str() == key).map(|(_, v)| v)
    }

    /// Sets `key`, replacing an earlier value.
    pub fn insert(&mut self, key: Symbol, value: impl Into<Value>) {
        let value = value.into();
        match self.0.iter_mut().find(|(k, _)| *k == key) {
            Some(slot) => slot.1 = value,
            None => self.0.push((key, value)),
        }
    }

    /// Same as [`Self::insert`], for building in one expression.
    #[must_use]
    pub fn with(mut self, key: Symbol, value: impl Into<Value>) -> Self {
        self.insert(key, value);
        self
    }

    /// The pairs in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Symbol, &Value)> {
        self.0.iter().map(|(k, v)| (k, v))
    }

    /// The number of pairs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no pair.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn push(&mut self, key: Symbol, value: Value) {
        self.0.push((key, value));
    }
}

impl FromIterator<(Symbol, Value)> for Fields {
    fn from_iter<T: IntoIterator<Item = (Symbol, Value)>>(pairs: T) -> Self {
        Self(pairs.into_iter().collect())
    }
}

/// Any AMQP value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
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
    /// `decimal32`, IEEE 754 bytes as sent.
    Decimal32([u8; 4]),
    /// `decimal64`, IEEE 754 bytes as sent.
    Decimal64([u8; 8]),
    /// `decimal128`, IEEE 754 bytes as sent.
    Decimal128([u8; 16]),
    /// `char`.
    Char(char),
    /// `timestamp`: milliseconds since the Unix epoch.
    Timestamp(i64),
    /// `uuid`.
    Uuid([u8; 16]),
    /// `binary`.
    Binary(Bytes),
    /// `string`.
    String(String),
    /// `symbol`.
    Symbol(Symbol),
    /// `list`.
    List(Vec<Self>),
    /// `map`, in the order it was written.
    Map(Vec<(Self, Self)>),
    /// `array`: elements of one type. Written as a list if the elements differ in type.
    Array(Vec<Self>),
    /// A described value: descriptor, then value.
    Described(Box<Self>, Box<Self>),
}

impl Value {
    /// The text of a string or symbol.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self {
            return Some(text);
        }
        self.as_symbol().map(Symbol::as_str)
    }

    /// The symbol, if this is one.
    #[must_use]
    pub fn as_symbol(&self) -> Option<&Symbol> {
        if let Self::Symbol(symbol) = self {
            Some(symbol)
        } else {
            None
        }
    }

    /// The value of an integer of any width, if it fits.
    #[must_use]
    #[expect(clippy::wildcard_enum_match_arm, reason = "every other type is no integer")]
    pub fn as_i64(&self) -> Option<i64> {
        match *self {
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

    /// The truth value, if this is a boolean.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(value) = self {
            Some(*value)
        } else {
            None
        }
    }

    /// The bytes, if this is a binary.
    #[must_use]
    pub fn as_binary(&self) -> Option<&Bytes> {
        if let Self::Binary(bytes) = self {
            Some(bytes)
        } else {
            None
        }
    }
}

macro_rules! from {
    ($($ty:ty => $variant:ident),+ $(,)?) => {$(
        impl From<$ty> for Value {
            fn from(value: $ty) -> Self {
                Self::$variant(value)
            }
        }
    )+};
}

from! {
    bool => Bool, u8 => Ubyte, u16 => Ushort, u32 => Uint, u64 => Ulong, i8 => Byte, i16 => Short,
    i32 => Int, i64 => Long, f32 => Float, f64 => Double, char => Char, String => String,
    Symbol => Symbol, Bytes => Binary,
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::String(value.to_owned())
    }
}

impl From<Fields> for Value {
    fn from(fields: Fields) -> Self {
        Self::Map(fields.0.into_iter().map(|(k, v)| (Self::Symbol(k), v)).collect())
    }
}
