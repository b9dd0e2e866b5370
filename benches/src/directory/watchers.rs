//! How long it takes until the last of many watchers is told, and how long until the same bytes have come by a
//! bare broadcast.

use std::time::{Duration, Instant};

use daymark_naming_proto::resp::Frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{key, object, resp};
use crate::{Outcome, other};

/// How many connections watch.
pub const CONNECTIONS: usize = 100;
/// How many watches each of them has.
pub const WATCHES: usize = 100;

const PATIENCE: Duration = Duration::from_secs(60);

/// One round: everybody was told once.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// From the moment it was asked for until the last watcher was told, in milliseconds.
    pub milliseconds: f64,
    /// What one connection was told.
    pub bytes: usize,
}

/// The watchers of one name in Daymark.
#[derive(Debug)]
pub struct Watchers {
    everybody: Vec<TcpStream>,
    writer: resp::Client,
    rebinds: u64,
}

impl Watchers {
    /// Connects them; all of them have the current state.
    ///
    /// # Errors
    /// That the server refuses one.
    pub async fn connect(address: &str) -> Outcome<Self> {
        let mut everybody = Vec::new();
        for _ in 0..CONNECTIONS {
            everybody.push(watching(address, &key(0)).await?);
        }
        Ok(Self {
            everybody,
            writer: resp::Client::connect(address).await?,
            rebinds: 0,
        })
    }

    /// Rebinds the name once.
    ///
    /// # Errors
    /// That a watcher was not told within a minute.
    pub async fn round(&mut self) -> Outcome<Round> {
        self.rebinds += 1;
        self.writer.add(&["REBIND", &key(0), &object(self.rebinds)]);
        let began = Instant::now();
        self.writer.send().await?;
        let round = until_all_are_told(&mut self.everybody, began).await?;
        self.writer.frame().await?;
        Ok(round)
    }
}

/// As many connections at a bare broadcast, read in the same way.
#[derive(Debug)]
pub struct Listeners {
    everybody: Vec<TcpStream>,
}

impl Listeners {
    /// Connects them.
    ///
    /// # Errors
    /// That nobody answers there.
    pub async fn connect(address: &str) -> Outcome<Self> {
        let mut everybody = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            stream.read_u8().await?;
            everybody.push(stream);
        }
        Ok(Self { everybody })
    }

    /// Has everybody told once.
    ///
    /// # Errors
    /// That a connection was not told within a minute.
    pub async fn round(&mut self) -> Outcome<Round> {
        let began = Instant::now();
        self.everybody[0].write_all(b"!").await?;
        until_all_are_told(&mut self.everybody, began).await
    }
}

/// A connection with its watches, all of which have the current state.
async fn watching(address: &str, name: &str) -> Outcome<TcpStream> {
    let mut client = resp::Client::connect(address).await?;
    client.ask(&["HELLO", "3"]).await?;
    for _ in 0..WATCHES {
        client.add(&["WATCH", name]);
    }
    client.send().await?;
    let mut bookmarks = 0;
    while bookmarks < WATCHES {
        if let Frame::Push(items) = client.frame().await? {
            bookmarks += usize::from(items.iter().any(is_bookmark));
        }
    }
    client.into_stream()
}

fn is_bookmark(item: &Frame) -> bool {
    matches!(item, Frame::Bulk(text) if text.windows(8).any(|word| word == b"bookmark"))
}

/// Reads on every connection at once.
async fn until_all_are_told(everybody: &mut Vec<TcpStream>, began: Instant) -> Outcome<Round> {
    let mut told = JoinSet::new();
    for watcher in everybody.drain(..) {
        told.spawn(async move { tokio::time::timeout(PATIENCE, told_once(watcher)).await });
    }
    let mut bytes = 0;
    while let Some(watcher) = told.join_next().await {
        let (watcher, read) = watcher???;
        everybody.push(watcher);
        bytes = read;
    }
    Ok(Round {
        milliseconds: began.elapsed().as_secs_f64() * 1e3,
        bytes,
    })
}

/// Reads until each watch of this connection was told: pushes begin with `>`, and no text in them has one.
async fn told_once(mut watcher: TcpStream) -> Outcome<(TcpStream, usize)> {
    let mut input = vec![0; 64 << 10];
    let (mut pushes, mut bytes, mut ends) = (0, 0, false);
    while pushes < WATCHES || !ends {
        let read = watcher.read(&mut input).await?;
        if read == 0 {
            return Err(other("the server closed a watching connection").into());
        }
        bytes += read;
        pushes += input[..read].iter().filter(|byte| **byte == b'>').count();
        ends = input[..read].ends_with(b"\r\n");
    }
    Ok((watcher, bytes))
}
