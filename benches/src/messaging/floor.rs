//! The floor of persistent messages: a bare journal behind a port that speaks just enough AMQP for one sender.
//!
//! It knows no queues and reads nothing of a message: each transfer frame becomes a record, and is accepted when that
//! is durable. What a broker costs is what it takes beyond that.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use daymark_journal::{Batch, Holder, Journal, Locked, Options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::{Outcome, other};

/// Says `listening ADDRESS` and serves until it is ended.
///
/// # Errors
/// That it cannot listen, or that the directory cannot be used.
pub async fn serve(dir: &Path) -> Outcome<()> {
    let locked = Locked::acquire(dir, &Holder::here("bench"), Options::default())?;
    let next = locked.epoch() + 1;
    let (journal, _) = locked.begin(next)?.recover(|_| Ok::<(), String>(()))?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let journal = journal.clone();
        // A connection that ends tells nobody: the client says what it missed.
        tokio::spawn(async move { answer(stream, journal).await });
    }
}

/// What a connection has in the journal.
#[derive(Debug, Default)]
struct Written {
    durable: AtomicU32,
    changed: Notify,
}

async fn answer(mut stream: TcpStream, journal: Journal) -> Outcome<()> {
    let written = Arc::new(Written::default());
    let (mut input, mut output) = (Vec::with_capacity(64 << 10), Vec::new());
    let mut answered = 0;
    loop {
        tokio::select! {
            read = stream.read_buf(&mut input) => {
                if read? == 0 {
                    return Ok(());
                }
            }
            () = written.changed.notified() => {}
        }
        let taken = take(&input, &journal, &written, &mut output)?;
        input.drain(..taken);
        let durable = written.durable.load(Ordering::Acquire);
        if durable > answered {
            disposition(&mut output, answered, durable - 1);
            answered = durable;
        }
        stream.write_all(&output).await?;
        output.clear();
    }
}

/// Takes every whole header and frame, and returns how many bytes they were.
fn take(input: &[u8], journal: &Journal, written: &Arc<Written>, output: &mut Vec<u8>) -> Outcome<usize> {
    let mut rest = input;
    loop {
        let Some((start, _)) = rest.split_at_checked(8) else {
            return Ok(input.len() - rest.len());
        };
        if start.starts_with(b"AMQP") {
            greet(start[4] == 3, output);
            rest = &rest[8..];
            continue;
        }
        let size = u32::from_be_bytes([start[0], start[1], start[2], start[3]]) as usize;
        let Some((frame, behind)) = rest.split_at_checked(size.max(8)) else {
            return Ok(input.len() - rest.len());
        };
        rest = behind;
        let body = frame.get(usize::from(start[4]) * 4..).unwrap_or_default();
        match body.get(2) {
            // SASL init: whoever it is may enter.
            Some(0x41) => sasl(output, 0x44, 1, &[0x50, 0]),
            Some(0x11) => begin(output),
            Some(0x12) => attach(output),
            Some(0x14) => append(journal, body, written)?,
            Some(0x18) => amqp(output, 0x18, 0, &[]),
            Some(_) | None => {}
        }
    }
}

fn append(journal: &Journal, body: &[u8], written: &Arc<Written>) -> Outcome<()> {
    let mut batch = Batch::with_capacity(body.len());
    batch.push(0, &[body]);
    let written = Arc::clone(written);
    journal.submit(batch, move |result| {
        if result.is_ok() {
            written.durable.fetch_add(1, Ordering::AcqRel);
            written.changed.notify_one();
        }
    })?;
    Ok(())
}

fn greet(with_sasl: bool, output: &mut Vec<u8>) {
    output.extend_from_slice(b"AMQP");
    output.extend_from_slice(if with_sasl { &[3, 1, 0, 0] } else { &[0, 1, 0, 0] });
    if with_sasl {
        sasl(output, 0x40, 1, b"\xa3\x09ANONYMOUS");
    } else {
        amqp(output, 0x10, 1, b"\xa1\x04bare");
    }
}

/// Windows of 2^31 - 1 frames.
const WIDE: [u8; 5] = [0x70, 0x7f, 0xff, 0xff, 0xff];

fn begin(output: &mut Vec<u8>) {
    let fields = [&[0x60, 0, 0, 0x43][..], &WIDE, &WIDE].concat();
    amqp(output, 0x11, 4, &fields);
}

/// The link that `proton_load` calls `sender`, with more credit than it uses.
fn attach(output: &mut Vec<u8>) {
    let settled_when_told = [0x50, 0, 0x50, 0];
    let termini = [0, 0x53, 0x28, 0x45, 0, 0x53, 0x29, 0x45];
    let fields = [b"\xa1\x06sender\x43\x41", &settled_when_told[..], &termini].concat();
    amqp(output, 0x12, 7, &fields);
    let fields = [&[0x43][..], &WIDE, &[0x43], &WIDE, &[0x43, 0x43], &WIDE].concat();
    amqp(output, 0x13, 7, &fields);
}

/// Deliveries `first` to `last` are accepted and settled.
fn disposition(output: &mut Vec<u8>, first: u32, last: u32) {
    let accepted = [0x41, 0, 0x53, 0x24, 0x45];
    let ids = [
        &[0x41, 0x70][..],
        &first.to_be_bytes(),
        &[0x70],
        &last.to_be_bytes(),
    ]
    .concat();
    amqp(output, 0x15, 5, &[&ids[..], &accepted].concat());
}

fn amqp(output: &mut Vec<u8>, code: u8, count: u8, fields: &[u8]) {
    frame(output, 0, code, count, fields);
}

fn sasl(output: &mut Vec<u8>, code: u8, count: u8, fields: &[u8]) {
    frame(output, 1, code, count, fields);
}

/// One frame on channel 0 with a described list of so many fields, all of which are short here.
fn frame(output: &mut Vec<u8>, kind: u8, code: u8, count: u8, fields: &[u8]) {
    let size = (14 + fields.len()) as u8;
    output.extend_from_slice(&[0, 0, 0, size, 2, kind, 0, 0]);
    output.extend_from_slice(&[0, 0x53, code, 0xc0, fields.len() as u8 + 1, count]);
    output.extend_from_slice(fields);
}

/// The threads of a broker, and nothing else.
///
/// # Errors
/// As [`serve`].
pub fn run(dir: &str) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime
        .map_err(|error| other(error.to_string()))?
        .block_on(serve(Path::new(dir)))
}
