//! An AMQP 1.0 connection engine without sockets, clock or tasks: bytes in, events out, commands in, bytes out.
//!
//! One type, [`Connection`], serves both sides. The owner moves bytes and time in, polls [`Event`]s, gives
//! commands, and writes what comes out. The engine keeps the protocol: headers, SASL frames, sessions and
//! their windows, links and their credit, deliveries and their settlement. It never decides who may enter,
//! what an address means, or when a message is safe: it asks its owner by an event and waits.
//!
//! Invariant: whatever a peer sends, the engine neither panics nor recurses deeply nor holds more than the
//! limits of [`Config`]; a violation ends the connection, session or link with the condition AMQP names.
//!
//! ```
//! use daymark_amqp::{AcceptOptions, Config, Connection, Event, OpenOptions};
//! use std::time::Instant;
//!
//! /// What a server does after each read; `received` is what the socket gave.
//! fn turn(connection: &mut Connection, received: &[u8], now: Instant) -> Vec<u8> {
//!     connection.input(received, now);
//!     while let Some(event) = connection.poll_event() {
//!         let answer = match event {
//!             Event::RemoteOpen(_) => connection.open(OpenOptions::new("broker")),
//!             Event::LinkRequested { link, attach, .. } => {
//!                 connection.accept_link(link, AcceptOptions::echo(&attach))
//!             }
//!             Event::LinkDetached { link, closed, by_peer: true, .. } => connection.detach(link, closed, None),
//!             _ => Ok(()),
//!         };
//!         answer.expect("the event has just said that it may be answered");
//!     }
//!     connection.take_output(now)
//! }
//!
//! let now = Instant::now();
//! let mut server = Connection::server(Config::default(), now);
//! assert_eq!(turn(&mut server, b"AMQP\x00\x01\x00\x00", now), b"AMQP\x00\x01\x00\x00");
//! ```

mod config;
mod connection;
mod desc;
mod error;
mod event;
#[cfg(test)]
mod exchanges;
mod list;
pub mod message;
#[cfg(test)]
mod oracle;
mod output;
mod performative;
mod read;
mod ring;
#[cfg(test)]
mod roundtrip;
mod sasl;
pub mod scram;
mod slab;
mod state;
mod terminus;
pub mod txn;
mod value;
mod write;

pub use config::{AcceptOptions, AttachOptions, Config, OpenOptions, RemoteAttach, RemoteOpen};
pub use connection::{Connection, Outgoing};
pub use error::{AmqpError, CommandError, condition};
pub use event::{CloseReason, DeliveryId, Event, LinkId, Message, SessionId, Unsettled};
pub use performative::{DeliveryTag, RcvSettleMode, Role, SndSettleMode};
pub use read::{DecodeError, MAX_DEPTH, ValueRef};
pub use sasl::{Credentials, Sasl, SaslCode, SaslInit, mechanism};
pub use state::{DeliveryState, Outcome, TxnId};
pub use terminus::{
    DistributionMode, Durability, ExpiryPolicy, Filter, LifetimePolicy, Source, Target, TargetNode,
};
pub use value::{Fields, Symbol, Value};
