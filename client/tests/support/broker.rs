//! A broker that stores messages in memory, and loses its connections when a test tells it to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use bytes::Bytes;
use daymark_amqp::message::{MessageView, with_header};
use daymark_amqp::{
    AcceptOptions, AmqpError, Config, Connection as Engine, DeliveryState, Event, Fields, LinkId,
    OpenOptions, Outcome, Outgoing, RemoteAttach, Role, Sasl, SaslCode, Symbol, Target, Value, condition,
    mechanism,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// A moment at which a test may interfere; each counts from 1 over all connections of a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// A message came from a producer.
    Transfer(usize),
    /// A disposition came from a consumer.
    Disposition(usize),
    /// So many bytes came.
    Bytes(usize),
}

/// What the broker does then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Proceed,
    /// Nothing is done, and the connection is lost.
    CutBefore,
    /// It is done, and the connection is lost before the answer.
    CutAfter,
    /// It is done, and nobody is told.
    Mute,
    /// It is answered with a rejection.
    Reject,
}

pub(crate) type Plan = Arc<dyn Fn(Moment) -> Act + Send + Sync>;

/// What a pair of brokers shares.
#[derive(Default)]
pub(crate) struct Store {
    /// Told about every change, so that every connection of every broker hands out what is free.
    changed: watch::Sender<u64>,
    /// Connections so far, over all brokers.
    holders: u64,
    messages: BTreeMap<u64, Stored>,
    next: u64,
    /// Every duplicate id that arrived, as often as it arrived.
    pub(crate) arrived: Vec<String>,
    known: BTreeSet<String>,
    /// The duplicate ids that were settled by consumers, in order.
    pub(crate) settled: Vec<(String, Outcome)>,
}

struct Stored {
    payload: Bytes,
    id: String,
    holder: Option<u64>,
    deliveries: u32,
}

impl Store {
    /// Texts of what is stored, in order.
    pub(crate) fn texts(&self) -> Vec<String> {
        let text = |stored: &Stored| {
            let view = MessageView::parse(&stored.payload).expect("a message");
            if let daymark_amqp::message::Body::Value(value) = view.body().expect("a body") {
                value.as_str().unwrap_or("").to_owned()
            } else {
                String::new()
            }
        };
        self.messages.values().map(text).collect()
    }

    pub(crate) fn held(&self) -> usize {
        self.messages
            .values()
            .filter(|stored| stored.holder.is_some())
            .count()
    }

    fn store(&mut self, payload: Bytes) {
        let view = MessageView::parse(&payload).expect("a message");
        let id = view
            .message_annotation("x-opt-daymark-dup-id")
            .and_then(daymark_amqp::ValueRef::as_str)
            .map_or_else(|| format!("none-{}", self.next), str::to_owned);
        self.arrived.push(id.clone());
        if self.known.insert(id.clone()) {
            let stored = Stored {
                payload,
                id,
                holder: None,
                deliveries: 0,
            };
            self.messages.insert(self.next, stored);
            self.next += 1;
            self.touch();
        }
    }

    fn touch(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    fn release(&mut self, holder: u64) {
        for stored in self.messages.values_mut().filter(|s| s.holder == Some(holder)) {
            stored.holder = None;
            stored.deliveries += 1;
        }
        self.touch();
    }
}

pub(crate) struct Broker {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    store: Arc<Mutex<Store>>,
    settings: Settings,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    transfers: usize,
    dispositions: usize,
    bytes: usize,
    connections: u64,
    containers: Vec<String>,
    closed: usize,
}

#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) epoch: Option<u64>,
    pub(crate) plan: Plan,
    pub(crate) servers: Vec<SocketAddr>,
    /// Accepts connections and says nothing.
    pub(crate) frozen: bool,
    pub(crate) refuses_credentials: bool,
    /// When it is set, the broker says and does nothing more, and keeps its connections.
    pub(crate) asleep: watch::Sender<bool>,
}

impl Settings {
    pub(crate) fn of(epoch: u64) -> Self {
        Self {
            epoch: Some(epoch),
            plan: Arc::new(|_| Act::Proceed),
            servers: vec![],
            frozen: false,
            refuses_credentials: false,
            asleep: watch::Sender::new(false),
        }
    }

    pub(crate) fn plan(mut self, plan: impl Fn(Moment) -> Act + Send + Sync + 'static) -> Self {
        self.plan = Arc::new(plan);
        self
    }

    /// Does with every message what `act` says; called with its number.
    pub(crate) fn transfers(self, act: impl Fn(usize) -> Act + Send + Sync + 'static) -> Self {
        self.plan(move |moment| {
            if let Moment::Transfer(number) = moment {
                act(number)
            } else {
                Act::Proceed
            }
        })
    }

    /// Acts so at one moment.
    pub(crate) fn at(self, moment: Moment, act: Act) -> Self {
        self.plan(move |now| if now == moment { act } else { Act::Proceed })
    }
}

pub(crate) fn store() -> Arc<Mutex<Store>> {
    Arc::default()
}

