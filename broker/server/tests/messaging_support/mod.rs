//! A broker's data plane in this process, and a client that says exactly what a test wants.
#![allow(dead_code, reason = "every test binary uses its part")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test picks the event it waits for and leaves the others"
)]

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use daymark_amqp::message::MessageBuilder;
use daymark_amqp::{
    AmqpError, AttachOptions, CloseReason, Config, Connection, DeliveryId, DeliveryState, Event, LinkId,
    Message, OpenOptions, Outcome, Outgoing, RemoteAttach, Sasl, SessionId, Symbol, Target, TxnId, txn,
};
use daymark_broker_server::messaging::{
    DestinationConfig, Greeting, Messaging, MessagingConfig, MessagingStats, Recovered, Stop,
};
use daymark_client::proto::{BrokerAddress, Endpoint, Epoch};
use daymark_journal::{Holder, Locked, Options};
use tokio::runtime::Runtime;

/// No wait in these tests is longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// The data plane of one broker, on a free port.
pub(crate) struct Broker {
    pub(crate) addr: SocketAddr,
    pub(crate) recovered: Recovered,
    pub(crate) messaging: Messaging,
    runtime: Runtime,
}

/// One queue, `q`, that drops what is rejected.
pub(crate) fn one_queue() -> MessagingConfig {
    MessagingConfig {
        queues: vec![DestinationConfig {
            dead_letter: String::new(),
            ..DestinationConfig::new("q")
        }],
        ..MessagingConfig::default()
    }
}

/// A broker with one queue, in a directory of its own, and a client of it.
pub(crate) fn served() -> (tempfile::TempDir, Broker, Client) {
    served_with(one_queue())
}

/// A broker with this configuration, in a directory of its own, and a client of it.
pub(crate) fn served_with(config: MessagingConfig) -> (tempfile::TempDir, Broker, Client) {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start_with(dir.path(), config);
    let client = Client::connect(broker.addr);
    (dir, broker, client)
}

impl Broker {
    pub(crate) fn start(dir: &Path) -> Self {
        Self::start_with(dir, one_queue())
    }

