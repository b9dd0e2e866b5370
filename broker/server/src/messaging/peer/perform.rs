//! What the queues decided becomes AMQP: messages, outcomes, credit, answers to links.

use daymark_amqp::message::{Header, MessageView, with_header};
use daymark_amqp::{
    AmqpError, CommandError, DeliveryId, DeliveryState, LinkId, Outcome, Outgoing, condition,
};
use daymark_broker_core::queues::{Action, ConsumerId, Delivery, MessageRef, Settlement};

use super::{Input, Link, Peer, Reply, reject};

impl Peer {
    /// Does what came out of the exchange.
    pub(super) fn perform(&mut self) {
        for reply in std::mem::take(&mut self.replies) {
            self.reply(reply);
        }
        let mut actions = std::mem::take(&mut self.actions);
        let mut confirmed = Vec::new();
        for action in actions.drain(..) {
            match action {
                Action::Deliver(delivery) => self.deliver(delivery),
                Action::Accepted { link, delivery } => {
                    let _ = self.amqp.settle(link, delivery, DeliveryState::ACCEPTED, true);
                }
                Action::Confirmed {
                    link,
                    delivery,
                    settlement,
                } => {
                    let state = DeliveryState::Outcome(outcome_of(settlement));
                    let _ = self.amqp.settle(link, delivery, state, true);
                    if confirmed.last() != Some(&link) {
                        confirmed.push(link);
                    }
                }
                Action::Credit { link, credit } => {
                    let _ = self.amqp.grant_credit(link, credit, false);
                }
                Action::Drained { link, .. } => self.drained(link),
                // No transaction is begun here, and no queue deleted.
                Action::Committed { .. } | Action::Ended { .. } => {}
            }
        }
        self.actions = actions;
        for link in confirmed {
            self.feed(link);
        }
    }

    /// All that could be sent was sent. If the session window or the unsettled deliveries ended that, more may
    /// be available: the answer waits until they give way.
    fn drained(&mut self, link: LinkId) {
        if self.amqp.credit(link) == 0 || self.amqp.sendable(link) > 0 {
            let _ = self.amqp.drained(link);
        } else if let Some(Link::Consumer { starved, .. }) = self.links.get_mut(&link) {
            *starved = true;
        }
    }

    fn reply(&mut self, reply: Reply) {
        match reply {
            Reply::Accept(link, accept) => {
                if let Err(error) = self.amqp.accept_link(link, *accept) {
                    tracing::debug!(%error, "a link went before it was taken");
                    self.on_detached(link, true, false);
                }
            }
            Reply::Refuse(link, error) => {
                tracing::debug!(container = self.entry.container(), %error, "link refused");
                let _ = self.amqp.refuse_link(link, error);
            }
            Reply::Reject(link, delivery, error) => reject(&mut self.amqp, link, delivery, error),
        }
    }

    fn deliver(&mut self, delivery: Delivery<LinkId>) {
        let link = delivery.link;
        let Some(Link::Consumer { id, .. }) = self.links.get(&link) else {
            return; // The detach that took the link away queues the message again.
        };
        let consumer = *id;
        let (message, settled) = (delivery.message, delivery.settled);
        match self.send(delivery) {
            Ok(_) if settled => self.settle_later(consumer, message, Settlement::Accepted),
            Ok(_) => {}
            Err(CommandError::MessageTooLarge { limit }) => {
                let text = format!("the next message is larger than the {limit} bytes this link takes");
                let error = AmqpError::new(condition::MESSAGE_SIZE_EXCEEDED, text);
                self.give_back(link, consumer, message);
                self.cut_off(link, error);
            }
            Err(_) => self.give_back(link, consumer, message),
        }
    }

    fn send(&mut self, delivery: Delivery<LinkId>) -> Result<DeliveryId, CommandError> {
        let (head, payload) = match redelivery(&delivery) {
            Some((head, rest)) => (head, rest),
            None => (Vec::new(), delivery.payload),
        };
        let outgoing = Outgoing {
            head: &head,
            settled: delivery.settled,
            context: delivery.message.to_bits(),
            ..Outgoing::new(payload)
        };
        self.amqp.send(delivery.link, outgoing)
    }

    /// The link cannot take the message now. It gets no more until the engine reports credit again.
    fn give_back(&mut self, link: LinkId, consumer: ConsumerId, message: MessageRef) {
        if let Some(Link::Consumer { starved, .. }) = self.links.get_mut(&link) {
            *starved = true;
        }
        self.inputs.push(Input::Credit {
            consumer,
            credit: 0,
            drain: false,
        });
        self.settle_later(consumer, message, Settlement::Released);
    }

    fn settle_later(&mut self, consumer: ConsumerId, message: MessageRef, settlement: Settlement) {
        self.inputs.push(Input::Settle {
            consumer,
            message,
            settlement,
            confirm: None,
        });
    }
}

/// The header of a message that was delivered before says how often that failed.
fn redelivery(delivery: &Delivery<LinkId>) -> Option<(Vec<u8>, bytes::Bytes)> {
    if delivery.delivery_count == 0 {
        return None;
    }
    let view = MessageView::parse(&delivery.payload).ok()?;
    let header = Header {
        delivery_count: view
            .header()
            .delivery_count
            .saturating_add(delivery.delivery_count),
        first_acquirer: false,
        ..view.header()
    };
    with_header(&delivery.payload, &header).ok()
}

fn outcome_of(settlement: Settlement) -> Outcome {
    match settlement {
        Settlement::Accepted => Outcome::Accepted,
        Settlement::Rejected => Outcome::Rejected(None),
        Settlement::Released => Outcome::Released,
        Settlement::Failed => Outcome::Modified {
            delivery_failed: true,
            undeliverable_here: false,
            annotations: None,
        },
        Settlement::Undeliverable { failed } => Outcome::Modified {
            delivery_failed: failed,
            undeliverable_here: true,
            annotations: None,
        },
    }
}