/// Bound to the ports of brokers that were killed, and not listening there.
static GRAVES: Mutex<Vec<TcpSocket>> = Mutex::new(Vec::new());

impl Broker {
    pub(crate) async fn start(store: &Arc<Mutex<Store>>, settings: Settings) -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("an address"), store, settings).await
    }

    pub(crate) async fn start_at(place: SocketAddr, store: &Arc<Mutex<Store>>, settings: Settings) -> Self {
        let listener = TcpListener::bind(place).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            store: Arc::clone(store),
            settings,
            counts: Mutex::default(),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self {
            address,
            shared,
            task,
        }
    }

    /// The process dies: port and connections close without a word. The port stays refused and taken, so that no
    /// broker of another test is found there.
    pub(crate) async fn kill(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
        let grave = TcpSocket::new_v4().expect("a socket");
        grave.set_reuseaddr(true).expect("an option");
        grave.bind(self.address).expect("the port that was just closed");
        GRAVES.lock().expect("the graves").push(grave);
    }

    pub(crate) fn connections(&self) -> u64 {
        self.shared.counts().connections
    }

    pub(crate) fn containers(&self) -> Vec<String> {
        self.shared.counts().containers.clone()
    }

    /// Connections that said goodbye.
    pub(crate) fn closed(&self) -> usize {
        self.shared.counts().closed
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().expect("the counts")
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().expect("the store")
    }

    fn decide(&self, moment: impl FnOnce(&mut Counts) -> Moment) -> Act {
        let moment = moment(&mut self.counts());
        (self.settings.plan)(moment)
    }
}

async fn fall_asleep(asleep: &mut watch::Receiver<bool>) {
    drop(asleep.wait_for(|asleep| *asleep).await);
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when.into()).await,
        None => std::future::pending().await,
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped with this task: the connections end with the port.
    let mut peers = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        shared.counts().connections += 1;
        let number = {
            let mut store = shared.store();
            store.holders += 1;
            store.holders
        };
        let shared = Arc::clone(&shared);
        peers.spawn(async move {
            let _holding = Holding {
                number,
                shared: Arc::clone(&shared),
            };
            let mut peer = Peer::new(number, Arc::clone(&shared));
            peer.run(stream).await;
        });
    }
}

/// Gives back what a connection held, however it ends.
struct Holding {
    number: u64,
    shared: Arc<Shared>,
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.shared.store().release(self.number);
    }
}

struct Peer {
    number: u64,
    shared: Arc<Shared>,
    engine: Engine,
    outgoing: BTreeSet<LinkId>,
    cut: bool,
}

impl Peer {
    fn new(number: u64, shared: Arc<Shared>) -> Self {
        let config = Config {
            sasl: Sasl::Server {
                mechanisms: vec![mechanism::ANONYMOUS, mechanism::PLAIN],
                required: false,
            },
            ..Config::default()
        };
        Self {
            number,
            shared,
            engine: Engine::server(config, Instant::now()),
            outgoing: BTreeSet::new(),
            cut: false,
        }
    }

    async fn run(&mut self, mut stream: TcpStream) {
        if self.shared.settings.frozen {
            return std::future::pending().await;
        }
        let mut changed = self.shared.store().changed.subscribe();
        let mut asleep = self.shared.settings.asleep.subscribe();
        let mut buffer = vec![0; 16 * 1024];
        while !self.cut && !self.engine.is_finished() {
            tokio::select! {
                read = stream.read(&mut buffer) => match read {
                    Ok(read) if read > 0 => self.on_bytes(&buffer[..read]),
                    Ok(_) | Err(_) => return,
                },
                _ = changed.changed() => {}
                () = fall_asleep(&mut asleep) => return std::future::pending().await,
                () = at(self.engine.poll_timeout()) => self.engine.handle_timeout(Instant::now()),
            }
            while let Some(event) = self.engine.poll_event() {
                if !self.cut {
                    self.on_event(event);
                }
            }
            if self.cut {
                return;
            }
            self.dispatch();
            let output = self.engine.take_output(Instant::now());
            if stream.write_all(&output).await.is_err() {
                return;
            }
        }
    }

