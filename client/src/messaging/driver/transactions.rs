//! The transactions of transacted sessions.
//!
//! It decides when a transaction is declared and discharged, and what a lost connection means for it. A transaction
//! is declared with its first work, so that an idle session has none that a broker could time out. Invariant: what
//! was done under a transaction never takes effect outside of it, and its end is told exactly once.

use std::collections::VecDeque;
use std::sync::Arc;

use daymark_amqp::{
    AmqpError, AttachOptions, DeliveryId, DeliveryState, LinkId, Outcome, Outgoing, Source, Symbol, Target,
    TxnId, Value, txn,
};
use tokio::sync::oneshot;

use super::{Closing, Driver, Owner, keys};
use crate::messaging::destination::outcomes;
use crate::messaging::error::{Disconnected, OpenError, Refusal, SendError, SettleError};
use crate::messaging::inbound::{Settling, Token};
use crate::messaging::message::DuplicateId;
use crate::messaging::outbound::Under;
use crate::messaging::transaction::{CommitError, Doom, RollbackReason};

/// What a broker tells beside the condition of a commit that it refused, and what it says where a message of the
/// commit is stored already.
const REASON: &str = "daymark:reason";
const DUPLICATE: &str = "duplicate";
/// What the engine gives back with the answer to a declare, and to a discharge.
const DECLARE: u64 = 1;
const DISCHARGE: u64 = 2;

/// How a program ends its transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::messaging) enum Verdict {
    Commit,
    Rollback,
}

pub(in crate::messaging) type CommitReply = oneshot::Sender<Result<(), CommitError>>;

/// The transaction of one session.
pub(super) struct Transaction {
    /// To the coordinator.
    link: Option<LinkId>,
    phase: Phase,
    /// Accepted messages that the transaction does not hold yet.
    acks: Vec<Ack>,
    /// Consumers that close when their accepted messages are handed over.
    leaving: Vec<(u64, Option<oneshot::Sender<()>>)>,
    endings: VecDeque<Ending>,
    /// Messages that were sent in it.
    ids: Vec<DuplicateId>,
    /// A message was refused, or could not be handed over: it will not be committed.
    spoiled: Option<RollbackReason>,
    doom: Arc<Doom>,
}

#[derive(Clone)]
enum Phase {
    /// Nothing was done.
    Idle,
    Declaring,
    Active(TxnId),
    /// The broker was asked to end it.
    Discharging,
    /// It can only be rolled back.
    Doomed(RollbackReason),
}

struct Ack {
    consumer: u64,
    delivery: DeliveryId,
}

struct Ending {
    verdict: Verdict,
    reply: CommitReply,
}

impl Transaction {
    pub(super) fn new(doom: Arc<Doom>) -> Self {
        Self {
            link: None,
            phase: Phase::Idle,
            acks: Vec::new(),
            leaving: Vec::new(),
            endings: VecDeque::new(),
            ids: Vec::new(),
            spoiled: None,
            doom,
        }
    }

    /// What messages sent now belong to; `None` while there is no transaction to send them in.
    pub(super) fn under(&mut self) -> Option<Under<'_>> {
        let Phase::Active(txn) = &self.phase else {
            return None;
        };
        Some(Under {
            txn,
            ids: &mut self.ids,
            spoiled: &mut self.spoiled,
        })
    }

    /// Why a send or an accept is refused.
    pub(super) fn refuses(&self) -> Option<RollbackReason> {
        if let Phase::Doomed(why) = &self.phase {
            Some(why.clone())
        } else {
            None
        }
    }

    /// Whether what is sent from now on belongs to the next transaction.
    fn is_ending(&self) -> bool {
        !self.endings.is_empty()
    }

    /// It is over; the next one begins.
    fn renew(&mut self) {
        self.phase = Phase::Idle;
        self.ids.clear();
        self.spoiled = None;
        self.doom.set(None);
    }

    /// Tells whoever waits that it ends without the broker's word.
    fn give_up(self, over: impl Fn() -> CommitError) {
        let mut is_first = matches!(self.phase, Phase::Discharging);
        let mut ids = self.ids;
        for Ending { verdict, reply } in self.endings {
            let answer = match (verdict, std::mem::take(&mut is_first)) {
                (Verdict::Commit, true) => Err(CommitError::TransactionOutcomeUnknown {
                    duplicate_ids: std::mem::take(&mut ids),
                }),
                (Verdict::Commit | Verdict::Rollback, _) => Err(over()),
            };
            let _ = reply.send(answer);
        }
        for (_, reply) in self.leaving {
            Closing(reply).done();
        }
    }

    /// The connection is over for good.
    pub(super) fn end(self, why: &Disconnected) {
        self.give_up(|| why.clone().into());
    }

    /// The session is closed.
    pub(super) fn close(self) {
        self.give_up(|| CommitError::SessionClosed);
    }
}

