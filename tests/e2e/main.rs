//! End-to-end stories over real processes and real sockets. Each file is one subject; each test name is the
//! requirement.

mod bad_input;
mod demo;
mod directory;
mod disk;
mod documents;
mod drill;
mod exports;
mod factories;
mod failover;
mod flood;
mod foreign;
mod hosts;
mod large;
mod manage;
mod memory;
mod sessions;
mod soak;
mod stage;
mod subscriptions;
mod transactions;
mod watchers;
