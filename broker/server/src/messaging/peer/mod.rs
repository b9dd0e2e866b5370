//! One connection's protocol: from AMQP events to events of the queues, and from their actions to AMQP.
//!
//! It never touches a socket. Each turn gathers what the peer said, takes the lock once, and performs what
//! came out. Invariant: what the queues hand out is either sent or given back at once.

mod attaching;
mod exchange;
mod opening;
mod perform;
mod transactions;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use daymark_amqp::{
    AcceptOptions, AmqpError, CloseReason, Connection, Credentials, DeliveryId, DeliveryState, Event, Fields,
    LinkId, Message, Outcome, RemoteAttach, SaslCode, condition,
};
use daymark_broker_core::queues::{
    Action, ConsumerId, MessageRef, OwnerId, ProducerId, QueueId, Settlement, SubscriptionKey,
};

use super::arrival::{self, Letter};
use super::keep::Keeper;
use super::registry::{Entry, Order};
use super::shared::Shared;
use super::timer;
use attaching::COORDINATOR_CREDIT;

/// A link that was taken. Its number is what it is called outside of this connection.
#[derive(Debug)]
enum Link {
    Producer {
        id: ProducerId,
        number: u64,
        anonymous: bool,
        /// The node that was made for it and goes with it.
        made: Option<QueueId>,
    },
    Consumer {
        id: ConsumerId,
        number: u64,
        default_outcome: Settlement,
        /// It was cut off because it holds too many unsettled deliveries.
        starved: bool,
        /// The durable subscription it takes from, which ends if the peer closes the link.
        subscription: Option<Box<SubscriptionKey>>,
        /// The node that was made for it and goes with it.
        made: Option<QueueId>,
    },
    Coordinator {
        number: u64,
    },
}

impl Link {
    const fn number(&self) -> u64 {
        match self {
            Self::Producer { number, .. } | Self::Consumer { number, .. } | Self::Coordinator { number } => {
                *number
            }
        }
    }

    /// The node that was made for it.
    const fn made(&self) -> Option<QueueId> {
        match self {
            Self::Producer { made, .. } | Self::Consumer { made, .. } => *made,
            Self::Coordinator { .. } => None,
        }
    }

    /// Whether it takes from a durable subscription, or was attached to end one.
    const fn is_subscribed(&self) -> bool {
        match self {
            Self::Consumer { subscription, .. } => subscription.is_some(),
            Self::Producer { .. } | Self::Coordinator { .. } => false,
        }
    }

    const fn set_number(&mut self, to: u64) {
        match self {
            Self::Producer { number, .. } | Self::Consumer { number, .. } | Self::Coordinator { number } => {
                *number = to;
            }
        }
    }
}

/// Something the queues have to hear. A transaction is what the peer says it is, and perhaps none of its own.
#[derive(Debug)]
enum Input {
    Attach(LinkId, Box<RemoteAttach>),
    Publish {
        link: LinkId,
        producer: ProducerId,
        letter: Letter,
        delivery: Option<DeliveryId>,
        txn: Option<Work>,
    },
    /// The producer's credit fell to this without a message that could be published.
    Spent {
        producer: ProducerId,
        left: u32,
    },
    Settle {
        link: LinkId,
        consumer: ConsumerId,
        message: MessageRef,
        settlement: Settlement,
        /// Message annotations to be put in.
        annotations: Option<Arc<Fields>>,
        confirm: Option<DeliveryId>,
        txn: Option<Work>,
    },
    Credit {
        consumer: ConsumerId,
        credit: u32,
        drain: bool,
    },
    Declare {
        link: LinkId,
        delivery: DeliveryId,
    },
    Discharge {
        link: LinkId,
        delivery: DeliveryId,
        /// None if the peer made the name up.
        txn: Option<u64>,
        fail: bool,
    },
    Detach {
        link: LinkId,
        held: Box<Link>,
        /// The peer closed it for good.
        ended: bool,
    },
    /// A link whose queue is gone.
    Forget(Box<Link>),
}

/// The number of a transaction that something is done under; none if the peer made its name up.
#[derive(Clone, Copy, Debug)]
struct Work(Option<u64>);

