//! One task per connection: it owns the socket and the protocol engine, and keeps what must survive them.
//!
//! It decides what happens when a connection is lost and made anew: sessions, producers and consumers are attached
//! again, messages without an answer are sent again, settlements without an answer are given again when their
//! messages come back. It never blocks on a program: every buffer between them has a limit that programs wait at.

mod commands;
mod events;
mod temporaries;
mod transactions;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use daymark_amqp::{CloseReason, Event, LinkId, SessionId};
use daymark_naming_proto::Epoch;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

pub(super) use commands::Command;
pub(super) use temporaries::OpenTemporary;
pub(super) use transactions::Verdict;

use super::connect::{self, Opened, close_text};
use super::connection::{Connection, ConnectionEvent, Line, Shared, Status};
use super::error::{ConnectError, Disconnected, OpenError, ReceiveError, Refusal, SettleError};
use super::factory::{ConnectionFactory, Identity};
use super::ghosts::Ghosts;
use super::inbound::Inbound;
use super::outbound::Outbound;
use super::subscription::SharedNames;
use super::wire::Wire;
use crate::naming::Follow;
use temporaries::{Temporary, Unsubscribing};
use transactions::Transaction;

/// The most commands that wait for the driver.
const COMMANDS_MAX: usize = 1024;

type OpenReply = oneshot::Sender<Result<(), OpenError>>;

/// Connects for the first time and starts the driver.
pub(super) async fn start(
    factory: ConnectionFactory,
    identity: Identity,
) -> Result<Connection, ConnectError> {
    let settings = factory.settings();
    settings.check().map_err(ConnectError::InvalidSettings)?;
    let attempts_max = limit(settings.initial_connect_attempts);
    let opened = connect::search(factory.clone(), identity.clone(), attempts_max).await?;
    let status = Status::Up {
        epoch: opened.epoch,
        address: opened.address.clone(),
    };
    let shared = Arc::new(Shared::new(status, settings, identity.is_named));
    let (commands, received) = mpsc::channel(COMMANDS_MAX);
    let (drops, dropped) = mpsc::unbounded_channel();
    let driver = Driver {
        follow: factory.follower(),
        factory,
        identity,
        shared: Arc::clone(&shared),
        commands: received,
        dropped,
        wire: None,
        epoch: Epoch(0),
        generation: 0,
        sessions: BTreeMap::new(),
        producers: BTreeMap::new(),
        consumers: BTreeMap::new(),
        ended: BTreeMap::new(),
        links: BTreeMap::new(),
        thirsty: BTreeSet::new(),
        temporaries: BTreeMap::new(),
        unsubscribing: BTreeMap::new(),
        shared_names: SharedNames::default(),
        ghosts: Ghosts::default(),
        closing: None,
    };
    tokio::spawn(driver.run(opened));
    Ok(Connection::new(Line::new(commands, drops, shared)))
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
    /// Where it is transacted.
    transaction: Option<Transaction>,
}

#[derive(Clone, Copy)]
enum Owner {
    Producer(u64),
    Consumer(u64),
    /// The transactions of a session.
    Coordinator(u64),
    Temporary(u64),
    Unsubscribing(u64),
}