impl Driver {
    pub(super) fn transaction(&mut self, session: u64) -> Option<&mut Transaction> {
        self.sessions.get_mut(&session)?.transaction.as_mut()
    }

    /// Attaches the coordinator of a session.
    pub(super) fn attach_coordinator(&mut self, key: u64) {
        let name = self.link_name(key);
        let (Some(wire), Some(state)) = (self.wire.as_mut(), self.sessions.get_mut(&key)) else {
            return;
        };
        let (Some(session), Some(transaction)) = (state.id, state.transaction.as_mut()) else {
            return;
        };
        let attach = AttachOptions {
            name,
            source: Some(Source {
                outcomes: outcomes(),
                ..Source::default()
            }),
            target: Some(Target::Coordinator {
                capabilities: vec![txn::LOCAL_TRANSACTIONS],
            }),
            ..AttachOptions::default()
        };
        match wire.engine.attach_sender(session, attach) {
            Ok(link) => {
                transaction.link = Some(link);
                self.links.insert(link, Owner::Coordinator(key));
            }
            Err(error) => self.doom(key, RollbackReason::Refused(super::commands::refused(&error))),
        }
    }

    pub(super) fn on_discharge(&mut self, session: u64, verdict: Verdict, reply: CommitReply) {
        match self.transaction(session) {
            Some(transaction) => transaction.endings.push_back(Ending { verdict, reply }),
            None => drop(reply.send(Err(CommitError::SessionClosed))),
        }
    }

    /// Takes an accept into the transaction of its session.
    pub(super) fn on_transacted_accept(
        &mut self,
        session: u64,
        key: u64,
        token: Token,
        mut settling: Settling,
    ) {
        let stands = self.wire.is_some() && token.generation == self.generation;
        let Some(transaction) = self.transaction(session) else {
            return settling.answer(Err(SettleError::LinkClosed));
        };
        if let Some(why) = transaction.refuses() {
            if stands {
                self.settle_now(key, token.delivery, &given_back());
            }
            return settling.answer(Err(SettleError::RollbackOnly(why)));
        }
        if !stands {
            return settling.answer(Err(SettleError::Redelivered));
        }
        transaction.acks.push(Ack {
            consumer: key,
            delivery: token.delivery,
        });
        settling.answer(Ok(()));
    }

    /// Whether a consumer has to wait with its end until its accepted messages are handed over.
    pub(super) fn leaves_later(
        &mut self,
        session: u64,
        key: u64,
        reply: Option<oneshot::Sender<()>>,
    ) -> Option<Option<oneshot::Sender<()>>> {
        let Some(transaction) = self.transaction(session) else {
            return Some(reply);
        };
        if transaction.acks.iter().any(|ack| ack.consumer == key) {
            transaction.leaving.push((key, reply));
            return None;
        }
        Some(reply)
    }

    /// Does what can be done for every transaction; returns how many steps that were.
    pub(super) fn advance(&mut self) -> usize {
        let transacted = |state: &super::SessionState| state.transaction.is_some();
        let mut steps = 0;
        for key in keys(&self.sessions, transacted) {
            while self.advance_one(key) {
                steps += 1;
            }
        }
        steps
    }

    /// One step; false where there is none to be done now.
    fn advance_one(&mut self, key: u64) -> bool {
        self.mark_end(key);
        let works = self.has_work(key);
        let Some(transaction) = self.transaction(key) else {
            return false;
        };
        let is_ending = transaction.is_ending();
        match transaction.phase.clone() {
            Phase::Doomed(why) => is_ending && self.finish(key, Err(CommitError::TransactionRolledBack(why))),
            Phase::Idle if works => self.declare(key),
            Phase::Idle => is_ending && self.finish(key, Ok(())),
            Phase::Active(txn) => self.hand_over(key, &txn) || self.ask_for_end(key, &txn),
            Phase::Declaring | Phase::Discharging => false,
        }
    }

    /// Where an end was asked for, what is sent from now on belongs to the next transaction; and of one that is
    /// rolled back nothing more needs to be sent.
    fn mark_end(&mut self, key: u64) {
        let Some(verdict) = self
            .transaction(key)
            .and_then(|transaction| transaction.endings.front())
            .map(|ending| ending.verdict)
        else {
            return;
        };
        for producer in self.producers.values_mut().filter(|p| p.session == key) {
            if producer.mark_end() && verdict == Verdict::Rollback {
                producer.refuse_unsent(&|| SendError::RollbackOnly(RollbackReason::Asked));
            }
        }
    }

    fn has_work(&mut self, key: u64) -> bool {
        let waits = self
            .producers
            .values()
            .any(|producer| producer.session == key && producer.has_unsent());
        waits || self.transaction(key).is_some_and(|t| !t.acks.is_empty())
    }

