//! One task per connection: it owns the socket and the protocol engine, and keeps what must survive them.
//!
//! It decides what happens when a connection is lost and made anew: sessions, producers and consumers are attached
//! again, messages without an answer are sent again, settlements without an answer are given again when their
//! messages come back. It never blocks on a program: every buffer between them has a limit that programs wait at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use daymark_amqp::message::MessageView;
use daymark_amqp::{
    AmqpError, CloseReason, CommandError, DeliveryId, DeliveryState, Event, LinkId, Message as WireMessage,
    Outcome, RemoteAttach, SessionId, condition,
};
use daymark_naming_proto::Epoch;
use tokio::sync::{mpsc, oneshot};

use super::connect::{self, Opened, close_text};
use super::connection::{Connection, ConnectionEvent, Line, Shared, Status};
use super::consumer::ConsumerOptions;
use super::destination::Destination;
use super::error::{ConnectError, Disconnected, OpenError, ReceiveError, Refusal, SendError, SettleError};
use super::factory::{ConnectionFactory, Identity};
use super::ghosts::Ghosts;
use super::inbound::{Inbound, Incoming, SettleReply, Settling, Shelf, Token};
use super::message::duplicate_id;
use super::outbound::{Outbound, Pending};
use super::wire::Wire;
use crate::naming::Follow;

/// The most commands that wait for the driver.
const COMMANDS_MAX: usize = 1024;

type OpenReply = oneshot::Sender<Result<(), OpenError>>;

/// What programs ask of the driver. Keys are theirs.
pub(super) enum Command {
    OpenSession {
        key: u64,
        reply: OpenReply,
    },
    CloseSession {
        key: u64,
        reply: Option<oneshot::Sender<()>>,
    },
    OpenProducer {
        key: u64,
        session: u64,
        destination: Destination,
        reply: OpenReply,
    },
    CloseProducer {
        key: u64,
        reply: Option<oneshot::Sender<()>>,
    },
    Send {
        key: u64,
        pending: Pending,
    },
    OpenConsumer {
        key: u64,
        session: u64,
        destination: Destination,
        options: ConsumerOptions,
        shelf: Arc<Shelf>,
        reply: OpenReply,
    },
    CloseConsumer {
        key: u64,
        reply: Option<oneshot::Sender<()>>,
    },
    /// The program has taken messages: there is room for more.
    Taken {
        key: u64,
    },
    Settle {
        key: u64,
        token: Token,
        duplicate_id: Option<Box<str>>,
        outcome: Outcome,
        reply: SettleReply,
    },
    Close {
        reply: oneshot::Sender<()>,
    },
}

/// Connects for the first time and starts the driver.
pub(super) async fn start(
    factory: ConnectionFactory,
    identity: Identity,
) -> Result<Connection, ConnectError> {
    let settings = factory.settings();
    let attempts_max = limit(settings.initial_connect_attempts);
    let opened = connect::search(factory.clone(), identity.clone(), attempts_max).await?;
    let status = Status::Up {
        epoch: opened.epoch,
        address: opened.address.clone(),
    };
    let shared = Arc::new(Shared::new(status, settings));
    let (commands, received) = mpsc::channel(COMMANDS_MAX);
    let driver = Driver {
        follow: factory.follower(),
        factory,
        identity,
        shared: Arc::clone(&shared),
        commands: received,
        wire: None,
        epoch: Epoch(0),
        generation: 0,
        sessions: BTreeMap::new(),
        producers: BTreeMap::new(),
        consumers: BTreeMap::new(),
        links: BTreeMap::new(),
        thirsty: BTreeSet::new(),
        ghosts: Ghosts::default(),
        closing: None,
    };
    tokio::spawn(driver.run(opened));
    Ok(Connection::new(Line { commands, shared }))
}

/// Attempts per address; negative means as many as the time allows.
fn limit(attempts: i32) -> Option<u32> {
    u32::try_from(attempts).ok()
}

struct SessionState {
    id: Option<SessionId>,
    opening: Option<OpenReply>,
    /// To be ended when its producers have their answers.
    closing: Option<Closing>,
}

