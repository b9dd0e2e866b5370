//! The loads: `benches/native/proton_load.c`, built against Debian's C Proton, and `benches/jms`, on Apache Qpid JMS.
//!
//! Every call ends: a broker that is not done within [`PATIENCE`] is said to have not finished.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use daymark_test_support::java::Java;

use super::Broker;
use super::brokers::ran;
use crate::peer::{processor_time, resident};
use crate::{Outcome, other};

/// How long one load may take.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How many messages are unacknowledged, or credited, at most.
const WINDOW: &str = "1000";
/// What a broker gets to come to rest, before its memory is looked at.
const REST: Duration = Duration::from_secs(1);

/// The programs.
#[derive(Clone, Debug)]
pub struct Load {
    program: PathBuf,
    jms: Option<Java>,
}

/// What a load showed.
#[derive(Clone, Copy, Debug)]
pub struct Streamed {
    /// Messages a second, from the first that was received, or sent, to the last.
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

/// The memory of a broker that was filled with something, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Filled {
    /// Before.
    pub before: u64,
    /// With it.
    pub with: u64,
    /// How many there are.
    pub count: u64,
}

impl Load {
    /// Builds them into `target`. Without a JDK or Maven there is no second client.
    ///
    /// # Errors
    /// That there is no C compiler, or no `libqpid-proton11-dev`.
    pub fn build(target: &Path) -> Outcome<Self> {
        let peers = target.join("peers");
        std::fs::create_dir_all(&peers)?;
        let program = peers.join("proton_load");
        let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut compile = Command::new("cc");
        compile
            .args(["-O2", "-o"])
            .arg(&program)
            .arg(sources.join("native/proton_load.c"))
            .args(["-l:libqpid-proton-core.so.10", "-l:libqpid-proton-proactor.so.1"]);
        ran(compile)?;
        let jms = Java::project("bench-jms", &sources.join("jms"));
        Ok(Self { program, jms })
    }

    fn start(&self, words: &[&str]) -> Outcome<Child> {
        started(Command::new(&self.program).args(words))
    }

    /// Streams non-persistent messages through a broker, at least once, from senders in one process to receivers in
    /// another.
    ///
    /// # Errors
    /// That the broker refused something or did not finish.
    pub fn stream(&self, broker: &Broker, queue: &str, stream: Stream) -> Outcome<Streamed> {
        let address = format!("{}{queue}", broker.prefix);
        let (connections, messages) = (stream.connections.to_string(), stream.messages.to_string());
        let bytes = stream.bytes.to_string();
        let at = broker.address.as_str();
        costing(broker, stream.messages, || {
            let receiver = self.start(&["receive", at, &address, &connections, &messages, WINDOW])?;
            let sender = self.start(&["send", at, &address, &connections, &messages, &bytes, WINDOW])?;
            let sent = printed(sender);
            let received = printed(receiver);
            sent?;
            number(&received?, 1)
        })
    }

    /// Streams messages of 100 bytes with Qpid JMS: one producer and one consumer.
    ///
    /// # Errors
    /// That there is no Qpid JMS here, or that the broker refused something or did not finish.
    pub fn jms(&self, broker: &Broker, queue: &str, messages: u64) -> Outcome<Streamed> {
        let jms = self.jms.as_ref().ok_or_else(|| other("no Qpid JMS"))?;
        let address = format!("{}{queue}", broker.prefix);
        let words = [&broker.address, &address, &messages.to_string(), "100"];
        // A quarter more is sent before, to warm up.
        costing(broker, messages + messages / 4, || {
            number(
                &printed(started(&mut jms.command("daymark.bench.Load", &words))?)?,
                0,
            )
        })
    }

    /// Sends persistent messages of 100 bytes from `producers` connections, each of which waits for every
    /// acknowledgement, to queues nobody reads.
    ///
    /// # Errors
    /// That the broker refused something or did not finish.
    pub fn persistent(
        &self,
        broker: &Broker,
        queue: &str,
        producers: u32,
        messages: u64,
    ) -> Outcome<Streamed> {
        let address = format!("{}{queue}", broker.prefix);
        let (producers, sent) = (producers.to_string(), messages.to_string());
        let at = broker.address.as_str();
        costing(broker, messages, || {
            let words = ["send", at, &address, &producers, &sent, "100", "1", "durable"];
            number(&printed(self.start(&words)?)?, 1)
        })
    }

