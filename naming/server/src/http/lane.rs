//! The first lane of the HTTP door: plain lookups over HTTP/1.1, answered into one buffer for each batch.
//!
//! It answers `GET /v1/names/…` of a name that is bound as it is printed, and nothing else: the first request that
//! asks for more, or that it cannot read, goes with the rest of its connection to the router. So there is no
//! rule of HTTP here that could be broken, and none of its errors.

use std::io::{self, Write as _};
use std::pin::pin;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Buf, Bytes, BytesMut};
use hyper::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HeaderName, IF_MATCH, IF_NONE_MATCH};
use hyper::header::{TRANSFER_ENCODING, UPGRADE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use super::text::decoded;
use super::{CLUSTER_ID, REVISION, TERM};
use crate::dispatch::{Counters, Dispatcher};
use crate::room::{FREE_BYTES, Share};
use crate::state::push_number;

/// Headers of one request beyond which the router reads it.
const HEADERS_MAX: usize = 32;
/// Room that a read wants at least.
const READ_BYTES: usize = 4 << 10;
/// Answers that leave before the batch is done.
const FLUSH_BYTES: usize = 64 << 10;
/// Requests with one of these are more than a plain question.
const MEANINGFUL: [HeaderName; 7] = [
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    IF_MATCH,
    IF_NONE_MATCH,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// What stands at the beginning of the input.
enum Next<'a> {
    /// A plain question for this part of the path, and its length.
    Plain(&'a str, usize),
    /// The beginning of a request.
    Begun,
    /// Something else.
    Other,
}

/// Serves a connection of which `input` was already read, up to the first request that is not for this lane.
/// Returns the connection with what is not answered yet, or `None` when it is over.
pub(super) async fn serve(
    stream: TcpStream,
    input: BytesMut,
    dispatcher: &Dispatcher,
) -> io::Result<Option<(TcpStream, Bytes)>> {
    let mut lane = Lane {
        dispatcher,
        stream,
        input,
        out: Vec::new(),
        common: Common::default(),
        heard: Instant::now(),
        share: dispatcher.input.share(),
    };
    let is_over = lane.run().await?;
    Ok((!is_over).then(|| (lane.stream, lane.input.freeze())))
}

struct Lane<'a> {
    dispatcher: &'a Dispatcher,
    stream: TcpStream,
    input: BytesMut,
    out: Vec<u8>,
    common: Common,
    /// When the head that is awaited began, or the last one was answered.
    heard: Instant,
    /// Its part of the room for requests that are not whole.
    share: Share,
}

impl Lane<'_> {
    /// Whether the connection is over.
    async fn run(&mut self) -> io::Result<bool> {
        let limits = &self.dispatcher.limits;
        let mut stops = pin!(self.dispatcher.stops());
        let mut alarm = pin!(sleep_until(self.heard + limits.header_timeout));
        loop {
            let answered = self.answer_all().await?;
            if !answered || self.input.len() > limits.head_bytes_max {
                return Ok(false);
            }
            if self.dispatcher.is_stopping() {
                return Ok(true);
            }
            if self.input.is_empty() && self.input.capacity() > FREE_BYTES {
                self.input = BytesMut::new();
            }
            self.input.reserve(READ_BYTES);
            if self.share.hold(self.input.capacity()).is_err() {
                return Ok(true);
            }
            let waiting = !self.input.is_empty();
            tokio::select! {
                biased;
                read = self.stream.read_buf(&mut self.input) => {
                    if read? == 0 {
                        return Ok(true);
                    }
                    // A head that trickles in gets no more time with every byte.
                    if !waiting {
                        self.heard = Instant::now();
                    }
                }
                () = alarm.as_mut() => {
                    let deadline = self.heard + limits.header_timeout;
                    if Instant::now() >= deadline {
                        return Ok(true);
                    }
                    alarm.as_mut().reset(deadline);
                }
                () = stops.as_mut() => return Ok(true),
            }
        }
    }

    /// Answers every plain question of the input. False where something else comes next.
    async fn answer_all(&mut self) -> io::Result<bool> {
        self.common.refresh(self.dispatcher);
        let mut at = 0;
        let mut answered = 0;
        let goes_on = loop {
            match next(&self.input[at..]) {
                Next::Plain(text, used) if answer(self.dispatcher, &self.common, text, &mut self.out) => {
                    at += used;
                    answered += 1;
                }
                Next::Begun => break true,
                Next::Plain(..) | Next::Other => break false,
            }
            if self.out.len() > FLUSH_BYTES {
                self.flush().await?;
            }
        };
        Counters::add(&self.dispatcher.counters.http_requests, answered);
        if answered > 0 {
            self.heard = Instant::now();
        }
        self.input.advance(at);
        self.flush().await?;
        Ok(goes_on)
    }

    async fn flush(&mut self) -> io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        let sent = match self.stream.try_write(&self.out) {
            Ok(sent) => sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        if sent < self.out.len() {
            let stall = self.dispatcher.limits.stall_timeout;
            timeout(stall, self.stream.write_all(&self.out[sent..])).await??;
        }
        self.out.clear();
        if self.out.capacity() > FREE_BYTES {
            self.out = Vec::new();
        }
        Ok(())
    }
}

