//! Encoding: values appended to a byte vector in their shortest form.

use crate::value::{Fields, Symbol, Value};

/// Writes a described list field by field. Nulls at the end are left out; the short list form is used when
/// the fields fit.
pub(crate) struct ListWriter<'a> {
    buf: &'a mut Vec<u8>,
    start: usize,
    count: u32,
    kept: (usize, u32),
}

impl<'a> ListWriter<'a> {
    pub(crate) fn described(buf: &'a mut Vec<u8>, descriptor: u64) -> Self {
        buf.push(0);
        put_ulong(buf, descriptor);
        Self::list(buf)
    }

    pub(crate) fn list(buf: &'a mut Vec<u8>) -> Self {
        let start = buf.len();
        buf.extend_from_slice(&[0xc0, 0, 0]);
        let kept = (buf.len(), 0);
        Self {
            buf,
            start,
            count: 0,
            kept,
        }
    }

    pub(crate) fn null(&mut self) {
        self.buf.push(0x40);
        self.count += 1;
    }

    fn keep(&mut self) {
        self.count += 1;
        self.kept = (self.buf.len(), self.count);
    }

    /// One field written by `put`.
    pub(crate) fn with(&mut self, put: impl FnOnce(&mut Vec<u8>)) {
        put(self.buf);
        self.keep();
    }

    /// One field written by `put`, or null.
    pub(crate) fn option<T>(&mut self, value: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
        match value {
            Some(value) => self.with(|buf| put(buf, value)),
            None => self.null(),
        }
    }

    pub(crate) fn uint(&mut self, value: u32) {
        self.with(|buf| put_uint(buf, value));
    }

    /// A boolean whose default is false.
    pub(crate) fn flag(&mut self, value: bool) {
        if value {
            self.with(|buf| buf.push(0x41))
        } else {
            self.null()
        }
    }

    pub(crate) fn string(&mut self, value: Option<&str>) {
        self.option(value, put_string);
    }

    pub(crate) fn symbol(&mut self, value: Option<&Symbol>) {
        self.option(value, |buf, v| put_symbol(buf, v.as_str()));
    }

    /// An array of symbols; null when empty.
    pub(crate) fn symbols(&mut self, values: &[Symbol]) {
        self.option((!values.is_empty()).then_some(values), put_symbols);
    }

    /// A map; null when empty.
    pub(crate) fn fields(&mut self, fields: &Fields) {
        self.option((!fields.is_empty()).then_some(fields), put_fields);
    }

    /// Ends the list; gives how many fields it has.
    pub(crate) fn finish(self) -> u32 {
        let Self {
            buf,
            start,
            kept: (end, count),
            ..
        } = self;
        buf.truncate(end);
        if count == 0 {
            buf.truncate(start);
            buf.push(0x45);
        } else {
            close_compound(buf, start, count);
        }
        count
    }
}

/// Fills in size and count of a short compound begun at `start`, widening it when it outgrew 255 bytes.
fn close_compound(buf: &mut Vec<u8>, start: usize, count: u32) {
    let size = buf.len() - start - 2;
    match (u8::try_from(size), u8::try_from(count)) {
        (Ok(size), Ok(count)) => {
            buf[start + 1] = size;
            buf[start + 2] = count;
        }
        _ => {
            let mut head = [buf[start] | 0x10, 0, 0, 0, 0, 0, 0, 0, 0];
            head[1..5].copy_from_slice(&length(size + 3).to_be_bytes());
            head[5..].copy_from_slice(&count.to_be_bytes());
            buf.splice(start..start + 3, head);
        }
    }
}

