//! A broker that stores messages in memory, and loses its connections when a test tells it to.
//!
//! It has the queue `q`, the topic `t` that nobody hears, temporary queues, browsers and local transactions. It is
//! no measure of what a broker does: tests of the whole system run real ones.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use bytes::Bytes;
use daymark_amqp::message::{MessageView, with_header};
use daymark_amqp::{
    AcceptOptions, AmqpError, Config, Connection as Engine, DeliveryState, DistributionMode, Durability,
    Event, Fields, LinkId, OpenOptions, Outcome, Outgoing, RemoteAttach, Role, Sasl, SaslCode, Symbol,
    Target, TxnId, Value, condition, mechanism,
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
    /// The end of a transaction was asked for.
    Discharge(usize),
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
    queue: String,
    payload: Bytes,
    id: String,
    holder: Option<u64>,
    deliveries: u32,
}

impl Stored {
    /// As it goes out, with the number of deliveries that failed.
    fn outgoing(&self) -> (Vec<u8>, Bytes) {
        let mut header = MessageView::parse(&self.payload).expect("a message").header();
        header.delivery_count = self.deliveries;
        with_header(&self.payload, &header).expect("a header")
    }
}

/// What was done in a transaction and not committed.
#[derive(Default)]
struct Work {
    /// By queue.
    sent: Vec<(String, Bytes)>,
    accepted: Vec<u64>,
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

    /// Makes what was done in a transaction so, all of it or nothing; false where a message was stored before.
    fn commit(&mut self, work: Work) -> bool {
        let known = |(_, payload): &(String, Bytes)| {
            let id = id_of(payload);
            id.is_some_and(|id| self.known.contains(&id))
        };
        if work.sent.iter().any(known) {
            self.undo(&work);
            return false;
        }
        for (queue, payload) in work.sent {
            self.store(&queue, payload);
        }
        for number in work.accepted {
            let stored = self.messages.remove(&number).expect("a stored message");
            self.settled.push((stored.id, Outcome::Accepted));
        }
        self.touch();
        true
    }

    /// What was accepted in a transaction that is rolled back is to be delivered again.
    fn undo(&mut self, work: &Work) {
        for number in &work.accepted {
            let stored = self.messages.get_mut(number).expect("a stored message");
            stored.holder = None;
            stored.deliveries += 1;
        }
        self.touch();
    }

