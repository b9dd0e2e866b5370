//! One connection's protocol: from AMQP events to events of the queues, and from their actions to AMQP.
//!
//! It never touches a socket. Each turn gathers what the peer said, takes the lock once, and performs what
//! came out. Invariant: what the queues hand out is either sent or given back at once.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use daymark_amqp::message::{Header, MessageView, with_header};
use daymark_amqp::{
    AcceptOptions, AmqpError, CloseReason, CommandError, Connection, Credentials, DeliveryId, DeliveryState,
    Event, Fields, LinkId, Message, OpenOptions, Outcome, Outgoing, RemoteAttach, RemoteOpen, SaslCode,
    Symbol, Value, condition,
};
use daymark_broker_core::queues::{
    Action, Arrival, ConsumerId, Delivery, MessageRef, OwnerId, ProducerId, QueueId, Settlement,
};

use super::attach::{self, Wish};
use super::shared::{Shared, State};
use super::{Greeting, arrival};

/// A link the queues know.
#[derive(Debug)]
enum Link {
    Producer {
        id: ProducerId,
        anonymous: bool,
    },
    Consumer {
        id: ConsumerId,
        default_outcome: Settlement,
        /// It was cut off because it holds too many unsettled deliveries.
        starved: bool,
    },
}

/// Something the queues have to hear.
#[derive(Debug)]
enum Input {
    Attach(LinkId, Box<RemoteAttach>),
    Publish {
        link: LinkId,
        producer: ProducerId,
        to: Option<String>,
        arrival: Arrival,
        delivery: Option<DeliveryId>,
    },
    Settle {
        consumer: ConsumerId,
        message: MessageRef,
        settlement: Settlement,
        confirm: Option<DeliveryId>,
    },
    Credit {
        consumer: ConsumerId,
        credit: u32,
        drain: bool,
    },
    DetachProducer(ProducerId),
    DetachConsumer(ConsumerId),
}

/// What the engine has to be told outside the lock.
#[derive(Debug)]
enum Reply {
    Accept(LinkId, Box<AcceptOptions>),
    Refuse(LinkId, AmqpError),
    Reject(LinkId, DeliveryId, AmqpError),
}

/// One connection without its socket.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) amqp: Connection,
    shared: Arc<Shared>,
    greeting: Arc<Greeting>,
    owner: OwnerId,
    /// Why this connection may not stay, if it may not.
    unwelcome: Option<AmqpError>,
    container: Option<String>,
    links: BTreeMap<LinkId, Link>,
    inputs: Vec<Input>,
    replies: Vec<Reply>,
    actions: Vec<Action<LinkId, DeliveryId>>,
    writable: bool,
    /// The store is far behind: read nothing for now.
    pub(super) paused: bool,
    closing: bool,
}

impl Peer {
    pub(super) fn new(
        shared: Arc<Shared>,
        greeting: Arc<Greeting>,
        amqp: Connection,
        waker: Arc<tokio::sync::Notify>,
        unwelcome: Option<AmqpError>,
    ) -> Self {
        let owner = shared.look().add_owner(waker);
        Self {
            amqp,
            shared,
            greeting,
            owner,
            unwelcome,
            container: None,
            links: BTreeMap::new(),
            inputs: Vec::new(),
            replies: Vec::new(),
            actions: Vec::new(),
            writable: true,
            paused: false,
            closing: false,
        }
    }

    /// Does everything there is to do without the socket: what the peer said, and what the queues have for it.
    pub(super) fn turn(&mut self) {
        self.poll_events();
        loop {
            // What came before a close still counts.
            let last = self.closing;
            self.exchange();
            self.perform();
            self.poll_events();
            if last || self.inputs.is_empty() {
                return;
            }
        }
    }

    /// Whether output was held up and can go on.
    pub(super) fn can_resume(&self) -> bool {
        !self.writable && self.amqp.is_writable()
    }

