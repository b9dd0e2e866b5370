//! Whatever comes is answered specifically, and the server lives on.

use daymark_naming_proto::resp::Frame;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Naming, http, queue, soon};

/// The server still answers everybody else.
async fn alive(naming: &Naming) {
    assert_eq!(naming.http("GET", "/livez", "").await.body, "ok\n");
    assert_eq!(
        naming.resp().await.ask(&["PING"]).await,
        Frame::Simple("PONG".into())
    );
}

async fn answer_to(naming: &Naming, bytes: &[u8]) -> Vec<Frame> {
    let mut resp = naming.resp().await;
    resp.send_bytes(bytes).await;
    resp.until_closed().await
}

fn is_protocol_error(frames: &[Frame], part: &str) -> bool {
    matches!(frames, [Frame::Error(text)] if text.starts_with("PROTOCOLERROR") && text.contains(part))
}

fn is_limit(frames: &[Frame], part: &str) -> bool {
    matches!(frames, [Frame::Error(text)] if text.starts_with("LIMITEXCEEDED") && text.contains(part))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_protocol_are_refused_and_the_connection_is_closed() {
    let naming = Naming::start().await;
    let cases: [(&[u8], &str); 4] = [
        (b"*2\r\n!x\r\n\r\n", "0x21"),
        (b"*x\r\n", "not a number"),
        (b"*1\r\n$4\r\nPINGxx", "CR LF"),
        (b"BIND \"x\r\n", "quotes"),
    ];
    for (bytes, part) in cases {
        let frames = answer_to(&naming, bytes).await;
        assert!(
            is_protocol_error(&frames, part),
            "{:?}: {frames:?}",
            String::from_utf8_lossy(bytes)
        );
    }
    alive(&naming).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_is_answered_with_its_limit_and_the_connection_is_closed() {
    let naming = Naming::start().await;
    let line = vec![b'x'; 200_000];
    let cases: [(&[u8], &str); 3] = [
        (b"*1\r\n$99999999\r\n", "the limit is 1048576"),
        (b"*99999\r\n", "the limit is 32"),
        (&line, "line"),
    ];
    for (bytes, part) in cases {
        let frames = answer_to(&naming, bytes).await;
        assert!(is_limit(&frames, part), "{frames:?}");
    }
    alive(&naming).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_before_the_garbage_are_still_sent() {
    let naming = Naming::start().await;
    let frames = answer_to(&naming, b"*1\r\n$4\r\nPING\r\n*x\r\n").await;
    assert_eq!(frames[0], Frame::Simple("PONG".into()));
    assert!(is_protocol_error(&frames[1..], "not a number"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tls_client_is_told_that_there_is_no_tls() {
    let naming = Naming::start().await;
    let frames = answer_to(&naming, b"\x16\x03\x01\x00\xf4\x01").await;
    assert!(
        matches!(&frames[..], [Frame::Error(text)] if text.contains("TLS")),
        "{frames:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_that_make_no_sense_are_named_and_the_connection_goes_on() {
    let naming = Naming::start().await;
    let mut resp = naming.resp().await;
    let cases: [(&[&str], &str, &str); 14] = [
        (&["GET", "x"], "NOTSUPPORTED", "verb GET"),
        (&["LOOKUP"], "INVALIDREQUEST", "name is missing"),
        (&["LOOKUP", "a\u{1}b"], "INVALIDNAME", "U+0001"),
        (&["LOOKUP", "\"a"], "INVALIDNAME", "quote"),
        (&["LOOKUP", &"x".repeat(300)], "INVALIDNAME", "300 bytes"),
        (&["LOOKUP", "x", "WAIT", "soon"], "INVALIDREQUEST", "WAIT"),
        (&["BIND", "x", "{"], "INVALIDREQUEST", "EOF"),
        (
            &[
                "BIND",
                "x",
                r#"{"type":"queue","address":"q","codebase":"http://x"}"#,
            ],
            "INVALIDREQUEST",
            "codebase",
        ),
        (&["BIND", "no/where", &queue("q")], "NAMENOTFOUND", "no/where"),
        (
            &["GROUP", "JOIN", "or ders", "m", "{}"],
            "INVALIDREQUEST",
            "or ders",
        ),
        (&["GROUP", "ENDLEASE", "g", "m", "1"], "NOTSUPPORTED", "ENDLEASE"),
        (&["HELLO", "9"], "NOTSUPPORTED", "2 and 3"),
        (&["HELLO", "3", "AUTH", "u", "p"], "NOTSUPPORTED", "no users"),
        (&["UNWATCH", "7"], "INVALIDREQUEST", "no watch 7"),
    ];
    for (words, code, part) in cases {
        let (got, text) = resp.error(words).await;
        assert!(got == code && text.contains(part), "{words:?}: {got} {text}");
    }
    assert_eq!(resp.ask(&["PING", "still"]).await, Frame::Bulk("still".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_requests_that_make_no_sense_get_a_problem_document() {
    let naming = Naming::start().await;
    let cases = [
        ("GET", "/", "", 404, "NotSupported", "path /"),
        ("GET", "/v2/names/x", "", 404, "NotSupported", "/v2/names/x"),
        ("PATCH", "/v1/names/x", "{}", 405, "NotSupported", "PATCH"),
        ("POST", "/v1/status", "", 405, "NotSupported", "POST"),
        ("POST", "/v1/names/x", "{", 400, "InvalidRequest", "EOF"),
        (
            "POST",
            "/v1/names/x",
            r#"{"type":"serialized"}"#,
            400,
            "InvalidRequest",
            "serialized",
        ),
        (
            "POST",
            "/v1/names/x",
            r#"{"object":{"type":"context"},"extra":1}"#,
            400,
            "InvalidRequest",
            "extra",
        ),
        ("GET", "/v1/names/%22a", "", 400, "InvalidName", "quote"),
        ("GET", "/v1/names/%ff", "", 400, "InvalidName", "UTF-8"),
        ("GET", "/v1/names/x?fast=yes", "", 400, "InvalidRequest", "fast"),
        (
            "GET",
            "/v1/names/x?wait=10",
            "",
            400,
            "InvalidRequest",
            "duration",
        ),
        (
            "GET",
            "/v1/names/x?consistency=maybe",
            "",
            400,
            "InvalidRequest",
            "maybe",
        ),
        (
            "POST",
            "/v1/groups/orders/promote",
            "{}",
            404,
            "NotSupported",
            "promote",
        ),
        (
            "POST",
            "/v1/groups/orders/claim",
            "{}",
            400,
            "InvalidRequest",
            "member",
        ),
        (
            "GET",
            "/v1/groups/or%20ders",
            "",
            400,
            "InvalidRequest",
            "or ders",
        ),
        (
            "GET",
            "/v1/watch/x?scope=galaxy",
            "",
            400,
            "InvalidRequest",
            "galaxy",
        ),
    ];
    for (method, path, body, status, code, part) in cases {
        let reply = naming.http(method, path, body).await;
        let (got, problem) = reply.problem();
        assert_eq!(
            (got, &problem["code"]),
            (status, &json!(code)),
            "{method} {path}: {problem}"
        );
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(part), "{method} {path}: {detail}");
    }
    let refused = naming.http("PATCH", "/v1/names/x", "").await;
    assert_eq!(refused.headers["allow"], "GET,HEAD,PUT,POST,DELETE");
    let headers = [("Daymark-Op-Id", "not hex")];
    let reply = http(naming.addr(), "POST", "/v1/names/x", &headers, &queue("q")).await;
    assert_eq!(reply.problem().1["code"], "InvalidRequest");
    let last = http(naming.addr(), "GET", "/v1/watch/x", &[("Last-Event-ID", "x")], "").await;
    assert_eq!(last.problem().0, 400);
    alive(&naming).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_beyond_the_limit_are_refused() {
    let naming = Naming::start_with(|options| options.limits.request_bytes_max = 10_000).await;
    let reply = naming
        .http("POST", "/v1/names/x", &queue(&"x".repeat(20_000)))
        .await;
    let (status, problem) = reply.problem();
    assert_eq!(
        (status, &problem["code"], &problem["limit"]),
        (413, &json!("LimitExceeded"), &json!(10_000))
    );
    let big = queue(&"x".repeat(20_000));
    let mut resp = naming.resp().await;
    resp.send(&["BIND", "x", &big]).await;
    let frames = resp.until_closed().await;
    assert!(is_limit(&frames, "the limit is 10000"), "{frames:?}");
    alive(&naming).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_request_line_is_answered_by_http() {
    let naming = Naming::start().await;
    let mut stream = tokio::net::TcpStream::connect(naming.addr())
        .await
        .expect("a connection");
    stream
        .write_all(b"GET nonsense\x00 HTTP/1.1\r\n\r\n")
        .await
        .expect("sent");
    let mut answer = Vec::new();
    soon("an answer", stream.read_to_end(&mut answer))
        .await
        .expect("an answer");
    assert!(
        answer.starts_with(b"HTTP/1.1 400"),
        "{:?}",
        String::from_utf8_lossy(&answer)
    );
    alive(&naming).await;
}