    fn store(&mut self, queue: &str, payload: Bytes) {
        let id = id_of(&payload).unwrap_or_else(|| format!("none-{}", self.next));
        self.arrived.push(id.clone());
        if self.known.insert(id.clone()) {
            let stored = Stored {
                queue: queue.to_owned(),
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

fn id_of(payload: &Bytes) -> Option<String> {
    let view = MessageView::parse(payload).expect("a message");
    let id = view.message_annotation("x-opt-daymark-dup-id");
    id.and_then(daymark_amqp::ValueRef::as_str).map(str::to_owned)
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
    discharges: usize,
    bytes: usize,
    connections: u64,
    containers: Vec<String>,
    attaches: Vec<RemoteAttach>,
    detached: Vec<(String, bool)>,
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
    /// Takes no link to a coordinator.
    pub(crate) without_transactions: bool,
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
            without_transactions: false,
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

    /// What was said of every link that was asked for.
    pub(crate) fn attaches(&self) -> Vec<RemoteAttach> {
        self.shared.counts().attaches.clone()
    }

    /// The links that clients ended, by name, and whether for good.
    pub(crate) fn detached(&self) -> Vec<(String, bool)> {
        self.shared.counts().detached.clone()
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
    /// Links to consumers.
    outgoing: BTreeMap<LinkId, Outlet>,
    /// Where links from producers lead; none where every message says so.
    incoming: BTreeMap<LinkId, Option<String>>,
    /// Temporary queues by the link that made them.
    made: BTreeMap<LinkId, String>,
    transactions: BTreeMap<TxnId, Work>,
    declared: u64,
    cut: bool,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let mut store = self.shared.store();
        for work in self.transactions.values() {
            store.undo(work);
        }
        let made: BTreeSet<&String> = self.made.values().collect();
        store.messages.retain(|_, stored| !made.contains(&stored.queue));
    }
}

/// A link to a consumer.
struct Outlet {
    queue: String,
    /// Of a browser: the number of the next message to show.
    browsed: Option<u64>,
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
            outgoing: BTreeMap::new(),
            incoming: BTreeMap::new(),
            made: BTreeMap::new(),
            transactions: BTreeMap::new(),
            declared: 0,
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
            Event::Declare { link, delivery, .. } => {
                self.declared += 1;
                let txn = TxnId::new(self.declared.to_be_bytes().to_vec());
                self.transactions.insert(txn.clone(), Work::default());
                self.engine
                    .settle(link, delivery, DeliveryState::Declared(txn), true)
                    .expect("declared");
            }
            Event::Discharge {
                link,
                delivery,
                txn,
                fail,
            } => self.on_discharge(link, delivery, &txn, fail),
            Event::Disposition {
                context,
                state: Some(DeliveryState::Transactional { txn, outcome }),
                settled: true,
                ..
            } => {
                assert_eq!(outcome, Some(Outcome::Accepted));
                let work = self.transactions.get_mut(&txn).expect("a transaction");
                work.accepted.push(context);
            }
            Event::Disposition {
                context,
                state: Some(DeliveryState::Outcome(Outcome::Released | Outcome::Modified { .. })),
                settled: true,
                ..
            } => {
                let mut store = self.shared.store();
                if let Some(stored) = store.messages.get_mut(&context) {
                    stored.holder = None;
                }
                store.touch();
            }
            Event::LinkDetached {
                link,
                by_peer,
                closed,
                ..
            } => {
                if let Some(name) = self.engine.link_name(link).filter(|_| by_peer) {
                    let ended = (name.to_owned(), closed);
                    self.shared.counts().detached.push(ended);
                }
                self.outgoing.remove(&link);
                self.incoming.remove(&link);
                if let Some(queue) = self.made.remove(&link) {
                    self.shared
                        .store()
                        .messages
                        .retain(|_, stored| stored.queue != queue);
                }
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
            offered_capabilities: vec![Symbol::from_static("DELAYED_DELIVERY")],
            properties,
            ..OpenOptions::new("broker")
        };
        self.engine.open(open).expect("opened");
    }

    fn on_link(&mut self, link: LinkId, attach: &RemoteAttach) {
        self.shared.counts().attaches.push(attach.clone());
        let mut accept = AcceptOptions::echo(attach);
        let address = match (attach.role, &attach.target, &attach.source) {
            (Role::Receiver, Some(Target::Coordinator { .. }), _) => {
                if self.shared.settings.without_transactions {
                    let error = AmqpError::new(condition::NOT_IMPLEMENTED, "no transactions here");
                    return self.engine.refuse_link(link, error).expect("refused");
                }
                None
            }
            (Role::Receiver, Some(Target::Node(node)), _) if node.dynamic => {
                let queue = format!("temporary-{}-{}", self.number, self.made.len());
                self.made.insert(link, queue.clone());
                let mut given = node.clone();
                given.address = Some(queue.clone());
                accept.target = Some(Target::Node(given));
                Some(queue)
            }
            (Role::Receiver, Some(Target::Node(node)), _) => node.address.clone(),
            (_, _, source) => Some(
                source
                    .as_ref()
                    .and_then(|source| source.address.clone())
                    .unwrap_or_default(),
            ),
        };
        let known =
            |address: &String| ["q", "t"].contains(&address.as_str()) || address.starts_with("temporary-");
        if !address.as_ref().is_none_or(known) {
            let error = AmqpError::new(condition::NOT_FOUND, "there is only q");
            self.engine.refuse_link(link, error).expect("refused");
            return;
        }
        self.engine.accept_link(link, accept).expect("accepted");
        match attach.role {
            Role::Receiver => {
                self.incoming.insert(link, address);
                self.engine.grant_credit(link, 5_000, false).expect("credit");
            }
            Role::Sender => {
                let source = attach.source.as_ref().expect("a source");
                let browses = source.distribution_mode == Some(DistributionMode::Copy);
                let outlet = Outlet {
                    queue: address.expect("a known address"),
                    browsed: (browses && source.durable == Durability::None).then_some(0),
                };
                self.outgoing.insert(link, outlet);
            }
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
            self.keep(&message);
            Outcome::Accepted
        };
        let state = match message.txn {
            Some(txn) if outcome == Outcome::Accepted => DeliveryState::Transactional {
                txn,
                outcome: Some(outcome),
            },
            Some(_) | None => outcome.into(),
        };
        match act {
            Act::CutAfter => self.cut = true,
            Act::Mute => {}
            Act::Proceed | Act::Reject | Act::CutBefore => {
                self.engine
                    .settle(message.link, message.delivery, state, true)
                    .expect("settled");
            }
        }
    }

    fn keep(&mut self, message: &daymark_amqp::Message) {
        let fixed = self.incoming.get(&message.link).cloned().flatten();
        let queue = fixed.unwrap_or_else(|| {
            let view = MessageView::parse(&message.payload).expect("a message");
            view.to().expect("properties").expect("a destination").to_owned()
        });
        let payload = message.payload.clone();
        match &message.txn {
            Some(txn) => {
                let work = self.transactions.get_mut(txn).expect("a transaction");
                work.sent.push((queue, payload));
            }
            None => self.shared.store().store(&queue, payload),
        }
    }

    fn on_discharge(&mut self, link: LinkId, delivery: daymark_amqp::DeliveryId, txn: &TxnId, fail: bool) {
        let act = self.shared.decide(|counts| {
            counts.discharges += 1;
            Moment::Discharge(counts.discharges)
        });
        if act == Act::CutBefore {
            self.cut = true;
            return;
        }
        let work = self.transactions.remove(txn).expect("a transaction");
        let refused = |condition, text: &str| Outcome::rejected(AmqpError::new(condition, text));
        let outcome = if act == Act::Reject {
            self.shared.store().undo(&work);
            refused(condition::TRANSACTION_ROLLBACK, "it took too long")
        } else if fail {
            self.shared.store().undo(&work);
            Outcome::Accepted
        } else if self.shared.store().commit(work) {
            Outcome::Accepted
        } else {
            let error = AmqpError::new(condition::TRANSACTION_ROLLBACK, "a message is stored already");
            let reason = Value::Symbol(Symbol::from_static("duplicate"));
            Outcome::rejected(error.with_info(Symbol::from_static("daymark:reason"), reason))
        };
        match act {
            Act::CutAfter => self.cut = true,
            Act::Mute => {}
            Act::Proceed | Act::Reject | Act::CutBefore => self
                .engine
                .settle(link, delivery, outcome.into(), true)
                .expect("settled"),
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
        for (link, outlet) in &mut self.outgoing {
            let wanted = |stored: &Stored| stored.queue == outlet.queue;
            if let Some(next) = outlet.browsed {
                for (number, stored) in store.messages.range(next..).filter(|(_, s)| wanted(s)) {
                    if self.engine.sendable(*link) == 0 {
                        break;
                    }
                    let (head, rest) = stored.outgoing();
                    let outgoing = Outgoing {
                        head: &head,
                        settled: true,
                        ..Outgoing::new(rest)
                    };
                    self.engine.send(*link, outgoing).expect("sent");
                    outlet.browsed = Some(number + 1);
                }
                continue;
            }
            let free = |stored: &Stored| stored.holder.is_none() && wanted(stored);
            for (number, stored) in store.messages.iter_mut().filter(|(_, s)| free(s)) {
                if self.engine.sendable(*link) == 0 {
                    break;
                }
                let (head, rest) = stored.outgoing();
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