    /// Closes the connection; the peer is told why.
    pub(super) fn close(&mut self, error: AmqpError) {
        if !self.closing {
            self.closing = true;
            self.amqp.close(Some(error));
        }
        self.poll_events();
    }

    fn poll_events(&mut self) {
        while let Some(event) = self.amqp.poll_event() {
            match event {
                Event::Message(message) => self.on_message(message),
                Event::Disposition {
                    link,
                    delivery,
                    context,
                    state,
                    settled,
                } => self.on_disposition(link, delivery, context, state, settled),
                Event::Credit { link, credit, drain } => self.on_credit(link, credit, drain),
                Event::LinkRequested { link, attach, .. } => self.inputs.push(Input::Attach(link, attach)),
                Event::LinkDetached {
                    link,
                    closed,
                    by_peer,
                    ..
                } => self.on_detached(link, closed, by_peer),
                Event::SaslInit(init) => self.on_sasl(&init.credentials),
                Event::SaslResponse(_) => self.answer_sasl(SaslCode::Auth),
                Event::RemoteOpen(open) => self.on_open(&open),
                Event::Closed(reason) => self.on_closed(&reason),
                // We start no links and no SASL exchange, and take no coordinator; sessions need nothing.
                Event::LinkAttached { .. }
                | Event::Drained { .. }
                | Event::SaslChallenge(_)
                | Event::SaslOutcome { .. }
                | Event::Declare { .. }
                | Event::Discharge { .. }
                | Event::SessionBegun { .. }
                | Event::SessionEnded { .. } => {}
            }
        }
    }

    /// Anyone may enter, under any name, until rights exist; a mechanism we do not know may not.
    fn on_sasl(&mut self, credentials: &Credentials) {
        let code = match credentials {
            Credentials::Anonymous { .. } | Credentials::Plain { .. } => SaslCode::Ok,
            Credentials::External { .. } | Credentials::Other { .. } => SaslCode::Auth,
        };
        self.answer_sasl(code);
    }

    fn answer_sasl(&mut self, code: SaslCode) {
        if let Err(error) = self.amqp.sasl_outcome(code, None) {
            tracing::debug!(%error, "the SASL outcome was not sent");
        }
    }

    fn on_open(&mut self, open: &RemoteOpen) {
        let refused = self.unwelcome.take().or_else(|| self.claim_container(open).err());
        let mut properties = greeting_properties(&self.greeting);
        if refused.is_some() {
            let failed = Symbol::from_static("amqp:connection-establishment-failed");
            properties.insert(failed, Value::Bool(true));
        }
        let options = OpenOptions {
            offered_capabilities: vec![
                Symbol::from_static("ANONYMOUS-RELAY"),
                Symbol::from_static(SOLE_CONNECTION),
            ],
            properties,
            ..OpenOptions::new(self.greeting.member.as_str())
        };
        if let Err(error) = self.amqp.open(options) {
            tracing::debug!(%error, "the connection was not opened");
        }
        if let Some(error) = refused {
            tracing::info!(container = open.container_id, %error, "connection refused");
            self.closing = true;
            self.amqp.close(Some(error));
        }
    }

    /// A second connection of a container id is refused only if it asks to be the only one.
    fn claim_container(&mut self, open: &RemoteOpen) -> Result<(), AmqpError> {
        let id = open.container_id.clone();
        let containers = self.shared.containers.lock();
        let mut containers = containers.unwrap_or_else(PoisonError::into_inner);
        let count = containers.entry(id.clone()).or_default();
        if *count > 0 && open.desires(SOLE_CONNECTION) {
            let text = format!("container id {id:?} is in use by another connection");
            let field = Value::Symbol(Symbol::from_static("container-id"));
            return Err(AmqpError::new(condition::INVALID_FIELD, text)
                .with_info(Symbol::from_static("invalid-field"), field));
        }
        *count += 1;
        drop(containers);
        self.container = Some(id);
        Ok(())
    }

    fn on_closed(&mut self, reason: &CloseReason) {
        self.closing = true;
        tracing::debug!(container = self.container, ?reason, "connection ended");
    }

