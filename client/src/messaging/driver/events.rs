//! What the broker says, and what follows from it.
//!
//! It decides what a broker's answer means to whoever waits for it. It never writes to the socket.

use daymark_amqp::message::MessageView;
use daymark_amqp::{
    AmqpError, DeliveryId, DeliveryState, Event, LinkId, Message as WireMessage, RemoteAttach, SessionId,
    condition,
};

use super::{Driver, Owner, keys};
use crate::messaging::abilities;
use crate::messaging::error::{OpenError, ReceiveError, Refusal, SendError, SettleError};
use crate::messaging::inbound::{Incoming, Token};
use crate::messaging::message::duplicate_id;

impl Driver {
    pub(super) fn on_event(&mut self, event: Event) {
        match event {
            Event::SessionBegun { session, .. } => self.on_begun(session),
            Event::LinkAttached { link, attach } => self.on_attached(link, &attach),
            Event::Message(message) => self.on_message(message),
            Event::Drained { link } => self.on_drained(link),
            Event::Aborted { link } => self.on_aborted(link),
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
        // A transacted session is open when its coordinator is there.
        let begun = begun.filter(|state| state.transaction.is_none());
        if let Some(reply) = begun.and_then(|state| state.opening.take()) {
            let _ = reply.send(Ok(()));
        }
    }

    fn on_attached(&mut self, link: LinkId, attach: &RemoteAttach) {
        if attach.is_refused() {
            // Its detach says why.
            return;
        }
        match self.links.get(&link) {
            Some(Owner::Producer(key)) => {
                let opening = self.producers.get_mut(key).and_then(|p| p.opening.take());
                if let Some(opening) = opening {
                    let _ = opening.send(Ok(()));
                }
            }
            Some(&Owner::Consumer(key)) => self.on_consumer_attached(key, attach),
            Some(&Owner::Coordinator(key)) => self.on_coordinator_attached(key),
            Some(&Owner::Temporary(key)) => self.on_temporary_attached(key, attach),
            Some(Owner::Unsubscribing(_)) => self.on_subscription_found(link),
            None => {}
        }
    }

    /// A broker that does less than the consumer needs is not asked for messages.
    fn on_consumer_attached(&mut self, key: u64, attach: &RemoteAttach) {
        let (Some(wire), Some(consumer)) = (self.wire.as_ref(), self.consumers.get_mut(&key)) else {
            return;
        };
        let open = wire.engine.remote_open();
        if let Some(refusal) = abilities::withheld(&consumer.how, &consumer.destination, open, attach) {
            let link = consumer.link;
            self.detach(link, true);
            return self.end_consumer(key, &refusal);
        }
        if let Some(opening) = consumer.opening.take() {
            let _ = opening.send(Ok(()));
        }
        self.thirsty.insert(key);
    }

    /// A message that was taken back used up credit.
    fn on_aborted(&mut self, link: LinkId) {
        if let Some(&Owner::Consumer(key)) = self.links.get(&link) {
            self.thirsty.insert(key);
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
        let settled_before = id.and_then(|id| self.ghosts.recognise(&consumer.destination, id));
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
            consumer.drained();
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
        let declared = matches!(state, Some(DeliveryState::Declared(_)));
        let is_final = settled || declared || state.and_then(DeliveryState::outcome).is_some();
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
                let Some(producer) = self.producers.get_mut(key) else {
                    return;
                };
                let refusal = producer.settled(context, state, self.epoch);
                if let Some(refusal) = refusal.filter(|_| producer.transacted) {
                    let session = producer.session;
                    self.on_message_refused(session, refusal);
                }
            }
            Some(&Owner::Coordinator(key)) => {
                if !settled {
                    let state = state.cloned().unwrap_or(DeliveryState::ACCEPTED);
                    let _ = wire.engine.settle(link, delivery, state, true);
                }
                self.on_coordinator_said(key, context, state);
            }
            Some(Owner::Consumer(key)) => {
                if let Some(consumer) = self.consumers.get_mut(key) {
                    consumer.confirmed(&mut wire.engine, delivery, state, settled);
                    self.thirsty.insert(*key);
                }
            }
            // Nothing is sent on the others.
            Some(Owner::Temporary(_) | Owner::Unsubscribing(_)) | None => {}
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
            Some(Owner::Coordinator(key)) => self.on_coordinator_detached(key, error),
            Some(Owner::Temporary(key)) => self.end_temporary(key, &refusal),
            Some(Owner::Unsubscribing(key)) => self.on_not_unsubscribed(key, refusal),
            None => {}
        }
    }

    pub(super) fn end_producer(&mut self, key: u64, refusal: &Refusal) {
        let Some(mut producer) = self.producers.remove(&key) else {
            return;
        };
        producer.fail(&|| SendError::LinkClosed(refusal.clone()));
        if let Some(opening) = producer.opening.take() {
            let _ = opening.send(Err(OpenError::Refused(refusal.clone())));
        }
        match producer.closing.take() {
            Some(closing) => closing.done(),
            // The program holds it still: its next send hears why.
            None => drop(self.ended.insert(key, refusal.clone())),
        }
    }

    pub(super) fn end_consumer(&mut self, key: u64, refusal: &Refusal) {
        let Some(mut consumer) = self.consumers.remove(&key) else {
            return;
        };
        if let Some(subscription) = &consumer.how.options.subscription {
            self.shared_names.leave(subscription);
        }
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

    pub(super) fn end_session(&mut self, key: u64, refusal: &Refusal) {
        if let Some(state) = self.sessions.remove(&key) {
            if let Some(reply) = state.opening {
                let _ = reply.send(Err(OpenError::Refused(refusal.clone())));
            }
            if let Some(transaction) = state.transaction {
                transaction.close();
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
        self.end_temporaries_of(key, refusal);
        let (producers, consumers) = (&self.producers, &self.consumers);
        self.links.retain(|_, owner| match owner {
            Owner::Producer(key) => producers.contains_key(key),
            Owner::Consumer(key) => consumers.contains_key(key),
            Owner::Coordinator(session) => *session != key,
            Owner::Temporary(_) | Owner::Unsubscribing(_) => true,
        });
    }
}
