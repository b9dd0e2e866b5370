//! A rough load on a naming server of its own: pipelined and single lookups over RESP, durable rebinds.
//!
//! `cargo run --release -p daymark-naming-server --example load -- [names]`. Server and load share the process and
//! its cores, so the figures are for comparison with each other only.

use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use daymark_naming_proto::Endpoint;
use daymark_naming_proto::resp::{Limits, parse_frame, write_command};
use daymark_naming_server::{NamingOptions, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// How long each figure is measured.
const MEASURED: Duration = Duration::from_secs(3);

#[tokio::main]
async fn main() -> Outcome<()> {
    let names: usize = std::env::args().nth(1).map_or(Ok(100_000), |text| text.parse())?;
    let data = tempfile::TempDir::new()?;
    let mut options = NamingOptions::new(data.path());
    options.listen = Endpoint {
        host: "127.0.0.1".to_owned(),
        port: 0,
    };
    let began = Instant::now();
    let server = Server::start(options.clone()).await?;
    println!("first start            {:>10.1?}", began.elapsed());
    let addr = server.local_addr();
    let began = Instant::now();
    run(
        addr,
        1,
        Work {
            names,
            depth: 256,
            verb: Verb::Fill,
        },
        None,
    )
    .await?;
    let rate = names as f64 / began.elapsed().as_secs_f64();
    println!("filled {names} names    {rate:>10.0} /s over one connection");
    for (label, connections, depth, verb) in [
        ("lookups, 50 connections, pipeline 16", 50, 16, Verb::Lookup),
        ("lookups, 50 connections, no pipeline", 50, 1, Verb::Lookup),
        ("durable rebinds, 64 writers", 64, 1, Verb::Rebind),
        ("durable rebinds, 1 writer", 1, 1, Verb::Rebind),
    ] {
        let work = Work { names, depth, verb };
        let done = run(addr, connections, work, Some(MEASURED)).await?;
        println!("{label:<40} {:>10.0} /s", done as f64 / MEASURED.as_secs_f64());
    }
    server.stop().await;
    let began = Instant::now();
    let server = Server::start(options).await?;
    println!("start with {names} names {:>10.1?}", began.elapsed());
    server.stop().await;
    Ok(())
}

#[derive(Clone, Copy)]
enum Verb {
    Fill,
    Lookup,
    Rebind,
}

#[derive(Clone, Copy)]
struct Work {
    names: usize,
    depth: usize,
    verb: Verb,
}

async fn run(addr: SocketAddr, connections: usize, work: Work, time: Option<Duration>) -> Outcome<usize> {
    let mut tasks = JoinSet::new();
    for seed in 0..connections {
        tasks.spawn(one(addr, seed, work, time));
    }
    let mut done = 0;
    while let Some(finished) = tasks.join_next().await {
        done += finished??;
    }
    Ok(done)
}

/// One connection: batches of commands, each batch answered before the next.
async fn one(addr: SocketAddr, seed: usize, work: Work, time: Option<Duration>) -> Outcome<usize> {
    let mut stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let (mut out, mut input) = (Vec::new(), Vec::new());
    let began = Instant::now();
    let mut done = 0;
    while time.map_or(done < work.names, |time| began.elapsed() < time) {
        out.clear();
        for at in done..done + work.depth {
            command(work, seed, at, &mut out);
        }
        stream.write_all(&out).await?;
        answers(&mut stream, &mut input, work.depth).await?;
        done += work.depth;
    }
    Ok(done)
}

fn command(work: Work, seed: usize, at: usize, out: &mut Vec<u8>) {
    let index = match work.verb {
        Verb::Fill => at,
        Verb::Lookup | Verb::Rebind => (at * 7919 + seed * 104_729) % work.names,
    };
    let name = format!("service-with-a-name-{index:08}");
    match work.verb {
        Verb::Lookup => write_command(&["LOOKUP", &name], out),
        Verb::Fill | Verb::Rebind => {
            let padding = "x".repeat(120);
            let object = format!(r#"{{"type":"queue","address":"{at}-{seed}-{padding}"}}"#);
            write_command(&["REBIND", &name, &object], out);
        }
    }
}

async fn answers(stream: &mut TcpStream, input: &mut Vec<u8>, count: usize) -> Outcome<()> {
    let mut seen = 0;
    let mut at = 0;
    loop {
        while let Some((frame, used)) = parse_frame(&input[at..], &Limits::default())? {
            if let daymark_naming_proto::resp::Frame::Error(error) = frame {
                return Err(error.into());
            }
            at += used;
            seen += 1;
        }
        input.drain(..at);
        at = 0;
        if seen >= count {
            return Ok(());
        }
        if stream.read_buf(input).await? == 0 {
            return Err("the server closed the connection".into());
        }
    }
}
