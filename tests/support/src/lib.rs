//! What the tests share: the program under test as processes, free ports, deadlines, a proxy that interferes with
//! connections, foreign tools.
//!
//! Nothing here waits for luck: every wait is for an event and has a deadline, and says what it waited for.
//! Invariant: no process outlives the value that stands for it.

mod deadline;
pub mod go;
mod hosts;
mod http;
pub mod java;
pub mod node;
mod ports;
mod postgres;
mod process;
mod program;
pub mod proton;
mod provision;
pub mod proxy;
mod tools;

pub use deadline::{eventually, eventually_some};
pub use hosts::{ADDRESSES, Hosts};
pub use http::{HttpAnswer, http_ask, http_delete, http_get, http_post, http_put};
pub use ports::free_port;
pub use postgres::Postgres;
pub use process::Process;
pub use program::{Broker, Program, Ran, run_tool};
pub use provision::run_to_end;
pub use tools::{skipped, tool};
