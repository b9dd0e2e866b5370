//! The messaging client: connection factories, connections that follow the active broker, producers, consumers.
//!
//! It never shows a program a message twice that the program has accepted on this connection, and never drops a
//! message that was not acknowledged while the connection lives.

mod abilities;
mod browser;
mod builder;
mod connect;
mod connection;
mod consumer;
mod destination;
mod driver;
mod error;
mod factory;
mod ghosts;
mod inbound;
mod message;
mod outbound;
mod producer;
mod subscription;
mod temporary;
mod transaction;
mod wire;

pub use browser::Browser;
pub use builder::{FactoryBuilder, InvalidFactory};
pub use connection::{Connection, ConnectionEvent, Events, Session};
pub use consumer::{Consumer, ConsumerOptions, Delivery, Settlement};
pub use daymark_amqp::Value;
pub use destination::Destination;
pub use error::{
    Advice, BrokerAttempt, BrokerFailure, ConnectError, Disconnected, OpenError, ReceiveError, Refusal,
    SendError, SettleError,
};
pub use factory::{ConnectionFactory, ConnectionOptions};
pub use message::{Body, DuplicateId, InvalidDuplicateId, Message};
pub use producer::{Producer, ProducerOptions, Receipt, Sent};
pub use subscription::{InvalidSubscription, Subscription};
pub use temporary::Temporary;
pub use transaction::{CommitError, RollbackReason, TransactedSession};
