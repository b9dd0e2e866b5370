//! A naming server that says what a test tells it to say.

#![allow(dead_code)]

pub(crate) mod broker;
pub(crate) mod client;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use daymark_client::proto::resp::{Frame, Limits, parse_command, write_frame};
use daymark_client::proto::{
    Attributes, Binding, ChangeKind, Endpoint, Name, NamingError, Object, Revision, WatchMessage,
};
use daymark_client::{Naming, NamingConfig, Providers};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

/// What the server does with a command.
pub(crate) enum Reply {
    Frame(Frame),
    Raw(&'static [u8]),
    Close,
}

/// Decides about every command but `HELLO` and `ERRORS`; no reply at all is allowed.
pub(crate) type Script = Arc<dyn Fn(&[String]) -> Vec<Reply> + Send + Sync>;

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

struct State {
    hello: Reply,
    script: Script,
    log: Mutex<Vec<Vec<String>>>,
    connections: AtomicUsize,
    pushes: broadcast::Sender<Frame>,
}

impl Server {
    /// A server of cluster `c` at `revision`.
    pub(crate) async fn start(
        revision: i64,
        script: impl Fn(&[String]) -> Vec<Reply> + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(hello("c", revision), Arc::new(script)).await
    }

    pub(crate) async fn start_with(hello: Reply, script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State {
            hello,
            script,
            log: Mutex::default(),
            connections: AtomicUsize::new(0),
            pushes: broadcast::channel(1024).0,
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&state)));
        Self { address, state, task }
    }

    /// Closes the port and every connection.
    pub(crate) async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }

    pub(crate) fn push(&self, frame: Frame) {
        let _ = self.state.pushes.send(frame);
    }

    /// The commands with this verb, so far.
    pub(crate) fn heard(&self, verb: &str) -> Vec<Vec<String>> {
        let log = self.state.log.lock().expect("the log");
        log.iter().filter(|words| words[0] == verb).cloned().collect()
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    // Dropped with this task: the connections end with the port.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        state.connections.fetch_add(1, Ordering::SeqCst);
        connections.spawn(serve(stream, Arc::clone(&state)));
    }
}

async fn serve(mut stream: TcpStream, state: Arc<State>) {
    let mut pushes = state.pushes.subscribe();
    let mut input = Vec::new();
    loop {
        tokio::select! {
            read = stream.read_buf(&mut input) => match read {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            },
            push = pushes.recv() => {
                let Ok(push) = push else { return };
                if send(&mut stream, &Reply::Frame(push)).await.is_err() {
                    return;
                }
            }
        }
        while let Some(words) = take_command(&mut input) {
            for reply in state.answer(words) {
                if send(&mut stream, &reply).await.is_err() {
                    return;
                }
            }
        }
    }
}

impl State {
    fn answer(&self, words: Vec<String>) -> Vec<Reply> {
        self.log.lock().expect("the log").push(words.clone());
        match words[0].as_str() {
            "HELLO" => match &self.hello {
                Reply::Frame(frame) => vec![Reply::Frame(frame.clone())],
                Reply::Raw(bytes) => vec![Reply::Raw(bytes)],
                Reply::Close => vec![Reply::Close],
            },
            "ERRORS" | "PING" | "UNWATCH" => vec![Reply::Frame(Frame::Simple("OK".into()))],
            _ => (self.script)(&words),
        }
    }
}

async fn send(stream: &mut TcpStream, reply: &Reply) -> std::io::Result<()> {
    match reply {
        Reply::Frame(frame) => {
            let mut bytes = Vec::new();
            write_frame(frame, true, &mut bytes);
            stream.write_all(&bytes).await
        }
        Reply::Raw(bytes) => stream.write_all(bytes).await,
        Reply::Close => Err(std::io::ErrorKind::ConnectionReset.into()),
    }
}

fn take_command(input: &mut Vec<u8>) -> Option<Vec<String>> {
    let mut arguments = Vec::new();
    let used = parse_command(input, &mut arguments, &Limits::default()).expect("a command")?;
    let words = arguments
        .iter()
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    drop(arguments);
    input.drain(..used);
    Some(words)
}

/// A greeting.
pub(crate) fn hello(cluster: &str, revision: i64) -> Reply {
    let text = |text: &str| Frame::Bulk(text.to_owned().into());
    Reply::Frame(Frame::Map(vec![
        (text("server"), text("daymark")),
        (text("cluster_id"), text(cluster)),
        (text("revision"), Frame::Integer(revision)),
    ]))
}

pub(crate) fn document<T: serde::Serialize>(value: &T) -> Reply {
    Reply::Frame(Frame::Bulk(serde_json::to_vec(value).expect("JSON").into()))
}

pub(crate) fn refused(error: &NamingError) -> Reply {
    let json = serde_json::to_string(error).expect("JSON");
    Reply::Frame(Frame::Error(format!("{} {json}", error.code().to_uppercase())))
}

pub(crate) fn queue(text: &str, address: &str, revision: u64) -> Binding {
    Binding {
        name: name(text),
        object: Object::Queue {
            address: address.into(),
        },
        attributes: Attributes::new(),
        created: Revision(1),
        revision: Revision(revision),
        owner: None,
    }
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

pub(crate) fn watch_push(id: i64, message: &WatchMessage) -> Frame {
    Frame::Push(vec![
        Frame::Bulk("watch".into()),
        Frame::Integer(id),
        Frame::Bulk(serde_json::to_vec(message).expect("JSON").into()),
    ])
}

pub(crate) fn changed(id: i64, revision: u64, kind: ChangeKind) -> Frame {
    let change = daymark_client::proto::Change {
        name: name("q"),
        kind,
    };
    watch_push(
        id,
        &WatchMessage::Changed {
            revision: Revision(revision),
            changes: vec![change],
            spread_ms: 0,
        },
    )
}

/// Short times, so that tests of failures are quick; long enough for a busy machine.
pub(crate) fn config() -> NamingConfig {
    NamingConfig {
        connect_timeout: Duration::from_secs(3),
        stagger: Duration::from_millis(100),
        call_timeout: Duration::from_secs(3),
        total_timeout: Duration::from_secs(10),
        ..NamingConfig::default()
    }
}

pub(crate) fn naming_with(addresses: &[SocketAddr], config: NamingConfig) -> Naming {
    let endpoints = addresses.iter().map(|address| Endpoint {
        host: address.ip().to_string(),
        port: address.port(),
    });
    Naming::new(Providers::new(endpoints).expect("providers"), config)
}

pub(crate) fn naming(servers: &[&Server]) -> Naming {
    let addresses: Vec<SocketAddr> = servers.iter().map(|server| server.address).collect();
    naming_with(&addresses, config())
}

/// A port at which nothing listens.
pub(crate) async fn dead_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("an address")
}