/// A length as it is written. Callers keep what they encode far below 4 GiB.
fn length(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

pub(crate) fn put_uint(buf: &mut Vec<u8>, value: u32) {
    match u8::try_from(value) {
        Ok(0) => buf.push(0x43),
        Ok(v) => buf.extend_from_slice(&[0x52, v]),
        Err(_) => {
            let [a, b, c, d] = value.to_be_bytes();
            buf.extend_from_slice(&[0x70, a, b, c, d]);
        }
    }
}

pub(crate) fn put_ulong(buf: &mut Vec<u8>, value: u64) {
    match u8::try_from(value) {
        Ok(0) => buf.push(0x44),
        Ok(v) => buf.extend_from_slice(&[0x53, v]),
        Err(_) => put_wide(buf, 0x80, &value.to_be_bytes()),
    }
}

pub(crate) fn put_bool(buf: &mut Vec<u8>, value: bool) {
    buf.push(if value { 0x41 } else { 0x42 });
}

pub(crate) fn put_ubyte(buf: &mut Vec<u8>, value: u8) {
    buf.extend_from_slice(&[0x50, value]);
}

pub(crate) fn put_ushort(buf: &mut Vec<u8>, value: u16) {
    put_wide(buf, 0x60, &value.to_be_bytes());
}

pub(crate) fn put_timestamp(buf: &mut Vec<u8>, value: i64) {
    put_wide(buf, 0x83, &value.to_be_bytes());
}

fn put_wide(buf: &mut Vec<u8>, code: u8, bytes: &[u8]) {
    buf.push(code);
    buf.extend_from_slice(bytes);
}

fn put_variable(buf: &mut Vec<u8>, short: u8, bytes: &[u8]) {
    match u8::try_from(bytes.len()) {
        Ok(n) => buf.extend_from_slice(&[short, n]),
        Err(_) => put_wide(buf, short | 0x10, &length(bytes.len()).to_be_bytes()),
    }
    buf.extend_from_slice(bytes);
}

pub(crate) fn put_binary(buf: &mut Vec<u8>, bytes: &[u8]) {
    put_variable(buf, 0xa0, bytes);
}

pub(crate) fn put_string(buf: &mut Vec<u8>, text: &str) {
    put_variable(buf, 0xa1, text.as_bytes());
}

pub(crate) fn put_symbol(buf: &mut Vec<u8>, text: &str) {
    put_variable(buf, 0xa3, text.as_bytes());
}

pub(crate) fn put_symbols(buf: &mut Vec<u8>, symbols: &[Symbol]) {
    buf.push(0xf0);
    put_wide_compound(buf, symbols.len(), |buf| {
        buf.push(0xb3);
        for symbol in symbols {
            put_wide_bytes(buf, symbol.as_str().as_bytes());
        }
    });
}

pub(crate) fn put_fields(buf: &mut Vec<u8>, fields: &Fields) {
    put_compound(buf, 0xc1, fields.len() * 2, |buf| {
        for (key, value) in fields.iter() {
            put_symbol(buf, key.as_str());
            put_value(buf, value);
        }
    });
}

/// A list or map whose elements `put` writes.
pub(crate) fn put_compound(buf: &mut Vec<u8>, short: u8, count: usize, put: impl FnOnce(&mut Vec<u8>)) {
    let start = buf.len();
    buf.extend_from_slice(&[short, 0, 0]);
    put(buf);
    close_compound(buf, start, length(count));
}

/// Any value, in its shortest form.
pub(crate) fn put_value(buf: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => buf.push(0x40),
        Value::Bool(v) => put_bool(buf, *v),
        Value::Uint(v) => put_uint(buf, *v),
        Value::Ulong(v) => put_ulong(buf, *v),
        Value::Int(v) => match i8::try_from(*v) {
            Ok(v) => put_wide(buf, 0x54, &v.to_be_bytes()),
            Err(_) => put_wide(buf, 0x71, &v.to_be_bytes()),
        },
        Value::Long(v) => match i8::try_from(*v) {
            Ok(v) => put_wide(buf, 0x55, &v.to_be_bytes()),
            Err(_) => put_wide(buf, 0x81, &v.to_be_bytes()),
        },
        Value::Binary(v) => put_binary(buf, v),
        Value::String(v) => put_string(buf, v),
        Value::Symbol(v) => put_symbol(buf, v.as_str()),
        Value::List(items) if items.is_empty() => buf.push(0x45),
        Value::List(items) => put_list(buf, items),
        Value::Map(pairs) => put_compound(buf, 0xc1, pairs.len() * 2, |buf| put_pairs(buf, pairs)),
        Value::Array(items) => put_array(buf, items),
        Value::Described(descriptor, value) => {
            buf.push(0);
            put_value(buf, descriptor);
            put_value(buf, value);
        }
        Value::Ubyte(_)
        | Value::Ushort(_)
        | Value::Byte(_)
        | Value::Short(_)
        | Value::Float(_)
        | Value::Double(_)
        | Value::Decimal32(_)
        | Value::Decimal64(_)
        | Value::Decimal128(_)
        | Value::Char(_)
        | Value::Timestamp(_)
        | Value::Uuid(_) => {
            buf.push(wide_code(value));
            put_wide_body(buf, value);
        }
    }
}

pub(crate) fn put_list(buf: &mut Vec<u8>, items: &[Value]) {
    put_compound(buf, 0xc0, items.len(), |buf| {
        items.iter().for_each(|item| put_value(buf, item))
    });
}

fn put_pairs(buf: &mut Vec<u8>, pairs: &[(Value, Value)]) {
    for (key, value) in pairs {
        put_value(buf, key);
        put_value(buf, value);
    }
}

fn put_array(buf: &mut Vec<u8>, items: &[Value]) {
    if items.is_empty() {
        buf.extend_from_slice(&[0xe0, 2, 0, 0x40]);
        return;
    }
    match array_shape(items) {
        Some(shape) => {
            buf.push(0xf0);
            put_elements(buf, shape, items);
        }
        None => put_list(buf, items),
    }
}

/// Descriptor and constructor shared by all elements; `None` if they differ.
fn array_shape(items: &[Value]) -> Option<(Option<&Value>, u8)> {
    let Some(first) = items.first() else {
        return Some((None, 0x40));
    };
    let (descriptor, inner) = undescribed(first);
    let code = wide_code(inner);
    let same = |item| {
        let (d, v) = undescribed(item);
        d == descriptor && wide_code(v) == code
    };
    (code != 0 && items.iter().all(same)).then_some((descriptor, code))
}

