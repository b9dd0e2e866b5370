//! What a broker's process takes in memory, whatever its clients do: the budgets of its design.
//!
//! Short here; as long as you like with `DAYMARK_TEST_IDLE_CONNECTIONS=5000` and `DAYMARK_TEST_PILE=1000000`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use daymark_amqp::message::MessageBuilder;
use daymark_amqp::{AttachOptions, Config, Connection, Event, LinkId, OpenOptions, Outgoing, SessionId};
use daymark_test_support::{Process, eventually_some};

use crate::stage::{SOON, Stage};

/// Bytes an idle connection may take.
const CONNECTION: u64 = 24 << 10;
/// Bytes a queued message with a body of a hundred bytes may take: 250 MiB are for a million.
const MESSAGE: u64 = 262;
/// What the allocator may keep to itself, however little there is to keep.
const SLACK: u64 = 12 << 20;
/// Messages a sender has on the way.
const WINDOW: u64 = 500;

/// How many, unless the environment says otherwise.
fn how_many(variable: &str, usually: u64) -> u64 {
    std::env::var(variable).map_or(usually, |text| text.parse().expect(variable))
}

/// A connection that does only what it is told.
struct Client {
    amqp: Connection,
    session: SessionId,
    stream: TcpStream,
}

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let stream = eventually_some(SOON, "an open port", || TcpStream::connect(address).ok());
        stream.set_read_timeout(Some(SOON)).expect("a socket");
        let mut amqp = Connection::client(Config::default(), Instant::now());
        amqp.open(OpenOptions::new(format!(
            "memory-{}",
            stream.local_addr().expect("a socket")
        )))
        .expect("an open");
        let session = amqp.begin().expect("a session");
        let mut client = Self {
            amqp,
            session,
            stream,
        };
        client.until(|event| matches!(event, Event::SessionBegun { .. }));
        client
    }

    fn write(&mut self) {
        let output = self.amqp.take_output(Instant::now());
        self.stream.write_all(&output).expect("a broker that reads");
    }

    /// Goes on until something happens that was waited for.
    fn until(&mut self, mut wanted: impl FnMut(&Event) -> bool) {
        loop {
            self.write();
            let mut seen = false;
            while let Some(event) = self.amqp.poll_event() {
                assert!(
                    !matches!(event, Event::Closed(_)),
                    "the broker ended it: {event:?}"
                );
                seen |= wanted(&event);
            }
            if seen {
                return self.write();
            }
            let mut buffer = [0; 16 << 10];
            let read = self.stream.read(&mut buffer).expect("an answer in time");
            self.amqp.input(&buffer[..read], Instant::now());
        }
    }

    fn sender(&mut self, queue: &str) -> LinkId {
        let link = self
            .amqp
            .attach_sender(self.session, AttachOptions::to("sender", queue))
            .expect("a link");
        self.until(|event| matches!(event, Event::Credit { .. }));
        link
    }

    /// Sends persistent messages until all are acknowledged.
    fn pile(&mut self, link: LinkId, messages: u64, body: &[u8]) {
        let message = MessageBuilder::new().durable(true).data(body);
        let (mut sent, mut accepted) = (0, 0);
        while accepted < messages {
            while sent < messages && sent - accepted < WINDOW && self.amqp.sendable(link) > 0 {
                self.amqp
                    .send(link, Outgoing::new(message.clone()))
                    .expect("a message within the credit");
                sent += 1;
            }
            let mut news = false;
            self.until(|event| {
                accepted += u64::from(matches!(event, Event::Disposition { settled: true, .. }));
                news |= matches!(event, Event::Disposition { .. } | Event::Credit { .. });
                news
            });
        }
    }

    /// A consumer with so much credit.
    fn consumer(&mut self, queue: &str, credit: u32) {
        let link = self
            .amqp
            .attach_receiver(self.session, AttachOptions::from("receiver", queue))
            .expect("a link");
        self.until(|event| matches!(event, Event::LinkAttached { .. }));
        if credit > 0 {
            self.amqp.grant_credit(link, credit, false).expect("a link");
            self.write();
        }
    }
}

/// An active broker that lets clients create queues.
struct Active {
    process: Process,
    address: SocketAddr,
    _stage: Stage,
}

impl Active {
    fn start() -> Self {
        let stage = Stage::new();
        let settings = "[messaging]\nauto_create = true\nmax_connections = 10000\nmax_bytes = 2147483648\n";
        let mut broker = stage.broker("kkam", "primary");
        broker.config = Some(stage.program.file("memory.toml", settings));
        let address = SocketAddr::from(([127, 0, 0, 1], broker.port));
        let (process, _) = stage.program.broker(&broker);
        stage.group_served_by("kkam", 1);
        Self {
            process,
            address,
            _stage: stage,
        }
    }

    /// What the process holds, in bytes.
    fn resident(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        kib.expect("VmRSS").trim().parse::<u64>().expect("a number") << 10
    }

    #[track_caller]
    fn took_at_most(&self, before: u64, budget: u64) {
        let took = self.resident().saturating_sub(before);
        assert!(
            took <= budget + SLACK,
            "{took} bytes more; {budget} and {SLACK} of slack are allowed"
        );
    }
}

#[test]
fn idle_connections_stay_within_their_budget() {
    let count = how_many("DAYMARK_TEST_IDLE_CONNECTIONS", 400);
    let broker = Active::start();
    let _first: Vec<_> = (0..20).map(|_| Client::connect(broker.address)).collect();
    let before = broker.resident();
    let _idle: Vec<_> = (0..count).map(|_| Client::connect(broker.address)).collect();
    broker.took_at_most(before, count * CONNECTION);
}

#[test]
fn a_pile_of_messages_stays_within_its_budget_and_consumers_that_take_nothing_add_nothing() {
    let count = how_many("DAYMARK_TEST_PILE", 50_000);
    let broker = Active::start();
    let mut sending = Client::connect(broker.address);
    let link = sending.sender("pile");
    sending.pile(link, 1_000, &[b'x'; 100]);
    let before = broker.resident();
    sending.pile(link, count, &[b'x'; 100]);
    broker.took_at_most(before, count * MESSAGE);
    let piled = broker.resident();
    let mut consumers: Vec<_> = (0..20).map(|_| Client::connect(broker.address)).collect();
    for consumer in &mut consumers {
        consumer.consumer("pile", 0);
    }
    sending.pile(link, 1_000, &[b'x'; 100]);
    broker.took_at_most(piled, 20 * CONNECTION + 1_000 * MESSAGE);
}

#[test]
fn consumers_that_give_credit_and_do_not_read_hold_no_copies_of_their_own() {
    const BODY: usize = 64 << 10;
    let broker = Active::start();
    let mut sending = Client::connect(broker.address);
    let mut deaf: Vec<_> = (0..20).map(|_| Client::connect(broker.address)).collect();
    for (number, consumer) in deaf.iter_mut().enumerate() {
        consumer.consumer(&format!("deaf-{number}"), 1_000);
    }
    let before = broker.resident();
    for number in 0..deaf.len() {
        let mut other = Client::connect(broker.address);
        let link = other.sender(&format!("deaf-{number}"));
        other.pile(link, 20, &[b'x'; BODY]);
    }
    // Each message is there once, in its queue and on the way to its consumer.
    broker.took_at_most(before, 20 * 20 * (BODY as u64 + MESSAGE));
    // The broker goes on serving others.
    let link = sending.sender("others");
    sending.pile(link, 100, b"x");
}