#[derive(Clone, Copy)]
enum Owner {
    Producer(u64),
    Consumer(u64),
}

/// Why a connection to a broker is no more.
enum End {
    Closed,
    Lost(String),
}

struct Driver {
    factory: ConnectionFactory,
    follow: Option<Follow>,
    identity: Identity,
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    wire: Option<Wire>,
    epoch: Epoch,
    /// Counts the connections to brokers, so that deliveries of an old one are known.
    generation: u64,
    sessions: BTreeMap<u64, SessionState>,
    producers: BTreeMap<u64, Outbound>,
    consumers: BTreeMap<u64, Inbound>,
    links: BTreeMap<LinkId, Owner>,
    /// Consumers whose credit is to be looked at.
    thirsty: BTreeSet<u64>,
    ghosts: Ghosts,
    /// The program wants the end; who is to be told.
    closing: Option<Vec<oneshot::Sender<()>>>,
}

impl Driver {
    async fn run(mut self, first: Opened) {
        self.adopt(first);
        let why = loop {
            let lost = match self.serve().await {
                End::Closed => break Disconnected::Closed,
                End::Lost(reason) => reason,
            };
            tracing::info!(reason = %lost, "connection to the broker lost");
            self.lose(&lost);
            match self.reconnect(lost).await {
                Ok(opened) => {
                    let (epoch, address) = (opened.epoch, opened.address.clone());
                    tracing::info!(%epoch, %address, "connected to the broker again");
                    self.shared.status.send_replace(Status::Up {
                        epoch,
                        address: address.clone(),
                    });
                    self.adopt(opened);
                    let _ = self
                        .shared
                        .events
                        .send(ConnectionEvent::FailedOver { epoch, address });
                }
                Err(why) => break why,
            }
        };
        self.end(&why);
    }

    /// Works on the connection until it ends.
    async fn serve(&mut self) -> End {
        loop {
            if let Some(end) = self.work() {
                return end;
            }
            let Some(wire) = self.wire.as_mut() else {
                return End::Lost("there is no connection".into());
            };
            tokio::select! {
                () = wire.turn() => {}
                command = self.commands.recv(), if self.closing.is_none() => self.take(command),
                () = connect::change(&mut self.follow) => {
                    let newer = self.factory.epoch();
                    if newer > self.epoch {
                        return End::Lost(format!("epoch {newer} has begun"));
                    }
                }
            }
        }
    }

    /// Does everything that can be done without waiting.
    fn work(&mut self) -> Option<End> {
        loop {
            let wire = self.wire.as_mut()?;
            let mut events = Vec::new();
            while let Some(event) = wire.poll_event() {
                events.push(event);
            }
            if let Some(Event::Closed(reason)) = events.last() {
                let end = if *reason == CloseReason::Local {
                    End::Closed
                } else {
                    End::Lost(close_text(reason))
                };
                // Links and sessions end with their connection, and messages come again: only answers count.
                events.retain(|event| matches!(event, Event::Disposition { .. }));
                events.into_iter().for_each(|event| self.on_event(event));
                self.wire.as_mut()?.flush();
                return Some(end);
            }
            if let (true, Some(reason)) = (events.is_empty(), wire.ended()) {
                let closed = self.closing.is_some();
                let reason = reason.to_owned();
                return Some(if closed { End::Closed } else { End::Lost(reason) });
            }
            let quiet = events.is_empty();
            events.into_iter().for_each(|event| self.on_event(event));
            self.replenish();
            let sent = self.pump();
            self.wire.as_mut()?.flush();
            if quiet && sent == 0 {
                return None;
            }
        }
    }

    /// Gives credit where there is room again.
    fn replenish(&mut self) {
        let Some(wire) = self.wire.as_mut() else {
            return;
        };
        while let Some(key) = self.thirsty.pop_first() {
            if let Some(consumer) = self.consumers.get(&key) {
                consumer.replenish(&mut wire.engine);
            }
        }
    }