const fn ends_without_a_reason(event: &Event) -> bool {
    matches!(
        event,
        Event::LinkDetached {
            error: None,
            by_peer: false,
            ..
        }
    )
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
    /// What dropped handles left.
    dropped: mpsc::UnboundedReceiver<Command>,
    wire: Option<Wire>,
    epoch: Epoch,
    /// Counts the connections to brokers, so that deliveries of an old one are known.
    generation: u64,
    sessions: BTreeMap<u64, SessionState>,
    producers: BTreeMap<u64, Outbound>,
    consumers: BTreeMap<u64, Inbound>,
    /// Why producers ended that programs still hold.
    ended: BTreeMap<u64, Refusal>,
    links: BTreeMap<LinkId, Owner>,
    /// Consumers whose credit is to be looked at.
    thirsty: BTreeSet<u64>,
    temporaries: BTreeMap<u64, Temporary>,
    unsubscribing: BTreeMap<u64, Unsubscribing>,
    shared_names: SharedNames,
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
                Some(left) = self.dropped.recv(), if self.closing.is_none() => self.take_left(left),
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
            // Links end before their session and do not say why: it does.
            events.sort_by_key(ends_without_a_reason);
            events.into_iter().for_each(|event| self.on_event(event));
            self.replenish();
            let sent = self.advance() + self.pump() + self.advance();
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
            if let Some(consumer) = self.consumers.get_mut(&key) {
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
            sent += if producer.transacted {
                let state = self.sessions.get_mut(&producer.session);
                let under = state.and_then(|state| state.transaction.as_mut()?.under());
                under.map_or(0, |under| producer.pump(&mut wire.engine, Some(under)))
            } else {
                producer.pump(&mut wire.engine, None)
            };
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
        keys(&self.temporaries, |_| true)
            .into_iter()
            .for_each(|key| self.attach_temporary(key));
        keys(&self.unsubscribing, |_| true)
            .into_iter()
            .for_each(|key| self.attach_to_unsubscribe(key));
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
        self.lose_transactions(why);
        for state in self.sessions.values_mut() {
            state.id = None;
        }
        for producer in self.producers.values_mut() {
            producer.rewind();
        }
        self.lose_temporaries();
        self.end_browsers();
        for (key, consumer) in &mut self.consumers {
            for mut settling in consumer.lose() {
                match settling.duplicate_id.clone() {
                    // The lost connection has given it back already.
                    _ if settling.returns_the_message() => settling.answer(Ok(())),
                    Some(id) => self.ghosts.keep(&consumer.destination, id, *key, settling),
                    None => settling.answer(Err(SettleError::OutcomeUnknown)),
                }
            }
        }
        self.shared.status.send_replace(Status::Down);
        let why = why.to_owned();
        let _ = self.shared.events.send(ConnectionEvent::Interrupted { why });
    }

    /// What is shown of a queue in part cannot be continued: its browsers end.
    fn end_browsers(&mut self) {
        let begun = |consumer: &Inbound| consumer.how.browse && consumer.opening.is_none();
        for key in keys(&self.consumers, begun) {
            if let Some(mut consumer) = self.consumers.remove(&key) {
                consumer.fail(ReceiveError::BrowseInterrupted, &|| SettleError::LinkClosed);
            }
        }
    }

    async fn reconnect(&mut self, reason: String) -> Result<Opened, Disconnected> {
        if self.closing.is_some() {
            return Err(Disconnected::Closed);
        }
        let settings = &self.shared.settings;
        if !settings.reconnect_enabled || settings.reconnect_attempts == 0 {
            return Err(Disconnected::NotReconnected { reason });
        }
        let blocking = Duration::from_millis(settings.request_blocking_time_ms);
        let unblocked = sleep(blocking);
        let mut is_blocking = true;
        if blocking == Duration::ZERO {
            self.unblock(blocking);
            is_blocking = false;
        }
        let attempts_max = limit(self.shared.settings.reconnect_attempts);
        let search = connect::search(self.factory.clone(), self.identity.clone(), attempts_max);
        let mut search = std::pin::pin!(search);
        let mut unblocked = std::pin::pin!(unblocked);
        loop {
            self.advance();
            tokio::select! {
                found = &mut search => {
                    return found.map_err(|error| Disconnected::GaveUp(Arc::new(error)));
                }
                () = &mut unblocked, if is_blocking => {
                    self.unblock(blocking);
                    is_blocking = false;
                }
                Some(left) = self.dropped.recv() => self.take_left(left),
                command = self.commands.recv() => {
                    self.take(command);
                    if self.closing.is_some() {
                        return Err(Disconnected::Closed);
                    }
                }
            }
        }
    }

    /// Sends that wait since the connection was lost have waited long enough.
    fn unblock(&mut self, waited: Duration) {
        let waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        for producer in self.producers.values_mut().filter(|p| !p.transacted) {
            producer.unblock(waited_ms);
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
            if let Some(transaction) = state.transaction {
                transaction.end(why);
            }
        }
        for temporary in self.temporaries.into_values() {
            temporary.end(why);
        }
        for unsubscribing in self.unsubscribing.into_values() {
            unsubscribing.end(why);
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
