//! The Rust client of Daymark: naming servers found from a provider list, names looked up and followed, and
//! messaging that follows the active broker.
//!
//! The naming half is `Naming`: lookups, writes, watches and `follow`, over whichever naming server answers.
//! The messaging half begins with a `ConnectionFactory`, looked up through `Naming` or made of explicit
//! addresses: connection, session, producer, consumer, each of which outlives the broker it began with.
//!
//! It never depends on a server crate. Every wait has an end, and every buffer a limit.

mod messaging;
mod naming;
mod properties;
mod providers;

pub use daymark_naming_proto as proto;
pub use messaging::{
    Advice, Body, BrokerAttempt, BrokerFailure, Browser, CommitError, ConnectError, Connection,
    ConnectionEvent, ConnectionFactory, ConnectionOptions, Consumer, ConsumerOptions, Delivery, Destination,
    Disconnected, DuplicateId, Events, FactoryBuilder, InvalidDuplicateId, InvalidFactory,
    InvalidSubscription, Message, OpenError, Producer, ProducerOptions, Receipt, ReceiveError, Refusal,
    RollbackReason, SendError, Sent, Session, SettleError, Settlement, Subscription, Temporary,
    TransactedSession, Value,
};
pub use naming::{
    Credentials, Failure, Follow, Following, Joined, LookupError, Naming, NamingConfig, ServerAttempt, Watch,
};
pub use providers::{InvalidProviders, Providers};
