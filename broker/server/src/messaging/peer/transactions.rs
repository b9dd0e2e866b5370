//! The transaction coordinator of one connection, and work done under its transactions.
//!
//! It decides nothing about messages: it translates, and knows which transactions are this connection's.
//! Invariant: a transaction can be used by the connection that declared it and by no other.

use bytes::Bytes;
use daymark_amqp::{AmqpError, DeliveryId, DeliveryState, LinkId, Outcome, TxnId, condition};
use daymark_broker_core::queues::TransactionId;

use super::super::attach;
use super::super::shared::State;
use super::{Input, Link, Peer, Reply};

impl Peer {
    pub(super) fn on_declare(&mut self, link: LinkId, delivery: DeliveryId, global_id: Option<&Bytes>) {
        self.renew_coordinator(link);
        if global_id.is_some() {
            let error = attach::absent("a transaction of several resources");
            return self.replies.push(Reply::Reject(link, delivery, error));
        }
        self.inputs.push(Input::Declare { link, delivery });
    }

    pub(super) fn on_discharge(&mut self, link: LinkId, delivery: DeliveryId, txn: &TxnId, fail: bool) {
        self.renew_coordinator(link);
        let txn = number_of(txn);
        self.inputs.push(Input::Discharge {
            link,
            delivery,
            txn,
            fail,
        });
    }

    fn renew_coordinator(&mut self, link: LinkId) {
        if self.amqp.credit(link) <= super::COORDINATOR_CREDIT / 2 {
            // The link may have gone; then nobody waits.
            let _ = self.amqp.grant_credit(link, super::COORDINATOR_CREDIT, false);
        }
    }

    pub(super) fn declare(&mut self, state: &mut State, link: LinkId, delivery: DeliveryId) {
        let Some(Link::Coordinator { number }) = self.links.get(&link) else {
            return;
        };
        let reply = match state.queues.begin(self.owner) {
            Ok(txn) => {
                self.transactions.insert(txn.to_bits(), *number);
                Reply::Settle(link, delivery, DeliveryState::Declared(name_of(txn.to_bits())))
            }
            Err(refused) => Reply::Reject(link, delivery, attach::refusal(&refused)),
        };
        self.replies.push(reply);
    }

    pub(super) fn discharge(
        &mut self,
        state: &mut State,
        link: LinkId,
        delivery: DeliveryId,
        txn: Option<u64>,
        fail: bool,
    ) {
        let known = txn.filter(|txn| self.transactions.remove(txn).is_some());
        let Some(txn) = known.map(TransactionId::from_bits) else {
            return self
                .replies
                .push(Reply::Reject(link, delivery, unknown_transaction()));
        };
        let reply = if fail {
            // One that timed out is rolled back already.
            let _ = state.queues.rollback(self.owner, txn);
            Reply::Settle(link, delivery, DeliveryState::ACCEPTED)
        } else {
            match state.queues.commit(self.owner, txn, link, Some(delivery)) {
                Ok(()) => return,
                Err(refused) => Reply::Reject(link, delivery, rolled_back(&refused)),
            }
        };
        self.replies.push(reply);
    }

    /// The coordinator's link went: what was begun on it is rolled back.
    pub(super) fn roll_back(&mut self, state: &mut State, coordinator: u64) {
        let begun: Vec<u64> = self
            .transactions
            .iter()
            .filter(|(_, on)| **on == coordinator)
            .map(|(txn, _)| *txn)
            .collect();
        for txn in begun {
            self.transactions.remove(&txn);
            let _ = state.queues.rollback(self.owner, TransactionId::from_bits(txn));
        }
    }

    /// The transaction of this number, if it is this connection's.
    pub(super) fn transaction(&self, number: Option<u64>) -> Result<TransactionId, AmqpError> {
        number
            .filter(|number| self.transactions.contains_key(number))
            .map(TransactionId::from_bits)
            .ok_or_else(unknown_transaction)
    }
}

/// What a peer is told when its commit did not happen.
pub(super) fn rolled_back(refused: &daymark_broker_core::queues::Refused) -> AmqpError {
    use daymark_amqp::{Symbol, Value};
    use daymark_broker_core::queues::Refused;

    let timed_out = matches!(refused, Refused::TransactionTimedOut { .. });
    let condition = if timed_out {
        condition::TRANSACTION_TIMEOUT
    } else {
        condition::TRANSACTION_ROLLBACK
    };
    let error = AmqpError::new(condition, refused.to_string());
    if matches!(refused, Refused::DuplicateInTransaction { .. }) {
        let duplicate = Value::Symbol(Symbol::from_static("duplicate"));
        return error.with_info(Symbol::from_static("daymark:reason"), duplicate);
    }
    error
}

fn unknown_transaction() -> AmqpError {
    AmqpError::new(
        condition::TRANSACTION_UNKNOWN_ID,
        "this connection has no transaction of this id",
    )
}

/// How a transaction is called on the wire: eight bytes.
pub(super) fn name_of(number: u64) -> TxnId {
    TxnId::new(Bytes::copy_from_slice(&number.to_be_bytes()))
}

/// The reverse of [`name_of`]; none if this was never a name of ours.
pub(super) fn number_of(txn: &TxnId) -> Option<u64> {
    txn.as_bytes().try_into().ok().map(u64::from_be_bytes)
}

/// The answer to a message that takes effect with its transaction.
pub(super) fn provisionally_accepted(txn: u64) -> DeliveryState {
    DeliveryState::Transactional {
        txn: name_of(txn),
        outcome: Some(Outcome::Accepted),
    }
}
