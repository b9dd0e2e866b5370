//! How fast one queue is, and what it costs: broker, producers and consumer as processes of their own.
//!
//! `cargo run --release -p daymark-broker-server --example queue_throughput -- [MESSAGES] [BYTES]`
//!
//! The client is the engine of this repository on blocking sockets. Figures are messages per second from the
//! first send to the last accept, and processor time of the broker process per message.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use daymark_amqp::message::MessageBuilder;
use daymark_amqp::{
    AttachOptions, Config, Connection, DeliveryState, Event, LinkId, OpenOptions, Outgoing, SessionId,
};
use daymark_broker_server::messaging::{DestinationConfig, Greeting, Messaging, MessagingConfig};
use daymark_client::proto::{Endpoint, Epoch};
use daymark_journal::{Holder, Locked, Options};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Messages a client has in flight.
const WINDOW: u32 = 1_000;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["serve", dir] => serve(Path::new(dir)),
        ["send", addr, count, bytes, durable, window] => send(
            addr.parse()?,
            count.parse()?,
            bytes.parse()?,
            durable == "durable",
            window.parse()?,
        ),
        ["receive", addr, count] => receive(addr.parse()?, count.parse()?),
        [] => measure(1_000_000, 100),
        [count] => measure(count.parse()?, 100),
        [count, bytes] => measure(count.parse()?, bytes.parse()?),
        _ => Err("usage: queue_throughput [MESSAGES] [BYTES]".into()),
    }
}

fn measure(count: u64, bytes: usize) -> Result<()> {
    println!("{bytes}-byte bodies, at least once, one queue, one consumer");
    run(
        "not persistent, 1 producer, window 1000",
        count,
        bytes,
        false,
        1,
        WINDOW,
    )?;
    run(
        "persistent, 1 producer, window 1000",
        count / 2,
        bytes,
        true,
        1,
        WINDOW,
    )?;
    run(
        "persistent, 64 producers, one at a time",
        count / 8,
        bytes,
        true,
        64,
        1,
    )?;
    run(
        "not persistent, 1 producer, one at a time",
        count / 20,
        bytes,
        false,
        1,
        1,
    )?;
    run(
        "persistent, 1 producer, one at a time",
        count / 200,
        bytes,
        true,
        1,
        1,
    )
}

fn run(what: &str, count: u64, bytes: usize, durable: bool, producers: u64, window: u32) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut broker = child(&["serve", &dir.path().display().to_string()])?;
    let mut addr = String::new();
    BufReader::new(broker.stdout.take().ok_or("no output")?).read_line(&mut addr)?;
    let addr = addr.trim();
    let each = count / producers;
    let total = each * producers;
    let before = cpu(broker.id())?;
    let begin = Instant::now();
    let mut clients = vec![child(&["receive", addr, &total.to_string()])?];
    let kind = if durable { "durable" } else { "fleeting" };
    // All producers of a run share one process; a thread each.
    clients.push(child(&[
        "send",
        addr,
        &total.to_string(),
        &bytes.to_string(),
        kind,
        &format!("{}", if window == 1 { producers } else { 0 }),
    ])?);
    for client in &mut clients {
        if !client.wait()?.success() {
            broker.kill()?;
            return Err("a client failed".into());
        }
    }
    let elapsed = begin.elapsed();
    let cost = cpu(broker.id())? - before;
    broker.kill()?;
    broker.wait()?;
    let rate = total as f64 / elapsed.as_secs_f64();
    let each = cost.as_secs_f64() * 1e6 / total as f64;
    println!("{what:<44} {rate:>10.0} messages/s  {each:>6.2} us of broker time each");
    Ok(())
}

fn child(arguments: &[&str]) -> Result<Child> {
    let program = std::env::current_exe()?;
    Ok(Command::new(program)
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()?)
}

/// Processor time of a process so far.
fn cpu(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after = stat.rsplit_once(')').ok_or("no stat")?.1;
    let fields: Vec<&str> = after.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 10))
}

