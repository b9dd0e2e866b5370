//! The receiving side of one consumer, as the driver keeps it: credit, what is delivered, what is being settled.
//!
//! It decides how much credit the broker gets, and when a settlement that a lost connection left open counts as
//! answered. Invariant: credit and undelivered messages together stay within the prefetch, except while what a
//! lost connection left is delivered again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use daymark_amqp::{
    AttachOptions, CommandError, Connection as Engine, DeliveryId, DeliveryState, DistributionMode,
    Durability, ExpiryPolicy, Filter, LinkId, Outcome, RcvSettleMode, SndSettleMode, Source, Symbol, Target,
    TargetNode,
};
use tokio::sync::{Notify, oneshot};

use super::consumer::ConsumerOptions;
use super::destination::Destination;
use super::error::{Disconnected, OpenError, ReceiveError, Refusal, SettleError};
use super::subscription::Subscription;

/// The most deliveries of one link that are not settled: credit ends there.
const UNSETTLED_MAX: u32 = 8_000;

/// The answer to one settlement.
pub(super) type SettleReply = oneshot::Sender<Result<(), SettleError>>;

/// One delivery on its way to the program.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) token: Token,
    pub(super) payload: Bytes,
    pub(super) duplicate_id: Option<Box<str>>,
    /// Sent settled: nothing is to be said about it.
    pub(super) settled: bool,
}

/// Which delivery of which connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    pub(super) generation: u64,
    pub(super) delivery: DeliveryId,
}

/// Deliveries between the driver and the program.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    inner: Mutex<Shelved>,
    pub(super) news: Notify,
}

#[derive(Debug, Default)]
pub(super) struct Shelved {
    pub(super) deliveries: VecDeque<Incoming>,
    /// Taken by the program since the driver was last told.
    pub(super) taken: usize,
    /// A browser has seen the whole queue.
    pub(super) seen_all: bool,
    pub(super) closed: Option<ReceiveError>,
}

impl Shelf {
    pub(super) fn lock(&self) -> MutexGuard<'_, Shelved> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn see_all(&self) {
        self.lock().seen_all = true;
        self.news.notify_one();
    }

    fn push(&self, incoming: Incoming) {
        self.lock().deliveries.push_back(incoming);
        self.news.notify_one();
    }

    /// No more come. What is here cannot be settled any more.
    pub(super) fn close(&self, why: ReceiveError) {
        let mut shelved = self.lock();
        shelved.deliveries.clear();
        shelved.closed.get_or_insert(why);
        drop(shelved);
        self.news.notify_waiters();
        self.news.notify_one();
    }
}

/// A settlement that the broker has been asked for.
pub(super) struct Settling {
    pub(super) duplicate_id: Option<Box<str>>,
    pub(super) outcome: Outcome,
    pub(super) reply: Option<SettleReply>,
}

impl Settling {
    pub(super) const fn new(duplicate_id: Option<Box<str>>, outcome: Outcome, reply: SettleReply) -> Self {
        Self {
            duplicate_id,
            outcome,
            reply: Some(reply),
        }
    }

    /// Whether the message goes back to the queue, as it does when a connection is lost.
    pub(super) const fn returns_the_message(&self) -> bool {
        matches!(self.outcome, Outcome::Released | Outcome::Modified { .. })
    }

    pub(super) fn answer(&mut self, answer: Result<(), SettleError>) {
        if let Some(reply) = self.reply.take() {
            let _ = reply.send(answer);
        }
    }
}

pub(super) struct Inbound {
    pub(super) session: u64,
    /// Whether its session is transacted.
    pub(super) transacted: bool,
    name: String,
    pub(super) destination: Destination,
    pub(super) how: Receiving,
    pub(super) link: Option<LinkId>,
    /// Whether the broker confirms settlements (receiver settles second).
    confirms: bool,
    pub(super) opening: Option<oneshot::Sender<Result<(), OpenError>>>,
    pub(super) shelf: Arc<Shelf>,
    settling: BTreeMap<u32, Settling>,
    /// Deliveries of this connection that are not settled.
    outstanding: u32,
    /// Deliveries that the lost connection left unsettled; until so many have come, or the broker has no
    /// more, settlements that were left open may still be answered by a redelivery.
    expected: u32,
    came: u32,
    /// Who waits for the broker to say that it has no more.
    asking: Vec<oneshot::Sender<()>>,
    /// The broker was asked for everything it has, and so much credit was given for that.
    draining: Option<u32>,
}

/// How a consumer receives, with what programs do not choose.
pub(super) struct Receiving {
    pub(super) options: ConsumerOptions,
    /// Looks at messages without taking them, and ends.
    pub(super) browse: bool,
    /// The container id is a random one, so that a shared subscription cannot belong to it.
    pub(super) global: bool,
}