    fn on_message(&mut self, message: Message) {
        let Some(Link::Producer { id, anonymous }) = self.links.get(&message.link) else {
            return;
        };
        let delivery = (!message.settled).then_some(message.delivery);
        let read = match message.txn {
            Some(_) => Err(AmqpError::new(
                condition::NOT_IMPLEMENTED,
                "transactions: this broker does not have that yet",
            )),
            None => arrival::read(message.payload, *anonymous),
        };
        match (read, delivery) {
            (Ok((arrival, to)), delivery) => self.inputs.push(Input::Publish {
                link: message.link,
                producer: *id,
                to,
                arrival,
                delivery,
            }),
            (Err(error), Some(delivery)) => reject(&mut self.amqp, message.link, delivery, error),
            (Err(error), None) => tracing::debug!(%error, "a message sent settled was dropped"),
        }
    }

    fn on_disposition(
        &mut self,
        link: LinkId,
        delivery: DeliveryId,
        context: u64,
        state: Option<DeliveryState>,
        settled: bool,
    ) {
        let Some(Link::Consumer {
            id,
            default_outcome,
            starved,
        }) = self.links.get_mut(&link)
        else {
            return;
        };
        let settlement = match (state.as_ref().and_then(DeliveryState::outcome), settled) {
            (Some(outcome), _) => settlement_of(outcome),
            (None, true) => *default_outcome,
            (None, false) => return, // Not decided yet.
        };
        self.inputs.push(Input::Settle {
            consumer: *id,
            message: MessageRef::from_bits(context),
            settlement,
            confirm: (!settled).then_some(delivery),
        });
        let sendable = self.amqp.sendable(link);
        if *starved && settled && sendable > 0 {
            *starved = false;
            self.inputs.push(Input::Credit {
                consumer: *id,
                credit: sendable,
                drain: false,
            });
        }
    }

    fn on_credit(&mut self, link: LinkId, credit: u32, drain: bool) {
        let Some(Link::Consumer { id, starved, .. }) = self.links.get_mut(&link) else {
            return;
        };
        let sendable = self.amqp.sendable(link);
        *starved = sendable < credit;
        self.inputs.push(Input::Credit {
            consumer: *id,
            credit: sendable,
            // While the session window is shut nothing can be said to be all there was.
            drain: drain && (sendable > 0 || credit == 0),
        });
    }

    fn on_detached(&mut self, link: LinkId, closed: bool, by_peer: bool) {
        match self.links.remove(&link) {
            Some(Link::Producer { id, .. }) => self.inputs.push(Input::DetachProducer(id)),
            Some(Link::Consumer { id, .. }) => self.inputs.push(Input::DetachConsumer(id)),
            // Its attach may still be among the inputs: a link that came and went.
            None => self
                .inputs
                .retain(|input| !matches!(input, Input::Attach(other, _) if *other == link)),
        }
        if by_peer && let Err(error) = self.amqp.detach(link, closed, None) {
            tracing::debug!(%error, "the detach was not answered");
        }
    }
}

const SOLE_CONNECTION: &str = "sole-connection-for-container";

fn greeting_properties(greeting: &Greeting) -> Fields {
    let brokers = greeting.failover_server_list.iter().map(|broker| {
        let symbol = |name| Value::Symbol(Symbol::from_static(name));
        Value::Map(vec![
            (symbol("network-host"), Value::String(broker.host.clone())),
            (symbol("port"), Value::Int(i32::from(broker.port))),
            (symbol("scheme"), Value::String("amqp".to_owned())),
            (symbol("hostname"), Value::String(broker.host.clone())),
        ])
    });
    Fields::new()
        .with(Symbol::from_static("product"), "daymark")
        .with(Symbol::from_static("version"), env!("CARGO_PKG_VERSION"))
        .with(Symbol::from_static("daymark:group"), greeting.group.as_str())
        .with(
            Symbol::from_static("daymark:epoch"),
            Value::Ulong(greeting.epoch.0),
        )
        .with(
            Symbol::from_static("failover-server-list"),
            Value::List(brokers.collect()),
        )
}