    fn declare(&mut self, key: u64) -> bool {
        self.order(key, txn::declare(None), DECLARE, Phase::Declaring)
    }

    /// Hands an order to the coordinator; false while it takes none.
    fn order(&mut self, key: u64, payload: bytes::Bytes, context: u64, then: Phase) -> bool {
        if self.transaction(key).is_some_and(|t| t.link.is_none()) && self.wire.is_some() {
            self.attach_coordinator(key);
        }
        let (Some(wire), Some(state)) = (self.wire.as_mut(), self.sessions.get_mut(&key)) else {
            return false;
        };
        let Some(transaction) = state.transaction.as_mut() else {
            return false;
        };
        let Some(link) = transaction.link.filter(|link| wire.engine.sendable(*link) > 0) else {
            return false;
        };
        let outgoing = Outgoing {
            context,
            ..Outgoing::new(payload)
        };
        let sent = wire.engine.send(link, outgoing).is_ok();
        if sent {
            transaction.phase = then;
        }
        sent
    }

    /// Tells the broker which messages the transaction accepts.
    fn hand_over(&mut self, key: u64, txn: &TxnId) -> bool {
        let Some(transaction) = self.transaction(key) else {
            return false;
        };
        if transaction.acks.is_empty() {
            return false;
        }
        let acks = std::mem::take(&mut transaction.acks);
        let leaving = std::mem::take(&mut transaction.leaving);
        let state = DeliveryState::Transactional {
            txn: txn.clone(),
            outcome: Some(Outcome::Accepted),
        };
        let mut all = true;
        for Ack { consumer, delivery } in acks {
            all &= self.settle_now(consumer, delivery, &state);
        }
        if !all && let Some(transaction) = self.transaction(key) {
            let gone = Refusal::because("a consumer was closed before its messages were accepted");
            transaction.spoiled = Some(RollbackReason::MessageRefused(gone));
        }
        for (consumer, reply) in leaving {
            self.close_consumer(consumer, reply);
        }
        true
    }

    /// Settles a delivery without waiting for a word on it.
    fn settle_now(&mut self, consumer: u64, delivery: DeliveryId, state: &DeliveryState) -> bool {
        let (Some(wire), Some(inbound)) = (self.wire.as_mut(), self.consumers.get_mut(&consumer)) else {
            return false;
        };
        self.thirsty.insert(consumer);
        inbound.settle_at_once(&mut wire.engine, delivery, state.clone())
    }

    /// Asks the broker for the end when every message of the transaction has its answer.
    fn ask_for_end(&mut self, key: u64, txn: &TxnId) -> bool {
        let waits = self
            .producers
            .values()
            .any(|producer| producer.session == key && !producer.is_answered());
        let Some(transaction) = self.transaction(key) else {
            return false;
        };
        let Some(verdict) = transaction.endings.front().map(|ending| ending.verdict) else {
            return false;
        };
        if waits {
            return false;
        }
        let fail = verdict == Verdict::Rollback || transaction.spoiled.is_some();
        self.order(key, txn::discharge(txn, fail), DISCHARGE, Phase::Discharging)
    }

    /// Ends the transaction as the first who asked for its end is told, and begins the next.
    fn finish(&mut self, key: u64, result: Result<(), CommitError>) -> bool {
        for producer in self.producers.values_mut().filter(|p| p.session == key) {
            producer.forget_end();
        }
        let Some(transaction) = self.transaction(key) else {
            return false;
        };
        let spoiled = transaction.spoiled.take();
        transaction.renew();
        if let Some(Ending { verdict, reply }) = transaction.endings.pop_front() {
            let answer = match (verdict, spoiled) {
                (Verdict::Rollback, _) => Ok(()),
                (Verdict::Commit, Some(why)) => Err(CommitError::TransactionRolledBack(why)),
                (Verdict::Commit, None) => result,
            };
            let _ = reply.send(answer);
        }
        true
    }

    /// The coordinator is there.
    pub(super) fn on_coordinator_attached(&mut self, key: u64) {
        let opening = self.sessions.get_mut(&key).and_then(|state| state.opening.take());
        if let Some(reply) = opening {
            let _ = reply.send(Ok(()));
        }
    }

