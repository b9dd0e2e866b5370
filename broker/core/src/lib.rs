//! The broker's rules, without sockets, clock, files or async: time comes in as `now`, what to do goes out as
//! values, and `daymark-broker-server` performs it.

pub mod detector;
pub mod failover;
pub mod queues;
pub mod selector;
