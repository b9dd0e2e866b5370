//! The broker: it drives the rules of `daymark-broker-core` with sockets, files and a clock.

pub mod messaging;
