//! What the queues decided becomes AMQP: messages, outcomes, credit, answers to links.

use bytes::Bytes;
use daymark_amqp::message::{Header, MessageView, with_header};
use daymark_amqp::{
    AmqpError, CommandError, DeliveryId, DeliveryState, LinkId, Outcome, Outgoing, Symbol, Value, condition,
};
use daymark_broker_core::queues::{Action, ConsumerId, DeadLetter, Delivery, MessageRef, Reason, Settlement};

use super::super::rewrite::with_annotations;
use super::transactions::rolled_back;
use super::{COORDINATOR_CREDIT, Input, Link, Peer, Reply, reject};

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
                Action::Committed { link, delivery } => {
                    let _ = self.amqp.settle(link, delivery, DeliveryState::ACCEPTED, true);
                }
                Action::RolledBack { link, delivery, why } => {
                    reject(&mut self.amqp, link, delivery, rolled_back(&why));
                }
                Action::Safe { link } => self.answer_detach(link, true),
                Action::Ended { link } => self.end(link),
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
                } else if let Some(Link::Coordinator { .. }) = self.links.get(&link) {
                    let _ = self.amqp.grant_credit(link, COORDINATOR_CREDIT, false);
                }
            }
            Reply::Settle(link, delivery, state) => {
                // The link may have gone; then nobody waits for the answer.
                let _ = self.amqp.settle(link, delivery, state, true);
            }
            Reply::End(link, error) => self.cut_off(link, error),
            Reply::Refuse(link, error) => {
                tracing::debug!(container = self.entry.container(), %error, "link refused");
                let _ = self.amqp.refuse_link(link, error);
            }
            Reply::Reject(link, delivery, error) => reject(&mut self.amqp, link, delivery, error),
        }
    }

    /// The queue of a link is gone, and so is what the queues knew of the link.
    fn end(&mut self, link: LinkId) {
        let Some(held) = self.links.remove(&link) else {
            return;
        };
        self.inputs.push(Input::Forget(Box::new(held)));
        let error = AmqpError::new(condition::RESOURCE_DELETED, "the queue or topic was deleted");
        let _ = self.amqp.detach(link, true, Some(error));
    }

    fn deliver(&mut self, delivery: Delivery<LinkId>) {
        let link = delivery.link;
        let Some(Link::Consumer { id, .. }) = self.links.get(&link) else {
            return; // The detach that took the link away queues the message again.
        };
        let consumer = *id;
        let (message, settled) = (delivery.message, delivery.settled);
        match self.send(delivery) {
            Ok(_) if settled => self.settle_later(link, consumer, message, Settlement::Accepted),
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
        let (head, payload) = match rewritten(&delivery) {
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
        self.settle_later(link, consumer, message, Settlement::Released);
    }

    fn settle_later(
        &mut self,
        link: LinkId,
        consumer: ConsumerId,
        message: MessageRef,
        settlement: Settlement,
    ) {
        self.inputs.push(Input::Settle {
            consumer,
            link,
            message,
            settlement,
            annotations: None,
            confirm: None,
            txn: None,
        });
    }
}

/// A message whose sections before the bare message are not those it came with.
fn rewritten(delivery: &Delivery<LinkId>) -> Option<(Vec<u8>, Bytes)> {
    let annotated = delivery
        .dead_letter
        .as_ref()
        .and_then(|why| with_annotations(&delivery.payload, &dead_letter_annotations(why)).ok());
    if delivery.delivery_count == 0 {
        return annotated.map(|payload| (Vec::new(), payload));
    }
    redelivery(
        annotated.as_ref().unwrap_or(&delivery.payload),
        delivery.delivery_count,
    )
}

/// Why and from where a message was moved.
fn dead_letter_annotations(why: &DeadLetter) -> [(Symbol, Value); 4] {
    let reason = match why.reason {
        Reason::Rejected => "rejected",
        Reason::Attempts => "attempts",
        Reason::Expired => "expired",
    };
    let at = Value::Timestamp(i64::try_from(why.at).unwrap_or(i64::MAX));
    [
        (
            Symbol::from_static("x-opt-daymark-dead-letter-reason"),
            Value::from(reason),
        ),
        (
            Symbol::from_static("x-opt-daymark-dead-letter-from"),
            Value::from(&*why.from),
        ),
        (Symbol::from_static("x-opt-daymark-dead-letter-time"), at),
        (
            Symbol::from_static("x-opt-daymark-dead-letter-attempts"),
            Value::Uint(why.attempts),
        ),
    ]
}

/// The header of a message that was delivered before says how often that failed.
fn redelivery(payload: &Bytes, delivery_count: u32) -> Option<(Vec<u8>, Bytes)> {
    let header = MessageView::parse(payload).ok()?.header();
    let header = Header {
        delivery_count: header.delivery_count.saturating_add(delivery_count),
        first_acquirer: false,
        ..header
    };
    with_header(payload, &header).ok()
}

fn outcome_of(settlement: Settlement) -> Outcome {
    match settlement {
        Settlement::Accepted => Outcome::Accepted,
        Settlement::Rejected => Outcome::Rejected(None),
        Settlement::Released => Outcome::Released,
        Settlement::Failed => modified(true, false),
        Settlement::Undeliverable { failed } => modified(failed, true),
    }
}

const fn modified(delivery_failed: bool, undeliverable_here: bool) -> Outcome {
    Outcome::Modified {
        delivery_failed,
        undeliverable_here,
        annotations: None,
    }
}
