//! The fields of a described list, read one by one with the type their place demands.

use crate::read::{DecodeError, Reader, ValueRef};
use crate::value::{Fields, Symbol, Value};

type Result<T> = std::result::Result<T, DecodeError>;

/// The fields of a list (or the keys and values of a map), one by one; missing ones at the end read as null.
#[derive(Clone, Copy, Debug)]
pub(crate) struct List<'a> {
    pub(crate) left: usize,
    pub(crate) body: Reader<'a>,
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
        let raw = self.body.raw()?;
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
