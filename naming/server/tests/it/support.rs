//! A server of one's own, and small clients for both doors.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use daymark_naming_proto::Endpoint;
use daymark_naming_proto::resp::{Frame, Limits, parse_frame, write_command};
use daymark_naming_server::{NamingOptions, Server};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long anything in a test may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Ends a test that waits for what never comes.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("nothing within {PATIENCE:?}: {what}"),
    }
}

/// A running server and its data directory.
pub(crate) struct Naming {
    pub(crate) server: Server,
    pub(crate) data: TempDir,
}

pub(crate) fn options(data: &Path) -> NamingOptions {
    let mut options = NamingOptions::new(data);
    options.listen = Endpoint {
        host: "127.0.0.1".to_owned(),
        port: 0,
    };
    options.storage.segment_bytes = 1 << 20;
    options
}

impl Naming {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(adjust: impl FnOnce(&mut NamingOptions)) -> Self {
        let data = TempDir::new().expect("a directory");
        let mut options = options(data.path());
        adjust(&mut options);
        let server = soon("start", Server::start(options)).await.expect("a server");
        Self { server, data }
    }

    /// Stops it and starts it again on the same data.
    pub(crate) async fn restarted(self) -> Self {
        let Self { server, data } = self;
        soon("stop", server.stop()).await;
        Self::again(data).await
    }

    /// Drops it without a stop and starts it again on the same data.
    pub(crate) async fn dropped_and_started(self) -> Self {
        let Self { server, data } = self;
        drop(server);
        Self::again(data).await
    }

    async fn again(data: TempDir) -> Self {
        let server = soon("start again", Server::start(options(data.path()))).await;
        Self {
            server: server.expect("a server"),
            data,
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    pub(crate) async fn resp(&self) -> Resp {
        Resp::connect(self.addr()).await
    }

    /// A RESP3 connection whose errors are JSON.
    pub(crate) async fn resp3(&self) -> Resp {
        let mut resp = self.resp().await;
        resp.ask(&["HELLO", "3"]).await;
        resp.ask(&["ERRORS", "JSON"]).await;
        resp
    }

    pub(crate) async fn http(&self, method: &str, path: &str, body: &str) -> Reply {
        http(self.addr(), method, path, &[], body).await
    }

    /// A lookup that must find the name.
    pub(crate) async fn lookup(&self, name: &str) -> Value {
        let reply = self.http("GET", &format!("/v1/names/{name}"), "").await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.json()
    }
}

/// A RESP connection.
pub(crate) struct Resp {
    pub(crate) stream: TcpStream,
    input: Vec<u8>,
    pushes: VecDeque<Vec<Frame>>,
}

impl Resp {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        let stream = soon("connect", TcpStream::connect(addr))
            .await
            .expect("a connection");
        stream.set_nodelay(true).expect("nodelay");
        Self {
            stream,
            input: Vec::new(),
            pushes: VecDeque::new(),
        }
    }

    pub(crate) async fn send(&mut self, words: &[&str]) {
        let mut bytes = Vec::new();
        write_command(words, &mut bytes);
        self.send_bytes(&bytes).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        soon("send", self.stream.write_all(bytes)).await.expect("sent");
    }

    /// The next frame of either kind; `None` when the server has closed the connection.
    async fn frame(&mut self) -> Option<Frame> {
        let limits = Limits {
            bulk_bytes_max: 64 << 20,
            items_max: 1 << 20,
            line_bytes_max: 1 << 20,
        };
        loop {
            if let Some((frame, used)) = parse_frame(&self.input, &limits).expect("RESP") {
                self.input.drain(..used);
                return Some(frame);
            }
            if soon("a frame", self.stream.read_buf(&mut self.input))
                .await
                .ok()?
                == 0
            {
                return None;
            }
        }
    }

    /// The next answer; pushes on the way are kept.
    pub(crate) async fn reply(&mut self) -> Option<Frame> {
        loop {
            let frame = self.frame().await?;
            let Frame::Push(items) = frame else {
                return Some(frame);
            };
            self.pushes.push_back(items);
        }
    }

    pub(crate) async fn ask(&mut self, words: &[&str]) -> Frame {
        self.send(words).await;
        self.reply().await.expect("an answer")
    }

    /// The document that is answered.
    pub(crate) async fn document(&mut self, words: &[&str]) -> String {
        let answer = self.ask(words).await;
        let Frame::Bulk(bytes) = answer else {
            panic!("{words:?} is answered {answer:?}");
        };
        String::from_utf8(bytes.to_vec()).expect("UTF-8")
    }

    pub(crate) async fn json(&mut self, words: &[&str]) -> Value {
        serde_json::from_str(&self.document(words).await).expect("JSON")
    }

    /// The error that is answered: its prefix and its text.
    pub(crate) async fn error(&mut self, words: &[&str]) -> (String, String) {
        let answer = self.ask(words).await;
        let Frame::Error(text) = answer else {
            panic!("{words:?} is answered {answer:?}");
        };
        let (code, text) = text.split_once(' ').expect("a code and a text");
        (code.to_owned(), text.to_owned())
    }

    /// Begins a watch and returns its number.
    pub(crate) async fn watch(&mut self, words: &[&str]) -> i64 {
        let answer = self.ask(words).await;
        let Frame::Integer(id) = answer else {
            panic!("{words:?} is answered {answer:?}");
        };
        id
    }

    /// The next event of a watch.
    pub(crate) async fn event(&mut self) -> (i64, Value) {
        let items = match self.pushes.pop_front() {
            Some(items) => items,
            None => self.push().await,
        };
        match items.as_slice() {
            [Frame::Bulk(kind), Frame::Integer(id), Frame::Bulk(json)] if &kind[..] == b"watch" => {
                (*id, serde_json::from_slice(json).expect("JSON"))
            }
            other => panic!("{other:?} is no event"),
        }
    }

    async fn push(&mut self) -> Vec<Frame> {
        let frame = self.frame().await.expect("a push");
        let Frame::Push(items) = frame else {
            panic!("{frame:?} instead of a push");
        };
        items
    }

    /// Whatever comes until the server closes the connection.
    pub(crate) async fn until_closed(mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.frame().await {
            frames.push(frame);
        }
        frames
    }
}

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect(&self.body)
    }

    /// A problem document: its status, and what it says.
    pub(crate) fn problem(&self) -> (u16, Value) {
        assert_eq!(
            self.headers["content-type"], "application/problem+json",
            "{}",
            self.body
        );
        let problem = self.json();
        assert_eq!(problem["status"], self.status);
        (self.status, problem)
    }

    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let headers = lines.filter_map(|line| line.split_once(": "));
        Self {
            status: status.and_then(|s| s.parse().ok()).expect("a status"),
            headers: headers
                .map(|(k, v)| (k.to_ascii_lowercase(), v.to_owned()))
                .collect(),
            body: body.to_owned(),
        }
    }
}

