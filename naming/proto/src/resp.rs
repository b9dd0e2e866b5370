//! RESP framing (versions 2 and 3): what a Redis client says and hears.
//!
//! Parsing is incremental: too few bytes is no error, and nothing is kept between calls. Every length is
//! checked against the limits before anything is allocated for it.

use bytes::Bytes;

/// A reply, or a push.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// `+text`
    Simple(String),
    /// `-CODE text`
    Error(String),
    /// `:number`
    Integer(i64),
    /// `$length` and that many bytes
    Bulk(Bytes),
    /// `_`, or a bulk string or array of length -1
    Null,
    /// `#t` or `#f`
    Boolean(bool),
    /// `,number`
    Double(f64),
    /// `*count` and that many frames
    Array(Vec<Self>),
    /// `%count` and that many pairs of frames
    Map(Vec<(Self, Self)>),
    /// `>count` and that many frames, out of turn
    Push(Vec<Self>),
}

/// What a peer may send at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest bulk string, in bytes. Default 1 MiB.
    pub bulk_bytes_max: usize,
    /// The most items of one array, map or push. Default 65,536.
    pub items_max: usize,
    /// The longest line (a simple string, an error, an inline command), in bytes. Default 64 KiB.
    pub line_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bulk_bytes_max: 1 << 20,
            items_max: 1 << 16,
            line_bytes_max: 1 << 16,
        }
    }
}

/// How deep replies may nest.
const DEPTH_MAX: u32 = 16;

/// Bytes that are not RESP, or beyond the limits. The connection cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RespError {
    /// A byte that begins no frame.
    #[error("byte 0x{0:02x} begins no frame")]
    UnknownType(u8),
    /// A length or number that is not one.
    #[error("not a number: {0:?}")]
    NotANumber(String),
    /// A bulk string that is not followed by CR LF.
    #[error("a bulk string does not end in CR LF")]
    Unterminated,
    /// A line, bulk string or collection above its limit.
    #[error("{what} of {given}: at most {limit} allowed")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it is.
        given: usize,
        /// How large it may be.
        limit: usize,
    },
    /// Frames nested too deep.
    #[error("frames nested more than {DEPTH_MAX} deep")]
    TooDeep,
    /// Quotes of an inline command that do not match.
    #[error("unbalanced quotes in an inline command")]
    UnbalancedQuotes,
}

/// The line at the start of the input without its CR LF, and the length with it.
fn line(input: &[u8], limit: usize) -> Result<Option<(&[u8], usize)>, RespError> {
    let end = input.iter().take(limit + 2).position(|&b| b == b'\n');
    match end {
        Some(end) => {
            let text = input[..end].strip_suffix(b"\r").unwrap_or(&input[..end]);
            Ok(Some((text, end + 1)))
        }
        None if input.len() > limit => Err(RespError::TooLarge {
            what: "line",
            given: input.len(),
            limit,
        }),
        None => Ok(None),
    }
}

fn number(text: &[u8]) -> Result<i64, RespError> {
    std::str::from_utf8(text)
        .ok()
        .and_then(|t| t.parse().ok())
        .ok_or_else(|| {
            RespError::NotANumber(String::from_utf8_lossy(&text[..text.len().min(32)]).into_owned())
        })
}

/// A length, with -1 for "null".
fn length(text: &[u8], what: &'static str, limit: usize) -> Result<Option<usize>, RespError> {
    let given = number(text)?;
    if given == -1 {
        return Ok(None);
    }
    let Ok(given) = usize::try_from(given) else {
        return Err(RespError::NotANumber(given.to_string()));
    };
    if given > limit {
        return Err(RespError::TooLarge { what, given, limit });
    }
    Ok(Some(given))
}