    pub(crate) fn start_with(dir: &Path, config: MessagingConfig) -> Self {
        let options = Options {
            segment_bytes: 1 << 20,
            ..Options::default()
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let locked = Locked::acquire(dir, &Holder::here("kkam"), options).unwrap();
        let epoch = locked.epoch() + 1;
        let fenced = locked.begin(epoch).unwrap();
        let (messaging, recovered) = Messaging::recover(fenced, config).unwrap();
        let address = |member: &str, port| BrokerAddress {
            host: "127.0.0.1".into(),
            port,
            member: member.parse().ok(),
        };
        let greeting = Greeting {
            group: "orders".parse().unwrap(),
            member: "kkam".parse().unwrap(),
            epoch: Epoch(epoch),
            failover_server_list: vec![address("kkam", 9741), address("kkm-PC", 9742)],
        };
        let any = Endpoint {
            host: "127.0.0.1".into(),
            port: 0,
        };
        let addr = runtime.block_on(messaging.listen(&any, greeting)).unwrap();
        Self {
            addr,
            recovered,
            messaging,
            runtime,
        }
    }

    pub(crate) fn stats(&self) -> MessagingStats {
        self.messaging.stats()
    }

    /// Waits until the counts are as wanted.
    pub(crate) fn until(&self, what: &str, wanted: impl Fn(&MessagingStats) -> bool) -> MessagingStats {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let stats = self.stats();
            if wanted(&stats) {
                return stats;
            }
            assert!(Instant::now() < deadline, "waiting for {what}: {stats:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for something asynchronous.
    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        let bounded = async { tokio::time::timeout(PATIENCE, future).await };
        self.runtime.block_on(bounded).expect("an answer in time")
    }

    pub(crate) fn failure(&self) -> String {
        let failed = async { tokio::time::timeout(PATIENCE, self.messaging.failed()).await };
        self.runtime.block_on(failed).unwrap().to_string()
    }

    /// Connections are cut, the store is closed.
    pub(crate) fn stop(self) {
        self.runtime.block_on(self.messaging.stop(Stop::Now));
    }

    /// Says goodbye on another thread, so that a client can watch.
    pub(crate) fn stop_gracefully(self) -> std::thread::JoinHandle<()> {
        let how = Stop::Graceful { deadline: PATIENCE };
        std::thread::spawn(move || self.runtime.block_on(self.messaging.stop(how)))
    }

    /// Everything is dropped where it stands; nobody stops anything.
    pub(crate) fn crash(self) {
        drop(self.messaging);
        self.runtime.shutdown_timeout(PATIENCE);
    }
}

/// A client made of the engine and a blocking socket.
pub(crate) struct Client {
    pub(crate) amqp: Connection,
    stream: TcpStream,
    events: VecDeque<Event>,
    session: Option<SessionId>,
    names: u32,
    /// Set while the client plays dead: nothing is read.
    pub(crate) deaf: bool,
}

impl Client {
    pub(crate) fn connect(addr: SocketAddr) -> Self {
        let mut client = Self::dial(addr, Sasl::None);
        client.open(OpenOptions::new("test"));
        client.begin();
        client
    }

    /// Connected, and nothing said yet.
    pub(crate) fn dial(addr: SocketAddr, sasl: Sasl) -> Self {
        Self::dial_with(addr, |config| config.sasl = sasl)
    }

    /// Connected, with an engine of one's own settings, and nothing said yet.
    pub(crate) fn dial_with(addr: SocketAddr, set: impl FnOnce(&mut Config)) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let mut config = Config {
            // The broker's bound is the one to be met.
            max_unsettled: 100_000,
            ..Config::default()
        };
        set(&mut config);
        Self {
            amqp: Connection::client(config, Instant::now()),
            stream,
            events: VecDeque::new(),
            session: None,
            names: 0,
            deaf: false,
        }
    }

    pub(crate) fn open(&mut self, options: OpenOptions) {
        self.amqp.open(options).unwrap();
        self.wait("open", |event| {
            matches!(event, Event::RemoteOpen(_)).then_some(())
        });
    }

    /// Opens as the only connection of this container id.
    pub(crate) fn alone(addr: SocketAddr, container: &str) -> Self {
        let mut client = Self::dial(addr, Sasl::Anonymous);
        client.open(OpenOptions {
            desired_capabilities: vec![Symbol::from_static("sole-connection-for-container")],
            ..OpenOptions::new(container)
        });
        client
    }

    pub(crate) fn begin(&mut self) {
        self.session = Some(self.amqp.begin().unwrap());
    }

    /// Writes what is to be written and reads what is there.
    pub(crate) fn step(&mut self) {
        while let Some(event) = self.amqp.poll_event() {
            self.events.push_back(event);
        }
        let output = self.amqp.take_output(Instant::now());
        if !output.is_empty() && self.stream.write_all(&output).is_err() {
            self.amqp.input_closed();
        }
        let mut buffer = [0; 65_536];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.amqp.input_closed(),
            Ok(n) => self.amqp.input(&buffer[..n], Instant::now()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => self.amqp.input_closed(),
        }
        while let Some(event) = self.amqp.poll_event() {
            self.events.push_back(event);
        }
    }

    /// Waits for an event; others stay for later.
    pub(crate) fn wait<T>(&mut self, what: &str, mut pick: impl FnMut(&Event) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self
                .events
                .iter()
                .enumerate()
                .find_map(|(at, event)| pick(event).map(|found| (at, found)));
            if let Some((at, found)) = found {
                self.events.remove(at);
                return found;
            }
            assert!(
                Instant::now() < deadline,
                "waiting for {what}, saw {:?}",
                self.events
            );
            self.step();
        }
    }

    /// Whether an event comes within a short while.
    pub(crate) fn sees<T>(&mut self, mut pick: impl FnMut(&Event) -> Option<T>) -> bool {
        for _ in 0..20 {
            self.step();
        }
        self.events.iter().any(|event| pick(event).is_some())
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("link-{}", self.names)
    }

    /// Attaches; the error if the broker refuses.
    pub(crate) fn attach_sender(&mut self, attach: AttachOptions) -> Result<LinkId, AmqpError> {
        let link = self.amqp.attach_sender(self.session.unwrap(), attach).unwrap();
        self.attached(link)
    }

    /// Attaches; the error if the broker refuses.
    pub(crate) fn attach_receiver(&mut self, attach: AttachOptions) -> Result<LinkId, AmqpError> {
        let link = self.amqp.attach_receiver(self.session.unwrap(), attach).unwrap();
        self.attached(link)
    }

    /// As [`attach_sender`](Self::attach_sender), with what the broker answered.
    pub(crate) fn attach_sender_for_answer(
        &mut self,
        attach: AttachOptions,
    ) -> Result<(LinkId, RemoteAttach), AmqpError> {
        let link = self.amqp.attach_sender(self.session.unwrap(), attach).unwrap();
        self.answered(link)
    }

