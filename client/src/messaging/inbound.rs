//! The receiving side of one consumer, as the driver keeps it: credit, what is delivered, what is being settled.
//!
//! It decides how much credit the broker gets, and when a settlement that a lost connection left open counts as
//! answered. Invariant: credit and undelivered messages together stay within the prefetch, except while what a
//! lost connection left is delivered again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use daymark_amqp::{
    AttachOptions, CommandError, Connection as Engine, DeliveryId, DeliveryState, DistributionMode, Filter,
    LinkId, Outcome, RcvSettleMode, Symbol, Target, TargetNode,
};
use tokio::sync::{Notify, oneshot};

use super::consumer::ConsumerOptions;
use super::destination::Destination;
use super::error::{Disconnected, OpenError, ReceiveError, Refusal, SettleError};

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
    pub(super) closed: Option<ReceiveError>,
}

impl Shelf {
    pub(super) fn lock(&self) -> MutexGuard<'_, Shelved> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
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
    name: String,
    pub(super) destination: Destination,
    options: ConsumerOptions,
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
}

impl Inbound {
    pub(super) const fn new(
        session: u64,
        name: String,
        destination: Destination,
        options: ConsumerOptions,
        shelf: Arc<Shelf>,
        opening: oneshot::Sender<Result<(), OpenError>>,
    ) -> Self {
        Self {
            session,
            name,
            destination,
            options,
            link: None,
            confirms: false,
            opening: Some(opening),
            shelf,
            settling: BTreeMap::new(),
            outstanding: 0,
            expected: 0,
            came: 0,
        }
    }

    pub(super) fn attach_options(&self) -> AttachOptions {
        let mut source = self.destination.source();
        if let Some(selector) = &self.options.selector {
            source.filter.insert(
                Symbol::from_static("apache.org:selector-filter:string"),
                Filter::selector_value(selector),
            );
        }
        source.distribution_mode = self.options.browse.then_some(DistributionMode::Copy);
        AttachOptions {
            name: self.name.clone(),
            source: Some(source),
            target: Some(Target::Node(TargetNode::default())),
            rcv_settle_mode: RcvSettleMode::Second,
            ..AttachOptions::default()
        }
    }

    pub(super) fn attached(&mut self, engine: &Engine) {
        let modes = self.link.and_then(|link| engine.settle_modes(link));
        self.confirms = modes.is_some_and(|(_, receiver)| receiver == RcvSettleMode::Second);
    }

    /// Whether what a lost connection left may still be delivered again.
    pub(super) const fn is_recovering(&self) -> bool {
        self.expected > 0
    }

    /// Gives the broker credit for what there is room for; to be called when everything that came is counted.
    /// While recovering, for everything that was left and
    /// one more, and asks the broker to say when it has no more.
    pub(super) fn replenish(&self, engine: &mut Engine) {
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
        let shelved = u32::try_from(self.shelf.lock().deliveries.len()).unwrap_or(u32::MAX);
        let wanted = self.options.prefetch.max(1).saturating_sub(shelved).min(room);
        if current <= wanted / 2 && wanted > current {
            // A link that is being detached takes no credit, and needs none.
            let _ = engine.grant_credit(link, wanted, false);
        }
    }

    /// Hands a delivery to the program.
    pub(super) fn deliver(&self, incoming: Incoming) {
        self.shelf.push(incoming);
    }

    /// Counts a delivery; true where it was the last that recovering waited for.
    pub(super) const fn count(&mut self, settled: bool) -> bool {
        if !settled {
            self.outstanding += 1;
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
        self.expected = self.outstanding.max(self.expected - self.came);
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