fn settlement_of(outcome: &Outcome) -> Settlement {
    match outcome {
        Outcome::Accepted => Settlement::Accepted,
        Outcome::Rejected(_) => Settlement::Rejected,
        Outcome::Released => Settlement::Released,
        // "Undeliverable here" counts as a failure; the link may be given the message again.
        Outcome::Modified {
            delivery_failed,
            undeliverable_here,
            ..
        } => {
            if *delivery_failed || *undeliverable_here {
                Settlement::Failed
            } else {
                Settlement::Released
            }
        }
    }
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
    }
}

fn reject(amqp: &mut Connection, link: LinkId, delivery: DeliveryId, error: AmqpError) {
    let state = DeliveryState::Outcome(Outcome::rejected(error));
    // The link may have gone; then nobody waits for the answer.
    let _ = amqp.settle(link, delivery, state, true);
}

impl Peer {
    /// Tells the queues what happened and fetches what they want done, under one lock.
    fn exchange(&mut self) {
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
                if let Err(error) = self.publish(state, producer, link, to, arrival, delivery)
                    && let Some(delivery) = delivery
                {
                    self.replies.push(Reply::Reject(link, delivery, error));
                }
            }
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
            Input::DetachProducer(id) => state.queues.detach_producer(id),
            Input::DetachConsumer(id) => state.queues.detach_consumer(id),
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
        let queues = &mut state.queues;
        let refused = |refused| attach::refusal(&refused);
        let held = match attach::wish(attach)? {
            Wish::SendTo(address) => {
                let queue = attach::find_queue(queues, config, &address)?;
                let id = queues
                    .attach_producer(self.owner, link, Some(queue))
                    .map_err(refused)?;
                Link::Producer { id, anonymous: false }
            }
            Wish::SendAnywhere => {
                let id = queues.attach_producer(self.owner, link, None).map_err(refused)?;
                Link::Producer { id, anonymous: true }
            }
            Wish::ReceiveFrom { address, settled } => {
                let queue = attach::find_queue(queues, config, &address)?;
                let id = queues
                    .attach_consumer(self.owner, link, queue, settled)
                    .map_err(refused)?;
                Link::Consumer {
                    id,
                    default_outcome: default_outcome(attach),
                    starved: false,
                }
            }
        };
        self.links.insert(link, held);
        Ok(attach::acceptance(attach, config))
    }

    /// Does what came out of the exchange.
    fn perform(&mut self) {
        for reply in std::mem::take(&mut self.replies) {
            self.reply(reply);
        }
        let mut actions = std::mem::take(&mut self.actions);
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
                }
                Action::Credit { link, credit } => {
                    let _ = self.amqp.grant_credit(link, credit, false);
                }
                Action::Drained { link, .. } => {
                    let _ = self.amqp.drained(link);
                }
            }
        }
        self.actions = actions;
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
                tracing::debug!(container = self.container, %error, "link refused");
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
                let _ = self.amqp.detach(link, true, Some(error));
                self.give_back(link, consumer, message);
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

fn default_outcome(attach: &RemoteAttach) -> Settlement {
    let source = attach.source.as_ref();
    let outcome = source.and_then(|source| source.default_outcome.as_ref());
    outcome.map_or(Settlement::Released, settlement_of)
}

impl Drop for Peer {
    fn drop(&mut self) {
        let mut state = self.shared.look();
        state.remove_owner(self.owner);
        if !self.shared.status.is_shut() {
            self.shared.finish(&mut state);
            state.wake_all();
        }
        drop(state);
        let containers = self.shared.containers.lock();
        let mut containers = containers.unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = self.container.take()
            && let Some(count) = containers.get_mut(&id)
        {
            *count -= 1;
            if *count == 0 {
                containers.remove(&id);
            }
        }
    }
}