    /// As [`attach_receiver`](Self::attach_receiver), with what the broker answered.
    pub(crate) fn attach_receiver_for_answer(
        &mut self,
        attach: AttachOptions,
    ) -> Result<(LinkId, RemoteAttach), AmqpError> {
        let link = self.amqp.attach_receiver(self.session.unwrap(), attach).unwrap();
        self.answered(link)
    }

    fn answered(&mut self, link: LinkId) -> Result<(LinkId, RemoteAttach), AmqpError> {
        let answer = self.wait("attach", |event| match event {
            Event::LinkAttached { link: of, attach } if *of == link => Some((**attach).clone()),
            _ => None,
        });
        if answer.is_refused() {
            Err(self.detached(link).expect("a refusal says why"))
        } else {
            Ok((link, answer))
        }
    }

    fn attached(&mut self, link: LinkId) -> Result<LinkId, AmqpError> {
        self.answered(link).map(|(link, _)| link)
    }

    pub(crate) fn detached(&mut self, link: LinkId) -> Option<AmqpError> {
        self.wait("detach", |event| match event {
            Event::LinkDetached { link: of, error, .. } if *of == link => Some(error.as_deref().cloned()),
            _ => None,
        })
    }

    pub(crate) fn closed(&mut self) -> CloseReason {
        let reason = self.wait("close", |event| match event {
            Event::Closed(reason) => Some(reason.clone()),
            _ => None,
        });
        self.step(); // The answer to the peer's close.
        reason
    }

    pub(crate) fn sender(&mut self, address: &str) -> LinkId {
        let name = self.name();
        self.attach_sender(AttachOptions::to(name, address)).unwrap()
    }

    pub(crate) fn receiver(&mut self, address: &str, credit: u32) -> LinkId {
        let name = self.name();
        let link = self.attach_receiver(AttachOptions::from(name, address)).unwrap();
        self.amqp.grant_credit(link, credit, false).unwrap();
        self.step();
        link
    }

    /// Waits for credit and sends; the outcome comes later.
    pub(crate) fn send(&mut self, link: LinkId, payload: Bytes) -> DeliveryId {
        let deadline = Instant::now() + PATIENCE;
        while self.amqp.sendable(link) == 0 {
            assert!(Instant::now() < deadline, "no credit came: {:?}", self.events);
            self.step();
        }
        self.amqp.send(link, Outgoing::new(payload)).unwrap()
    }

    pub(crate) fn outcome(&mut self, link: LinkId, delivery: DeliveryId) -> Outcome {
        self.wait("outcome", |event| match event {
            Event::Disposition {
                link: of,
                delivery: id,
                state: Some(DeliveryState::Outcome(outcome)),
                ..
            } if *of == link && *id == delivery => Some(outcome.clone()),
            _ => None,
        })
    }

    /// Sends and waits until the broker took it over.
    pub(crate) fn put(&mut self, link: LinkId, payload: Bytes) {
        let delivery = self.send(link, payload);
        assert_eq!(self.outcome(link, delivery), Outcome::Accepted);
    }

    pub(crate) fn receive(&mut self) -> Message {
        self.wait("a message", |event| match event {
            Event::Message(message) => Some(message.clone()),
            _ => None,
        })
    }

    /// Settles, telling the broker the outcome and asking for nothing.
    pub(crate) fn settle(&mut self, message: &Message, outcome: Outcome) {
        let state = DeliveryState::Outcome(outcome);
        self.amqp
            .settle(message.link, message.delivery, state, true)
            .unwrap();
        self.step();
    }

    /// Accepts and waits until the broker says that this will last.
    pub(crate) fn accept_surely(&mut self, message: &Message) {
        let state = DeliveryState::ACCEPTED;
        self.amqp
            .settle(message.link, message.delivery, state, false)
            .unwrap();
        let (link, delivery) = (message.link, message.delivery);
        self.wait("the confirmation", |event| match event {
            Event::Disposition {
                link: of,
                delivery: id,
                settled: true,
                ..
            } if *of == link && *id == delivery => Some(()),
            _ => None,
        });
    }

    /// A link to the transaction coordinator.
    pub(crate) fn coordinator(&mut self) -> LinkId {
        let attach = AttachOptions {
            target: Some(Target::Coordinator {
                capabilities: vec![txn::LOCAL_TRANSACTIONS],
            }),
            ..AttachOptions::to("coordinator", "")
        };
        self.attach_sender(attach).unwrap()
    }