    /// The coordinator's answer.
    pub(super) fn on_coordinator_said(&mut self, key: u64, context: u64, state: Option<&DeliveryState>) {
        let refusal = match state {
            Some(DeliveryState::Declared(txn)) if context == DECLARE => {
                if let Some(transaction) = self.transaction(key) {
                    transaction.phase = Phase::Active(txn.clone());
                }
                return;
            }
            Some(DeliveryState::Outcome(Outcome::Rejected(error))) => {
                let refusal = Refusal::new(error.as_deref());
                if context == DISCHARGE && error.as_deref().is_some_and(is_duplicate) {
                    self.finish(key, Err(CommitError::Duplicate(refusal)));
                    return;
                }
                refusal
            }
            Some(DeliveryState::Outcome(Outcome::Accepted)) | None if context == DISCHARGE => {
                self.finish(key, Ok(()));
                return;
            }
            Some(
                DeliveryState::Outcome(Outcome::Accepted | Outcome::Released | Outcome::Modified { .. })
                | DeliveryState::Declared(_)
                | DeliveryState::Transactional { .. }
                | DeliveryState::Received { .. },
            )
            | None => Refusal::because("the coordinator gave an answer that is none"),
        };
        if context == DISCHARGE {
            self.finish(key, Err(refused(refusal)));
        } else {
            self.doom(key, RollbackReason::Refused(refusal));
        }
    }

    /// The coordinator's link is gone, and with it the transaction.
    pub(super) fn on_coordinator_detached(&mut self, key: u64, error: Option<&AmqpError>) {
        let refusal = Refusal::new(error);
        let Some(state) = self.sessions.get_mut(&key) else {
            return;
        };
        if let Some(opening) = state.opening.take() {
            let _ = opening.send(Err(OpenError::Refused(refusal.clone())));
            state.closing.get_or_insert(Closing(None));
        }
        let Some(transaction) = state.transaction.as_mut() else {
            return;
        };
        transaction.link = None;
        match transaction.phase {
            Phase::Discharging if refusal.condition.starts_with("amqp:transaction:") => {
                self.finish(key, Err(refused(refusal)));
            }
            Phase::Discharging => {
                let duplicate_ids = std::mem::take(&mut transaction.ids);
                self.finish(key, Err(CommitError::TransactionOutcomeUnknown { duplicate_ids }));
            }
            Phase::Idle => {}
            Phase::Declaring | Phase::Active(_) => self.doom(key, RollbackReason::Refused(refusal)),
            Phase::Doomed(_) => {}
        }
    }

    /// The transaction can only be rolled back: what was to be done in it is answered so.
    fn doom(&mut self, key: u64, why: RollbackReason) {
        let Some(transaction) = self.transaction(key) else {
            return;
        };
        transaction.doom.set(Some(why.clone()));
        transaction.phase = Phase::Doomed(why.clone());
        let acks = std::mem::take(&mut transaction.acks);
        let leaving = std::mem::take(&mut transaction.leaving);
        for Ack { consumer, delivery } in acks {
            self.settle_now(consumer, delivery, &given_back());
        }
        for producer in self.producers.values_mut().filter(|p| p.session == key) {
            producer.refuse(&|| SendError::RollbackOnly(why.clone()));
        }
        for (consumer, reply) in leaving {
            self.close_consumer(consumer, reply);
        }
    }

    /// The broker refused a message of a transacted session.
    pub(super) fn on_message_refused(&mut self, session: u64, refusal: Refusal) {
        if let Some(transaction) = self.transaction(session) {
            transaction
                .spoiled
                .get_or_insert(RollbackReason::MessageRefused(refusal));
        }
    }

    /// The connection is lost, and every transaction of it with it.
    pub(super) fn lose_transactions(&mut self, reason: &str) {
        for key in keys(&self.sessions, |state| state.transaction.is_some()) {
            let Some(transaction) = self.transaction(key) else {
                continue;
            };
            transaction.link = None;
            if matches!(transaction.phase, Phase::Discharging) {
                let duplicate_ids = std::mem::take(&mut transaction.ids);
                self.finish(key, Err(CommitError::TransactionOutcomeUnknown { duplicate_ids }));
            }
            let Some(transaction) = self.transaction(key) else {
                continue;
            };
            let worked = matches!(transaction.phase, Phase::Active(_)) || !transaction.acks.is_empty();
            if worked {
                let reason = reason.to_owned();
                self.doom(key, RollbackReason::ConnectionLost { reason });
            } else if !matches!(transaction.phase, Phase::Doomed(_)) {
                transaction.phase = Phase::Idle;
            }
        }
    }
}

/// What becomes of a message whose transaction is lost: its delivery failed.
const fn given_back() -> DeliveryState {
    DeliveryState::Outcome(Outcome::Modified {
        delivery_failed: true,
        undeliverable_here: false,
        annotations: None,
    })
}

fn refused(refusal: Refusal) -> CommitError {
    CommitError::TransactionRolledBack(RollbackReason::Refused(refusal))
}

fn is_duplicate(error: &AmqpError) -> bool {
    let reason = error.info.get(REASON);
    reason.and_then(Value::as_symbol).map(Symbol::as_str) == Some(DUPLICATE)
}
