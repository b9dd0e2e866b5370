//! Transacted sessions as programs hold them.
//!
//! It decides nothing: the driver keeps the transaction, and this says what became of it.

use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::connection::{NoAnswer, Session};
use super::driver::{Command, Verdict};
use super::error::{Advice, Disconnected, Refusal};
use super::message::DuplicateId;

/// A session in which every send and every accept belongs to a transaction: it takes effect with `commit`, or not
/// at all.
///
/// One transaction is always open, and the next begins when it ends. Releasing, rejecting and modifying a message
/// are no work of a transaction and are done at once. After a failover the session stays usable: where work was
/// done before it, the transaction can only be rolled back, and the next call says so.
#[derive(Clone)]
pub struct TransactedSession {
    session: Session,
}

impl Deref for TransactedSession {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

/// Why a transaction can only be rolled back, or was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RollbackReason {
    /// The connection was lost before the commit was asked for. The broker has forgotten the transaction.
    #[error("the connection was lost while the transaction was open: {reason}")]
    ConnectionLost {
        /// How it was lost.
        reason: String,
    },
    /// The broker rolled it back.
    #[error("the broker rolled the transaction back: {0}")]
    Refused(Refusal),
    /// The broker refused a message of it: a transaction is not committed in part.
    #[error("the broker refused a message of the transaction: {0}")]
    MessageRefused(Refusal),
    /// The program rolled it back.
    #[error("the transaction was rolled back")]
    Asked,
}

/// A transaction that was not committed, or may not have been.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// Nothing of it took effect. The session begins a new one: do it again.
    #[error("the transaction was rolled back: {0}")]
    TransactionRolledBack(RollbackReason),
    /// The connection was lost, or the time was over, inside the commit. Do it again with messages under the same
    /// duplicate ids: it is applied at most once, and `Duplicate` says that it had been.
    #[error("whether the transaction was committed is unknown")]
    TransactionOutcomeUnknown {
        /// The ids of the messages that were sent in it, in order of sending for each producer.
        duplicate_ids: Vec<DuplicateId>,
    },
    /// It holds a message that the broker has stored before, so nothing of it took effect this time: an earlier
    /// commit had succeeded.
    #[error("a message of the transaction was committed before: {0}")]
    Duplicate(Refusal),
    /// The session is closed; the transaction is rolled back.
    #[error("the session is closed")]
    SessionClosed,
    /// The connection is over; the transaction is rolled back.
    #[error(transparent)]
    Disconnected(#[from] Disconnected),
}

impl CommitError {
    /// What the caller may do next.
    #[must_use]
    pub const fn advice(&self) -> Advice {
        match self {
            Self::TransactionRolledBack(_) => Advice::Retry,
            Self::TransactionOutcomeUnknown { .. } => Advice::ResendSameId,
            Self::Duplicate(_) => Advice::GoOn,
            Self::SessionClosed => Advice::Reopen,
            Self::Disconnected(_) => Advice::Reconnect,
        }
    }
}

/// Whether the transaction of a session is lost. Set by the driver, read by whoever begins to wait.
#[derive(Debug, Default)]
pub(super) struct Doom {
    why: Mutex<Option<RollbackReason>>,
}

impl Doom {
    fn lock(&self) -> MutexGuard<'_, Option<RollbackReason>> {
        self.why.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, why: Option<RollbackReason>) {
        *self.lock() = why;
    }

    pub(super) fn why(&self) -> Option<RollbackReason> {
        self.lock().clone()
    }
}

impl TransactedSession {
    pub(super) const fn new(session: Session) -> Self {
        Self { session }
    }

    /// Makes everything done since the last commit or rollback take effect, durably and as a whole. Waits first
    /// for the answers to sends that have none yet. Without work it succeeds at once.
    ///
    /// # Errors
    /// `CommitError`. After every one but the last two the session goes on with a new transaction.
    pub async fn commit(&self) -> Result<(), CommitError> {
        self.discharge(Verdict::Commit).await
    }

    /// Undoes everything done since the last commit or rollback: sent messages are forgotten, accepted ones are
    /// delivered again with their delivery count raised. A transaction that a failover has cost is rolled back
    /// already, and this succeeds.
    ///
    /// # Errors
    /// `SessionClosed` and `Disconnected`; the transaction is rolled back then too.
    /// `TransactionOutcomeUnknown` where the broker did not answer in time: it still rolls back.
    pub async fn rollback(&self) -> Result<(), CommitError> {
        self.discharge(Verdict::Rollback).await
    }

    async fn discharge(&self, verdict: Verdict) -> Result<(), CommitError> {
        let held = self.session.handle();
        let (reply, answer) = oneshot::channel();
        let session = held.key;
        let command = Command::Discharge {
            session,
            verdict,
            reply,
        };
        let unknown = || CommitError::TransactionOutcomeUnknown {
            duplicate_ids: Vec::new(),
        };
        match held.line.tell(command).await {
            Ok(()) => {}
            Err(NoAnswer::TimedOut { .. }) => return Err(unknown()),
            Err(NoAnswer::Over(why)) => return Err(why.into()),
        }
        match held.line.hear(answer).await {
            Ok(answer) => answer,
            Err(NoAnswer::TimedOut { .. }) => Err(unknown()),
            Err(NoAnswer::Over(why)) => Err(why.into()),
        }
    }
}
