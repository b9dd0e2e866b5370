//! The naming server: one port for HTTP and RESP over a replicated, durable directory.
//!
//! It drives the rules of `naming/core`: sockets, clock, log and snapshots are here, and no rule is. A request
//! travels door -> dispatcher -> log -> state machine -> published root -> answer; reads stop at the published
//! root.
//!
//! Invariants: what was acknowledged is durable on a majority; a failing disk ends writes, never lookups;
//! every wait, buffer and count has a bound.

mod descriptors;
mod dispatch;
mod door;
mod error;
mod explain;
mod http;
mod hub;
mod identity;
mod index;
mod leases;
mod mailbox;
mod options;
mod replica;
mod resp;
mod room;
mod server;
mod state;

pub use error::{StartError, StopReason};
pub use options::{InvalidConfig, Limits, NamingOptions, Storage};
pub use server::Server;
