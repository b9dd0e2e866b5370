//! What programs ask of the driver.
//!
//! It decides nothing that a broker has to answer: it opens, closes, queues and settles, on the present connection
//! or for the next one.

use std::sync::Arc;

use daymark_amqp::{CommandError, LinkId, Outcome};
use daymark_naming_proto::Epoch;
use tokio::sync::oneshot;

use super::temporaries::OpenTemporary;
use super::transactions::{CommitReply, Transaction, Verdict};
use super::{COMMANDS_MAX, Closing, Driver, OpenReply, Owner, SessionState, keys};
use crate::messaging::destination::Destination;
use crate::messaging::error::{OpenError, Refusal, SendError, SettleError};
use crate::messaging::inbound::{Inbound, Receiving, SettleReply, Settling, Shelf, Token};
use crate::messaging::outbound::{Outbound, Pending};
use crate::messaging::transaction::Doom;

/// What programs ask of the driver. Keys are theirs.
pub(in crate::messaging) enum Command {
    OpenSession {
        key: u64,
        /// Where it is transacted, who is to know that its transaction is lost.
        transacted: Option<Arc<Doom>>,
        reply: OpenReply,
    },
    CloseSession {
        key: u64,
        reply: Option<oneshot::Sender<()>>,
    },
    OpenProducer {
        key: u64,
        session: u64,
        destination: Option<Destination>,
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
        how: Receiving,
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
    /// The program wants to know whether the broker has more messages for a consumer.
    Ask {
        key: u64,
        reply: oneshot::Sender<()>,
    },
    /// Ends a durable subscription.
    Unsubscribe {
        session: u64,
        key: u64,
        name: String,
        reply: OpenReply,
    },
    OpenTemporary(OpenTemporary),
    CloseTemporary {
        key: u64,
    },
    /// Ends the transaction of a session.
    Discharge {
        session: u64,
        verdict: Verdict,
        reply: CommitReply,
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

impl Driver {
    /// Takes a command and those that are there already, so that one write carries them all.
    pub(super) fn take(&mut self, first: Option<Command>) {
        let Some(first) = first else {
            // Nobody holds the connection any more.
            while let Ok(left) = self.dropped.try_recv() {
                self.on_command(left);
            }
            return self.close(None);
        };
        self.on_command(first);
        self.take_queued();
    }

    /// Does what dropped handles left, after the commands that were told before.
    pub(super) fn take_left(&mut self, first: Command) {
        let more = self.dropped.len();
        self.take_queued();
        self.on_command(first);
        for _ in 0..more {
            match self.dropped.try_recv() {
                Ok(left) => self.on_command(left),
                Err(_) => return,
            }
        }
    }

    /// Takes at least everything that is in the queue now.
    fn take_queued(&mut self) {
        for _ in 0..COMMANDS_MAX {
            match self.commands.try_recv() {
                Ok(command) => self.on_command(command),
                Err(_) => return,
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::OpenSession {
                key,
                transacted,
                reply,
            } => {
                let state = SessionState {
                    id: None,
                    opening: Some(reply),
                    closing: None,
                    transaction: transacted.map(Transaction::new),
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
            Command::CloseProducer { key, reply } => {
                self.ended.remove(&key);
                match self.producers.get_mut(&key) {
                    Some(producer) => producer.closing = Some(Closing(reply)),
                    None => Closing(reply).done(),
                }
            }
            Command::Send { key, pending } => self.on_send(key, pending),
            Command::OpenConsumer {
                key,
                session,
                destination,
                how,
                shelf,
                reply,
            } => self.on_open_consumer(key, (session, destination, how), shelf, reply),
            Command::CloseConsumer { key, reply } => self.on_close_consumer(key, reply),
            Command::Taken { key } => drop(self.thirsty.insert(key)),
            Command::Ask { key, reply } => {
                self.thirsty.insert(key);
                match self.consumers.get_mut(&key) {
                    Some(consumer) => consumer.ask(reply),
                    None => drop(reply.send(())),
                }
            }
            Command::Unsubscribe {
                session,
                key,
                name,
                reply,
            } => self.on_unsubscribe(session, key, name, reply),
            Command::OpenTemporary(open) => self.on_open_temporary(open),
            Command::CloseTemporary { key } => self.on_close_temporary(key),
            Command::Discharge {
                session,
                verdict,
                reply,
            } => self.on_discharge(session, verdict, reply),
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

    fn on_send(&mut self, key: u64, pending: Pending) {
        let Some(producer) = self.producers.get_mut(&key) else {
            let why = self.ended.get(&key).cloned();
            return pending.refuse(SendError::LinkClosed(why.unwrap_or(Refusal::new(None))));
        };
        let transaction = self
            .sessions
            .get(&producer.session)
            .and_then(|s| s.transaction.as_ref());
        match transaction.and_then(Transaction::refuses) {
            Some(why) => pending.refuse(SendError::RollbackOnly(why)),
            None => producer.push(pending),
        }
    }

    fn on_open_consumer(
        &mut self,
        key: u64,
        (session, destination, mut how): (u64, Destination, Receiving),
        shelf: Arc<Shelf>,
        reply: OpenReply,
    ) {
        if !self.takes_links(session) {
            let _ = reply.send(Err(OpenError::SessionClosed));
            return;
        }
        let is_named = self.identity.is_named;
        how.global = !is_named;
        let name = match &how.options.subscription {
            None => self.link_name(key),
            Some(subscription) => {
                let selector = how.options.selector.as_deref();
                match self
                    .shared_names
                    .enter(subscription, &destination, selector, is_named)
                {
                    Ok(name) => name,
                    Err(why) => return drop(reply.send(Err(why.into()))),
                }
            }
        };
        let transacted = self.is_transacted(session);
        let inbound = Inbound::new(session, transacted, name, destination, how, shelf, reply);
        self.consumers.insert(key, inbound);
        self.attach_consumer(key);
    }

    fn is_transacted(&self, session: u64) -> bool {
        self.sessions
            .get(&session)
            .is_some_and(|s| s.transaction.is_some())
    }

    fn on_open_producer(
        &mut self,
        key: u64,
        session: u64,
        destination: Option<Destination>,
        reply: OpenReply,
    ) {
        if !self.takes_links(session) {
            let _ = reply.send(Err(OpenError::SessionClosed));
            return;
        }
        let name = self.link_name(key);
        let transacted = self.is_transacted(session);
        let outbound = Outbound::new(session, transacted, name, destination, reply);
        self.producers.insert(key, outbound);
        self.attach_producer(key);
    }

    pub(super) fn takes_links(&self, session: u64) -> bool {
        let state = self.sessions.get(&session);
        state.is_some_and(|state| state.closing.is_none())
    }

    /// Unique per connection, and the same over its reconnections.
    pub(super) fn link_name(&self, key: u64) -> String {
        format!("{}-{key}", self.identity.container_id)
    }

    pub(super) fn begin(&mut self, key: u64) {
        let (Some(wire), Some(state)) = (self.wire.as_mut(), self.sessions.get_mut(&key)) else {
            return;
        };
        match wire.engine.begin() {
            Ok(id) => state.id = Some(id),
            Err(error) => return self.end_session(key, &refused(&error)),
        }
        if self.is_transacted(key) {
            self.attach_coordinator(key);
        }
    }

    pub(super) fn attach_producer(&mut self, key: u64) {
        let (Some(wire), Some(producer)) = (self.wire.as_mut(), self.producers.get_mut(&key)) else {
            return;
        };
        let Some(session) = self.sessions.get(&producer.session).and_then(|state| state.id) else {
            return;
        };
        // A temporary destination that is not there yet says when it is.
        if !producer.destination.as_ref().is_none_or(Destination::stands) {
            return;
        }
        match wire.engine.attach_sender(session, producer.attach_options()) {
            Ok(link) => {
                producer.link = Some(link);
                self.links.insert(link, Owner::Producer(key));
            }
            Err(error) => self.end_producer(key, &refused(&error)),
        }
    }

    pub(super) fn attach_consumer(&mut self, key: u64) {
        let (Some(wire), Some(consumer)) = (self.wire.as_mut(), self.consumers.get_mut(&key)) else {
            return;
        };
        let Some(session) = self.sessions.get(&consumer.session).and_then(|state| state.id) else {
            return;
        };
        if !consumer.destination.stands() {
            return;
        }
        match wire
            .engine
            .attach_receiver(session, consumer.attach_options(self.epoch > Epoch(0)))
        {
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
            self.close_consumer(consumer, None);
        }
        for producer in self.producers.values_mut().filter(|p| p.session == key) {
            producer.closing.get_or_insert(Closing(None));
        }
    }

    /// Ends the sessions that are to be closed and have no producer left.
    pub(super) fn end_done_sessions(&mut self) {
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
    pub(super) fn drop_producer(&mut self, key: u64) {
        if let Some(producer) = self.producers.get(&key) {
            self.detach(producer.link, true);
        }
        self.end_producer(key, &Refusal::new(None));
    }

    fn on_close_consumer(&mut self, key: u64, reply: Option<oneshot::Sender<()>>) {
        let Some(session) = self.consumers.get(&key).map(|consumer| consumer.session) else {
            return Closing(reply).done();
        };
        if let Some(reply) = self.leaves_later(session, key, reply) {
            self.close_consumer(key, reply);
        }
    }

    /// Closes a consumer's link. That of a durable subscription is only detached: the subscription stays.
    pub(super) fn close_consumer(&mut self, key: u64, reply: Option<oneshot::Sender<()>>) {
        if let Some(consumer) = self.consumers.get(&key) {
            self.detach(consumer.link, !consumer.is_durable());
        }
        self.end_consumer(key, &Refusal::new(None));
        Closing(reply).done();
    }

    pub(super) fn detach(&mut self, link: Option<LinkId>, closed: bool) {
        if let (Some(wire), Some(link)) = (self.wire.as_mut(), link) {
            self.links.remove(&link);
            let _ = wire.engine.detach(link, closed, None);
        }
    }

    fn on_settle(&mut self, key: u64, token: Token, mut settling: Settling) {
        let Some(consumer) = self.consumers.get_mut(&key) else {
            return settling.answer(Err(SettleError::LinkClosed));
        };
        if consumer.transacted && settling.outcome == Outcome::Accepted {
            let session = consumer.session;
            return self.on_transacted_accept(session, key, token, settling);
        }
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
        let destination = consumer.destination.clone();
        let recovering = consumer.is_recovering();
        for (other_key, other) in &mut self.consumers {
            if other.destination == destination
                && let (Some(incoming), Some(wire)) = (other.take_shelved(&id), self.wire.as_mut())
            {
                self.thirsty.insert(*other_key);
                return other.settle(&mut wire.engine, incoming.token.delivery, settling);
            }
        }
        if self.wire.is_some() && !recovering {
            settling.answer(Err(SettleError::NotRedelivered));
        }
        self.ghosts.keep(&destination, id, key, settling);
    }
}

/// What our own engine refused, as a refusal.
pub(super) fn refused(error: &CommandError) -> Refusal {
    Refusal {
        condition: String::new(),
        description: error.to_string(),
    }
}
