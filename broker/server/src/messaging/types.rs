//! Plain values that cross the seam between the data plane and the rest of the broker.

use std::time::Duration;

use daymark_broker_core::queues::{QueueCounts, RecordError, Refused};
use daymark_client::proto::{BrokerAddress, Epoch, GroupName, MemberName};
use serde::Serialize;

use super::MessagingConfigError;
use crate::store::{AppendError, OpenError};

/// What the broker says of itself when a client connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// The group this broker is active for: `daymark:group` in the AMQP open.
    pub group: GroupName,
    /// This broker's name: the AMQP container id.
    pub member: MemberName,
    /// The epoch it serves under: `daymark:epoch` in the AMQP open.
    pub epoch: Epoch,
    /// The complete `failover-server-list`, the active broker first.
    pub failover_server_list: Vec<BrokerAddress>,
}

/// What a recovery found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Recovered {
    /// Messages that wait for a consumer.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Queues, declared ones included.
    pub queues: usize,
}

/// Why the store could not be recovered.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A setting cannot be used; the store was not touched.
    #[error(transparent)]
    Config(#[from] MessagingConfigError),
    /// The store could not be read or opened for writing.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store holds records this version does not understand.
    #[error(transparent)]
    Records(#[from] RecordError),
    /// More queues than `max_queues` permits are declared and stored together.
    #[error(transparent)]
    Queues(#[from] Refused),
    /// The store was readable but could not be written to.
    #[error("the recovered store cannot be written: {0}")]
    Append(#[from] AppendError),
}

/// The store can no longer acknowledge anything: the broker has to stop serving.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the store failed: {cause}")]
pub struct StoreFailure {
    /// What the store said, for example `Superseded`.
    pub cause: AppendError,
}

/// The AMQP port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The host could not be resolved, or the address could not be bound.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address asked for.
        address: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The data plane was stopped, or its store failed, before the port was opened.
    #[error("cannot listen on {address}: messaging was stopped")]
    Stopped {
        /// The address asked for.
        address: String,
    },
}

/// What an address names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DestinationKind {
    /// Each message goes to one consumer.
    Queue,
    /// Each message goes to every subscription.
    Topic,
}

impl std::fmt::Display for DestinationKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Queue => "queue",
            Self::Topic => "topic",
        })
    }
}

/// How to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Connections are told `amqp:connection:forced` and get up to `deadline` to take in what is written.
    Graceful {
        /// Time from now.
        deadline: Duration,
    },
    /// Connections are cut.
    Now,
}

/// Counts of the data plane.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MessagingStats {
    /// Open connections.
    pub connections: usize,
    /// Messages in all queues.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of records the journal has not yet made durable.
    pub pending_bytes: u64,
    /// What the duplicate ids of all queues take in memory, roughly, in bytes.
    pub duplicate_bytes: u64,
    /// Every queue, by name.
    pub queues: Vec<QueueStats>,
}

/// Counts of one queue. Totals count from the start of this term of office.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct QueueStats {
    /// The AMQP address.
    pub name: String,
    /// Messages in the queue, those with a consumer but not yet settled included.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Messages delivered to a consumer and not yet settled.
    pub unsettled: u64,
    /// Consumers attached.
    pub consumers: u64,
    /// Producers attached.
    pub producers: u64,
    /// Messages that came in, duplicates not counted.
    pub received: u64,
    /// Messages that were accepted a second time because their duplicate id was known.
    pub duplicates: u64,
    /// Messages removed because a consumer accepted them.
    pub accepted: u64,
    /// Messages a consumer rejected.
    pub rejected: u64,
    /// Deliveries that came back and were queued again.
    pub requeued: u64,
    /// Messages whose time was over.
    pub expired: u64,
    /// Messages that went to the dead letters, expired ones included.
    pub dead_lettered: u64,
    /// Messages dropped because nobody wanted them as dead letters, or to make room.
    pub dropped: u64,
    /// Messages that wait for their time, out of those in it.
    pub delayed: u64,
    /// Whether producers are held back by a limit.
    pub held: bool,
}

impl QueueStats {
    pub(super) fn new(name: &str, counts: &QueueCounts) -> Self {
        Self {
            name: name.to_owned(),
            messages: counts.messages,
            bytes: counts.bytes,
            unsettled: counts.unsettled,
            consumers: counts.consumers,
            producers: counts.producers,
            received: counts.received,
            duplicates: counts.duplicates,
            accepted: counts.accepted,
            rejected: counts.rejected,
            requeued: counts.requeued,
            expired: counts.expired,
            dead_lettered: counts.dead_lettered,
            dropped: counts.dropped,
            delayed: counts.delayed,
            held: counts.held,
        }
    }
}

/// An open connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConnectionStats {
    /// Its number, unique within this term of office.
    pub id: u64,
    /// Where it comes from.
    pub remote: String,
    /// The container id: the JMS client id. Absent until the peer opened the connection.
    pub container: Option<String>,
    /// The user of SASL PLAIN; absent with other mechanisms.
    pub user: Option<String>,
    /// When it was accepted: milliseconds since 1970 UTC.
    pub since_ms: u64,
    /// Links attached.
    pub links: usize,
}

/// What a link does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkKind {
    /// It brings messages.
    Producer,
    /// It takes messages.
    Consumer,
    /// It gets copies of messages.
    Browser,
    /// It begins and ends transactions.
    Coordinator,
}

/// A link of some connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LinkStats {
    /// Its number, unique within this term of office.
    pub id: u64,
    /// The number of its connection.
    pub connection: u64,
    /// Its name, as the peer chose it.
    pub name: String,
    /// What it does.
    pub kind: LinkKind,
    /// Where it leads; absent for the anonymous relay and for a coordinator.
    pub address: Option<String>,
    /// Its message selector, if it has one.
    pub selector: Option<String>,
    /// The name of its subscription, if that has one.
    pub subscription: Option<String>,
}
