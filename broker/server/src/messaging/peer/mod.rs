//! One connection's protocol: from AMQP events to events of the queues, and from their actions to AMQP.
//!
//! It never touches a socket. Each turn gathers what the peer said, takes the lock once, and performs what
//! came out. Invariant: what the queues hand out is either sent or given back at once.

mod exchange;
mod opening;
mod perform;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use daymark_amqp::{
    AcceptOptions, AmqpError, CloseReason, Connection, Credentials, DeliveryId, DeliveryState, Event, LinkId,
    Message, Outcome, RemoteAttach, SaslCode, condition,
};
use daymark_broker_core::queues::{Action, Arrival, ConsumerId, MessageRef, OwnerId, ProducerId, Settlement};

use super::arrival;
use super::keep::Keeper;
use super::registry::{Entry, Order};
use super::shared::Shared;

/// A link the queues know.
#[derive(Debug)]
enum Link {
    Producer {
        id: ProducerId,
        number: u64,
        anonymous: bool,
    },
    Consumer {
        id: ConsumerId,
        /// What it is called outside of this connection.
        number: u64,
        default_outcome: Settlement,
        /// It was cut off because it holds too many unsettled deliveries.
        starved: bool,
    },
}

impl Link {
    const fn number(&self) -> u64 {
        match self {
            Self::Producer { number, .. } | Self::Consumer { number, .. } => *number,
        }
    }
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
    DetachProducer(ProducerId, u64),
    DetachConsumer(ConsumerId, u64),
    /// The consumer went with its connection, which nobody closed.
    LoseConsumer(ConsumerId, u64),
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
    entry: Arc<Entry>,
    owner: OwnerId,
    /// Why this connection may not stay, if it may not.
    unwelcome: Option<AmqpError>,
    /// Its open waits, until then, for another connection to let go of its container id.
    waiting: Option<Instant>,
    keeper: Keeper,
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
        remote: SocketAddr,
        amqp: Connection,
        waker: Arc<tokio::sync::Notify>,
        unwelcome: Option<AmqpError>,
    ) -> Self {
        let entry = shared.registry.add(remote, Arc::clone(&waker));
        let owner = shared.look().add_owner(waker);
        Self {
            amqp,
            shared,
            entry,
            owner,
            unwelcome,
            waiting: None,
            keeper: Keeper::default(),
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
        for order in self.entry.orders() {
            match order {
                Order::Close(error) => self.close(error),
                Order::Detach(link, error) => self.cut_off(link, error),
            }
        }
        if self.waiting.is_some() {
            self.answer_open();
        }
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

    /// Bytes were appended to the engine's buffer.
    pub(super) fn input_received(&mut self, now: Instant) {
        self.shared.registry.heard(&self.entry, now);
        self.amqp.input_received(now);
    }

    /// Whether nothing the peer sends matters until its open is answered.
    pub(super) const fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.amqp.poll_timeout().into_iter().chain(self.waiting).min()
    }

    /// Time passed; idle buffers are given back.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.amqp.handle_timeout(now);
        self.amqp.shrink();
        self.keeper.shrink();
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
        // What was pipelined behind an open that is not answered stays where it is.
        while self.waiting.is_none()
            && let Some(event) = self.amqp.poll_event()
        {
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
                Event::LinkRequested { link, attach, .. } => self.on_requested(link, attach),
                Event::LinkDetached {
                    link,
                    closed,
                    by_peer,
                    ..
                } => self.on_detached(link, closed, by_peer),
                Event::SaslInit(init) => self.on_sasl(&init.credentials),
                Event::SaslResponse(_) => self.answer_sasl(SaslCode::Auth),
                Event::RemoteOpen(_) => self.on_open(),
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
            Credentials::Plain { user, .. } => {
                self.entry.know_user(user);
                SaslCode::Ok
            }
            Credentials::Anonymous { .. } => SaslCode::Ok,
            Credentials::External { .. } | Credentials::Other { .. } => SaslCode::Auth,
        };
        self.answer_sasl(code);
    }

    fn answer_sasl(&mut self, code: SaslCode) {
        if let Err(error) = self.amqp.sasl_outcome(code, None) {
            tracing::debug!(%error, "the SASL outcome was not sent");
        }
    }

    fn on_closed(&mut self, reason: &CloseReason) {
        self.closing = true;
        self.waiting = None;
        if !matches!(reason, CloseReason::Local | CloseReason::Remote(_)) {
            for input in &mut self.inputs {
                if let Input::DetachConsumer(id, number) = *input {
                    *input = Input::LoseConsumer(id, number);
                }
            }
        }
        // Before the peer reads our close: it may come again at once, under the same name.
        self.shared.registry.release(&self.entry);
        tracing::debug!(container = self.entry.container(), ?reason, "connection ended");
    }

    fn on_message(&mut self, message: Message) {
        let Some(Link::Producer { id, anonymous, .. }) = self.links.get(&message.link) else {
            return;
        };
        let (link, producer) = (message.link, *id);
        let delivery = (!message.settled).then_some(message.delivery);
        let read = match message.txn {
            Some(_) => Err(no_transactions()),
            None => arrival::read(self.keeper.keep(message.payload), *anonymous),
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

    /// A link of the same name and direction in another session goes: its name was stolen. Within a session
    /// the engine sees to that.
    fn on_requested(&mut self, link: LinkId, attach: Box<RemoteAttach>) {
        let namesake = self.links.keys().copied().find(|other| {
            self.amqp.role(*other) == Some(attach.role) && self.amqp.link_name(*other) == Some(&attach.name)
        });
        if let Some(other) = namesake {
            let text = "a link of the same name was attached in another session";
            self.cut_off(other, AmqpError::new(condition::LINK_STOLEN, text));
        }
        self.inputs.push(Input::Attach(link, attach));
    }

    /// Ends a link of ours. What is out on it is queued again at once, whenever the peer answers.
    fn cut_off(&mut self, link: LinkId, error: AmqpError) {
        if self.amqp.detach(link, true, Some(error)).is_ok() {
            self.on_detached(link, true, false);
        }
    }

    fn on_detached(&mut self, link: LinkId, closed: bool, by_peer: bool) {
        match self.links.remove(&link) {
            Some(Link::Producer { id, number, .. }) => self.inputs.push(Input::DetachProducer(id, number)),
            Some(Link::Consumer { id, number, .. }) => self.inputs.push(Input::DetachConsumer(id, number)),
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
        for link in self.links.values() {
            state.links.remove(&link.number());
        }
        if !self.shared.status.is_shut() {
            self.shared.finish(&mut state);
            state.wake_all();
        }
        drop(state);
        self.shared.registry.remove(&self.entry);
    }
}