    /// Declares a transaction.
    pub(crate) fn declare(&mut self, coordinator: LinkId) -> TxnId {
        let delivery = self.send(coordinator, txn::declare(None));
        self.wait("declared", |event| match event {
            Event::Disposition {
                delivery: id,
                state: Some(DeliveryState::Declared(txn)),
                ..
            } if *id == delivery => Some(txn.clone()),
            _ => None,
        })
    }

    /// Commits, or rolls back if `fail`.
    pub(crate) fn discharge(&mut self, coordinator: LinkId, txn: &TxnId, fail: bool) -> Outcome {
        let delivery = self.send(coordinator, txn::discharge(txn, fail));
        self.outcome(coordinator, delivery)
    }

    /// Sends under a transaction and waits for the provisional outcome.
    pub(crate) fn put_in(&mut self, txn: &TxnId, link: LinkId, payload: Bytes) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        while self.amqp.sendable(link) == 0 {
            assert!(Instant::now() < deadline, "no credit came: {:?}", self.events);
            self.step();
        }
        let outgoing = Outgoing {
            txn: Some(txn.clone()),
            ..Outgoing::new(payload)
        };
        let delivery = self.amqp.send(link, outgoing).unwrap();
        self.wait("provisional outcome", |event| match event {
            Event::Disposition {
                link: of,
                delivery: id,
                state: Some(state),
                settled: true,
                ..
            } if *of == link && *id == delivery => state.outcome().cloned(),
            _ => None,
        })
    }

    /// Accepts under a transaction; the delivery is settled here.
    pub(crate) fn accept_in(&mut self, txn: &TxnId, message: &Message) {
        let state = DeliveryState::Transactional {
            txn: txn.clone(),
            outcome: Some(Outcome::Accepted),
        };
        self.amqp
            .settle(message.link, message.delivery, state, true)
            .unwrap();
        self.step();
    }

    /// The texts of all that is there for a link, found by draining it.
    pub(crate) fn drain(&mut self, link: LinkId) -> Vec<String> {
        self.amqp.grant_credit(link, 1_000, true).unwrap();
        let mut texts = Vec::new();
        loop {
            let next = self.wait("message or drained", |event| match event {
                Event::Message(message) if message.link == link => Some(Some(text(message))),
                Event::Drained { link: of } if *of == link => Some(None),
                _ => None,
            });
            match next {
                Some(text) => texts.push(text),
                None => return texts,
            }
        }
    }

    /// Writes what the engine would not.
    pub(crate) fn write_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Reads, past the engine, until these bytes have come in; keeps the connection alive meanwhile.
    pub(crate) fn read_raw_until(&mut self, what: &str, wanted: &[u8]) {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        while !seen.windows(wanted.len()).any(|window| window == wanted) {
            assert!(Instant::now() < deadline, "waiting for {what}, read {seen:x?}");
            let mut buffer = [0; 4_096];
            match self.stream.read(&mut buffer) {
                Ok(read) => seen.extend_from_slice(&buffer[..read]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    self.write_raw(&[0, 0, 0, 8, 2, 0, 0, 0]);
                }
                Err(error) => panic!("waiting for {what}: {error}"),
            }
        }
    }

    /// Nothing is said any more: the socket just closes.
    pub(crate) fn vanish(self) {
        drop(self.stream);
    }
}

pub(crate) fn durable(text: &str) -> Bytes {
    MessageBuilder::new().durable(true).text(text)
}

pub(crate) fn fleeting(text: &str) -> Bytes {
    MessageBuilder::new().text(text)
}

/// A durable message with a duplicate id.
pub(crate) fn numbered(text: &str, id: &str) -> Bytes {
    let annotation = Symbol::from_static("x-opt-daymark-dup-id");
    MessageBuilder::new()
        .durable(true)
        .annotation(annotation, id.to_owned())
        .text(text)
}

pub(crate) fn text(message: &Message) -> String {
    use daymark_amqp::ValueRef;
    use daymark_amqp::message::{Body, MessageView};
    let view = MessageView::parse(&message.payload).unwrap();
    let Body::Value(ValueRef::String(text)) = view.body().unwrap() else {
        panic!("no text in {message:?}");
    };
    text.to_owned()
}

pub(crate) fn delivery_count(message: &Message) -> u32 {
    use daymark_amqp::message::MessageView;
    MessageView::parse(&message.payload)
        .unwrap()
        .header()
        .delivery_count
}