    fn on_bytes(&mut self, bytes: &[u8]) {
        let before = self.shared.counts().bytes;
        self.shared.counts().bytes += bytes.len();
        let after = before + bytes.len();
        let cuts =
            (before + 1..=after).any(|at| (self.shared.settings.plan)(Moment::Bytes(at)) != Act::Proceed);
        if cuts {
            self.cut = true;
        } else {
            self.engine.input(bytes, Instant::now());
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest is of no interest here")]
    fn on_event(&mut self, event: Event) {
        match event {
            Event::SaslInit(_) => {
                let code = if self.shared.settings.refuses_credentials {
                    SaslCode::Auth
                } else {
                    SaslCode::Ok
                };
                self.engine.sasl_outcome(code, None).expect("an outcome");
            }
            Event::RemoteOpen(open) => {
                self.shared.counts().containers.push(open.container_id.clone());
                self.open();
            }
            Event::LinkRequested { link, attach, .. } => self.on_link(link, &attach),
            Event::Message(message) => self.on_transfer(message),
            Event::Credit { link, drain, .. } => {
                self.dispatch();
                if drain {
                    self.engine.drained(link).expect("drained");
                }
            }
            Event::Disposition {
                link,
                delivery,
                context,
                state: Some(state),
                settled: false,
            } => self.on_disposition(link, delivery, context, &state),
            Event::LinkDetached { link, by_peer, .. } => {
                self.outgoing.remove(&link);
                if by_peer {
                    let _ = self.engine.detach(link, true, None);
                }
            }
            Event::Closed(_) => self.shared.counts().closed += 1,
            _ => {}
        }
    }

    fn open(&mut self) {
        let mut properties = Fields::new();
        if let Some(epoch) = self.shared.settings.epoch {
            properties.insert(Symbol::from_static("daymark:epoch"), epoch);
        }
        let server = |address: &SocketAddr| {
            Value::Map(vec![
                (
                    Symbol::from_static("network-host").into(),
                    address.ip().to_string().into(),
                ),
                (
                    Symbol::from_static("port").into(),
                    Value::Int(address.port().into()),
                ),
            ])
        };
        let servers = self.shared.settings.servers.iter().map(server).collect();
        properties.insert(Symbol::from_static("failover-server-list"), Value::List(servers));
        let open = OpenOptions {
            properties,
            ..OpenOptions::new("broker")
        };
        self.engine.open(open).expect("opened");
    }

    fn on_link(&mut self, link: LinkId, attach: &RemoteAttach) {
        let address = match (attach.role, &attach.target, &attach.source) {
            (Role::Receiver, Some(Target::Node(node)), _) => node.address.clone(),
            (_, _, source) => source.as_ref().and_then(|source| source.address.clone()),
        };
        if address.as_deref() != Some("q") {
            let error = AmqpError::new(condition::NOT_FOUND, "there is only q");
            self.engine.refuse_link(link, error).expect("refused");
            return;
        }
        self.engine
            .accept_link(link, AcceptOptions::echo(attach))
            .expect("accepted");
        match attach.role {
            Role::Receiver => self.engine.grant_credit(link, 5_000, false).expect("credit"),
            Role::Sender => drop(self.outgoing.insert(link)),
        }
    }

    fn on_transfer(&mut self, message: daymark_amqp::Message) {
        let act = self.shared.decide(|counts| {
            counts.transfers += 1;
            Moment::Transfer(counts.transfers)
        });
        if act == Act::CutBefore {
            self.cut = true;
            return;
        }
        let outcome = if act == Act::Reject {
            Outcome::rejected(AmqpError::new(
                condition::RESOURCE_LIMIT_EXCEEDED,
                "the queue is full",
            ))
        } else {
            self.shared.store().store(message.payload);
            Outcome::Accepted
        };
        match act {
            Act::CutAfter => self.cut = true,
            Act::Mute => {}
            Act::Proceed | Act::Reject | Act::CutBefore => {
                self.engine
                    .settle(message.link, message.delivery, outcome.into(), true)
                    .expect("settled");
            }
        }
    }

    fn on_disposition(
        &mut self,
        link: LinkId,
        delivery: daymark_amqp::DeliveryId,
        number: u64,
        state: &DeliveryState,
    ) {
        let act = self.shared.decide(|counts| {
            counts.dispositions += 1;
            Moment::Disposition(counts.dispositions)
        });
        if act == Act::CutBefore {
            self.cut = true;
            return;
        }
        let outcome = state.outcome().cloned().expect("an outcome");
        {
            let mut store = self.shared.store();
            if matches!(outcome, Outcome::Accepted | Outcome::Rejected(_)) {
                let stored = store.messages.remove(&number).expect("a stored message");
                store.settled.push((stored.id, outcome.clone()));
            } else if let Some(stored) = store.messages.get_mut(&number) {
                stored.holder = None;
            }
        }
        match act {
            Act::CutAfter => self.cut = true,
            Act::Mute => {}
            Act::Proceed | Act::Reject | Act::CutBefore => {
                self.engine
                    .settle(link, delivery, outcome.into(), true)
                    .expect("settled");
            }
        }
        self.shared.store().touch();
    }

    fn dispatch(&mut self) {
        let mut store = self.shared.store.lock().expect("the store");
        for link in &self.outgoing {
            for (number, stored) in store.messages.iter_mut().filter(|(_, s)| s.holder.is_none()) {
                if self.engine.sendable(*link) == 0 {
                    break;
                }
                let mut header = MessageView::parse(&stored.payload).expect("a message").header();
                header.delivery_count = stored.deliveries;
                let (head, rest) = with_header(&stored.payload, &header).expect("a header");
                let outgoing = Outgoing {
                    head: &head,
                    context: *number,
                    ..Outgoing::new(rest)
                };
                self.engine.send(*link, outgoing).expect("sent");
                stored.holder = Some(self.number);
            }
        }
    }
}