    /// Leaves up to `messages` persistent messages of 100 bytes in one queue: as many as the broker takes in time.
    ///
    /// # Errors
    /// That the broker refused something.
    pub fn pile(&self, broker: &Broker, queue: &str, messages: u64) -> Outcome<Filled> {
        let address = format!("{}{queue}", broker.prefix);
        let before = resident(broker.id)?;
        let (messages, seconds) = (messages.to_string(), PATIENCE.as_secs().to_string());
        let words = [
            "fill",
            &broker.address,
            &address,
            &messages,
            "100",
            WINDOW,
            &seconds,
        ];
        let child = self.start(&words)?;
        let count = number(&printed_within(child, PATIENCE * 2)?, 0)? as u64;
        std::thread::sleep(REST);
        let with = resident(broker.id)?;
        Ok(Filled { before, with, count })
    }

    /// One message outstanding: the microseconds from sending to receiving, p50 and p99.
    ///
    /// # Errors
    /// That the broker refused something or did not finish.
    pub fn latency(&self, broker: &Broker, queue: &str, messages: u64) -> Outcome<(f64, f64)> {
        let address = format!("{}{queue}", broker.prefix);
        let messages = messages.to_string();
        let printed = printed(self.start(&["latency", &broker.address, &address, &messages, "100"])?)?;
        Ok((number(&printed, 0)?, number(&printed, 1)?))
    }

    /// Opens up to `connections` that do nothing: as many as the broker takes in time.
    ///
    /// # Errors
    /// That the broker refused one.
    pub fn idle(&self, broker: &Broker, connections: u32) -> Outcome<Filled> {
        let before = resident(broker.id)?;
        let (connections, seconds) = (connections.to_string(), PATIENCE.as_secs().to_string());
        let mut child = self.start(&["idle", &broker.address, &connections, &seconds])?;
        let stdout = child.stdout.take().ok_or_else(|| other("no standard output"))?;
        let mut line = String::new();
        // The program says something in time, or ends.
        BufReader::new(stdout).read_line(&mut line)?;
        std::thread::sleep(REST);
        let with = resident(broker.id)?;
        child.kill()?;
        let output = child.wait_with_output()?;
        let Ok(count) = line.trim().parse() else {
            return Err(other(String::from_utf8_lossy(&output.stderr).into_owned()).into());
        };
        Ok(Filled { before, with, count })
    }
}

fn started(command: &mut Command) -> Outcome<Child> {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    Ok(child)
}

/// What a load that reaches this rate costs the broker for each of its messages.
fn costing(broker: &Broker, messages: u64, load: impl FnOnce() -> Outcome<f64>) -> Outcome<Streamed> {
    let before = processor_time(broker.id)?;
    let rate = load()?;
    let cost_us = (processor_time(broker.id)? - before) * 1e6 / messages as f64;
    Ok(Streamed { rate, cost_us })
}

/// What it printed; an error where it failed.
fn printed(child: Child) -> Outcome<String> {
    printed_within(child, PATIENCE)
}

fn printed_within(mut child: Child, patience: Duration) -> Outcome<String> {
    let end = Instant::now() + patience;
    // What these programs print fits into a pipe.
    while child.try_wait()?.is_none() {
        if Instant::now() > end {
            child.kill()?;
            child.wait()?;
            return Err(other(format!("did not finish in {} s", patience.as_secs())).into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output()?;
    if !status.success() {
        return Err(other(String::from_utf8_lossy(&stderr).trim().replace('\n', " / ")).into());
    }
    Ok(String::from_utf8(stdout)?)
}

fn number(printed: &str, index: usize) -> Outcome<f64> {
    let word = printed.split_whitespace().nth(index);
    Ok(word
        .ok_or_else(|| other(format!("no figure in {printed:?}")))?
        .parse()?)
}
