//! What messaging calls can end in, one enum per kind of call, sorted by what the caller may do.

use std::net::SocketAddr;
use std::sync::Arc;

use daymark_amqp::AmqpError;
use daymark_naming_proto::{Endpoint, Epoch, InvalidSetting};

use super::message::DuplicateId;
use super::subscription::InvalidSubscription;
use super::transaction::RollbackReason;

/// What the caller of a messaging function may do after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// It is an answer: asking again changes nothing.
    GiveUp,
    /// Nothing happened: do it again.
    Retry,
    /// It may have happened: send again under the same duplicate id, and it is stored once.
    ResendSameId,
    /// The link is gone: open a new producer or consumer.
    Reopen,
    /// The connection is over: make a new one.
    Reconnect,
    /// The transaction is lost, known to have done nothing: roll back, and do it again.
    RollBack,
    /// Nothing needs to be done.
    GoOn,
}

/// What a broker said when it refused something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The AMQP condition, for example `amqp:not-found`; empty where none was given.
    pub condition: String,
    /// Its words.
    pub description: String,
}

impl Refusal {
    pub(super) fn new(error: Option<&AmqpError>) -> Self {
        Self {
            condition: error.map_or_else(String::new, |error| error.condition.as_str().to_owned()),
            description: error
                .and_then(|error| error.description.clone())
                .unwrap_or_default(),
        }
    }
}

impl Refusal {
    /// One that is not the broker's.
    pub(super) fn because(description: &str) -> Self {
        Self {
            condition: String::new(),
            description: description.to_owned(),
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.condition.as_str(), self.description.as_str()) {
            ("", "") => f.write_str("no reason was given"),
            (only, "") | ("", only) => f.write_str(only),
            (condition, description) => write!(f, "{condition}: {description}"),
        }
    }
}

/// No connection to a broker.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    /// The factory names no broker.
    #[error("the connection factory names no broker")]
    NoAddress,
    /// No broker took the connection within the attempts and the time allowed.
    #[error(
        "no broker took the connection in {attempts_each} attempts over {waited_ms} ms{}",
        list(attempts)
    )]
    Unreachable {
        /// How often the address tried most was tried.
        attempts_each: u32,
        /// How long that took, in milliseconds.
        waited_ms: u64,
        /// Every address, and why it failed last.
        attempts: Vec<BrokerAttempt>,
    },
    /// A broker refused the credentials. No other one is asked.
    #[error("broker {address} refused the credentials: {reason}")]
    AuthenticationFailed {
        /// The broker.
        address: Endpoint,
        /// What it said.
        reason: String,
    },
    /// A setting of the factory cannot be used.
    #[error("the connection factory cannot be used: {0}")]
    InvalidSettings(InvalidSetting),
    /// The connection was closed here while it was being made.
    #[error("the connection was closed")]
    Closed,
}

impl ConnectError {
    /// What the caller may do next.
    #[must_use]
    pub const fn advice(&self) -> Advice {
        match self {
            Self::Unreachable { .. } => Advice::Retry,
            Self::NoAddress | Self::AuthenticationFailed { .. } | Self::InvalidSettings(_) | Self::Closed => {
                Advice::GiveUp
            }
        }
    }
}

/// How the last attempt at one broker address ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerAttempt {
    /// The address, as it was given.
    pub address: Endpoint,
    /// Why it failed.
    pub why: BrokerFailure,
}

/// Why a broker did not serve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokerFailure {
    /// Its turn did not come, or its answer is still due.
    #[error("not answered in the time there was")]
    NotTried,
    /// Its host name was not resolved.
    #[error("its host name was not resolved: {reason}")]
    Resolve {
        /// What the resolver said.
        reason: String,
    },
    /// It did not accept a connection.
    #[error("{address} did not accept a connection: {reason}")]
    Connect {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        reason: String,
    },
    /// It was silent.
    #[error("no answer within {waited_ms} ms")]
    NoAnswer {
        /// How long was waited, in milliseconds.
        waited_ms: u64,
    },
    /// The connection ended.
    #[error("the connection ended: {reason}")]
    Lost {
        /// How.
        reason: String,
    },
    /// It closed the connection with a reason.
    #[error("it refused the connection: {0}")]
    Refused(Refusal),
    /// It greeted with an epoch that is over.
    #[error("it greeted with epoch {given}, but epoch {highest} has been seen: it is no longer active")]
    StaleEpoch {
        /// Its epoch.
        given: Epoch,
        /// The highest epoch seen.
        highest: Epoch,
    },
    /// It greeted without an epoch, although brokers of this factory have one.
    #[error("it greeted without an epoch, but epoch {highest} has been seen")]
    NoEpoch {
        /// The highest epoch seen.
        highest: Epoch,
    },
    /// It refused the credentials.
    #[error("it refused the credentials: {reason}")]
    Denied {
        /// What it said.
        reason: String,
    },
}