impl Inbound {
    pub(super) const fn new(
        session: u64,
        transacted: bool,
        name: String,
        destination: Destination,
        how: Receiving,
        shelf: Arc<Shelf>,
        opening: oneshot::Sender<Result<(), OpenError>>,
    ) -> Self {
        Self {
            session,
            transacted,
            name,
            destination,
            how,
            link: None,
            confirms: false,
            opening: Some(opening),
            shelf,
            settling: BTreeMap::new(),
            outstanding: 0,
            expected: 0,
            came: 0,
            asking: Vec::new(),
            draining: None,
        }
    }

    /// `ours`: the broker is a Daymark one, which confirms settlements. Others may end the session over being asked to.
    pub(super) fn attach_options(&mut self, ours: bool) -> AttachOptions {
        // In a transaction the commit confirms; a look at a message is never settled.
        self.confirms = ours && !self.how.browse && !self.transacted;
        AttachOptions {
            name: self.name.clone(),
            source: Some(self.source()),
            target: Some(Target::Node(TargetNode::default())),
            snd_settle_mode: if self.how.browse {
                SndSettleMode::Settled
            } else {
                SndSettleMode::Unsettled
            },
            rcv_settle_mode: if self.confirms {
                RcvSettleMode::Second
            } else {
                RcvSettleMode::First
            },
            ..AttachOptions::default()
        }
    }

    /// As JMS clients write it, so that brokers need to know one way only.
    fn source(&self) -> Source {
        let options = &self.how.options;
        let mut source = self.destination.source();
        source.default_outcome = Some(Outcome::Modified {
            delivery_failed: true,
            undeliverable_here: false,
            annotations: None,
        });
        if let Some(selector) = &options.selector {
            let filter = Filter::selector_value(selector);
            source.filter.insert(Symbol::from_static("jms-selector"), filter);
        }
        if options.no_local {
            let filter = Filter::no_local_value();
            source.filter.insert(Symbol::from_static("no-local"), filter);
        }
        if let Some(subscription) = &options.subscription {
            if subscription.is_durable() {
                source.durable = Durability::UnsettledState;
                source.expiry_policy = ExpiryPolicy::Never;
            }
            if subscription.is_shared() {
                source.capabilities.push(Symbol::from_static("shared"));
                if self.how.global {
                    source.capabilities.push(Symbol::from_static("global"));
                }
            }
        }
        if self.how.browse || self.is_durable() {
            source.distribution_mode = Some(DistributionMode::Copy);
        }
        source
    }

    /// Whether the subscription outlives the link.
    pub(super) fn is_durable(&self) -> bool {
        let subscription = self.how.options.subscription.as_ref();
        subscription.is_some_and(Subscription::is_durable)
    }

    /// Whether what a lost connection left may still be delivered again.
    pub(super) const fn is_recovering(&self) -> bool {
        self.expected > 0
    }

    /// Gives the broker credit for what there is room for; to be called when everything that came is counted.
    /// While recovering, for everything that was left and one more, and asks the broker to say when it has no more.
    pub(super) fn replenish(&mut self, engine: &mut Engine) {
        let Some(link) = self.link else {
            return;
        };
        let room = UNSETTLED_MAX.saturating_sub(self.outstanding);
        let current = engine.credit(link);
        if self.is_recovering() {
            if current == 0 {
                let left = (self.expected - self.came).saturating_add(1);
                let _ = engine.grant_credit(link, left.min(room), true);
            }
            return;
        }
        if self.draining.is_some() {
            return;
        }
        if !self.asking.is_empty() {
            return self.drain(engine, link, current.max(1));
        }
        let (shelved, seen_all) = {
            let shelved = self.shelf.lock();
            (shelved.deliveries.len(), shelved.seen_all)
        };
        let prefetch = self.how.options.prefetch.max(1);
        let shelved = u32::try_from(shelved).unwrap_or(u32::MAX);
        let wanted = prefetch.saturating_sub(shelved).min(room);
        if self.how.browse {
            if !seen_all && wanted > prefetch / 2 {
                self.drain(engine, link, wanted);
            }
        } else if current <= wanted / 2 && wanted > current {
            // A link that is being detached takes no credit, and needs none.
            let _ = engine.grant_credit(link, wanted, false);
        }
    }

    /// Asks for what the broker has now, up to so many messages; it says when that is all.
    fn drain(&mut self, engine: &mut Engine, link: LinkId, credit: u32) {
        if engine.grant_credit(link, credit, true).is_ok() {
            self.draining = Some(credit);
        }
    }

    /// Asks the broker, on behalf of a program that waits, whether it has more.
    pub(super) fn ask(&mut self, reply: oneshot::Sender<()>) {
        if self.shelf.lock().deliveries.is_empty() {
            self.asking.push(reply);
        } else {
            let _ = reply.send(());
        }
    }

    /// The broker has sent what it has, or as much as it was asked for.
    pub(super) fn drained(&mut self) {
        if self.draining.take().is_some_and(|left| left > 0) && self.how.browse {
            self.shelf.see_all();
        }
        self.answer_asking();
    }

    fn answer_asking(&mut self) {
        for reply in self.asking.drain(..) {
            let _ = reply.send(());
        }
    }