/// What the engine has to be told outside the lock.
#[derive(Debug)]
enum Reply {
    Accept(LinkId, Box<AcceptOptions>),
    Refuse(LinkId, AmqpError),
    Reject(LinkId, DeliveryId, AmqpError),
    Settle(LinkId, DeliveryId, DeliveryState),
    /// End a link of ours.
    End(LinkId, AmqpError),
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
    /// Temporary nodes made for its links.
    made: usize,
    /// The transactions it declared, each with the number of the link it was declared on.
    transactions: BTreeMap<u64, u64>,
    inputs: Vec<Input>,
    replies: Vec<Reply>,
    actions: Vec<Action<LinkId, DeliveryId>>,
    /// When this turn began, in milliseconds since 1970 UTC: what arrives in it arrived then.
    now: u64,
    writable: bool,
    /// The store is far behind: read nothing for now.
    pub(super) paused: bool,
    closing: bool,
    /// It ended without a word: what was out to it counts as failed once more.
    lost: bool,
    /// A successor waits: the connection is over without hearing whether its peer read that.
    gave_way: bool,
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
            made: 0,
            transactions: BTreeMap::new(),
            inputs: Vec::new(),
            replies: Vec::new(),
            actions: Vec::new(),
            now: 0,
            writable: true,
            paused: false,
            closing: false,
            lost: false,
            gave_way: false,
        }
    }

    /// Does everything there is to do without the socket: what the peer said, and what the queues have for it.
    pub(super) fn turn(&mut self) {
        self.now = timer::now();
        for order in self.entry.orders() {
            match order {
                Order::Close(error) => self.close(error),
                Order::GiveWay(error) => {
                    self.gave_way = true;
                    self.close(error);
                }
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

    /// Whether nothing is to be waited for any more.
    pub(super) fn is_over(&self) -> bool {
        self.gave_way || self.amqp.is_finished()
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
        self.now = timer::now();
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
                Event::Declare {
                    link,
                    delivery,
                    global_id,
                } => self.on_declare(link, delivery, global_id.as_ref()),
                Event::Discharge {
                    link,
                    delivery,
                    txn,
                    fail,
                } => self.on_discharge(link, delivery, &txn, fail),
                // We start no links and no SASL exchange; sessions need nothing.
                Event::LinkAttached { .. }
                | Event::Drained { .. }
                | Event::SaslChallenge(_)
                | Event::SaslOutcome { .. }
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
        // Who closes without an error gives back what it holds; all others had it when the connection ended.
        self.lost = match reason {
            CloseReason::Remote(error) => error.is_some(),
            CloseReason::Local
            | CloseReason::Violation(_)
            | CloseReason::IdleTimeout
            | CloseReason::WriteTimeout
            | CloseReason::HandshakeTimeout
            | CloseReason::SaslFailed(_)
            | CloseReason::UnsupportedProtocol(_)
            | CloseReason::TransportLost => true,
        };
        self.waiting = None;
        if !self.gave_way {
            // Before the peer reads our close: it may come again at once, under the same name.
            self.shared.registry.release(&self.entry);
        }
        tracing::debug!(container = self.entry.container(), ?reason, "connection ended");
    }

    fn on_message(&mut self, message: Message) {
        let Some(Link::Producer { id, anonymous, .. }) = self.links.get(&message.link) else {
            return;
        };
        let (link, producer) = (message.link, *id);
        let delivery = (!message.settled).then_some(message.delivery);
        let txn = message.txn.as_ref().map(|txn| Work(transactions::number_of(txn)));
        let read = arrival::read(self.keeper.keep(message.payload), *anonymous, self.now);
        let error = match read {
            Ok(letter) => {
                return self.inputs.push(Input::Publish {
                    link,
                    producer,
                    letter,
                    delivery,
                    txn,
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
        let txn = state.as_ref().and_then(DeliveryState::txn);
        let txn = txn.map(|txn| Work(transactions::number_of(txn)));
        let settlement = match (state.as_ref().and_then(DeliveryState::outcome), settled) {
            (Some(outcome), _) => settlement_of(outcome),
            (None, true) => *default_outcome,
            (None, false) => return, // Not decided yet.
        };
        self.inputs.push(Input::Settle {
            link,
            consumer: *id,
            message: MessageRef::from_bits(context),
            settlement,
            annotations: state.as_ref().and_then(annotations_of),
            confirm: (!settled).then_some(delivery),
            txn,
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
        let ended = closed && by_peer;
        let held = self.links.remove(&link);
        let ends_subscription = ended && held.as_ref().is_some_and(Link::is_subscribed);
        match held {
            Some(held) => self.inputs.push(Input::Detach {
                link,
                held: Box::new(held),
                ended,
            }),
            // Its attach may still be among the inputs: a link that came and went.
            None => self
                .inputs
                .retain(|input| !matches!(input, Input::Attach(other, _) if *other == link)),
        }
        // The end of a durable subscription is answered once it will survive.
        if by_peer && !ends_subscription {
            self.answer_detach(link, closed);
        }
    }

    fn answer_detach(&mut self, link: LinkId, closed: bool) {
        if let Err(error) = self.amqp.detach(link, closed, None) {
            tracing::debug!(%error, "the detach was not answered");
        }
    }
}

fn settlement_of(outcome: &Outcome) -> Settlement {
    match outcome {
        Outcome::Accepted => Settlement::Accepted,
        Outcome::Rejected(_) => Settlement::Rejected,
        Outcome::Released => Settlement::Released,
        Outcome::Modified {
            delivery_failed,
            undeliverable_here,
            ..
        } => match (*delivery_failed, *undeliverable_here) {
            (failed, true) => Settlement::Undeliverable { failed },
            (true, false) => Settlement::Failed,
            (false, false) => Settlement::Released,
        },
    }
}

/// The annotations that a modified message gets.
fn annotations_of(state: &DeliveryState) -> Option<Arc<Fields>> {
    match state.outcome() {
        Some(Outcome::Modified { annotations, .. }) => annotations.clone(),
        Some(Outcome::Accepted | Outcome::Rejected(_) | Outcome::Released) | None => None,
    }
}

/// What a delivery that is settled without an outcome means on this link.
fn settlement_of_default(attach: &RemoteAttach) -> Settlement {
    let source = attach.source.as_ref();
    let outcome = source.and_then(|source| source.default_outcome.as_ref());
    outcome.map_or(Settlement::Released, settlement_of)
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