fn serve(dir: &Path) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let locked = Locked::acquire(dir, &Holder::here("bench"), Options::default())?;
    let epoch = locked.epoch() + 1;
    let config = MessagingConfig {
        queues: vec![DestinationConfig::new("q")],
        ..MessagingConfig::default()
    };
    let (messaging, _) = Messaging::recover(locked.begin(epoch)?, config)?;
    let greeting = Greeting {
        group: "bench".parse()?,
        member: "bench".parse()?,
        epoch: Epoch(epoch),
        failover_server_list: Vec::new(),
    };
    let any = Endpoint {
        host: "127.0.0.1".into(),
        port: 0,
    };
    let addr = runtime.block_on(messaging.listen(&any, greeting))?;
    println!("{addr}");
    Err(runtime.block_on(messaging.failed()).into())
}

/// `producers`: that many threads with one message outstanding each; 0: one with a window.
fn send(addr: SocketAddr, count: u64, bytes: usize, durable: bool, producers: u64) -> Result<()> {
    if producers == 0 {
        return send_all(addr, count, bytes, durable, WINDOW);
    }
    let threads: Vec<_> = (0..producers)
        .map(|_| {
            std::thread::spawn(move || {
                send_all(addr, count / producers, bytes, durable, 1).map_err(|error| error.to_string())
            })
        })
        .collect();
    for thread in threads {
        thread.join().map_err(|_| "a producer panicked")??;
    }
    Ok(())
}

fn send_all(addr: SocketAddr, count: u64, bytes: usize, durable: bool, window: u32) -> Result<()> {
    let mut client = Client::connect(addr)?;
    let link = client
        .amqp
        .attach_sender(client.session, AttachOptions::to("s", "q"))?;
    let message = MessageBuilder::new().durable(durable).data(&vec![b'x'; bytes]);
    let (mut sent, mut confirmed) = (0, 0);
    while confirmed < count {
        while sent < count && sent - confirmed < u64::from(window) && client.amqp.sendable(link) > 0 {
            client.amqp.send(link, Outgoing::new(message.clone()))?;
            sent += 1;
        }
        client.exchange(|amqp, event| {
            if let Event::Disposition {
                link,
                delivery,
                settled,
                ..
            } = event
            {
                confirmed += 1;
                if !settled {
                    amqp.settle(link, delivery, DeliveryState::ACCEPTED, true)?;
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn receive(addr: SocketAddr, count: u64) -> Result<()> {
    let mut client = Client::connect(addr)?;
    let link: LinkId = client
        .amqp
        .attach_receiver(client.session, AttachOptions::from("r", "q"))?;
    client.amqp.grant_credit(link, WINDOW, false)?;
    let mut received = 0;
    while received < count {
        client.exchange(|amqp, event| {
            if let Event::Message(message) = event {
                received += 1;
                amqp.settle(link, message.delivery, DeliveryState::ACCEPTED, true)?;
                if amqp.credit(link) < WINDOW / 2 {
                    amqp.grant_credit(link, WINDOW, false)?;
                }
            }
            Ok(())
        })?;
    }
    client.amqp.close(None);
    client.write()
}

struct Client {
    amqp: Connection,
    session: SessionId,
    stream: TcpStream,
}

impl Client {
    fn connect(addr: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        let mut amqp = Connection::client(Config::default(), Instant::now());
        amqp.open(OpenOptions::new("bench"))?;
        let session = amqp.begin()?;
        Ok(Self {
            amqp,
            session,
            stream,
        })
    }

    fn write(&mut self) -> Result<()> {
        let output = self.amqp.take_output(Instant::now());
        self.stream.write_all(&output)?;
        Ok(())
    }

    /// Writes what there is, then waits for something and shows it.
    fn exchange(&mut self, mut see: impl FnMut(&mut Connection, Event) -> Result<()>) -> Result<()> {
        self.write()?;
        let mut buffer = [0; 65_536];
        let n = self.stream.read(&mut buffer)?;
        if n == 0 {
            return Err("the broker closed the connection".into());
        }
        self.amqp.input(&buffer[..n], Instant::now());
        while let Some(event) = self.amqp.poll_event() {
            if let Event::Closed(reason) = event {
                return Err(format!("{reason:?}").into());
            }
            see(&mut self.amqp, event)?;
        }
        Ok(())
    }
}
