//! One connection's protocol: from AMQP events to events of the queues, and from their actions to AMQP.
//!
//! It never touches a socket. Each turn gathers what the peer said, takes the lock once, and performs what
//! came out. Invariant: what the queues hand out is either sent or given back at once.

mod exchange;
mod perform;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use daymark_amqp::{
    AcceptOptions, AmqpError, CloseReason, Connection, Credentials, DeliveryId, DeliveryState, Event, Fields,
    LinkId, Message, OpenOptions, Outcome, RemoteAttach, RemoteOpen, SaslCode, Symbol, Value, condition,
};
use daymark_broker_core::queues::{Action, Arrival, ConsumerId, MessageRef, OwnerId, ProducerId, Settlement};

use super::shared::Shared;
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
    /// The producer's credit fell to this without a message that could be published.
    Spent {
        producer: ProducerId,
        left: u32,
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
                Event::Aborted { link } => self.on_aborted(link),
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
        let (link, producer) = (message.link, *id);
        let delivery = (!message.settled).then_some(message.delivery);
        let read = match message.txn {
            Some(_) => Err(no_transactions()),
            None => arrival::read(message.payload, *anonymous),
        };
        let error = match read {
            Ok((arrival, to)) => {
                return self.inputs.push(Input::Publish {
                    link,
                    producer,
                    to,
                    arrival,
                    delivery,
                });
            }
            Err(error) => error,
        };
        let left = self.amqp.credit(link);
        self.inputs.push(Input::Spent { producer, left });
        match delivery {
            Some(delivery) => reject(&mut self.amqp, link, delivery, error),
            None => tracing::debug!(%error, "a message sent settled was dropped"),
        }
    }

    /// A message that its sender took back used up credit.
    fn on_aborted(&mut self, link: LinkId) {
        if let Some(Link::Producer { id, .. }) = self.links.get(&link) {
            let (producer, left) = (*id, self.amqp.credit(link));
            self.inputs.push(Input::Spent { producer, left });
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
            id, default_outcome, ..
        }) = self.links.get(&link)
        else {
            return;
        };
        if state.as_ref().is_some_and(|state| state.txn().is_some()) {
            // What would happen with a commit must not happen now.
            return self.cut_off(link, no_transactions());
        }
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
        if settled {
            self.feed(link);
        }
    }

    /// Deliveries of the link were settled: if too many that were not cut it off, it goes on.
    fn feed(&mut self, link: LinkId) {
        let Some(Link::Consumer { id, starved, .. }) = self.links.get_mut(&link) else {
            return;
        };
        let sendable = self.amqp.sendable(link);
        if *starved && sendable > 0 {
            *starved = sendable < self.amqp.credit(link);
            self.inputs.push(Input::Credit {
                consumer: *id,
                credit: sendable,
                drain: self.amqp.is_draining(link),
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

    /// Ends a link of ours. What is out on it is queued again at once, whenever the peer answers.
    fn cut_off(&mut self, link: LinkId, error: AmqpError) {
        let _ = self.amqp.detach(link, true, Some(error));
        self.on_detached(link, true, false);
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

fn no_transactions() -> AmqpError {
    AmqpError::new(
        condition::NOT_IMPLEMENTED,
        "transactions: this broker does not have that yet",
    )
}

fn reject(amqp: &mut Connection, link: LinkId, delivery: DeliveryId, error: AmqpError) {
    let state = DeliveryState::Outcome(Outcome::rejected(error));
    // The link may have gone; then nobody waits for the answer.
    let _ = amqp.settle(link, delivery, state, true);
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
