//! Our own floor: what the same machine does when nothing is looked up at all.
//!
//! Each runs as a process of its own and says `listening ADDRESS`.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use daymark_journal::{Batch, Holder, Journal, Locked, Options};
use daymark_naming_proto::resp::{Limits, parse_command};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc, oneshot};

use super::watchers::WATCHES;
use crate::{Outcome, other};

async fn listen() -> Outcome<TcpListener> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening {}", listener.local_addr()?);
    Ok(listener)
}

/// Answers every RESP array (a command) with the same bulk string of `bytes` bytes: a bare echo in tokio.
///
/// # Errors
/// That it cannot listen.
pub async fn echo(bytes: usize) -> Outcome<()> {
    let reply: Arc<[u8]> = format!("${bytes}\r\n{}\r\n", "x".repeat(bytes))
        .into_bytes()
        .into();
    let listener = listen().await?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(echo_to(stream, Arc::clone(&reply)));
    }
}

/// No word of a command contains an asterisk, so every asterisk begins a command.
async fn echo_to(mut stream: TcpStream, reply: Arc<[u8]>) {
    let _ = stream.set_nodelay(true);
    let mut input = vec![0; 64 << 10];
    let mut output = Vec::new();
    while let Ok(read @ 1..) = stream.read(&mut input).await {
        let commands = input[..read].iter().filter(|byte| **byte == b'*').count();
        output.clear();
        for _ in 0..commands {
            output.extend_from_slice(&reply);
        }
        if stream.write_all(&output).await.is_err() {
            return;
        }
    }
}

/// Answers every HTTP request with the same `bytes` bytes: a bare hello in hyper.
///
/// # Errors
/// That it cannot listen.
pub async fn hello(bytes: usize) -> Outcome<()> {
    let body = Bytes::from("x".repeat(bytes));
    let listener = listen().await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let _ = stream.set_nodelay(true);
        let body = body.clone();
        tokio::spawn(async move {
            let service = service_fn(move |_: Request<Incoming>| {
                let answer = Response::builder()
                    .header("content-type", "application/json")
                    .body(Full::new(body.clone()));
                async move { Ok::<_, Infallible>(answer.expect("a constant answer is well formed")) }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .pipeline_flush(true)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// Tells every connection the same bytes, as many pushes of `bytes` bytes as one connection has watches, once for each
/// byte that one of them says: a bare broadcast. A connection is greeted with one byte.
///
/// # Errors
/// That it cannot listen.
pub async fn broadcast(bytes: usize) -> Outcome<()> {
    let push = format!(">{}\r\n", "x".repeat(bytes.saturating_sub(3)));
    let told: Arc<[u8]> = push.repeat(WATCHES).into_bytes().into();
    let everybody: Arc<Mutex<Vec<OwnedWriteHalf>>> = Arc::default();
    let listener = listen().await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (mut reading, mut writing) = stream.into_split();
        // Greeted under the lock: whoever has the greeting is told whatever is said from now on.
        let mut connections = everybody.lock().await;
        writing.write_all(b"!").await?;
        connections.push(writing);
        drop(connections);
        let (everybody, told) = (Arc::clone(&everybody), Arc::clone(&told));
        tokio::spawn(async move {
            while reading.read_u8().await.is_ok() {
                for connection in everybody.lock().await.iter_mut() {
                    if connection.write_all(&told).await.is_err() {
                        return;
                    }
                }
            }
        });
    }
}

/// Appends every RESP array (a command) as it came to a bare journal in `dir`, and answers once it is durable: what is
/// left of a durable server without anything that it serves.
///
/// # Errors
/// That it cannot listen, or that the directory cannot be used.
pub async fn journal_behind_tcp(dir: &Path) -> Outcome<()> {
    let journal = open(dir)?;
    let listener = listen().await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let journal = journal.clone();
        tokio::spawn(async move {
            // The client has gone, or said what is no command.
            let _ = append_for(stream, journal).await;
        });
    }
}

async fn append_for(stream: TcpStream, journal: Journal) -> Outcome<()> {
    stream.set_nodelay(true)?;
    let (mut reading, mut writing) = stream.into_split();
    let (appending, mut appended) = mpsc::channel::<(usize, oneshot::Receiver<_>)>(1_024);
    tokio::spawn(async move {
        while let Some((commands, durable)) = appended.recv().await {
            let answered = matches!(durable.await, Ok(Ok(_)))
                && writing
                    .write_all("+OK\r\n".repeat(commands).as_bytes())
                    .await
                    .is_ok();
            if !answered {
                return;
            }
        }
    });
    let mut input = Vec::new();
    while reading.read_buf(&mut input).await? > 0 {
        let (mut batch, mut at) = (Batch::with_capacity(input.len()), 0);
        while let Some(used) = parse_command(&input[at..], &mut Vec::new(), &Limits::default())? {
            batch.push(0, &[&input[at..at + used]]);
            at += used;
        }
        input.drain(..at);
        if batch.is_empty() {
            continue;
        }
        let (sender, durable) = oneshot::channel();
        appending.send((batch.len(), durable)).await?;
        journal.submit(batch, move |appended| {
            // Where the connection has ended nobody waits.
            let _ = sender.send(appended);
        })?;
    }
    Ok(())
}

fn open(dir: &Path) -> Outcome<Journal> {
    let locked = Locked::acquire(dir, &Holder::here("bench"), Options::default())?;
    let next = locked.epoch() + 1;
    let (journal, _) = locked.begin(next)?.recover(|_| Ok::<(), String>(()))?;
    Ok(journal)
}

/// Appends records of `bytes` bytes to a bare journal in `dir` from `writers` threads that wait for each one.
/// Returns how many a second became durable.
///
/// # Errors
/// That the directory cannot be used.
pub fn journal(dir: &Path, bytes: usize, writers: usize, time: Duration) -> Outcome<f64> {
    let journal = open(dir)?;
    let body = vec![0x5A; bytes];
    let began = Instant::now();
    let appended = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..writers)
            .map(|_| scope.spawn(|| append_until(&journal, &body, began + time)))
            .collect();
        let counts = threads.into_iter().map(|thread| thread.join());
        counts.sum::<Result<u64, _>>()
    });
    let rate = appended.map_err(|_| other("a writer panicked"))? as f64 / began.elapsed().as_secs_f64();
    journal.close();
    Ok(rate)
}

fn append_until(journal: &Journal, body: &[u8], end: Instant) -> u64 {
    let mut count = 0;
    while Instant::now() < end {
        let mut batch = Batch::new();
        batch.push(0, &[body]);
        journal
            .append_and_wait(batch)
            .expect("the journal of this bench is writable");
        count += 1;
    }
    count
}