/// One request on a connection of its own.
pub(crate) async fn http(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Reply {
    let mut stream = soon("connect", TcpStream::connect(addr))
        .await
        .expect("a connection");
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut reply = Vec::new();
    soon("an HTTP answer", stream.read_to_end(&mut reply))
        .await
        .expect("an answer");
    Reply::parse(&reply)
}

/// A stream of server-sent events, asked for in HTTP/1.0 so that it comes without chunks.
pub(crate) struct Events {
    stream: TcpStream,
    input: Vec<u8>,
}

/// One server-sent event.
#[derive(Debug, PartialEq)]
pub(crate) struct Event {
    pub(crate) id: Option<String>,
    pub(crate) kind: String,
    pub(crate) data: Value,
}

impl Events {
    pub(crate) async fn open(addr: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut stream = soon("connect", TcpStream::connect(addr))
            .await
            .expect("a connection");
        let mut request = format!("GET {path} HTTP/1.0\r\nHost: test\r\n");
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        stream
            .write_all(format!("{request}\r\n").as_bytes())
            .await
            .expect("sent");
        let mut events = Self {
            stream,
            input: Vec::new(),
        };
        let head = events.until("\r\n\r\n").await.expect("a head");
        assert!(
            head.contains("200 OK") && head.contains("text/event-stream"),
            "{head}"
        );
        events
    }

    async fn until(&mut self, end: &str) -> Option<String> {
        loop {
            let at = self.input.windows(end.len()).position(|w| w == end.as_bytes());
            if let Some(at) = at {
                let piece: Vec<u8> = self.input.drain(..at + end.len()).collect();
                return Some(String::from_utf8(piece).expect("UTF-8"));
            }
            let read = soon("an event", self.stream.read_buf(&mut self.input)).await;
            if read.expect("the stream") == 0 {
                return None;
            }
        }
    }

    /// The next event; `None` when the stream has ended. Comments and pauses are skipped.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            let block = self.until("\n\n").await?;
            let field = |name: &str| {
                let mut lines = block.lines();
                let line = lines.find(|l| l.split(':').next() == Some(name))?;
                line.split_once(':').map(|(_, value)| value.trim().to_owned())
            };
            if let (Some(kind), Some(data)) = (field("event"), field("data")) {
                return Some(Event {
                    id: field("id"),
                    kind,
                    data: serde_json::from_str(&data).expect("JSON"),
                });
            }
        }
    }
}

/// A queue as JSON.
pub(crate) fn queue(address: &str) -> String {
    format!(r#"{{"type":"queue","address":"{address}"}}"#)
}
