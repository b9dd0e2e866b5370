//! A naming server on real sockets and real files: every test starts its own, on a free port, in a directory
//! of its own.

mod bad_input;
mod durability;
mod histories;
mod http2;
mod leases;
mod limits;
mod routes;
mod start;
mod support;
mod verbs;
mod watch;
