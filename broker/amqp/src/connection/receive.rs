//! Receiving messages: frames put together, limits kept, the coordinator's orders read.

use super::session::{End, Held};
use super::{Connection, Fault};
use crate::error::{AmqpError, condition};
use crate::event::{DeliveryId, Event, Key, LinkId, Message};
use crate::performative::{DeliveryTag, Role, Transfer};
use crate::ring::serial_before;
use crate::state::TxnId;
use crate::txn::Order;
use bytes::Bytes;

/// A message of which more frames are to come.
#[derive(Debug)]
pub(super) struct Partial {
    delivery: Delivery,
    data: Vec<u8>,
}

impl Partial {
    pub(super) const fn len(&self) -> u64 {
        self.data.len() as u64
    }

    /// Takes note of a state that the sender sets before the message is whole. False if this is another delivery.
    pub(super) const fn note_state(&mut self, id: u32, settled: bool) -> bool {
        let it = self.delivery.id == id;
        if it && settled {
            self.delivery.settled = true;
        }
        it
    }
}

#[derive(Debug)]
struct Delivery {
    id: u32,
    tag: DeliveryTag,
    message_format: u32,
    settled: bool,
    txn: Option<TxnId>,
}

impl Connection {
    pub(super) fn on_transfer(
        &mut self,
        session: Key,
        transfer: Transfer,
        payload: Bytes,
    ) -> Result<(), Fault> {
        self.count_frame_in(session)?;
        let key = self.link_by_handle(session, transfer.handle)?;
        let Some(link) = self.links.fetch(key) else {
            return Ok(());
        };
        if link.role != Role::Receiver {
            return Err(Fault::Link(
                key,
                AmqpError::new(condition::NOT_ALLOWED, "a transfer from a receiver"),
            ));
        }
        if link.local == End::Detached {
            self.note_delivery_id(session, &transfer);
            return Ok(()); // What was on its way when we detached.
        }
        let size = payload.len() as u64 + link.partial.as_ref().map_or(0, |partial| partial.len());
        let limit = link.max_message_size;
        let goes_on = link.partial.is_some();
        if limit != 0 && size > limit {
            self.note_delivery_id(session, &transfer);
            let text = format!("messages are at most {limit} bytes");
            return Err(Fault::Link(
                key,
                AmqpError::new(condition::MESSAGE_SIZE_EXCEEDED, text),
            ));
        }
        if goes_on {
            return self.continue_delivery(key, session, transfer, &payload);
        }
        let delivery = self.start_delivery(key, session, &transfer)?;
        if transfer.aborted {
            self.drop_delivery(key, &delivery);
        } else if transfer.more {
            self.hold(key, delivery, &payload)?;
        } else {
            self.deliver(key, delivery, payload)?;
        }
        Ok(())
    }

    fn count_frame_in(&mut self, key: Key) -> Result<(), Fault> {
        let window = self.config.incoming_window;
        let Some(session) = self.sessions.fetch_mut(key) else {
            return Ok(());
        };
        if !session.count_transfer(window) {
            let error = AmqpError::new(condition::WINDOW_VIOLATION, "more transfers than the window");
            return Err(Fault::Session(key, error));
        }
        if session.is_flow_due() {
            self.mark_dirty(key);
        }
        Ok(())
    }

    /// Remembers the id of a delivery that is dropped.
    fn note_delivery_id(&mut self, key: Key, transfer: &Transfer) {
        let (Some(session), Some(id)) = (self.sessions.fetch_mut(key), transfer.delivery_id) else {
            return;
        };
        if session.last_incoming.is_none_or(|last| serial_before(last, id)) {
            session.last_incoming = Some(id);
        }
    }

    fn start_delivery(&mut self, key: Key, owner: Key, transfer: &Transfer) -> Result<Delivery, Fault> {
        let invalid = |text: &str| Fault::Session(owner, AmqpError::new(condition::INVALID_FIELD, text));
        let max_unsettled = self.config.max_unsettled;
        let id = transfer
            .delivery_id
            .ok_or_else(|| invalid("a delivery without delivery-id"))?;
        let (Some(session), Some(link)) = (self.sessions.fetch_mut(owner), self.links.fetch_mut(key)) else {
            return Err(invalid("a delivery without link"));
        };
        if session.last_incoming.is_some_and(|last| !serial_before(last, id)) {
            return Err(invalid("a delivery-id that does not ascend"));
        }
        session.last_incoming = Some(id);
        if !serial_before(link.delivery_count, link.limit) {
            let error = AmqpError::new(condition::TRANSFER_LIMIT_EXCEEDED, "a delivery without credit");
            return Err(Fault::Link(key, error));
        }
        link.delivery_count = link.delivery_count.wrapping_add(1);
        link.credit = link.credit.saturating_sub(1);
        if !transfer.settled {
            if link.unsettled >= max_unsettled || !session.received.push(id, Held::new(key, 0)) {
                let error = AmqpError::new(
                    condition::RESOURCE_LIMIT_EXCEEDED,
                    "too many unsettled deliveries",
                );
                return Err(Fault::Link(key, error));
            }
            link.unsettled += 1;
        }
        Ok(Delivery {
            id,
            tag: transfer.tag.unwrap_or_default(),
            message_format: transfer.message_format.unwrap_or(0),
            settled: transfer.settled,
            txn: transfer.state.as_ref().and_then(|state| state.txn().cloned()),
        })
    }

