//! One port, and which door a connection goes through: its first bytes decide.
//!
//! What begins like an HTTP request line, or like the HTTP/2 preface, is HTTP; everything else is RESP, which
//! answers what it does not understand with an error of its own.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::dispatch::Dispatcher;
use crate::{http, resp};

/// How a connection of the HTTP door begins: with a method, or with the whole preface of HTTP/2, for which nobody
/// behind this door waits.
const METHODS: [&[u8]; 10] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"OPTIONS ",
    b"PATCH ",
    b"TRACE ",
    b"CONNECT ",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
];
/// The first byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 0x16;
/// An HTTP error in plain bytes would not be understood; a TLS client shows at least that this is none.
const NO_TLS: &[u8] = b"-NOTSUPPORTED this port does not speak TLS\r\n";

/// Room for the first bytes.
const FIRST_BYTES: usize = 4 << 10;

/// What every connection shares.
pub(crate) struct Doors {
    dispatcher: Arc<Dispatcher>,
    api: Arc<http::Api>,
}

impl Doors {
    pub(crate) fn new(dispatcher: Arc<Dispatcher>) -> Self {
        let api = Arc::new(http::Api::new(dispatcher.clone()));
        Self { dispatcher, api }
    }

    pub(crate) fn dispatcher(&self) -> &Dispatcher {
        &self.dispatcher
    }
}

/// What the first bytes say.
#[derive(Debug, PartialEq, Eq)]
enum Door {
    Http,
    Resp,
    Tls,
    /// Too few bytes to say.
    Unknown,
}

fn door(first: &[u8]) -> Door {
    let Some(&byte) = first.first() else {
        return Door::Unknown;
    };
    if byte == TLS_HANDSHAKE {
        return Door::Tls;
    }
    if METHODS.iter().any(|method| first.starts_with(method)) {
        return Door::Http;
    }
    if METHODS.iter().any(|method| method.starts_with(first)) {
        return Door::Unknown;
    }
    Door::Resp
}

/// Serves one connection to its end.
pub(crate) async fn serve(mut stream: TcpStream, doors: Arc<Doors>) -> io::Result<()> {
    let mut first = BytesMut::new();
    let header_timeout = doors.dispatcher.limits.header_timeout;
    let sniffed = tokio::select! {
        sniffed = timeout(header_timeout, sniff(&mut stream, &mut first)) => sniffed,
        () = doors.dispatcher.stops() => return Ok(()),
    };
    match sniffed {
        Ok(door) => match door? {
            Door::Http => http::serve(stream, first, doors.api.clone()).await,
            Door::Resp => resp::serve(stream, first, doors.dispatcher.clone()).await,
            Door::Tls => stream.try_write(NO_TLS).map(|_| ()),
            Door::Unknown => Ok(()),
        },
        // Nothing, or next to nothing, was said.
        Err(_) => Ok(()),
    }
}

/// Reads until the first bytes decide. `Unknown` where the peer left before.
async fn sniff(stream: &mut TcpStream, first: &mut BytesMut) -> io::Result<Door> {
    loop {
        // Whoever says nothing gets no buffer.
        stream.readable().await?;
        first.reserve(FIRST_BYTES);
        match stream.try_read_buf(first) {
            Ok(0) => return Ok(Door::Unknown),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        match door(first) {
            Door::Unknown => {}
            decided @ (Door::Http | Door::Resp | Door::Tls) => return Ok(decided),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_decide() {
        assert_eq!(door(b"GET /v1"), Door::Http);
        assert_eq!(door(b"PRI * HTTP/2.0"), Door::Unknown);
        assert_eq!(door(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0"), Door::Http);
        assert_eq!(door(b"PRI * HTTP/3.0\r\n"), Door::Resp);
        assert_eq!(door(b"P"), Door::Unknown);
        assert_eq!(door(b"PING\r\n"), Door::Resp);
        assert_eq!(door(b"*1\r\n"), Door::Resp);
        assert_eq!(door(b"\x00"), Door::Resp);
        assert_eq!(door(b"\x16\x03\x01"), Door::Tls);
    }
}