/// Reads one command, an array of bulk strings, into `arguments`. Returns its length in bytes, or `None`
/// when the input ends within it. A line that begins with no `*` is an inline command, as typed into a
/// terminal. An empty command has no arguments and is to be skipped.
///
/// # Errors
/// `RespError`: the input is not a command, or beyond the limits.
pub fn parse_command<'a>(
    input: &'a [u8],
    arguments: &mut Vec<std::borrow::Cow<'a, [u8]>>,
    limits: &Limits,
) -> Result<Option<usize>, RespError> {
    arguments.clear();
    let Some(&first) = input.first() else {
        return Ok(None);
    };
    let Some((head, mut at)) = line(input, limits.line_bytes_max)? else {
        return Ok(None);
    };
    if first != b'*' {
        split_inline(head, arguments)?;
        return Ok(Some(at));
    }
    let count = length(&head[1..], "command arguments", limits.items_max)?.unwrap_or(0);
    for _ in 0..count {
        let Some((argument, next)) = bulk(input, at, limits)? else {
            return Ok(None);
        };
        arguments.push(argument.into());
        at = next;
    }
    Ok(Some(at))
}

/// The bulk string at `at` and where it ends; `None` when the input ends within it.
fn bulk<'a>(input: &'a [u8], at: usize, limits: &Limits) -> Result<Option<(&'a [u8], usize)>, RespError> {
    let rest = &input[at..];
    match rest.first() {
        None => return Ok(None),
        Some(b'$') => {}
        Some(&other) => return Err(RespError::UnknownType(other)),
    }
    let Some((head, start)) = line(rest, 32)? else {
        return Ok(None);
    };
    let size = length(&head[1..], "bulk string", limits.bulk_bytes_max)?.unwrap_or(0);
    let end = start + size;
    if rest.len() < end + 2 {
        return Ok(None);
    }
    if &rest[end..end + 2] != b"\r\n" {
        return Err(RespError::Unterminated);
    }
    Ok(Some((&rest[start..end], at + end + 2)))
}

/// Splits a typed line at blanks. `"…"` keeps blanks and knows `\"`, `\\`, `\n`, `\r`, `\t`; `'…'` knows `\'`.
fn split_inline(text: &[u8], arguments: &mut Vec<std::borrow::Cow<'_, [u8]>>) -> Result<(), RespError> {
    let mut rest = text.trim_ascii_start();
    while let Some(&first) = rest.first() {
        let mut word = Vec::new();
        let used = match first {
            b'"' | b'\'' => take_quoted(rest, first, &mut word)?,
            _ => {
                let end = rest
                    .iter()
                    .position(u8::is_ascii_whitespace)
                    .unwrap_or(rest.len());
                word.extend_from_slice(&rest[..end]);
                end
            }
        };
        arguments.push(word.into());
        rest = rest[used..].trim_ascii_start();
    }
    Ok(())
}

fn take_quoted(text: &[u8], quote: u8, word: &mut Vec<u8>) -> Result<usize, RespError> {
    let mut at = 1;
    while let Some(&byte) = text.get(at) {
        match (byte, text.get(at + 1)) {
            (b'\\', Some(&next)) if next == quote || (quote == b'"' && b"\\nrt".contains(&next)) => {
                word.push(match next {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    other => other,
                });
                at += 2;
            }
            (byte, after) if byte == quote => {
                return match after {
                    Some(b) if !b.is_ascii_whitespace() => Err(RespError::UnbalancedQuotes),
                    Some(_) | None => Ok(at + 1),
                };
            }
            (byte, _) => {
                word.push(byte);
                at += 1;
            }
        }
    }
    Err(RespError::UnbalancedQuotes)
}

/// Reads one reply or push. Returns it with its length in bytes, or `None` when the input ends within it.
///
/// # Errors
/// `RespError`: the input is not RESP, or beyond the limits.
pub fn parse_frame(input: &[u8], limits: &Limits) -> Result<Option<(Frame, usize)>, RespError> {
    frame_at(input, 0, limits, 0)
}