/// Recognises what comes next.
fn next(input: &[u8]) -> Next<'_> {
    const START: &[u8] = b"GET /v1/names/";
    let seen = input.len().min(START.len());
    if input[..seen] != START[..seen] {
        return Next::Other;
    }
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let used = match request.parse(input) {
        Ok(httparse::Status::Complete(used)) => used,
        Ok(httparse::Status::Partial) => return Next::Begun,
        Err(_) => return Next::Other,
    };
    let is_plain = request.version == Some(1) && !request.headers.iter().any(is_meaningful);
    match request.path.and_then(|path| path.strip_prefix("/v1/names/")) {
        Some(text) if is_plain && text.bytes().all(is_path) => Next::Plain(text, used),
        Some(_) | None => Next::Other,
    }
}

fn is_meaningful(header: &httparse::Header<'_>) -> bool {
    let is_one = |name: &HeaderName| header.name.eq_ignore_ascii_case(name.as_str());
    let keeps_alive = header.value.eq_ignore_ascii_case(b"keep-alive") && is_one(&CONNECTION);
    MEANINGFUL.iter().any(is_one) && !keeps_alive
}

/// What a path is made of, without a query.
const fn is_path(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/' | b':' | b'@' | b'%')
}

/// Writes the answer to a plain question. False where nothing was written, and the router has to answer.
fn answer(dispatcher: &Dispatcher, common: &Common, text: &str, out: &mut Vec<u8>) -> bool {
    let Ok(text) = decoded(text) else {
        return false;
    };
    dispatcher.state.read(text.as_bytes(), out, |found, out| {
        let revision = dispatcher.root().revision();
        out.extend_from_slice(&common.head);
        push_header(out, &REVISION, revision.0);
        out.extend_from_slice(b"etag: \"");
        push_number(out, found.binding.revision.0);
        out.extend_from_slice(b"\"\r\n");
        push_header(out, &CONTENT_LENGTH, found.json.len() as u64);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(found.json);
    })
}

fn push_header(out: &mut Vec<u8>, name: &HeaderName, value: u64) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    push_number(out, value);
    out.extend_from_slice(b"\r\n");
}

/// What the heads of all answers share for a second.
#[derive(Default)]
struct Common {
    head: Vec<u8>,
    /// The second of the date, and the term.
    of: Option<(u64, u64)>,
}

impl Common {
    fn refresh(&mut self, dispatcher: &Dispatcher) {
        let now = SystemTime::now();
        let second = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let of = Some((second, dispatcher.standing().term));
        if self.of == of {
            return;
        }
        self.of = of;
        self.head.clear();
        // A vector takes every byte.
        let _ = write!(
            self.head,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{CLUSTER_ID}: {}\r\n{TERM}: {}\r\ndate: {}\r\n",
            dispatcher.identity.cluster_id,
            dispatcher.standing().term,
            httpdate::fmt_http_date(now),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(input: &str) -> Option<(&str, usize)> {
        match next(input.as_bytes()) {
            Next::Plain(text, used) => Some((text, used)),
            Next::Begun | Next::Other => None,
        }
    }

    #[test]
    fn a_plain_question_is_a_get_without_a_query_whose_headers_change_nothing() {
        let input =
            "GET /v1/names/a%20b/c HTTP/1.1\r\nHost: h\r\nConnection: Keep-Alive\r\nAccept: */*\r\n\r\nGET";
        assert_eq!(plain(input), Some(("a%20b/c", input.len() - 3)));
    }

    #[test]
    fn everything_else_goes_to_the_router() {
        for (line, header) in [
            ("GET /v1/names/a?wait=1s HTTP/1.1", "Host: h"),
            ("GET /v1/names/a HTTP/1.0", "Host: h"),
            ("GET /v1/list/a HTTP/1.1", "Host: h"),
            ("HEAD /v1/names/a HTTP/1.1", "Host: h"),
            ("GET /v1/names/a\\ HTTP/1.1", "Host: h"),
            ("GET /v1/names/a HTTP/1.1", "If-Match: \"1\""),
            ("GET /v1/names/a HTTP/1.1", "if-none-match: *"),
            ("GET /v1/names/a HTTP/1.1", "Content-Length: 3"),
            ("GET /v1/names/a HTTP/1.1", "Transfer-Encoding: chunked"),
            ("GET /v1/names/a HTTP/1.1", "Expect: 100-continue"),
            ("GET /v1/names/a HTTP/1.1", "Connection: close"),
            ("GET /v1/names/a HTTP/1.1", "no colon"),
        ] {
            assert_eq!(
                plain(&format!("{line}\r\n{header}\r\n\r\n")),
                None,
                "{line} {header}"
            );
        }
    }

    #[test]
    fn a_request_that_has_begun_is_waited_for() {
        let whole = "GET /v1/names/a HTTP/1.1\r\nHost: h\r\n\r\n";
        for cut in 0..whole.len() {
            assert!(matches!(next(&whole.as_bytes()[..cut]), Next::Begun), "{cut}");
        }
    }
}