fn list(attempts: &[BrokerAttempt]) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    for BrokerAttempt { address, why } in attempts {
        // Writing into a string never fails.
        let _ = write!(text, "; {address}: {why}");
    }
    text
}

/// Why a connection is over for good.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Disconnected {
    /// It was closed here.
    #[error("the connection was closed")]
    Closed,
    /// It was lost, and reconnecting is switched off.
    #[error("the connection was lost and is not made anew: {reason}")]
    NotReconnected {
        /// How it was lost.
        reason: String,
    },
    /// It was lost, and no broker took it over in time.
    #[error("the connection was lost for good: {0}")]
    GaveUp(Arc<ConnectError>),
}

impl Disconnected {
    /// A stable code: `closed`, `not-reconnected` or `gave-up`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::NotReconnected { .. } => "not-reconnected",
            Self::GaveUp(_) => "gave-up",
        }
    }
}

/// A session, producer or consumer that was not opened.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenError {
    /// The broker refused it.
    #[error("the broker refused: {0}")]
    Refused(Refusal),
    /// The broker did not answer in time.
    #[error("no answer within {waited_ms} ms")]
    TimedOut {
        /// How long was waited, in milliseconds.
        waited_ms: u64,
    },
    /// The session it belongs to is closed.
    #[error("the session is closed")]
    SessionClosed,
    /// There can be no such subscription.
    #[error(transparent)]
    Subscription(#[from] InvalidSubscription),
    /// The connection is over.
    #[error(transparent)]
    Disconnected(#[from] Disconnected),
}

impl OpenError {
    /// What the caller may do next.
    #[must_use]
    pub const fn advice(&self) -> Advice {
        match self {
            Self::Refused(_) | Self::Subscription(_) => Advice::GiveUp,
            Self::TimedOut { .. } => Advice::Retry,
            Self::SessionClosed => Advice::Reopen,
            Self::Disconnected(_) => Advice::Reconnect,
        }
    }
}

/// A message that was not acknowledged.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SendError {
    /// The broker rejected it. It is not stored.
    #[error("the broker rejected the message: {0}")]
    Rejected(Refusal),
    /// The broker gave it back. It is not stored.
    #[error("the broker released the message without storing it")]
    Released,
    /// It is larger than the broker takes.
    #[error("the message has more than the {limit} bytes that the broker takes")]
    TooLarge {
        /// The broker's limit, in bytes.
        limit: u64,
    },
    /// It was never handed to the broker: too many sends before it wait for their acknowledgement.
    #[error("the message was not sent within {waited_ms} ms")]
    NotSent {
        /// How long was waited, in milliseconds.
        waited_ms: u64,
    },
    /// Its acknowledgement did not come. It may be stored: send it again under this id.
    #[error("the message {duplicate_id} was not acknowledged, its outcome is unknown")]
    OutcomeUnknown {
        /// The id under which the broker stores it only once.
        duplicate_id: DuplicateId,
    },
    /// The connection was lost while this send waited for its answer, and `request_blocking_time` is over. The
    /// client has forgotten the message. It may be stored: send it again under this id, and it is stored once.
    #[error("the send of message {duplicate_id} was unblocked by a lost connection, its outcome is unknown")]
    Unblocked {
        /// The id under which the broker stores it only once.
        duplicate_id: DuplicateId,
    },
    /// The transaction it belongs to is lost. It is not stored.
    #[error("the transaction can only be rolled back: {0}")]
    RollbackOnly(RollbackReason),
    /// The producer has no destination of its own, and none was given; or it has one, and another was given.
    #[error("a producer without a destination sends with `send_to`, and no other does")]
    NoDestination,
    /// The producer is closed, by the broker or here. This message was not stored by it.
    #[error("the producer is closed: {0}")]
    LinkClosed(Refusal),
    /// The connection is over. This message was never handed to a broker.
    #[error(transparent)]
    Disconnected(#[from] Disconnected),
}

impl SendError {
    /// What the caller may do next.
    #[must_use]
    pub const fn advice(&self) -> Advice {
        match self {
            Self::Rejected(_) | Self::TooLarge { .. } | Self::NoDestination => Advice::GiveUp,
            Self::RollbackOnly(_) => Advice::RollBack,
            Self::Released | Self::NotSent { .. } => Advice::Retry,
            Self::OutcomeUnknown { .. } | Self::Unblocked { .. } => Advice::ResendSameId,
            Self::LinkClosed(_) => Advice::Reopen,
            Self::Disconnected(_) => Advice::Reconnect,
        }
    }
}

/// A consumer that brings no more messages.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The consumer is closed, by the broker or here.
    #[error("the consumer is closed: {0}")]
    LinkClosed(Refusal),
    /// The transaction of the session is lost. After a rollback or a commit messages come again.
    #[error("the transaction can only be rolled back: {0}")]
    RollbackOnly(RollbackReason),
    /// The connection was lost while a queue was being browsed: what follows cannot be told from what was shown.
    #[error("the connection was lost in the middle of the queue")]
    BrowseInterrupted,
    /// The broker did not say in time whether it has more messages. The consumer goes on.
    #[error("no answer within {waited_ms} ms")]
    TimedOut {
        /// How long was waited, in milliseconds.
        waited_ms: u64,
    },
    /// The connection is over.
    #[error(transparent)]
    Disconnected(#[from] Disconnected),
}

impl ReceiveError {
    /// What the caller may do next.
    #[must_use]
    pub const fn advice(&self) -> Advice {
        match self {
            Self::LinkClosed(_) | Self::BrowseInterrupted => Advice::Reopen,
            Self::RollbackOnly(_) => Advice::RollBack,
            Self::TimedOut { .. } => Advice::Retry,
            Self::Disconnected(_) => Advice::Reconnect,
        }
    }
}

/// A delivery whose settlement was not confirmed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SettleError {
    /// The confirmation did not come in time. The message may be delivered again.
    #[error("the settlement was not confirmed, its outcome is unknown")]
    OutcomeUnknown,
    /// The connection was lost before the confirmation, and the broker did not deliver the message to this
    /// consumer again: it is settled, unless another consumer of the queue has it now.
    #[error("the settlement was not confirmed, and the message was not delivered here again")]
    NotRedelivered,
    /// The connection was lost before the settlement was asked for. The message is delivered again.
    #[error("the connection was lost before the settlement: the message is delivered again")]
    Redelivered,
    /// The transaction of the session is lost. The message is delivered again after it.
    #[error("the transaction can only be rolled back: {0}")]
    RollbackOnly(RollbackReason),
    /// The broker refused the settlement.
    #[error("the broker refused the settlement: {0}")]
    Refused(Refusal),
    /// This delivery was settled before.
    #[error("the delivery is settled already")]
    AlreadySettled,
    /// The consumer is closed; its unsettled messages go back to the queue.
    #[error("the consumer is closed")]
    LinkClosed,
    /// The connection is over.
    #[error(transparent)]
    Disconnected(#[from] Disconnected),
}

impl SettleError {
    /// What the caller may do next.
    #[must_use]
    pub const fn advice(&self) -> Advice {
        match self {
            Self::OutcomeUnknown | Self::NotRedelivered | Self::Redelivered => Advice::GoOn,
            Self::RollbackOnly(_) => Advice::RollBack,
            Self::Refused(_) | Self::AlreadySettled => Advice::GiveUp,
            Self::LinkClosed => Advice::Reopen,
            Self::Disconnected(_) => Advice::Reconnect,
        }
    }
}