    /// Hands a delivery to the program.
    pub(super) fn deliver(&mut self, incoming: Incoming) {
        self.shelf.push(incoming);
        self.answer_asking();
    }

    /// Counts a delivery; true where it was the last that recovering waited for.
    pub(super) const fn count(&mut self, settled: bool) -> bool {
        if !settled {
            self.outstanding += 1;
        }
        if let Some(left) = self.draining.as_mut() {
            *left = left.saturating_sub(1);
        }
        if self.expected == 0 {
            return false;
        }
        self.came += 1;
        if self.came < self.expected {
            return false;
        }
        self.recovered();
        true
    }

    /// The broker has delivered everything that it would deliver again here.
    pub(super) const fn recovered(&mut self) {
        self.expected = 0;
        self.came = 0;
    }

    /// Asks the broker to settle a delivery of this connection.
    pub(super) fn settle(&mut self, engine: &mut Engine, delivery: DeliveryId, mut settling: Settling) {
        let Some(link) = self.link else {
            return settling.answer(Err(SettleError::LinkClosed));
        };
        let state = DeliveryState::Outcome(settling.outcome.clone());
        match engine.settle(link, delivery, state, !self.confirms) {
            Ok(()) if self.confirms => drop(self.settling.insert(delivery.number(), settling)),
            Ok(()) => {
                self.outstanding = self.outstanding.saturating_sub(1);
                settling.answer(Ok(()));
            }
            // The broker has settled it by itself.
            Err(CommandError::UnknownDelivery) => settling.answer(Err(SettleError::Redelivered)),
            Err(_) => settling.answer(Err(SettleError::OutcomeUnknown)),
        }
    }

    /// Settles a delivery of this connection without waiting for a word on it; false where the broker has
    /// settled it by itself, or the link is gone.
    pub(super) fn settle_at_once(
        &mut self,
        engine: &mut Engine,
        delivery: DeliveryId,
        state: DeliveryState,
    ) -> bool {
        let settled = self
            .link
            .is_some_and(|link| engine.settle(link, delivery, state, true).is_ok());
        if settled {
            self.outstanding = self.outstanding.saturating_sub(1);
        }
        settled
    }

    /// Takes the broker's word on a settlement.
    pub(super) fn confirmed(
        &mut self,
        engine: &mut Engine,
        delivery: DeliveryId,
        state: Option<&DeliveryState>,
        settled: bool,
    ) {
        let Some(mut settling) = self.settling.remove(&delivery.number()) else {
            return;
        };
        self.outstanding = self.outstanding.saturating_sub(1);
        if !settled && let Some(link) = self.link {
            let state = state.cloned().unwrap_or_else(|| settling.outcome.clone().into());
            // Where the broker leaves the last word to us; nothing is outstanding otherwise.
            let _ = engine.settle(link, delivery, state, true);
        }
        let given = state.and_then(DeliveryState::outcome);
        let answer = match given {
            Some(Outcome::Rejected(error)) if !matches!(settling.outcome, Outcome::Rejected(_)) => {
                Err(SettleError::Refused(Refusal::new(error.as_deref())))
            }
            Some(Outcome::Accepted | Outcome::Rejected(_) | Outcome::Released | Outcome::Modified { .. })
            | None => Ok(()),
        };
        settling.answer(answer);
    }

    /// The connection is gone. What was delivered and not taken comes again; returns the settlements that
    /// were not confirmed.
    pub(super) fn lose(&mut self) -> Vec<Settling> {
        self.shelf.lock().deliveries.clear();
        self.link = None;
        self.draining = None;
        // Only what was to be confirmed has to be recognised: what a lost transaction had accepted is shown again.
        self.expected = if self.confirms {
            self.outstanding.max(self.expected - self.came)
        } else {
            0
        };
        self.came = 0;
        self.outstanding = 0;
        std::mem::take(&mut self.settling).into_values().collect()
    }

    /// The redelivery with this duplicate id, where the program has not taken it yet.
    pub(super) fn take_shelved(&self, duplicate_id: &str) -> Option<Incoming> {
        let mut shelved = self.shelf.lock();
        let found = shelved
            .deliveries
            .iter()
            .position(|incoming| incoming.duplicate_id.as_deref() == Some(duplicate_id))?;
        shelved.deliveries.remove(found)
    }

    /// The link is gone for good.
    pub(super) fn fail(&mut self, why: ReceiveError, settle: &impl Fn() -> SettleError) {
        self.shelf.close(why);
        self.answer_asking();
        for settling in self.settling.values_mut() {
            settling.answer(Err(settle()));
        }
        self.settling.clear();
    }

    /// The connection is over.
    pub(super) fn end(mut self, why: &Disconnected) {
        self.fail(why.clone().into(), &|| SettleError::OutcomeUnknown);
        if let Some(opening) = self.opening.take() {
            let _ = opening.send(Err(why.clone().into()));
        }
    }
}
