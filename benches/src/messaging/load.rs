//! The load: `benches/native/proton_load.c`, built against Debian's C Proton.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::Broker;
use super::brokers::ran;
use crate::peer::{processor_time, resident};
use crate::{Outcome, other};

/// The program.
#[derive(Clone, Debug)]
pub struct Load {
    program: PathBuf,
}

/// What a stream of messages showed.
#[derive(Clone, Copy, Debug)]
pub struct Streamed {
    /// Messages a second, from the first that was received to the last.
    pub rate: f64,
    /// Microseconds of the broker's processor time for each message.
    pub cost_us: f64,
}

/// A stream: how many connections on each side, how many messages in all, of how many bytes.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// Each has a queue of its own.
    pub connections: u32,
    /// In all.
    pub messages: u64,
    /// Of one body.
    pub bytes: usize,
}

/// How many messages are unacknowledged, or credited, at most.
const WINDOW: &str = "1000";

impl Load {
    /// Builds it into `target`.
    ///
    /// # Errors
    /// That there is no C compiler, or no `libqpid-proton11-dev`.
    pub fn build(target: &Path) -> Outcome<Self> {
        let peers = target.join("peers");
        std::fs::create_dir_all(&peers)?;
        let program = peers.join("proton_load");
        let mut compile = Command::new("cc");
        compile
            .args(["-O2", "-o"])
            .arg(&program)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/native/proton_load.c"))
            .args(["-l:libqpid-proton-core.so.10", "-l:libqpid-proton-proactor.so.1"]);
        ran(compile)?;
        Ok(Self { program })
    }

    fn start(&self, words: &[&str]) -> Outcome<Child> {
        let child = Command::new(&self.program)
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        Ok(child)
    }

    /// Streams non-persistent messages through a broker, at least once, from senders in one process to receivers in
    /// another.
    ///
    /// # Errors
    /// That the broker refused something.
    pub fn stream(&self, broker: &Broker, queue: &str, stream: Stream) -> Outcome<Streamed> {
        let address = format!("{}{queue}", broker.prefix);
        let (connections, messages) = (stream.connections.to_string(), stream.messages.to_string());
        let bytes = stream.bytes.to_string();
        let before = processor_time(broker.id)?;
        let at = broker.address.as_str();
        let receiver = self.start(&["receive", at, &address, &connections, &messages, WINDOW])?;
        let sender = self.start(&["send", at, &address, &connections, &messages, &bytes, WINDOW])?;
        printed(sender)?;
        let rate = number(&printed(receiver)?, 1)?;
        let cost_us = (processor_time(broker.id)? - before) * 1e6 / stream.messages as f64;
        Ok(Streamed { rate, cost_us })
    }

    /// Sends persistent messages from `producers` connections, each of which waits for every acknowledgement, to queues
    /// nobody reads. Returns messages a second.
    ///
    /// # Errors
    /// That the broker refused something.
    pub fn persistent(&self, broker: &Broker, queue: &str, producers: u32, messages: u64) -> Outcome<f64> {
        let address = format!("{}{queue}", broker.prefix);
        let (producers, messages) = (producers.to_string(), messages.to_string());
        let words = [
            "send",
            &broker.address,
            &address,
            &producers,
            &messages,
            "100",
            "1",
            "durable",
        ];
        number(&printed(self.start(&words)?)?, 1)
    }

    /// Leaves `messages` persistent messages of 100 bytes in one queue. Returns by how many bytes the broker grew.
    ///
    /// # Errors
    /// That the broker refused something.
    pub fn pile(&self, broker: &Broker, queue: &str, messages: u64) -> Outcome<u64> {
        let address = format!("{}{queue}", broker.prefix);
        let before = resident(broker.id)?;
        let messages = messages.to_string();
        let words = [
            "send",
            &broker.address,
            &address,
            "1",
            &messages,
            "100",
            WINDOW,
            "durable",
        ];
        printed(self.start(&words)?)?;
        Ok(resident(broker.id)?.saturating_sub(before))
    }

    /// One message outstanding: the microseconds from sending to receiving, p50 and p99.
    ///
    /// # Errors
    /// That the broker refused something.
    pub fn latency(&self, broker: &Broker, queue: &str, messages: u64) -> Outcome<(f64, f64)> {
        let address = format!("{}{queue}", broker.prefix);
        let messages = messages.to_string();
        let printed = printed(self.start(&["latency", &broker.address, &address, &messages, "100"])?)?;
        Ok((number(&printed, 0)?, number(&printed, 1)?))
    }

    /// Opens `connections` that do nothing. Returns by how many bytes the broker grew for each.
    ///
    /// # Errors
    /// That the broker refused one.
    pub fn idle(&self, broker: &Broker, connections: u32) -> Outcome<f64> {
        let before = resident(broker.id)?;
        let mut child = self.start(&["idle", &broker.address, &connections.to_string()])?;
        let stdout = child.stdout.take().ok_or_else(|| other("no standard output"))?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let after = resident(broker.id)?;
        child.kill()?;
        let output = child.wait_with_output()?;
        if line.trim() != "idle" {
            return Err(other(String::from_utf8_lossy(&output.stderr).into_owned()).into());
        }
        Ok(after.saturating_sub(before) as f64 / f64::from(connections))
    }
}

/// What it printed; an error where it failed.
fn printed(child: Child) -> Outcome<String> {
    let output = child.wait_with_output()?;
    if !output.status.success() {
        return Err(other(String::from_utf8_lossy(&output.stderr).into_owned()).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn number(printed: &str, index: usize) -> Outcome<f64> {
    let word = printed.split_whitespace().nth(index);
    Ok(word
        .ok_or_else(|| other(format!("no figure in {printed:?}")))?
        .parse()?)
}
