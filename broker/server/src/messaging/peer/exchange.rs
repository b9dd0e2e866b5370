//! One batch of events under one lock: what the peer said reaches the queues, what they decided comes back.

use std::sync::Arc;

use bytes::Bytes;
use daymark_amqp::{AmqpError, DeliveryId, Fields, LinkId, condition};
use daymark_broker_core::queues::{ConsumerId, MessageRef, ProducerId, QueueId, Settlement};

use super::super::arrival::Letter;
use super::super::attach::{self, Place};
use super::super::rewrite::with_annotations;
use super::super::shared::State;
use super::transactions::provisionally_accepted;
use super::{Input, Link, Peer, Reply, Work};

/// Bytes of records after which a batch goes to the store, however much more the peer said: many transactions
/// that are committed together could make one that the store does not take.
const BATCH_BYTES: u64 = 16 << 20;

impl Peer {
    /// Tells the queues what happened and fetches what they want done, under one lock.
    pub(super) fn exchange(&mut self) {
        let shared = Arc::clone(&self.shared);
        let Some(mut state) = shared.lock() else {
            self.inputs.clear();
            return;
        };
        state.queues.tick(self.now);
        let writable = self.amqp.is_writable();
        if writable != self.writable {
            self.writable = writable;
            state.queues.set_writable(self.owner, writable);
        }
        let mut inputs = std::mem::take(&mut self.inputs);
        for input in inputs.drain(..) {
            self.apply(&mut state, input);
            if state.queues.open_bytes() > BATCH_BYTES {
                shared.record(&mut state);
            }
        }
        self.inputs = inputs;
        shared.finish(&mut state);
        state.queues.take_outbox(self.owner, &mut self.actions);
        self.paused = state.must_pause(self.owner);
        state.wake_all();
    }

    fn apply(&mut self, state: &mut State, input: Input) {
        match input {
            Input::Publish {
                link,
                producer,
                letter,
                delivery,
                txn,
            } => self.publish(state, (link, producer), letter, delivery, txn),
            Input::Spent { producer, left } => state.queues.credit_left(producer, left),
            Input::Settle {
                link,
                consumer,
                message,
                settlement,
                confirm,
                txn: Some(work),
                ..
            } => {
                let taken = self.settle_in(state, consumer, message, settlement, confirm, work);
                if let Err(error) = taken {
                    self.replies.push(Reply::End(link, error));
                }
            }
            Input::Settle {
                consumer,
                message,
                settlement,
                annotations,
                confirm,
                txn: None,
                ..
            } => {
                let amended = annotations.and_then(|added| self.amended(state, consumer, message, &added));
                // The peer may settle what a detach has just queued again.
                let _ = match amended {
                    Some(payload) => state
                        .queues
                        .settle_amended(consumer, message, settlement, payload, confirm),
                    None => state.queues.settle(consumer, message, settlement, confirm),
                };
            }
            Input::Credit {
                consumer,
                credit,
                drain,
            } => state.queues.set_credit(consumer, credit, drain),
            Input::Attach(link, attach) => {
                let reply = match self.attach(state, link, &attach) {
                    Ok(accept) => Reply::Accept(link, Box::new(accept)),
                    Err(error) => Reply::Refuse(link, error),
                };
                self.replies.push(reply);
            }
            Input::Declare { link, delivery } => self.declare(state, link, delivery),
            Input::Discharge {
                link,
                delivery,
                txn,
                fail,
            } => self.discharge(state, link, delivery, txn, fail),
            Input::Detach { link, held, ended } => self.detach(state, link, *held, ended),
            Input::Forget(held) => self.forget(state, &held),
        }
    }

    fn publish(
        &mut self,
        state: &mut State,
        (link, producer): (LinkId, ProducerId),
        letter: Letter,
        delivery: Option<DeliveryId>,
        txn: Option<Work>,
    ) {
        let done = self.destination(state, link, &letter).and_then(|queue| {
            let arrival = letter.arrival;
            let Some(work) = txn else {
                let published = state.queues.publish(producer, queue, arrival, delivery);
                return published
                    .map(|()| None)
                    .map_err(|refused| attach::refusal(&refused));
            };
            let txn = self.transaction(work.0)?;
            let published = state.queues.publish_in(txn, producer, queue, arrival);
            published
                .map(|()| Some(txn.to_bits()))
                .map_err(|refused| attach::refusal(&refused))
        });
        match (done, delivery) {
            (Ok(Some(txn)), Some(delivery)) => {
                let state = provisionally_accepted(txn);
                self.replies.push(Reply::Settle(link, delivery, state));
            }
            (Ok(_), _) => {}
            (Err(error), delivery) => {
                // What comes after it in this batch is counted twice, and the credit renewed earlier.
                state.queues.credit_left(producer, self.amqp.credit(link));
                match delivery {
                    Some(delivery) => self.replies.push(Reply::Reject(link, delivery, error)),
                    None => tracing::debug!(%error, "a message sent settled was dropped"),
                }
            }
        }
    }

    /// A message with the annotations its consumer put in; none if it would grow beyond what may be sent.
    fn amended(
        &self,
        state: &State,
        consumer: ConsumerId,
        message: MessageRef,
        added: &Fields,
    ) -> Option<Bytes> {
        let payload = state.queues.payload(consumer, message)?;
        let added: Vec<_> = added
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let amended = with_annotations(payload, &added).ok()?;
        (amended.len() as u64 <= self.shared.config.max_message_bytes).then_some(amended)
    }

    /// Where a message of an anonymous link goes; none for a link that is bound.
    fn destination(
        &self,
        state: &mut State,
        link: LinkId,
        letter: &Letter,
    ) -> Result<Option<QueueId>, AmqpError> {
        let Some(Link::Producer { anonymous: true, .. }) = self.links.get(&link) else {
            return Ok(None);
        };
        let Some(to) = &letter.to else {
            let text = "a message on an anonymous link needs a `to` property";
            return Err(AmqpError::new(condition::INVALID_FIELD, text));
        };
        let place = Place {
            address: to.clone(),
            kind: letter.kind,
            temporary: false,
        };
        self.find(state, &place).map(|(queue, _)| Some(queue))
    }

    /// A consumer settles under a transaction. A peer that settles at last what it said before, under a
    /// transaction that is over, changes nothing by it.
    fn settle_in(
        &self,
        state: &mut State,
        consumer: ConsumerId,
        message: MessageRef,
        settlement: Settlement,
        confirm: Option<DeliveryId>,
        work: Work,
    ) -> Result<(), AmqpError> {
        let settled = confirm.is_none();
        let txn = match self.transaction(work.0) {
            Ok(txn) => txn,
            Err(_) if settled => {
                let _ = state.queues.settle(consumer, message, Settlement::Released, None);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let held = state
            .queues
            .settle_in(txn, consumer, message, settlement, settled);
        // The transaction is void, and its commit will say why. What the peer has forgotten is queued again.
        if held.is_err() && settled {
            let _ = state.queues.settle(consumer, message, Settlement::Failed, None);
        }
        Ok(())
    }
}
