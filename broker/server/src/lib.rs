//! The broker: it drives the rules of `daymark-broker-core` with sockets, files and a clock.

mod admin;
mod broker;
mod config;
mod control;
mod error;
mod exports;
mod home;
pub mod messaging;
mod options;
mod peers;
pub mod store;

pub use broker::{Broker, run};
pub use config::{ActiveTransport, Config, Factory, GroupTransport, MulticastConfig, VirtualMember};
pub use control::timeline::CLIENT_CODES;
pub use daymark_broker_core::failover::EVENT_CODES;
pub use error::{BrokerError, ConfigError};
pub use home::Home;
pub use options::{BrokerOptions, InvalidStoreUrl, StoreUrl};
