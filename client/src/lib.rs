//! The Rust client of Daymark: naming servers found from a provider list, names looked up and followed.
//!
//! The naming half is `Naming`: lookups, writes, watches and `follow`, over whichever naming server answers.
//!
//! It never depends on a server crate. Every wait has an end, and every buffer a limit.

mod naming;
mod properties;
mod providers;

pub use daymark_naming_proto as proto;
pub use naming::{
    Credentials, Failure, Follow, Following, Joined, LookupError, Naming, NamingConfig, ServerAttempt, Watch,
};
pub use providers::{InvalidProviders, Providers};
