//! One batch of events under one lock: what the peer said reaches the queues, what they decided comes back.

use std::sync::Arc;

use daymark_amqp::{AcceptOptions, AmqpError, DeliveryId, LinkId, RemoteAttach, condition};
use daymark_broker_core::queues::{Arrival, ConsumerOptions, ProducerId, QueueId, Settlement};

use super::super::attach::{self, Wish};
use super::super::shared::{LinkInfo, State};
use super::super::types::LinkKind;
use super::{Input, Link, Peer, Reply, settlement_of};

impl Peer {
    /// Tells the queues what happened and fetches what they want done, under one lock.
    pub(super) fn exchange(&mut self) {
        let shared = Arc::clone(&self.shared);
        let Some(mut state) = shared.lock() else {
            self.inputs.clear();
            return;
        };
        let writable = self.amqp.is_writable();
        if writable != self.writable {
            self.writable = writable;
            state.queues.set_writable(self.owner, writable);
        }
        let mut inputs = std::mem::take(&mut self.inputs);
        for input in inputs.drain(..) {
            self.apply(&mut state, input);
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
                to,
                arrival,
                delivery,
            } => {
                if let Err(error) = self.publish(state, producer, link, to, arrival, delivery) {
                    // What comes after it in this batch is counted twice, and the credit renewed earlier.
                    state.queues.credit_left(producer, self.amqp.credit(link));
                    if let Some(delivery) = delivery {
                        self.replies.push(Reply::Reject(link, delivery, error));
                    }
                }
            }
            Input::Spent { producer, left } => state.queues.credit_left(producer, left),
            Input::Settle {
                consumer,
                message,
                settlement,
                confirm,
            } => {
                // The peer may settle what a detach has just queued again.
                let _ = state.queues.settle(consumer, message, settlement, confirm);
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
            Input::DetachProducer(id, number) => {
                state.links.remove(&number);
                state.queues.detach_producer(id);
            }
            Input::DetachConsumer(id, number) => {
                state.links.remove(&number);
                state.queues.detach_consumer(id);
            }
            Input::LoseConsumer(id, number) => {
                state.links.remove(&number);
                state.queues.lose_consumer(id);
            }
        }
    }

    fn publish(
        &self,
        state: &mut State,
        producer: ProducerId,
        link: LinkId,
        to: Option<String>,
        arrival: Arrival,
        delivery: Option<DeliveryId>,
    ) -> Result<(), AmqpError> {
        let anonymous = matches!(
            self.links.get(&link),
            Some(Link::Producer { anonymous: true, .. })
        );
        let queue: Option<QueueId> = match to {
            Some(to) => Some(attach::find_queue(&mut state.queues, &self.shared.config, &to)?),
            None if anonymous => {
                let text = "a message on an anonymous link needs a `to` property";
                return Err(AmqpError::new(condition::INVALID_FIELD, text));
            }
            None => None,
        };
        let published = state.queues.publish(producer, queue, arrival, delivery);
        published.map_err(|refused| attach::refusal(&refused))
    }

    fn attach(
        &mut self,
        state: &mut State,
        link: LinkId,
        attach: &RemoteAttach,
    ) -> Result<AcceptOptions, AmqpError> {
        let config = &self.shared.config;
        if self.links.len() >= config.max_links_per_connection {
            let text = format!("a connection may have {} links", config.max_links_per_connection);
            return Err(AmqpError::new(condition::RESOURCE_LIMIT_EXCEEDED, text));
        }
        let info = |kind, address: Option<&str>| LinkInfo {
            connection: self.entry.id,
            link,
            name: attach.name.clone(),
            kind,
            address: address.map(str::to_owned),
        };
        let State { queues, .. } = state;
        let refused = |refused| attach::refusal(&refused);
        let held = match attach::wish(attach)? {
            Wish::SendTo(address) => {
                let queue = attach::find_queue(queues, config, &address)?;
                let id = queues
                    .attach_producer(self.owner, link, Some(queue))
                    .map_err(refused)?;
                let number = state.add_link(info(LinkKind::Producer, Some(&address)));
                Link::Producer {
                    id,
                    number,
                    anonymous: false,
                }
            }
            Wish::SendAnywhere => {
                let id = queues.attach_producer(self.owner, link, None).map_err(refused)?;
                let number = state.add_link(info(LinkKind::Producer, None));
                Link::Producer {
                    id,
                    number,
                    anonymous: true,
                }
            }
            Wish::ReceiveFrom { address, settled } => {
                let queue = attach::find_queue(queues, config, &address)?;
                let options = ConsumerOptions {
                    settled,
                    ..ConsumerOptions::default()
                };
                let id = queues
                    .attach_consumer(self.owner, link, queue, options)
                    .map_err(refused)?;
                let number = state.add_link(info(LinkKind::Consumer, Some(&address)));
                Link::Consumer {
                    id,
                    number,
                    default_outcome: default_outcome(attach),
                    starved: false,
                }
            }
        };
        self.links.insert(link, held);
        Ok(attach::acceptance(attach, config))
    }
}

fn default_outcome(attach: &RemoteAttach) -> Settlement {
    let source = attach.source.as_ref();
    let outcome = source.and_then(|source| source.default_outcome.as_ref());
    outcome.map_or(Settlement::Released, settlement_of)
}