fn frame_at(
    input: &[u8],
    at: usize,
    limits: &Limits,
    depth: u32,
) -> Result<Option<(Frame, usize)>, RespError> {
    if depth > DEPTH_MAX {
        return Err(RespError::TooDeep);
    }
    let rest = &input[at..];
    let Some(&kind) = rest.first() else {
        return Ok(None);
    };
    let Some((head, used)) = line(rest, limits.line_bytes_max)? else {
        return Ok(None);
    };
    let text = &head[1.min(head.len())..];
    let words = || String::from_utf8_lossy(text).into_owned();
    let next = at + used;
    let frame = match kind {
        b'+' => Frame::Simple(words()),
        b'-' => Frame::Error(words()),
        b':' => Frame::Integer(number(text)?),
        b'_' => Frame::Null,
        b'#' => Frame::Boolean(text == b"t"),
        b',' => Frame::Double(words().parse().map_err(|_| RespError::NotANumber(words()))?),
        b'$' if text == b"-1" => Frame::Null,
        b'$' => {
            let Some((bytes, next)) = bulk(input, at, limits)? else {
                return Ok(None);
            };
            return Ok(Some((Frame::Bulk(Bytes::copy_from_slice(bytes)), next)));
        }
        b'*' | b'>' | b'%' => return collection(input, kind, (text, next), limits, depth),
        other => return Err(RespError::UnknownType(other)),
    };
    Ok(Some((frame, next)))
}

fn collection(
    input: &[u8],
    kind: u8,
    (count, mut at): (&[u8], usize),
    limits: &Limits,
    depth: u32,
) -> Result<Option<(Frame, usize)>, RespError> {
    let Some(count) = length(count, "collection", limits.items_max)? else {
        return Ok(Some((Frame::Null, at)));
    };
    let count = if kind == b'%' { count * 2 } else { count };
    // Grown as frames arrive: a count alone costs its sender more than it costs us.
    let mut items = Vec::new();
    for _ in 0..count {
        let Some((item, next)) = frame_at(input, at, limits, depth + 1)? else {
            return Ok(None);
        };
        items.push(item);
        at = next;
    }
    let frame = match kind {
        b'*' => Frame::Array(items),
        b'>' => Frame::Push(items),
        _ => {
            let mut pairs = Vec::with_capacity(items.len() / 2);
            let mut items = items.into_iter();
            while let (Some(key), Some(value)) = (items.next(), items.next()) {
                pairs.push((key, value));
            }
            Frame::Map(pairs)
        }
    };
    Ok(Some((frame, at)))
}

/// Writes `frame`. In RESP2 a map becomes a flat array, a push an array, null a null bulk string and a
/// boolean a number.
pub fn write_frame(frame: &Frame, resp3: bool, out: &mut Vec<u8>) {
    match frame {
        Frame::Simple(text) => write_line(b'+', text, out),
        Frame::Error(text) => write_line(b'-', text, out),
        Frame::Integer(number) => write_line(b':', &number.to_string(), out),
        Frame::Bulk(bytes) => write_bulk(bytes, out),
        Frame::Null if resp3 => out.extend_from_slice(b"_\r\n"),
        Frame::Null => out.extend_from_slice(b"$-1\r\n"),
        Frame::Boolean(value) if resp3 => write_line(b'#', if *value { "t" } else { "f" }, out),
        Frame::Boolean(value) => write_line(b':', if *value { "1" } else { "0" }, out),
        Frame::Double(value) if resp3 => write_line(b',', &value.to_string(), out),
        Frame::Double(value) => write_bulk(value.to_string().as_bytes(), out),
        Frame::Array(items) => write_items(b'*', items, resp3, out),
        Frame::Push(items) => write_items(if resp3 { b'>' } else { b'*' }, items, resp3, out),
        Frame::Map(pairs) => {
            let (kind, count) = if resp3 {
                (b'%', pairs.len())
            } else {
                (b'*', 2 * pairs.len())
            };
            write_line(kind, &count.to_string(), out);
            for (key, value) in pairs {
                write_frame(key, resp3, out);
                write_frame(value, resp3, out);
            }
        }
    }
}