    /// Hands to the engine what producers wait to send, and closes those that are done.
    fn pump(&mut self) -> usize {
        let Some(wire) = self.wire.as_mut() else {
            return 0;
        };
        let mut sent = 0;
        let mut done = Vec::new();
        for (key, producer) in &mut self.producers {
            sent += producer.pump(&mut wire.engine);
            if producer.is_done() {
                done.push(*key);
            }
        }
        for key in done {
            self.drop_producer(key);
        }
        self.end_done_sessions();
        sent
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::SessionBegun { session, .. } => self.on_begun(session),
            Event::LinkAttached { link, attach } => self.on_attached(link, &attach),
            Event::Message(message) => self.on_message(message),
            Event::Drained { link } => self.on_drained(link),
            Event::Disposition {
                link,
                delivery,
                context,
                state,
                settled,
            } => self.on_disposition(link, delivery, context, state.as_ref(), settled),
            Event::LinkDetached {
                link, error, by_peer, ..
            } => self.on_detached(link, error.as_deref(), by_peer),
            Event::SessionEnded { session, error } => self.on_session_ended(session, error.as_deref()),
            // A broker starts no links here; whoever does is refused.
            Event::LinkRequested { link, .. } => self.refuse(link),
            // Credit is looked at when there is something to send. The rest happens only before Open, or to
            // servers.
            Event::Credit { .. }
            | Event::RemoteOpen(_)
            | Event::SaslInit(_)
            | Event::SaslResponse(_)
            | Event::SaslChallenge(_)
            | Event::SaslOutcome { .. }
            | Event::Declare { .. }
            | Event::Discharge { .. }
            | Event::Closed(_) => {}
        }
    }

    fn refuse(&mut self, link: LinkId) {
        if let Some(wire) = self.wire.as_mut() {
            let error = AmqpError::new(condition::NOT_ALLOWED, "clients take no links");
            let _ = wire.engine.refuse_link(link, error);
        }
    }

    fn on_begun(&mut self, session: SessionId) {
        let begun = self.sessions.values_mut().find(|state| state.id == Some(session));
        if let Some(reply) = begun.and_then(|state| state.opening.take()) {
            let _ = reply.send(Ok(()));
        }
    }

    fn on_attached(&mut self, link: LinkId, attach: &RemoteAttach) {
        if attach.is_refused() {
            // Its detach says why.
            return;
        }
        let Some(wire) = self.wire.as_mut() else {
            return;
        };
        let opening = match self.links.get(&link) {
            Some(Owner::Producer(key)) => self.producers.get_mut(key).and_then(|p| p.opening.take()),
            Some(Owner::Consumer(key)) => self.consumers.get_mut(key).and_then(|consumer| {
                consumer.attached(&wire.engine);
                self.thirsty.insert(*key);
                consumer.opening.take()
            }),
            None => None,
        };
        if let Some(opening) = opening {
            let _ = opening.send(Ok(()));
        }
    }

    fn on_message(&mut self, message: WireMessage) {
        let Some(&Owner::Consumer(key)) = self.links.get(&message.link) else {
            return;
        };
        let (Some(wire), Some(consumer)) = (self.wire.as_mut(), self.consumers.get_mut(&key)) else {
            return;
        };
        let recovered = consumer.count(message.settled);
        let view = MessageView::parse(&message.payload).ok();
        let id = view.as_ref().and_then(duplicate_id);
        let settled_before = id.and_then(|id| self.ghosts.recognise(consumer.destination.address(), id));
        match settled_before {
            Some(settling) if !message.settled => {
                consumer.settle(&mut wire.engine, message.delivery, settling);
            }
            Some(_) => {}
            None => consumer.deliver(Incoming {
                token: Token {
                    generation: self.generation,
                    delivery: message.delivery,
                },
                duplicate_id: id.map(Box::from),
                settled: message.settled,
                payload: message.payload,
            }),
        }
        if recovered {
            self.ghosts.answer(key, &|| SettleError::NotRedelivered);
        }
        self.thirsty.insert(key);
    }

    /// The broker has no more for this consumer: what it has not delivered again by now, it will not.
    fn on_drained(&mut self, link: LinkId) {
        let Some(&Owner::Consumer(key)) = self.links.get(&link) else {
            return;
        };
        if let Some(consumer) = self.consumers.get_mut(&key) {
            consumer.recovered();
            self.ghosts.answer(key, &|| SettleError::NotRedelivered);
            self.thirsty.insert(key);
        }
    }

    fn on_disposition(
        &mut self,
        link: LinkId,
        delivery: DeliveryId,
        context: u64,
        state: Option<&DeliveryState>,
        settled: bool,
    ) {
        let is_final = settled || state.and_then(DeliveryState::outcome).is_some();
        let Some(wire) = self.wire.as_mut().filter(|_| is_final) else {
            return;
        };
        match self.links.get(&link) {
            Some(Owner::Producer(key)) => {
                if !settled {
                    // The broker waits for our last word; were the link gone, nothing would be outstanding.
                    let state = state.cloned().unwrap_or(DeliveryState::ACCEPTED);
                    let _ = wire.engine.settle(link, delivery, state, true);
                }
                if let Some(producer) = self.producers.get_mut(key) {
                    producer.settled(context, state);
                }
            }
            Some(Owner::Consumer(key)) => {
                if let Some(consumer) = self.consumers.get_mut(key) {
                    consumer.confirmed(&mut wire.engine, delivery, state, settled);
                    self.thirsty.insert(*key);
                }
            }
            None => {}
        }
    }

    fn on_detached(&mut self, link: LinkId, error: Option<&AmqpError>, by_peer: bool) {
        if by_peer && let Some(wire) = self.wire.as_mut() {
            let _ = wire.engine.detach(link, true, None);
        }
        let refusal = Refusal::new(error);
        match self.links.remove(&link) {
            Some(Owner::Producer(key)) => self.end_producer(key, &refusal),
            Some(Owner::Consumer(key)) => self.end_consumer(key, &refusal),
            None => {}
        }
    }

    fn end_producer(&mut self, key: u64, refusal: &Refusal) {
        let Some(mut producer) = self.producers.remove(&key) else {
            return;
        };
        producer.fail(&|| SendError::LinkClosed(refusal.clone()));
        if let Some(opening) = producer.opening.take() {
            let _ = opening.send(Err(OpenError::Refused(refusal.clone())));
        }
        if let Some(closing) = producer.closing.take() {
            closing.done();
        }
    }

    fn end_consumer(&mut self, key: u64, refusal: &Refusal) {
        let Some(mut consumer) = self.consumers.remove(&key) else {
            return;
        };
        consumer.fail(ReceiveError::LinkClosed(refusal.clone()), &|| {
            SettleError::OutcomeUnknown
        });
        self.ghosts.answer(key, &|| SettleError::OutcomeUnknown);
        if let Some(opening) = consumer.opening.take() {
            let _ = opening.send(Err(OpenError::Refused(refusal.clone())));
        }
    }

    fn on_session_ended(&mut self, session: SessionId, error: Option<&AmqpError>) {
        let ended = self.sessions.iter().find(|(_, state)| state.id == Some(session));
        let Some(key) = ended.map(|(key, _)| *key) else {
            return;
        };
        self.end_session(key, &Refusal::new(error));
    }

    fn end_session(&mut self, key: u64, refusal: &Refusal) {
        if let Some(state) = self.sessions.remove(&key) {
            if let Some(reply) = state.opening {
                let _ = reply.send(Err(OpenError::Refused(refusal.clone())));
            }
            if let Some(closing) = state.closing {
                closing.done();
            }
        }
        let of = |session: u64| session == key;
        let producers: Vec<u64> = keys(&self.producers, |producer| of(producer.session));
        let consumers: Vec<u64> = keys(&self.consumers, |consumer| of(consumer.session));
        producers
            .into_iter()
            .for_each(|key| self.end_producer(key, refusal));
        consumers
            .into_iter()
            .for_each(|key| self.end_consumer(key, refusal));
        let (producers, consumers) = (&self.producers, &self.consumers);
        self.links.retain(|_, owner| match owner {
            Owner::Producer(key) => producers.contains_key(key),
            Owner::Consumer(key) => consumers.contains_key(key),
        });
    }

    /// Takes a command and those that are there already, so that one write carries them all.
    fn take(&mut self, first: Option<Command>) {
        let Some(first) = first else {
            // Nobody holds the connection any more.
            return self.close(None);
        };
        self.on_command(first);
        for _ in 0..COMMANDS_MAX {
            match self.commands.try_recv() {
                Ok(command) => self.on_command(command),
                Err(_) => return,
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::OpenSession { key, reply } => {
                let state = SessionState {
                    id: None,
                    opening: Some(reply),
                    closing: None,
                };
                self.sessions.insert(key, state);
                self.begin(key);
            }
            Command::CloseSession { key, reply } => self.on_close_session(key, reply),
            Command::OpenProducer {
                key,
                session,
                destination,
                reply,
            } => self.on_open_producer(key, session, destination, reply),
            Command::CloseProducer { key, reply } => match self.producers.get_mut(&key) {
                Some(producer) => producer.closing = Some(Closing(reply)),
                None => Closing(reply).done(),
            },
            Command::Send { key, pending } => match self.producers.get_mut(&key) {
                Some(producer) => producer.push(pending),
                None => pending.refuse(SendError::LinkClosed(Refusal::new(None))),
            },
            Command::OpenConsumer {
                key,
                session,
                destination,
                options,
                shelf,
                reply,
            } => {
                if self.takes_links(session) {
                    let name = self.link_name(key);
                    let inbound = Inbound::new(session, name, destination, options, shelf, reply);
                    self.consumers.insert(key, inbound);
                    self.attach_consumer(key);
                } else {
                    let _ = reply.send(Err(OpenError::SessionClosed));
                }
            }
            Command::CloseConsumer { key, reply } => self.on_close_consumer(key, reply),
            Command::Taken { key } => drop(self.thirsty.insert(key)),
            Command::Settle {
                key,
                token,
                duplicate_id,
                outcome,
                reply,
            } => self.on_settle(key, token, Settling::new(duplicate_id, outcome, reply)),
            Command::Close { reply } => self.close(Some(reply)),
        }
    }

    fn on_open_producer(&mut self, key: u64, session: u64, destination: Destination, reply: OpenReply) {
        if !self.takes_links(session) {
            let _ = reply.send(Err(OpenError::SessionClosed));
            return;
        }
        let name = self.link_name(key);
        self.producers
            .insert(key, Outbound::new(session, name, destination, reply));
        self.attach_producer(key);
    }

    fn takes_links(&self, session: u64) -> bool {
        let state = self.sessions.get(&session);
        state.is_some_and(|state| state.closing.is_none())
    }

    /// Unique per connection, and the same over its reconnections.
    fn link_name(&self, key: u64) -> String {
        format!("{}-{key}", self.identity.container_id)
    }

    fn begin(&mut self, key: u64) {
        let (Some(wire), Some(state)) = (self.wire.as_mut(), self.sessions.get_mut(&key)) else {
            return;
        };
        match wire.engine.begin() {
            Ok(id) => state.id = Some(id),
            Err(error) => self.end_session(key, &refused(&error)),
        }
    }

    fn attach_producer(&mut self, key: u64) {
        let (Some(wire), Some(producer)) = (self.wire.as_mut(), self.producers.get_mut(&key)) else {
            return;
        };
        let Some(session) = self.sessions.get(&producer.session).and_then(|state| state.id) else {
            return;
        };
        match wire.engine.attach_sender(session, producer.attach_options()) {
            Ok(link) => {
                producer.link = Some(link);
                self.links.insert(link, Owner::Producer(key));
            }
            Err(error) => self.end_producer(key, &refused(&error)),
        }
    }

    fn attach_consumer(&mut self, key: u64) {
        let (Some(wire), Some(consumer)) = (self.wire.as_mut(), self.consumers.get_mut(&key)) else {
            return;
        };
        let Some(session) = self.sessions.get(&consumer.session).and_then(|state| state.id) else {
            return;
        };
        match wire.engine.attach_receiver(session, consumer.attach_options()) {
            Ok(link) => {
                consumer.link = Some(link);
                self.links.insert(link, Owner::Consumer(key));
            }
            Err(error) => self.end_consumer(key, &refused(&error)),
        }
    }

    /// Closes the consumers of a session, and the session itself when its producers have their answers.
    fn on_close_session(&mut self, key: u64, reply: Option<oneshot::Sender<()>>) {
        let Some(state) = self.sessions.get_mut(&key) else {
            return Closing(reply).done();
        };
        state.closing = Some(Closing(reply));
        for consumer in keys(&self.consumers, |consumer| consumer.session == key) {
            self.on_close_consumer(consumer, None);
        }
        for producer in self.producers.values_mut().filter(|p| p.session == key) {
            producer.closing.get_or_insert(Closing(None));
        }
    }

    /// Ends the sessions that are to be closed and have no producer left.
    fn end_done_sessions(&mut self) {
        let producers = &self.producers;
        let busy = |key: u64| producers.values().any(|producer| producer.session == key);
        let closing = self.sessions.iter().filter(|(_, state)| state.closing.is_some());
        let done: Vec<u64> = closing.map(|(key, _)| *key).filter(|key| !busy(*key)).collect();
        for key in done {
            let id = self.sessions.get(&key).and_then(|state| state.id);
            if let (Some(wire), Some(id)) = (self.wire.as_mut(), id) {
                let _ = wire.engine.end(id, None);
            }
            self.end_session(key, &Refusal::new(None));
        }
    }

    /// A producer without anything left to answer ends at once.
    fn drop_producer(&mut self, key: u64) {
        if let Some(producer) = self.producers.get(&key) {
            self.detach(producer.link);
        }
        self.end_producer(key, &Refusal::new(None));
    }

    fn on_close_consumer(&mut self, key: u64, reply: Option<oneshot::Sender<()>>) {
        if let Some(consumer) = self.consumers.get(&key) {
            self.detach(consumer.link);
        }
        self.end_consumer(key, &Refusal::new(None));
        Closing(reply).done();
    }

    fn detach(&mut self, link: Option<LinkId>) {
        if let (Some(wire), Some(link)) = (self.wire.as_mut(), link) {
            self.links.remove(&link);
            let _ = wire.engine.detach(link, true, None);
        }
    }

    fn on_settle(&mut self, key: u64, token: Token, mut settling: Settling) {
        let Some(consumer) = self.consumers.get_mut(&key) else {
            return settling.answer(Err(SettleError::LinkClosed));
        };
        if let Some(wire) = self.wire.as_mut().filter(|_| token.generation == self.generation) {
            self.thirsty.insert(key);
            return consumer.settle(&mut wire.engine, token.delivery, settling);
        }
        if settling.returns_the_message() {
            // The lost connection has given it back already.
            return settling.answer(Ok(()));
        }
        let Some(id) = settling.duplicate_id.clone() else {
            return settling.answer(Err(SettleError::Redelivered));
        };
        let address = consumer.destination.address().to_owned();
        let recovering = consumer.is_recovering();
        for (other_key, other) in &mut self.consumers {
            if other.destination.address() == address
                && let (Some(incoming), Some(wire)) = (other.take_shelved(&id), self.wire.as_mut())
            {
                self.thirsty.insert(*other_key);
                return other.settle(&mut wire.engine, incoming.token.delivery, settling);
            }
        }
        if self.wire.is_some() && !recovering {
            settling.answer(Err(SettleError::NotRedelivered));
        }
        self.ghosts.keep(&address, id, key, settling);
    }

    /// Begins the end. It follows when the broker has answered, or has had its time.
    fn close(&mut self, reply: Option<oneshot::Sender<()>>) {
        self.pump();
        if let Some(wire) = self.wire.as_mut() {
            wire.engine.close(None);
        }
        self.closing.get_or_insert_default().extend(reply);
    }

    /// Makes everything anew on a broker that has just taken the connection.
    fn adopt(&mut self, opened: Opened) {
        self.generation += 1;
        self.epoch = opened.epoch;
        self.wire = Some(opened.wire);
        keys(&self.sessions, |_| true)
            .into_iter()
            .for_each(|key| self.begin(key));
        keys(&self.producers, |_| true)
            .into_iter()
            .for_each(|key| self.attach_producer(key));
        keys(&self.consumers, |_| true)
            .into_iter()
            .for_each(|key| self.attach_consumer(key));
    }

    /// Keeps what must survive a lost connection, and drops the rest.
    fn lose(&mut self, why: &str) {
        self.wire = None;
        self.links.clear();
        for state in self.sessions.values_mut() {
            state.id = None;
        }
        for producer in self.producers.values_mut() {
            producer.rewind();
        }
        for (key, consumer) in &mut self.consumers {
            for mut settling in consumer.lose() {
                match settling.duplicate_id.clone() {
                    // The lost connection has given it back already.
                    _ if settling.returns_the_message() => settling.answer(Ok(())),
                    Some(id) => self
                        .ghosts
                        .keep(consumer.destination.address(), id, *key, settling),
                    None => settling.answer(Err(SettleError::OutcomeUnknown)),
                }
            }
        }
        self.shared.status.send_replace(Status::Down);
        let why = why.to_owned();
        let _ = self.shared.events.send(ConnectionEvent::Interrupted { why });
    }

    async fn reconnect(&mut self, reason: String) -> Result<Opened, Disconnected> {
        if self.closing.is_some() {
            return Err(Disconnected::Closed);
        }
        let settings = &self.shared.settings;
        if !settings.reconnect_enabled {
            return Err(Disconnected::NotReconnected { reason });
        }
        let attempts_max = limit(settings.reconnect_attempts);
        let search = connect::search(self.factory.clone(), self.identity.clone(), attempts_max);
        let mut search = std::pin::pin!(search);
        loop {
            tokio::select! {
                found = &mut search => {
                    return found.map_err(|error| Disconnected::GaveUp(Arc::new(error)));
                }
                command = self.commands.recv() => {
                    self.take(command);
                    if self.closing.is_some() {
                        return Err(Disconnected::Closed);
                    }
                }
            }
        }
    }

    /// Tells everybody that it is over.
    fn end(mut self, why: &Disconnected) {
        tracing::debug!(%why, "connection over");
        self.shared.status.send_replace(Status::Over(why.clone()));
        for state in self.sessions.into_values() {
            if let Some(reply) = state.opening {
                let _ = reply.send(Err(why.clone().into()));
            }
        }
        self.producers
            .into_values()
            .for_each(|producer| producer.end(why));
        self.consumers
            .into_values()
            .for_each(|consumer| consumer.end(why));
        self.ghosts.end();
        let event = ConnectionEvent::Disconnected { why: why.clone() };
        let _ = self.shared.events.send(event);
        for reply in self.closing.into_iter().flatten() {
            let _ = reply.send(());
        }
        // Commands that came too late are dropped, and with them their replies: who waits reads the status.
        self.commands.close();
    }
}

/// Who waits for a producer or session to be done.
pub(super) struct Closing(Option<oneshot::Sender<()>>);

impl Closing {
    pub(super) fn done(self) {
        if let Some(reply) = self.0 {
            let _ = reply.send(());
        }
    }
}

fn keys<T>(map: &BTreeMap<u64, T>, chosen: impl Fn(&T) -> bool) -> Vec<u64> {
    map.iter()
        .filter(|(_, value)| chosen(value))
        .map(|(key, _)| *key)
        .collect()
}

/// What our own engine refused, as a refusal.
fn refused(error: &CommandError) -> Refusal {
    Refusal {
        condition: String::new(),
        description: error.to_string(),
    }
}
