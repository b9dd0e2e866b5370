//! What one HTTP/2 connection may take, spoken byte by byte, because a client library would keep within it.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Naming, queue, soon};

/// The settings frame that a server sends first on an HTTP/2 connection, and the stream behind it.
async fn http2(naming: &Naming) -> (TcpStream, Vec<u8>) {
    let mut stream = TcpStream::connect(naming.addr()).await.expect("a connection");
    let no_settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let hello = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &no_settings].concat();
    stream.write_all(&hello).await.expect("sent");
    let (kind, _, settings) = http2_frame(&mut stream).await.expect("a frame");
    assert_eq!(kind, 4, "settings come first");
    (stream, settings)
}

/// The next frame: its type, its stream and what is in it. `None` at the end of the connection.
async fn http2_frame(stream: &mut TcpStream) -> Option<(u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    soon("a frame", stream.read_exact(&mut head)).await.ok()?;
    let [a, b, c, kind, _flags, id @ ..] = head;
    let mut body = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    soon("a frame", stream.read_exact(&mut body)).await.ok()?;
    Some((kind, u32::from_be_bytes(id) & 0x7FFF_FFFF, body))
}

/// A frame with the head of `GET path`, which is the whole request.
fn http2_get(id: u32, path: &str) -> Vec<u8> {
    const END_OF_STREAM_AND_HEADERS: u8 = 0x5;
    let length = u8::try_from(path.len()).expect("a short path");
    // From the static table: GET, http, and the names of :path and :authority.
    let head = [&[0x82, 0x86, 0x04, length], path.as_bytes(), &[0x01, 1, b't']].concat();
    let length = u8::try_from(head.len()).expect("a short head");
    let frame = [0, 0, length, 1, END_OF_STREAM_AND_HEADERS];
    [&frame[..], &id.to_be_bytes(), &head].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_http2_request_too_many_is_refused_and_those_under_way_are_answered() {
    const RESET: u8 = 3;
    const HEADERS: u8 = 1;
    const REFUSED_STREAM: [u8; 4] = [0, 0, 0, 7];
    let naming = Naming::start_with(|options| options.limits.streams_per_connection_max = 2).await;
    let (mut stream, settings) = http2(&naming).await;
    let most = settings.chunks(6).find(|setting| setting[..2] == [0, 3]);
    assert_eq!(most.map(|setting| &setting[2..]), Some(&[0, 0, 0, 2][..]));
    for id in [1, 3, 5] {
        let request = http2_get(id, "/v1/names/late?wait=60s");
        stream.write_all(&request).await.expect("sent");
    }
    let refused = loop {
        let (kind, id, body) = http2_frame(&mut stream).await.expect("a frame");
        if kind == RESET {
            break (id, body);
        }
    };
    assert_eq!(refused, (5, REFUSED_STREAM.to_vec()));
    naming.http("POST", "/v1/names/late", &queue("q")).await;
    let mut answered = Vec::new();
    while answered.len() < 2 {
        let (kind, id, _) = http2_frame(&mut stream).await.expect("a frame");
        if kind == HEADERS {
            answered.push(id);
        }
    }
    answered.sort_unstable();
    assert_eq!(answered, [1, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http2_connection_is_let_go_when_nothing_is_asked_and_not_while_it_waits() {
    let naming = Naming::start_with(|options| {
        options.limits.idle_timeout = Duration::from_millis(300);
        options.limits.header_timeout = Duration::from_millis(300);
    })
    .await;
    let (mut silent, _) = http2(&naming).await;
    // A head that never ends: its frame says that another one follows.
    let (mut half, _) = http2(&naming).await;
    let mut begun = http2_get(1, "/v1/names/late");
    begun[4] = 0x1;
    half.write_all(&begun).await.expect("sent");
    let (mut watching, _) = http2(&naming).await;
    let watch = http2_get(1, "/v1/watch/late");
    watching.write_all(&watch).await.expect("sent");
    while http2_frame(&mut silent).await.is_some() {}
    while http2_frame(&mut half).await.is_some() {}
    naming.http("POST", "/v1/names/late", &queue("q")).await;
    let told = soon("the change", async {
        loop {
            let (_, _, body) = http2_frame(&mut watching).await.expect("a watch goes on");
            if body.windows(14).any(|part| part == b"event: changed") {
                return true;
            }
        }
    });
    assert!(told.await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preface_of_http2_that_never_ends_is_not_waited_for() {
    let naming =
        Naming::start_with(|options| options.limits.header_timeout = Duration::from_millis(200)).await;
    let mut stream = TcpStream::connect(naming.addr()).await.expect("a connection");
    stream.write_all(b"PRI * HTTP/2.0\r\n").await.expect("sent");
    let mut said = Vec::new();
    let _ = soon("the end", stream.read_to_end(&mut said)).await;
    assert!(said.is_empty(), "{said:?}");
}