fn write_items(kind: u8, items: &[Frame], resp3: bool, out: &mut Vec<u8>) {
    write_line(kind, &items.len().to_string(), out);
    for item in items {
        write_frame(item, resp3, out);
    }
}

/// Writes a bulk string.
pub fn write_bulk(bytes: &[u8], out: &mut Vec<u8>) {
    write_line(b'$', &bytes.len().to_string(), out);
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Writes a command: an array of bulk strings.
pub fn write_command<A: AsRef<[u8]>>(arguments: &[A], out: &mut Vec<u8>) {
    write_line(b'*', &arguments.len().to_string(), out);
    for argument in arguments {
        write_bulk(argument.as_ref(), out);
    }
}

/// A line cannot hold a line break: those become blanks.
fn write_line(kind: u8, text: &str, out: &mut Vec<u8>) {
    out.push(kind);
    out.extend(
        text.bytes()
            .map(|b| if b == b'\r' || b == b'\n' { b' ' } else { b }),
    );
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn command(input: &[u8]) -> Result<Option<(Vec<String>, usize)>, RespError> {
        let mut arguments = Vec::new();
        let used = parse_command(input, &mut arguments, &Limits::default())?;
        let words = arguments
            .iter()
            .map(|a| String::from_utf8_lossy(a).into_owned())
            .collect();
        Ok(used.map(|used| (words, used)))
    }

    #[test]
    fn a_command_is_read_only_when_it_is_whole() {
        let whole = b"*2\r\n$6\r\nLOOKUP\r\n$1\r\nq\r\nrest";
        for cut in 0..whole.len() - 4 {
            assert_eq!(command(&whole[..cut]), Ok(None), "{cut} bytes");
        }
        assert_eq!(
            command(whole),
            Ok(Some((vec!["LOOKUP".into(), "q".into()], whole.len() - 4)))
        );
    }

    #[test]
    fn a_typed_line_is_a_command() {
        assert_eq!(
            command(b"  BIND x '{\"a\": 1}' \"t\\\"w o\"\r\n"),
            Ok(Some((
                ["BIND", "x", "{\"a\": 1}", "t\"w o"].map(String::from).to_vec(),
                30
            )))
        );
        assert_eq!(command(b"BIND \"x\r\n"), Err(RespError::UnbalancedQuotes));
    }

    #[test]
    fn lengths_beyond_the_limits_are_refused_before_they_arrive() {
        assert!(matches!(
            command(b"*99999999\r\n"),
            Err(RespError::TooLarge { .. })
        ));
        assert!(matches!(
            command(b"*1\r\n$99999999\r\n"),
            Err(RespError::TooLarge { .. })
        ));
        assert!(matches!(
            command(&[b'x'; 70_000]),
            Err(RespError::TooLarge { .. })
        ));
        assert!(matches!(command(b"*x\r\n"), Err(RespError::NotANumber(_))));
        let deep = "*1\r\n".repeat(20);
        assert_eq!(
            parse_frame(deep.as_bytes(), &Limits::default()),
            Err(RespError::TooDeep)
        );
    }

    fn frames() -> impl Strategy<Value = Frame> {
        let leaf = prop_oneof![
            "[a-z ]{0,8}".prop_map(Frame::Simple),
            "[A-Z ]{0,8}".prop_map(Frame::Error),
            any::<i64>().prop_map(Frame::Integer),
            proptest::collection::vec(any::<u8>(), 0..20).prop_map(|b| Frame::Bulk(b.into())),
            Just(Frame::Null),
            any::<bool>().prop_map(Frame::Boolean),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Frame::Array),
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Frame::Push),
                proptest::collection::vec((inner.clone(), inner), 0..3).prop_map(Frame::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(frame in frames()) {
            let mut bytes = Vec::new();
            write_frame(&frame, true, &mut bytes);
            prop_assert_eq!(parse_frame(&bytes, &Limits::default()), Ok(Some((frame, bytes.len()))));
        }

        #[test]
        fn no_bytes_make_the_parsers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse_frame(&bytes, &Limits::default());
            let _ = command(&bytes);
        }
    }
}