/// An array in its long form, after its own constructor.
fn put_elements(buf: &mut Vec<u8>, (descriptor, code): (Option<&Value>, u8), items: &[Value]) {
    put_wide_compound(buf, items.len(), |buf| {
        if let Some(descriptor) = descriptor {
            buf.push(0);
            put_value(buf, descriptor);
        }
        buf.push(code);
        for item in items {
            put_wide_body(buf, undescribed(item).1);
        }
    });
}

fn undescribed(value: &Value) -> (Option<&Value>, &Value) {
    if let Value::Described(descriptor, inner) = value {
        return (Some(descriptor), inner);
    }
    (None, value)
}

/// The constructor every value of this type can use; 0 for a described value, which has none of its own.
fn wide_code(value: &Value) -> u8 {
    match value {
        Value::Null => 0x40,
        Value::Bool(_) => 0x56,
        Value::Ubyte(_) => 0x50,
        Value::Ushort(_) => 0x60,
        Value::Uint(_) => 0x70,
        Value::Ulong(_) => 0x80,
        Value::Byte(_) => 0x51,
        Value::Short(_) => 0x61,
        Value::Int(_) => 0x71,
        Value::Long(_) => 0x81,
        Value::Float(_) => 0x72,
        Value::Double(_) => 0x82,
        Value::Decimal32(_) => 0x74,
        Value::Decimal64(_) => 0x84,
        Value::Decimal128(_) => 0x94,
        Value::Char(_) => 0x73,
        Value::Timestamp(_) => 0x83,
        Value::Uuid(_) => 0x98,
        Value::Binary(_) => 0xb0,
        Value::String(_) => 0xb1,
        Value::Symbol(_) => 0xb3,
        Value::List(_) => 0xd0,
        Value::Map(_) => 0xd1,
        Value::Array(items) => {
            if array_shape(items).is_some() {
                0xf0
            } else {
                0xd0
            }
        }
        Value::Described(..) => 0,
    }
}

/// The bytes of a value after the constructor [`wide_code`] gives.
fn put_wide_body(buf: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => {}
        Value::Bool(v) => buf.push((*v).into()),
        Value::Ubyte(v) => buf.push(*v),
        Value::Ushort(v) => buf.extend_from_slice(&v.to_be_bytes()),
        Value::Uint(v) => buf.extend_from_slice(&v.to_be_bytes()),
        Value::Ulong(v) => buf.extend_from_slice(&v.to_be_bytes()),
        Value::Byte(v) => buf.extend_from_slice(&v.to_be_bytes()),
        Value::Short(v) => buf.extend_from_slice(&v.to_be_bytes()),
        Value::Int(v) => buf.extend_from_slice(&v.to_be_bytes()),
        Value::Long(v) | Value::Timestamp(v) => buf.extend_from_slice(&v.to_be_bytes()),
        Value::Float(v) => buf.extend_from_slice(&v.to_be_bytes()),
        Value::Double(v) => buf.extend_from_slice(&v.to_be_bytes()),
        Value::Char(v) => buf.extend_from_slice(&u32::from(*v).to_be_bytes()),
        Value::Decimal32(v) => buf.extend_from_slice(v),
        Value::Decimal64(v) => buf.extend_from_slice(v),
        Value::Decimal128(v) | Value::Uuid(v) => buf.extend_from_slice(v),
        Value::Binary(v) => put_wide_bytes(buf, v),
        Value::String(v) => put_wide_bytes(buf, v.as_bytes()),
        Value::Symbol(v) => put_wide_bytes(buf, v.as_str().as_bytes()),
        Value::List(items) => {
            put_wide_compound(buf, items.len(), |buf| {
                items.iter().for_each(|item| put_value(buf, item))
            });
        }
        Value::Map(pairs) => put_wide_compound(buf, pairs.len() * 2, |buf| put_pairs(buf, pairs)),
        Value::Array(items) => match array_shape(items) {
            Some(shape) => put_elements(buf, shape, items),
            None => put_wide_compound(buf, items.len(), |buf| {
                items.iter().for_each(|item| put_value(buf, item));
            }),
        },
        Value::Described(_, inner) => put_wide_body(buf, inner),
    }
}

fn put_wide_bytes(buf: &mut Vec<u8>, bytes: &[u8]) {
    buf.extend_from_slice(&length(bytes.len()).to_be_bytes());
    buf.extend_from_slice(bytes);
}

fn put_wide_compound(buf: &mut Vec<u8>, count: usize, put: impl FnOnce(&mut Vec<u8>)) {
    let start = buf.len();
    buf.extend_from_slice(&[0; 4]);
    buf.extend_from_slice(&length(count).to_be_bytes());
    put(buf);
    let size = length(buf.len() - start - 4);
    buf[start..start + 4].copy_from_slice(&size.to_be_bytes());
}
