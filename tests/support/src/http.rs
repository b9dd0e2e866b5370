//! The least of HTTP/1.1: one request on one connection, as `curl` would make it.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use serde_json::Value;

/// What was answered.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpAnswer {
    /// The status code.
    pub status: u16,
    /// The body: its JSON, or its text as a JSON string.
    pub body: Value,
}

/// How long a server may take to accept, and to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// `GET path` at `host:port`; `None` when nobody answers in HTTP.
#[must_use]
pub fn http_get(address: &str, path: &str) -> Option<HttpAnswer> {
    http_ask(address, "GET", path, &[], "")
}

/// `POST path` at `host:port` with a JSON body; `None` when nobody answers in HTTP.
#[must_use]
pub fn http_post(address: &str, path: &str, body: &Value) -> Option<HttpAnswer> {
    http_ask(address, "POST", path, &[], &body.to_string())
}

/// `PUT path` at `host:port` with a JSON body; `None` when nobody answers in HTTP.
#[must_use]
pub fn http_put(address: &str, path: &str, body: &Value) -> Option<HttpAnswer> {
    http_ask(address, "PUT", path, &[], &body.to_string())
}

/// `DELETE path` at `host:port`; `None` when nobody answers in HTTP.
#[must_use]
pub fn http_delete(address: &str, path: &str) -> Option<HttpAnswer> {
    http_ask(address, "DELETE", path, &[], "")
}

/// Any request with these headers and a body of JSON text; `None` when nobody answers in HTTP.
#[must_use]
pub fn http_ask(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Option<HttpAnswer> {
    let headers: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let connect = |address| TcpStream::connect_timeout(&address, PATIENCE).ok();
    let mut stream = address.to_socket_addrs().ok()?.find_map(connect)?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         content-type: application/json\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    read(&String::from_utf8_lossy(&answer))
}

fn read(answer: &str) -> Option<HttpAnswer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked {
        unchunked(body)?
    } else {
        body.to_owned()
    };
    let body = serde_json::from_str(&body).unwrap_or(Value::String(body));
    Some(HttpAnswer { status, body })
}

fn unchunked(mut rest: &str) -> Option<String> {
    let mut body = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n")?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.push_str(after.get(..size)?);
        rest = after.get(size..)?.strip_prefix("\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_read_whole_or_in_chunks() {
        let plain = read("HTTP/1.1 404 Not Found\r\ncontent-length: 7\r\n\r\n{\"a\":1}").expect("an answer");
        assert_eq!((plain.status, plain.body["a"].as_u64()), (404, Some(1)));
        let chunks =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"a\r\n4\r\n\":1}\r\n0\r\n\r\n";
        assert_eq!(read(chunks).expect("an answer").body["a"], 1);
    }
}
