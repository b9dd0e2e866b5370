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

/// Rebinds one name `rounds` times before all watchers. Returns the milliseconds of each round from the rebind
/// until the last watcher was told, and the bytes one connection was told in a round.
///
/// # Errors
/// That a watcher was not told within a minute.
pub async fn daymark(address: &str, rounds: usize) -> Outcome<(Vec<f64>, usize)> {
    let name = key(0);
    let mut watchers = Vec::new();
    for _ in 0..CONNECTIONS {
        watchers.push(watching(address, &name).await?);
    }
    let mut writer = resp::Client::connect(address).await?;
    let (mut times, mut bytes) = (Vec::new(), 0);
    for round in 0..rounds {
        writer.add(&["REBIND", &name, &object(round as u64 + 1)]);
        let began = Instant::now();
        writer.send().await?;
        let mut told = JoinSet::new();
        for watcher in watchers.drain(..) {
            told.spawn(async move { tokio::time::timeout(PATIENCE, told_once(watcher)).await });
        }
        while let Some(watcher) = told.join_next().await {
            let (watcher, read) = watcher???;
            watchers.push(watcher);
            bytes = read;
        }
        times.push(began.elapsed().as_secs_f64() * 1e3);
        writer.frame().await?;
    }
    Ok((times, bytes))
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

/// The same connections at a bare broadcast, which tells each of them `bytes` bytes in a round.
///
/// # Errors
/// That a connection was not told within a minute.
pub async fn bare(address: &str, bytes: usize, rounds: usize) -> Outcome<Vec<f64>> {
    let mut listeners = Vec::new();
    for _ in 0..CONNECTIONS {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        listeners.push(stream);
    }
    let mut times = Vec::new();
    for _ in 0..rounds {
        let began = Instant::now();
        listeners[0].write_all(b"!").await?;
        let mut told = JoinSet::new();
        for mut listener in listeners.drain(..) {
            told.spawn(async move {
                let mut input = vec![0; 64 << 10];
                let mut read = 0;
                while read < bytes {
                    match listener.read(&mut input).await? {
                        0 => return Err(other("the broadcast closed a connection")),
                        some => read += some,
                    }
                }
                Ok(listener)
            });
        }
        while let Some(listener) = tokio::time::timeout(PATIENCE, told.join_next()).await? {
            listeners.push(listener??);
        }
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}