    fn hold(&mut self, key: Key, delivery: Delivery, payload: &Bytes) -> Result<(), Fault> {
        let Some(link) = self.links.fetch_mut(key) else {
            return Ok(());
        };
        link.partial = Some(Box::new(Partial {
            delivery,
            data: payload.to_vec(),
        }));
        self.count_partial(payload.len() as u64)
    }

    fn count_partial(&mut self, more: u64) -> Result<(), Fault> {
        self.partial += more;
        if self.partial > self.config.max_partial {
            let error = AmqpError::new(
                condition::RESOURCE_LIMIT_EXCEEDED,
                "too much in half-sent messages",
            );
            return Err(Fault::Connection(error));
        }
        Ok(())
    }

    fn continue_delivery(
        &mut self,
        key: Key,
        session: Key,
        transfer: Transfer,
        payload: &Bytes,
    ) -> Result<(), Fault> {
        let Some(link) = self.links.fetch_mut(key) else {
            return Ok(());
        };
        let Some(mut partial) = link.partial.take() else {
            return Ok(());
        };
        if transfer.delivery_id.is_some_and(|id| id != partial.delivery.id) {
            self.partial -= partial.len();
            let text = "a new delivery inside another on one link";
            return Err(Fault::Session(
                session,
                AmqpError::new(condition::INVALID_FIELD, text),
            ));
        }
        if transfer.aborted {
            self.partial -= partial.len();
            self.drop_delivery(key, &partial.delivery);
            return Ok(());
        }
        partial.data.extend_from_slice(payload);
        self.count_partial(payload.len() as u64)?;
        if transfer.settled && !partial.delivery.settled {
            self.forget_received(key, partial.delivery.id);
            partial.delivery.settled = true;
        }
        if transfer.more {
            if let Some(link) = self.links.fetch_mut(key) {
                link.partial = Some(partial);
            }
            return Ok(());
        }
        self.partial -= partial.len();
        let Partial { delivery, data } = *partial;
        // A boxed slice holds exactly the message; growing left room that would stay as long as it is queued.
        self.deliver(key, delivery, Bytes::from(data.into_boxed_slice()))
    }

    fn drop_delivery(&mut self, key: Key, delivery: &Delivery) {
        if !delivery.settled {
            self.forget_received(key, delivery.id);
        }
        self.events.push_back(Event::Aborted { link: LinkId(key) });
        self.check_drained(key);
    }

    fn forget_received(&mut self, key: Key, id: u32) {
        let Some(link) = self.links.fetch_mut(key) else {
            return;
        };
        link.unsettled = link.unsettled.saturating_sub(1);
        if let Some(session) = self.sessions.fetch_mut(link.session) {
            session.received.remove(id);
        }
    }

    fn deliver(&mut self, key: Key, delivery: Delivery, payload: Bytes) -> Result<(), Fault> {
        let link = LinkId(key);
        let Some(held) = self.links.fetch(key) else {
            return Ok(());
        };
        let event = if held.coordinator {
            match Order::decode(&payload) {
                Ok(order) => coordinator_event(link, DeliveryId(delivery.id), order),
                Err(error) => {
                    let error = AmqpError::new(condition::DECODE_ERROR, error.to_string());
                    return Err(Fault::Link(key, error));
                }
            }
        } else {
            Event::Message(Message {
                link,
                delivery: DeliveryId(delivery.id),
                tag: delivery.tag,
                settled: delivery.settled,
                message_format: delivery.message_format,
                payload,
                txn: delivery.txn,
            })
        };
        let drain = held.drain;
        self.events.push_back(event);
        if drain {
            self.check_drained(key);
        }
        Ok(())
    }
}

fn coordinator_event(link: LinkId, delivery: DeliveryId, order: Order) -> Event {
    match order {
        Order::Declare { global_id } => Event::Declare {
            link,
            delivery,
            global_id,
        },
        Order::Discharge { txn, fail } => Event::Discharge {
            link,
            delivery,
            txn,
            fail,
        },
    }
}
